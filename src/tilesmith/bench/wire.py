"""Messages between the processes of the bench: a JSON header and raw bytes, over a socket.

What comes from a process that runs candidate code is data, never code: nothing here unpickles. A frame that is too
large, cut short or no JSON object raises `Garbled`, and whoever reads it ends that process.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from typing import Any

HEADER_LIMIT = 64 << 20
BLOB_LIMIT = 256 << 20
_FRAME = struct.Struct("!II")

Message = dict[str, Any]


class WireError(Exception):
    """The other side cannot be talked to any more."""


class Gone(WireError):
    """The other side has closed its end: it ended, or was ended."""


class Late(WireError):
    """The deadline passed before a whole message was there."""


class Garbled(WireError):
    """What came is no message."""


class Wire:
    """One end of a connection. Not for two threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)

    def send(self, message: Message, blob: bytes = b"", timeout_s: float = 60.0) -> None:
        """Raises `Gone` or `Late`."""
        header = json.dumps(message, allow_nan=False).encode()
        data = memoryview(_FRAME.pack(len(header), len(blob)) + header + blob)
        deadline = time.monotonic() + timeout_s
        while data:
            self._wait(deadline, write=True)
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(str(error)) from error

    def receive(self, timeout_s: float) -> tuple[Message, bytes]:
        """The next message and its bytes. Raises `Gone`, `Late` or `Garbled`."""
        deadline = time.monotonic() + timeout_s
        header_bytes, blob_bytes = _FRAME.unpack(self._exactly(_FRAME.size, deadline))
        if header_bytes > HEADER_LIMIT or blob_bytes > BLOB_LIMIT:
            raise Garbled(f"a message of {header_bytes + blob_bytes} bytes")
        header = self._exactly(header_bytes, deadline)
        try:
            message = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise Garbled(f"a message that is no JSON: {error}") from error
        if not isinstance(message, dict):
            raise Garbled("a message that is no object")
        return message, self._exactly(blob_bytes, deadline)

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, count: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self._wait(deadline, write=False)
            try:
                part = self.socket.recv(min(count - len(parts), 1 << 20))
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(str(error)) from error
            if not part:
                raise Gone("the connection was closed")
            parts += part
        return bytes(parts)

    def _wait(self, deadline: float, *, write: bool) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Late("the deadline passed")
        if self.socket.fileno() < 0:
            raise Gone("the connection was closed on this side")
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT if write else select.POLLIN)
        if not poll.poll(left * 1000):
            raise Late("the deadline passed")


def pair() -> tuple[Wire, socket.socket]:
    """This side's end, and the raw socket for the other process; the latter is inheritable."""
    here, there = socket.socketpair()
    os.set_inheritable(there.fileno(), True)
    return Wire(here), there


def adopt(descriptor: int) -> Wire:
    """The end that a parent process left open for this one."""
    return Wire(socket.socket(fileno=descriptor))
