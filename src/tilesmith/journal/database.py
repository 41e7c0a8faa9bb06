"""The file: its schema, its durability, and its faults as sentences."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tilesmith.core.errors import JournalError, MachineError, TilesmithError

APPLICATION = int.from_bytes(b"Tile")
VERSION = 3

SYNC_S = 0.05
"""So long, at most, what was written in haste waits for the disk: see `Database.write`."""
CHECKPOINT_PAGES = 8000
"""Of the log beside the file, before they are brought into it: 32 MB. Fewer would sync more often than writing does."""

SCHEMA = """
CREATE TABLE sources (
    id TEXT PRIMARY KEY,            -- content_id of the text
    text BLOB NOT NULL              -- UTF-8; lone surrogates pass
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    kind TEXT NOT NULL,             -- run, trial, confirmation, stop, or the class of a fact
    at_s REAL NOT NULL,             -- seconds since 1970, UTC
    source TEXT REFERENCES sources, -- of the problem or the candidate
    time_us REAL,                   -- of a correct trial, so that the best is found without reading the rest
    body TEXT NOT NULL,             -- JSON
    key TEXT                        -- of a fact
);
CREATE INDEX events_of_a_run ON events (run, kind, seq);
CREATE INDEX facts_by_key ON events (key, kind) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX a_run_begins_once ON events (run) WHERE kind = 'run';
CREATE TRIGGER events_are_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE INDEX events_of_a_source ON events (source) WHERE source IS NOT NULL;
CREATE INDEX runs_of_a_start ON events (json_extract(body, '$.problem.start')) WHERE kind = 'run';
CREATE INDEX best_of_a_run ON events (run, time_us, seq) WHERE kind = 'trial' AND time_us IS NOT NULL;
CREATE TRIGGER sources_are_kept BEFORE DELETE ON sources
    WHEN EXISTS (SELECT 1 FROM events WHERE source = old.id)
    OR EXISTS (SELECT 1 FROM events WHERE kind = 'run' AND json_extract(body, '$.problem.start') = old.id)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER sources_stay BEFORE UPDATE ON sources BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER one_text_an_id BEFORE INSERT ON sources
    WHEN EXISTS (SELECT 1 FROM sources WHERE id = new.id AND text <> new.text)
    BEGIN SELECT RAISE(ABORT, 'two texts with one id'); END;
