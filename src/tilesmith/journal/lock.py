"""One process at a time writes a run."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from tilesmith.core.errors import JournalError

PATIENCE_S = 0.2
"""Longer than anyone takes to ask whether a lock is held."""


class RunLock:
    """An exclusive lock on an empty file, which the operating system frees when the holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """By this object."""
        return self._descriptor is not None

    def acquire(self, busy: str) -> None:
        """Raises `JournalError`, with the sentence `busy` where another process, or another object, holds it."""
        deadline = time.monotonic() + PATIENCE_S
        while self._descriptor is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # The last holder may have removed the file between our opening and our locking it.
                    if self._names(descriptor):
                        self._descriptor = descriptor
                finally:
                    if self._descriptor is None:
                        os.close(descriptor)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise JournalError(busy) from None
                time.sleep(PATIENCE_S / 20)
            except OSError as error:
                raise JournalError(
                    f"The lock file {self._path} cannot be made ({error.strerror}); "
                    "put the journal in a folder that can be written."
                ) from None

    def release(self) -> None:
        """Removes the file while it is still locked, so that nobody can lock a file that is about to go."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def held_by_any(self) -> bool:
        """Whether any process holds it now, this one included."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared, so that two askers do not take each other for a holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _names(self, descriptor: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))
