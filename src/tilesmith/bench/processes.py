"""The controller's side of the other processes: it starts them, talks to them, ends them. It imports no torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from tilesmith.bench.bubble import bubble
from tilesmith.bench.wire import Garbled, Gone, Message, Wire, WireError, pair
from tilesmith.core.errors import MachineError

START_S = 120.0
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "CUDA_HOME", "CUDA_PATH", "CC")
"""All that other processes get of this one's environment: no key, no token, nothing that was not thought of."""


class Process:
    """A long-lived process of the bench, asked one thing at a time.

    With `bubbled` it starts in a bubble where there is one: in it are the system, Python, and these folders, writable.
    """

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        bubbled: tuple[str, ...] | None = None,
        *,
        gpu: bool = False,
    ) -> None:
        self.wire, there = pair()
        self.lock = threading.Lock()
        self.name = module
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        clean = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        command = [sys.executable, "-P", "-m", f"tilesmith.bench.{module}", *arguments, str(there.fileno())]
        started = command if bubbled is None else bubble(command, bubbled, gpu=gpu)
        self.in_bubble = started != command
        self.process = subprocess.Popen(
            started,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            pass_fds=(there.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,
        )
        there.close()
        self.ready = False

    def await_ready(self) -> None:
        """Return when the process serves. Raises `MachineError` with its own words when it does not."""
        if self.ready:
            return
        try:
            self.wire.receive(START_S)
        except WireError as error:
            raise MachineError(f"the bench's {self.name} process does not start: {self.last_words()}") from error
        self.ready = True

    def ask(self, message: Message, blob: bytes = b"", timeout_s: float = 600.0) -> tuple[Message, bytes]:
        """One request and its reply. Raises `MachineError` when the process has ended."""
        with self.lock:
            self.await_ready()
            try:
                self.wire.send(message, blob)
                return self.wire.receive(timeout_s)
            except WireError as error:
                raise MachineError(f"the bench's {self.name} ended while it was needed: {self.last_words()}") from error

    def last_words(self) -> str:
        """The last line that it wrote before it ended."""
        self.end()
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return text.splitlines()[-1][:300] if text else f"exit status {self.process.returncode}"

    def end(self) -> None:
        self.wire.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Hang up; a zygote ends its children, then itself."""
        self.wire.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.end()
        self.errors.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a child said no more."""

    status: int
    limit: str = ""
    """What it was ended for using too much of: "memory", "processes", or nothing."""

    @property
    def stage(self) -> Literal["memory", "crash"]:
        """The stage of the verdict that this calls for."""
        return "memory" if self.limit == "memory" else "crash"

    def __str__(self) -> str:
        if self.limit:
            return f"it was ended because it used too {'much' if self.limit == 'memory' else 'many'} {self.limit}"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            return f"it was ended by signal {number} ({signal.Signals(number).name})"
        return f"it ended with exit status {os.WEXITSTATUS(self.status)} before it had answered"


class Zygote:
    """A warm runner and the children that it forks.

    Where there is a bubble it starts in one, with the `folders` in which its children's scratch folders and inputs lie.
    """

    def __init__(
        self,
        mode: str,
        environment: Mapping[str, str],
        folders: tuple[str, ...],
        *,
        walled: bool = True,
    ) -> None:
        """Without walls nothing stands around a child: that is for measuring what they cost, and for nothing else."""
        self.mode = mode
        bubbled = folders if walled else None
        self._process = Process(
            "zygote", (mode, "walled" if walled else "bare"), environment, bubbled, gpu=mode == "device"
        )

    @contextlib.contextmanager
    def child(self, scratch: str, memory_bytes: int = 0, readable: tuple[str, ...] = ()) -> Iterator[Child]:
        """A fresh child for one candidate; when the block ends, so does it and all that it started.

        It may write to the scratch folder alone, and read, of what is not the system's or Python's, these files.
        """
        here, there = pair()
        zygote = self._process
        try:
            with zygote.lock:
                zygote.await_ready()
                request = {"do": "fork", "scratch": scratch, "readable": readable, "memory_bytes": memory_bytes}
                zygote.wire.send(request)
                zygote.wire.socket.setblocking(True)
                _send_descriptor(zygote.wire, there.fileno())
                zygote.wire.socket.setblocking(False)
                reply, _ = zygote.wire.receive(START_S)
        except (WireError, OSError) as error:
            raise MachineError(f"the {self.mode} runner ended while it was needed: {zygote.last_words()}") from error
        finally:
            there.close()
        child = Child(here, reply["pid"], (*(["bubblewrap"] if zygote.in_bubble else []), *reply["walls"]))
        try:
            yield child
        finally:
            here.close()
            self.why(child)

    def why(self, child: Child) -> Ended:
        """How a child ended; one that has not is ended now."""
        if child.ended is None:
            reply, _ = self._process.ask({"do": "end", "pid": child.pid})
            child.ended = Ended(reply["status"], reply["limit"])
        return child.ended

    def close(self) -> None:
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class Child:
    """A process that runs one candidate. What it says is data to be checked."""

    wire: Wire
    pid: int
    """Its warden's."""
    walls: tuple[str, ...] = ()
    """The names of the walls that stood before any candidate's code was loaded."""
    ended: Ended | None = None

    def send(self, message: Message, blob: bytes = b"") -> None:
        """What cannot be sent is noticed when the answer is awaited."""
        with contextlib.suppress(Gone):
            self.wire.send(message, blob)

    def receive(self, timeout_s: float) -> Message:
        """Raises `Gone`, `Late` or `Garbled`; a child never sends bytes beside its message."""
        message, blob = self.wire.receive(timeout_s)
        if blob:
            raise Garbled("bytes beside the message")
        return message


def _send_descriptor(wire: Wire, descriptor: int) -> None:
    socket.send_fds(wire.socket, [b"."], [descriptor])
