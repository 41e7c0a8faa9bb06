"""Reads a file of source text once, and says in one clause what is wrong with it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 20


class TextFaultError(Exception):
    """The file holds no text that can be used. The message is a clause that follows the file's path."""


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8, without its byte-order mark and with newlines as Python reads them.

    Opens first and asks afterwards, without blocking, so that a pipe neither hangs nor takes the file's place
    between the question and the reading. Raises `TextFaultError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TextFaultError("does not exist; check the path") from None
    except ValueError:
        raise TextFaultError("is not a path that a file can have; check the path") from None
    except OSError as error:
        raise TextFaultError(f"cannot be opened ({error.strerror}); check its permissions and the path") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise TextFaultError("is a folder; name a Python file")
        if not stat.S_ISREG(mode):
            raise TextFaultError("is not a regular file; save it to one first")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TextFaultError(f"cannot be read ({error.strerror}); check the disk") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise TextFaultError(f"is larger than {MAX_BYTES:,} bytes; no source needs that much")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from after the mark.
        offset = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        raise TextFaultError(
            f"is not UTF-8: byte 0x{data[offset]:02x} at offset {offset} cannot be read; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise TextFaultError(f"holds a null byte at character {text.index(chr(0))}; it is not source text")
    return text.replace("\r\n", "\n").replace("\r", "\n")