"""

NEW_IN_3 = (
    "CREATE INDEX events_of_a_source",
    "CREATE INDEX runs_of_a_start",
    "CREATE INDEX best_of_a_run",
    "CREATE TRIGGER sources_are_kept",
)
MIGRATIONS = {
    1: (
        "ALTER TABLE events ADD COLUMN key TEXT",
        "CREATE INDEX facts_by_key ON events (key, kind) WHERE key IS NOT NULL",
    ),
    2: (
        *(statement for statement in SCHEMA.split(";\n") if statement.startswith(NEW_IN_3[:-1])),
        "DROP TRIGGER sources_are_kept",
        *(statement for statement in SCHEMA.split(";\n") if statement.startswith(NEW_IN_3[-1])),
    ),
}
"""What makes a journal of this version one of the next."""

# One statement, so that a journal which another process is making is seen whole or not at all.
HEADER = """
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version
"""

Value = None | int | float | str | bytes
Row = tuple[Value, ...]
Statement = tuple[str, Sequence[Value]]


class Database:
    """One connection. What `write` returned from no end of a process can lose; what it did not left no trace.

    Threads may share it; they take turns.
    """

    def __init__(self, path: Path, patience_s: float) -> None:
        """Opens the file and makes it a journal where it is empty. Raises `JournalError` and `MachineError`."""
        self.path = path
        self._patience_s = patience_s
        self._turn = threading.Lock()
        self._synced_s = -math.inf
        """When the disk last confirmed all that was written before."""
        self._owed = threading.Event()
        """Something was written in haste since."""
        self._hasty = False
        self._syncer: threading.Thread | None = None
        self._closed = False
        self._fault: OSError | None = None
        if path.exists() and not path.is_file():
            raise JournalError(f"The journal {path} is not a regular file; name another with --journal.")
        with self._told():
            self._connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
        try:
            with self._told():
                self._prepare()
        except TilesmithError:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._owed.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._turn:
            self._connection.close()

    def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        with self._turn, self._told():
            return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """One statement in a transaction of its own, and the rows that it returns."""
        with self._turn, self._told(), self._transaction():
            return self._connection.execute(sql, values).fetchall()

    def write(self, statements: Sequence[Statement], *, hasty: bool = False) -> int:
        """All of them, or none. Returns the number of the row that the last one inserted.

        What it returned from is in the file, for every process, whatever becomes of this one. It is on the disk too,
        safe from a loss of power; `hasty` only where the last such confirmation is longer ago than `SYNC_S`, else
        within that time. So one that comes alone is confirmed at once, and of thousands a second some share one wait.
        """
        row = 0
        with self._turn, self._told():
            if self._fault is not None:
                raise _failed(self.path, self._fault)
            hasty = hasty and time.monotonic() - self._synced_s < SYNC_S
            if hasty is not self._hasty:
                self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if hasty else 'FULL'}")
                self._hasty = hasty
            with self._transaction():
                for sql, values in statements:
                    row = self._connection.execute(sql, values).lastrowid or 0
            if hasty:
                self._owed.set()
                if self._syncer is None:
                    self._syncer = threading.Thread(target=self._sync, name="journal", daemon=True)
                    self._syncer.start()
            else:
                self._synced_s = time.monotonic()
        return row

    def _sync(self) -> None:
        """Have the disk confirm what was written in haste."""
        while True:
            self._owed.wait()
            if not self._closed:
                time.sleep(SYNC_S / 2)
            with self._turn:
                self._owed.clear()
                closed = self._closed
            try:
                # SQLite locks the file and its index, never this one: to close it here frees nobody's lock.
                began_s = time.monotonic()
                descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                # While it is done here nobody who writes has to wait for it.
                with self._turn:
                    self._synced_s = max(self._synced_s, began_s)
            except OSError as error:
                self._fault = error
            if closed:
                return

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if self._is_journal():
            self._migrate()
            return
        self._enter_wal()
        with self._transaction():
            # Another process may have been faster.
            if not self._is_journal():
                for statement in SCHEMA.split(";\n"):
                    run(statement)
                run(f"PRAGMA application_id = {APPLICATION}")
                run(f"PRAGMA user_version = {VERSION}")

    def _migrate(self) -> None:
        while self._version() < VERSION:
            with self._transaction():
                # Another process may have been faster.
                if (version := self._version()) < VERSION:
                    for statement in MIGRATIONS[version]:
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {version + 1}")

    def _version(self) -> int:
        ((version,),) = self._connection.execute("PRAGMA user_version")
        return int(version)

    def _is_journal(self) -> bool:
        """False for an empty file. Raises `JournalError` for what is neither, before anything is written to it."""
        ((application, version, tables),) = self._connection.execute(HEADER)
        if not (application or version or tables):
            return False
        if application != APPLICATION:
            raise JournalError(f"{self.path} is a database of another program; name another journal with --journal.")
        if not 1 <= version <= VERSION:
            raise JournalError(
                f"The journal {self.path} has version {version}, and this Tilesmith reads up to version {VERSION}; "
                "use the Tilesmith that wrote it, or name another journal with --journal."
            )
        return True

    def _enter_wal(self) -> None:
        """SQLite does not wait here by itself where two processes make the same journal at once."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite ends the transaction itself after some faults, such as a full disk.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _sentence(self.path, error) from error


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 where the fault is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _sentence(path: Path, error: sqlite3.Error) -> TilesmithError:
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return MachineError(
                f"The disk under the journal {path} is full; make room and resume the run, "
                "nothing that was recorded is lost."
            )
        case sqlite3.SQLITE_IOERR:
            return _failed(path, error)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return JournalError(f"The journal {path} is locked by another program; close that one, or try again.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return JournalError(
                f"The journal {path} cannot be opened for writing ({error}); "
                "see that its folder exists and can be written, or name another with --journal."
            )
        case sqlite3.SQLITE_NOTADB:
            return JournalError(f"{path} is not a journal of Tilesmith; name another with --journal.")
        case sqlite3.SQLITE_CORRUPT:
            return JournalError(
                f"The journal {path} is damaged ({error}); restore a copy, or name another with --journal."
            )
    return JournalError(f"The journal {path} refused ({error}); name another with --journal.")


def _failed(path: Path, error: Exception) -> MachineError:
    return MachineError(
        f"The disk under the journal {path} failed ({error}); see that it works and has room, then resume "
        "the run, nothing that was recorded is lost."
    )
