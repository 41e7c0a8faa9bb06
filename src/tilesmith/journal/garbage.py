"""What a journal holds or left beside it that nothing refers to.

A source is referred to by every trial and confirmation of its candidate, and by the runs of its problem. The schema
itself refuses to delete one that is, so that a run which begins to refer to a source meanwhile keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilesmith.core.errors import JournalError
from tilesmith.journal.database import Database, Row
from tilesmith.journal.lock import RunLock

BATCH = 200
"""Sources that are deleted at a time: other writers wait no longer than this takes."""

UNUSED = """
    NOT EXISTS (SELECT 1 FROM events WHERE events.source = sources.id)
    AND NOT EXISTS (
        SELECT 1 FROM events WHERE events.kind = 'run' AND json_extract(events.body, '$.problem.start') = sources.id
    )"""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing refers to."""

    sources: tuple[str, ...]
    """By their ids."""
    source_bytes: int
    locks: tuple[Path, ...]
    """Of processes that were killed while they wrote a run."""


def find(database: Database) -> Garbage:
    """Look, and change nothing."""
    rows = database.read(f"SELECT id, length(text) FROM sources WHERE {UNUSED} ORDER BY id")
    locks = sorted(database.path.parent.glob(f"{database.path.name}-*.lock"))
    return _garbage(rows, (lock for lock in locks if not RunLock(lock).held_by_any()))


def collect(database: Database, garbage: Garbage) -> Garbage:
    """Delete what was found and is still unused; returns what was deleted.

    The file keeps its size, and what is recorded from now on takes the room that this leaves.
    """
    gone: list[Row] = []
    for first in range(0, len(garbage.sources), BATCH):
        batch = garbage.sources[first : first + BATCH]
        marks = ", ".join("?" * len(batch))
        sql = f"DELETE FROM sources WHERE id IN ({marks}) AND {UNUSED} RETURNING id, length(text)"
        gone += database.change(sql, batch)
    return _garbage(gone, filter(_removed, garbage.locks))


def _garbage(rows: Sequence[Row], locks: Iterable[Path]) -> Garbage:
    return Garbage(tuple(sorted(str(row[0]) for row in rows)), sum(int(row[1] or 0) for row in rows), tuple(locks))


def _removed(lock: Path) -> bool:
    held = RunLock(lock)
    try:
        held.acquire("")
    except JournalError:
        return False
    held.release()
    return True
