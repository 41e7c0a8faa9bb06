"""A candidate's scratch folder on its way to another machine: what was compiled once is not compiled again.

The folder was written by a candidate's process, which has ended. So nothing in it is followed, opened where it could
block, or believed to be small.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

LIMIT_BYTES = 64 << 20
"""Of one folder; Triton's cache for one candidate takes about 20 KB a configuration."""
LIMIT_FILES = 4096


@dataclass(frozen=True, slots=True)
class Packed:
    """The regular files of a folder."""

    folder: str
    """Where they were: Triton's lists of what belongs together name files by their whole paths."""
    files: tuple[tuple[str, bytes], ...]


def pack(folder: Path) -> Packed | None:
    """What the folder holds; None where that is more than is worth sending, or cannot be read."""
    files: list[tuple[str, bytes]] = []
    left = LIMIT_BYTES
    try:
        for root, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(root, name)
                if not stat.S_ISREG(path.lstat().st_mode):
                    continue
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                with os.fdopen(descriptor, "rb") as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0 or len(files) >= LIMIT_FILES:
                    return None
                files.append((str(path.relative_to(folder)), content))
    except OSError:
        return None
    return Packed(str(folder), tuple(files))


def unpack(packed: Packed, folder: Path) -> None:
    """Put the files into this folder, which is empty. Raises `OSError` as the disk does."""
    for name, content in packed.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lists = path.name.startswith("__grp__")
        path.write_bytes(content.replace(packed.folder.encode(), str(folder).encode()) if lists else content)
