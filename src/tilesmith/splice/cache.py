"""What was found, kept for the next process: one file for each key, written as one step, believed only if it is whole.

An entry holds source that the user's process will execute. So the folder must be the user's own, no other user may
write to it, and an entry's digest must be right. What stands in the way of that is said, never passed over.

    TILESMITH_CACHE, or else ~/.cache/tilesmith (XDG_CACHE_HOME), on macOS ~/Library/Caches/tilesmith
      parts/KEY.json     an entry: the digest of what follows, then the entry
      parts/KEY.lock     who searches for it now
      tilesmith.db       the journal of the searches
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tilesmith.core.errors import MachineError
from tilesmith.splice.found import Found

FORMAT = 1
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Key:
    """What an entry is for. Two keys are one where all rows are."""

    rows: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr((FORMAT, self.rows)).encode()).hexdigest()[:32]


def key(rows: Mapping[str, str]) -> Key:
    return Key(tuple(sorted(rows.items())))


@dataclass(frozen=True, slots=True)
class _Entry:
    format: int
    key: tuple[tuple[str, str], ...]
    found: Found


_ENTRY = TypeAdapter(_Entry)


class Stale(Exception):
    """An entry that cannot be used; the message says why."""


def default_folder() -> Path:
    """Where the platform keeps caches, or where `TILESMITH_CACHE` says."""
    if named := os.environ.get("TILESMITH_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tilesmith"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilesmith"


class Cache:
    """The entries in a folder, which is made. Raises `MachineError` where others could write to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._parts = self.folder / "parts"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._parts.mkdir(mode=0o700, exist_ok=True)
            for path in (self.folder, self._parts):
                _own(path, path.stat())
            for above in self.folder.resolve().parents:
                _fenced(self.folder, above)
        except OSError as error:
            raise MachineError(
                f"the cache folder {error.filename} cannot be used ({error.strerror}); set TILESMITH_CACHE to another."
            ) from None

    def get(self, wanted: Key) -> Found | None:
        """What is kept under the key; None where nothing is. Raises `Stale` for an entry that cannot be believed."""
        path = self._parts / f"{wanted.digest}.json"
        try:
            # Opened first and asked then, so that what is asked is what is read; a link is none of ours.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                _own(path, os.fstat(file.fileno()))
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Stale(f"the cache entry {path} cannot be read ({error.strerror}); it is searched anew") from None
        except MachineError as error:
            raise Stale(f"{str(error).rstrip('.')}; it is searched anew") from None
        digest, _, body = data.partition(b"\n")
        if digest.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
            raise Stale(f"the cache entry {path} is corrupt; it is searched anew")
        try:
            entry = _ENTRY.validate_json(body)
        except ValidationError:
            raise Stale(f"the cache entry {path} is not of this version's form; it is searched anew") from None
        if entry.format != FORMAT or entry.key != wanted.rows:
            raise Stale(f"the cache entry {path} is stale: it was written for something else; it is searched anew")
        return entry.found.from_cache()

    def put(self, wanted: Key, found: Found) -> None:
        """Keep it. Whoever reads meanwhile sees the old entry or the new one. Raises `MachineError`: a full disk."""
        body = _ENTRY.dump_json(_Entry(FORMAT, wanted.rows, found))
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        path = self._parts / f"{wanted.digest}.json"
        draft: Path | None = None
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=self._parts)
            draft = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            if draft is not None:
                with suppress(OSError):
                    draft.unlink()
            raise MachineError(f"the cache entry {path} cannot be written ({error.strerror}).") from None

    @contextmanager
    def searching(self, wanted: Key, patience_s: float) -> Iterator[None]:
        """While it lasts no other process searches for the same; it waits for one that does, so long at most.

        Raises `MachineError` where nothing can be written: a folder that is for reading only.
        """
        path = self._parts / f"{wanted.digest}.lock"
        try:
            file = path.open("w")
        except OSError as error:
            raise MachineError(
                f"the cache's {path} cannot be written ({error.strerror}), and what is found could not be kept; name "
                "another cache with TILESMITH_CACHE."
            ) from None
        with file:
            deadline = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(PAUSE_S)
            # Closing the file ends the lock; the file stays, since another may be waiting at it.
            yield


def _own(path: Path, found: os.stat_result) -> None:
    """Raises `MachineError` where another user owns it or may write to it: its sources are executed."""
    if found.st_uid != os.geteuid():
        raise MachineError(
            f"{path} belongs to another user, and kernels from it would be executed; name another cache."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise MachineError(
            f"{path} can be written by other users, and kernels from it would be executed; "
            f"`chmod go-w {path}`, or name another cache with TILESMITH_CACHE."
        )


def _fenced(folder: Path, above: Path) -> None:
    """Raises `MachineError` where anybody may exchange a folder on the way."""
    mode = above.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise MachineError(
            f"the cache folder {folder} lies in {above}, where every user may exchange it; name another with "
            "TILESMITH_CACHE."
        )
