"""The folder of a bench, below the system's own for such: it goes with the bench, or is known as abandoned.

Whoever is killed removes nothing. So each folder holds a file that its bench keeps locked: the operating system frees
the lock however the bench ends, and a folder with a free one belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "tilesmith-"
MARK = "owner.lock"


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A folder whose bench has ended without removing it."""

    path: Path
    size_bytes: int


@contextmanager
def workshop() -> Iterator[str]:
    """A folder of one's own, until the block ends."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        # Locked before it has the name by which it is found.
        early = Path(folder, f"{MARK}.new")
        descriptor = os.open(early, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            early.rename(Path(folder, MARK))
            yield folder
        finally:
            os.close(descriptor)


def abandoned() -> tuple[Abandoned, ...]:
    """This user's folders that belong to nobody any more. Looks only."""
    found: list[Abandoned] = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        with suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
                continue
            descriptor = os.open(folder / MARK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(Abandoned(folder, _size_bytes(folder)))
            finally:
                os.close(descriptor)
    return tuple(found)


def remove(folder: Abandoned) -> bool:
    """Remove it; whether it is gone. Nobody takes such a folder up again, so there is nothing to look at first."""
    shutil.rmtree(folder.path, ignore_errors=True)
    return not folder.path.exists()


def _size_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(root, name).lstat().st_size
    return total
