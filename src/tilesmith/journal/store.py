"""Runs in a journal: begun, found, listed, resumed.

    with open_store(Path("tilesmith.db")) as store:
        run = store.create(problem, RunOptions("{}"))
        stop = search(problem, proposer, bench, run, limits)
        run.stop(stop)

Threads may share a store and its runs; other processes, and other stores, may use the same file at the same time.
"""

from __future__ import annotations

import difflib
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from tilesmith.core.budget import Stop
from tilesmith.core.errors import JournalError
from tilesmith.core.facts import Fact
from tilesmith.core.problem import Problem, content_id
from tilesmith.core.seams import F
from tilesmith.core.trial import Trial
from tilesmith.journal import garbage
from tilesmith.journal.codec import CodecError, dumps, loads
from tilesmith.journal.database import Database, Row, Statement, Value
from tilesmith.journal.garbage import Garbage
from tilesmith.journal.lock import RunLock

T = TypeVar("T")
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""In the order of their characters, so that ids sort by time; none that is read for another."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Everything that a run was started with and needs to resume, in whatever form its starter chose."""

    text: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs."""

    id: str
    problem: str
    began_s: float
    """Seconds since 1970, UTC."""
    trials: int
    best: Trial | None
    """The fastest correct trial; of equals the first."""
    stop: Stop | None
    """Why it ended; None while it goes on, and where it was killed."""
    live: bool
    """Whether a process is writing it now."""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The first event of a run. Sources stand in it by their ids."""

    problem: Problem
    options: RunOptions


@dataclass(frozen=True, slots=True)
class _Ending:
    stop: Stop


def open_store(path: Path, *, must_exist: bool = False, patience_s: float = 30.0) -> Store:
    """The journal in this file, which is made where there is none, unless it must exist.

    Waits at most `patience_s` seconds whenever another program locks the file. Raises `JournalError` for a file that
    is no journal, or one of another version, and `MachineError` for a full disk.
    """
    if must_exist and not path.exists():
        raise JournalError(f"There is no journal at {path}; begin a run first, or name another with --journal.")
    return Store(Database(path, patience_s))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trial as it stands in the journal."""

    number: int
    """Of the trial in its run, from 1."""
    event: int
    """Of all in the journal."""
    at_s: float
    """Seconds since 1970, UTC."""
    trial: Trial


class Store:
    """All runs of one journal. Closing it also ends the writing of its runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opened: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for run in self._opened:
            run.release()
        self._database.close()

    def create(self, problem: Problem, options: RunOptions) -> Run:
        """A new run, which this process alone may write until it ends or the store is closed."""
        by_id = replace(
            problem,
            source=content_id(problem.source),
            start=None if problem.start is None else content_id(problem.start),
        )
        statements = [_source(text) for text in (problem.source, problem.start) if text is not None]
        run = Run(self._database, _new_id(), problem, options)
        run.claim()
        # Nobody can have written it before.
        run._complete = True
        statements.append(_event(run.id, "run", _Beginning(by_id, options), source=by_id.source))
        try:
            self._database.write(statements)
        except BaseException:
            run.release()
            raise
        self._opened.append(run)
        return run

    def run(self, prefix: str) -> Run:
        """The run whose id begins with `prefix`, for reading; `claim` it to write. Raises `JournalError`."""
        found = self._ids(prefix.lower())
        if len(found) != 1:
            among = found or self._ids("")
            listed = ", ".join(among[-10:]) + (f" and {len(among) - 10} older ones" if len(among) > 10 else "")
            count = "More than one run begins" if found else "No run begins"
            known = f"choose from {listed}" if among else "the journal holds none"
            near = [] if found else difflib.get_close_matches(prefix.lower(), among, n=1)
            meant = f"did you mean {near[0]}? Else " if near else ""
            raise JournalError(f"{count} with {prefix!r} in {self._database.path}; {meant}{known}.")
        sql = "SELECT body FROM events WHERE run = ? AND kind = 'run'"
        ((body,),) = self._database.read(sql, found)
        beginning = _loads(self._database, _Beginning, body)
        problem = beginning.problem
        texts = {
            str(row[0]): _text(row[1])
            for row in self._database.read(
                "SELECT id, text FROM sources WHERE id IN (?, ?)", (problem.source, problem.start)
            )
        }
        start = None if problem.start is None else texts[problem.start]
        run = Run(
            self._database, found[0], replace(problem, source=texts[problem.source], start=start), beginning.options
        )
        self._opened.append(run)
        return run

    def _ids(self, prefix: str) -> list[str]:
        """The runs whose ids begin so, the oldest first."""
        sql = "SELECT run FROM events INDEXED BY a_run_begins_once WHERE kind = 'run' AND run BETWEEN ? AND ?"
        return [str(row[0]) for row in self._database.read(f"{sql} ORDER BY seq", (prefix, prefix + chr(0x10FFFF)))]

    def runs(self) -> Sequence[RunSummary]:
        """Every run, the oldest first."""
        sql = "SELECT run, at_s, body FROM events INDEXED BY a_run_begins_once WHERE kind = 'run' ORDER BY seq"
        rows = self._database.read(sql)
        return tuple(self._summary(str(run), float(at or 0.0), body) for run, at, body in rows)

    def garbage(self) -> Garbage:
        """What nothing refers to; looking changes nothing."""
        return garbage.find(self._database)

    def collect(self, found: Garbage) -> Garbage:
        """Delete what was found, where nothing has come to refer to it since; returns what was deleted.

        Other processes may write meanwhile.
        """
        return garbage.collect(self._database, found)

    def _summary(self, run: str, began_s: float, body: Value) -> RunSummary:
        count = "SELECT count(*) FROM events WHERE run = ? AND kind = 'trial'"
        ((trials,),) = self._database.read(count, (run,))
        fastest = self._database.read(FASTEST, (run,))
        # Without the hint it would be looked for among all runs, from the latest event back.
        last = """SELECT kind, body FROM events WHERE seq =
            (SELECT max(seq) FROM events INDEXED BY events_of_a_run WHERE run = ?)"""
        ((kind, ending),) = self._database.read(last, (run,))
        return RunSummary(
            id=run,
            problem=_loads(self._database, _Beginning, body).problem.name,
            began_s=began_s,
            trials=int(trials or 0),
            best=_trial(self._database, fastest[0]) if fastest else None,
            stop=_loads(self._database, _Ending, ending).stop if kind == "stop" else None,
            live=RunLock(_lock_path(self._database, run)).held_by_any(),
        )


class Run:
    """One run. Implements `tilesmith.core.seams.Journal`."""

    def __init__(self, database: Database, run: str, problem: Problem, options: RunOptions) -> None:
        self.id = run
        self.problem = problem
        self.options = options
        self._database = database
        self._lock = RunLock(_lock_path(database, run))
        self._turn = threading.RLock()
        self._known: list[tuple[int, Trial]] = []
        """Trials with the numbers of their events: one list, so that neither is ever without the other."""
        self._shown: tuple[Trial, ...] = ()
        """The same as it was last asked for."""
        self._complete = False
        """Whether no other trials can be in the file: while this object alone writes, and has read it since."""
        self._facts: dict[str, tuple[tuple[Fact, ...], int]] = {}
        """By kind, with the number of the last event among them."""

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._database.path

    def claim(self) -> None:
        """Become the only writer of this run. Raises `JournalError` where another process writes it."""
        with self._turn:
            if not self._lock.held:
                self._lock.acquire(
                    f"Run {self.id} is being written by another process; wait until it ends, or stop it."
                )

    def release(self) -> None:
        """Let others write the run."""
        with self._turn:
            self._complete = False
            self._lock.release()

    def record(self, trial: Trial) -> None:
        """See `tilesmith.core.seams.Journal`. Claims the run where it is not yet claimed."""
        by_id = replace(trial, candidate=replace(trial.candidate, source=trial.candidate.id))
        event = _event(self.id, "trial", by_id, source=trial.candidate.id, time_us=trial.time_us)
        with self._turn:
            self.claim()
            # An interrupt may come between any two of these: then the file is read again.
            complete, self._complete = self._complete, False
            row = self._database.write([_source(trial.candidate.source), event], hasty=True)
            if complete:
                self._known.append((row, trial))
                self._complete = True

    def note(self, fact: Fact) -> None:
        """Record a fact. Claims the run where it is not yet claimed."""
        self.claim()
        self._database.write([_event(self.id, type(fact).__name__, fact, key=fact.key)])

    def facts(self, kind: type[F]) -> tuple[F, ...]:
        """Every fact of one kind that this run recorded, in order."""
        sql = "SELECT seq, body FROM events WHERE run = ? AND kind = ? AND seq > ? ORDER BY seq"
        with self._turn:
            rows: list[Row]
            known: tuple[Fact, ...]
            known, last = self._facts.get(kind.__name__, ((), 0))
            rows = self._database.read(sql, (self.id, kind.__name__, last))
            if rows:
                known = (*known, *(_loads(self._database, kind, row[1]) for row in rows))
                self._facts[kind.__name__] = (known, int(rows[-1][0] or 0))
            return cast(tuple[F, ...], known)

    def recall(self, kind: type[F], key: str) -> F | None:
        """The last fact of this kind with this key in the journal, whichever run recorded it."""
        sql = "SELECT body FROM events WHERE key = ? AND kind = ? ORDER BY seq DESC LIMIT 1"
        rows = self._database.read(sql, (key, kind.__name__))
        return _loads(self._database, kind, rows[0][0]) if rows else None

    def confirmed(self, trial: Trial) -> None:
        """Record a finalist's second judgement."""
        self.claim()
        by_id = replace(trial, candidate=replace(trial.candidate, source=trial.candidate.id))
        event = _event(self.id, "confirmation", by_id, source=trial.candidate.id)
        self._database.write([_source(trial.candidate.source), event])

    def confirmations(self) -> tuple[Trial, ...]:
        """Every second judgement, in order."""
        rows = self._database.read(f"{CONFIRMATIONS} ORDER BY seq", (self.id,))
        return tuple(_trial(self._database, row) for row in rows)

    def trials(self) -> tuple[Trial, ...]:
        """Every trial recorded so far, in order. What was returned once never changes."""
        with self._turn:
            if not self._complete:
                last = self._known[-1][0] if self._known else 0
                rows = self._database.read(f"{TRIALS} ORDER BY seq", (self.id, last))
                self._known += [(int(row[0] or 0), _trial(self._database, row)) for row in rows]
                self._complete = self._lock.held
            if len(self._shown) != len(self._known):
                self._shown = tuple(trial for _, trial in self._known)
            return self._shown

    def times_s(self, kind: type[Trial] | type[F]) -> tuple[float, ...]:
        """When each trial, or each fact of one kind, was recorded, in their order: seconds since 1970, UTC."""
        name = "trial" if kind is Trial else kind.__name__
        rows = self._database.read("SELECT at_s FROM events WHERE run = ? AND kind = ? ORDER BY seq", (self.id, name))
        return tuple(float(row[0] or 0.0) for row in rows)

    def facts_since(self, kind: type[F], event: int) -> tuple[tuple[F, float], ...]:
        """The facts of one kind that were recorded after an event of the journal, and when."""
        sql = "SELECT body, at_s FROM events WHERE run = ? AND kind = ? AND seq > ? ORDER BY seq"
        rows = self._database.read(sql, (self.id, kind.__name__, event))
        return tuple((_loads(self._database, kind, body), float(at or 0.0)) for body, at in rows)

    def count(self, kind: type[Trial] | type[F]) -> int:
        """How many trials, or facts of one kind, were recorded."""
        sql = "SELECT count(*) FROM events WHERE run = ? AND kind = ?"
        ((found,),) = self._database.read(sql, (self.id, "trial" if kind is Trial else kind.__name__))
        return int(found or 0)

    def latest_trials(self, most: int) -> tuple[Recorded, ...]:
        """The last so many trials, in order, without reading the others."""
        rows = self._database.read(f"{ROWS} ORDER BY seq DESC LIMIT ?", (self.id, most))
        last = self.count(Trial)
        return tuple(reversed([_recorded(self._database, row, last - place) for place, row in enumerate(rows)]))

    def ends(self) -> tuple[Recorded, ...]:
        """The first trial, and the fastest that is correct, without reading the others."""
        first = self._database.read(f"{ROWS} ORDER BY seq LIMIT 1", (self.id,))
        fastest = self._database.read(FASTEST, (self.id,))
        place = "SELECT count(*) FROM events WHERE run = ? AND kind = 'trial' AND seq <= ?"
        found = {row[0]: row for row in (*first, *fastest)}
        numbers = {seq: int(self._database.read(place, (self.id, seq))[0][0] or 0) for seq in found}
        return tuple(_recorded(self._database, row, numbers[seq]) for seq, row in found.items())

    @property
    def began_s(self) -> float:
        """Seconds since 1970, UTC."""
        ((at_s,),) = self._database.read("SELECT at_s FROM events WHERE run = ? AND kind = 'run'", (self.id,))
        return float(at_s or 0.0)

    @property
    def revision(self) -> int:
        """Grows with every event that is recorded of this run."""
        ((seq,),) = self._database.read("SELECT max(seq) FROM events WHERE run = ?", (self.id,))
        return int(seq or 0)

    @property
    def live(self) -> bool:
        """Whether a process, this one or another, is writing it now."""
        return self._lock.held or RunLock(_lock_path(self._database, self.id)).held_by_any()

    def stop(self, stop: Stop) -> None:
        """Record why the run, or this part of it, ended."""
        self.claim()
        self._database.write([_event(self.id, "stop", _Ending(stop))])

    @property
    def stops(self) -> tuple[Stop, ...]:
        """Why each part of the run ended, in order; a part that was killed left none."""
        rows = self._database.read("SELECT body FROM events WHERE run = ? AND kind = 'stop' ORDER BY seq", (self.id,))
        return tuple(_loads(self._database, _Ending, row[0]).stop for row in rows)


TRIALS = """
    SELECT events.seq, events.body, sources.text FROM events JOIN sources ON sources.id = events.source
    WHERE events.run = ? AND events.kind = 'trial' AND events.seq > ?"""

ROWS = """
    SELECT events.seq, events.body, sources.text, events.at_s
    FROM events JOIN sources ON sources.id = events.source WHERE events.run = ? AND events.kind = 'trial'"""

# The hint, because a run's trials would be sorted to find one.
FASTEST = """
    SELECT events.seq, events.body, sources.text, events.at_s
    FROM events INDEXED BY best_of_a_run JOIN sources ON sources.id = events.source
    WHERE events.run = ? AND events.kind = 'trial' AND time_us IS NOT NULL ORDER BY time_us, seq LIMIT 1"""

CONFIRMATIONS = """
    SELECT events.seq, events.body, sources.text FROM events JOIN sources ON sources.id = events.source
    WHERE events.run = ? AND events.kind = 'confirmation'"""


def _trial(database: Database, row: Row) -> Trial:
    trial = _loads(database, Trial, row[1])
    return replace(trial, candidate=replace(trial.candidate, source=_text(row[2])))


def _recorded(database: Database, row: Row, number: int) -> Recorded:
    return Recorded(number, int(row[0] or 0), float(row[3] or 0.0), _trial(database, row))


def _new_id() -> str:
    """Eleven characters: hundredths of a second since 1970, then three by chance, for runs that begin together."""
    number = int(time.time() * 100)
    clock = "".join(DIGITS[number >> 5 * place & 31] for place in reversed(range(8)))
    return clock + "".join(secrets.choice(DIGITS) for _ in range(3))


def _lock_path(database: Database, run: str) -> Path:
    return database.path.with_name(f"{database.path.name}-{run}.lock")


def _source(text: str) -> Statement:
    return "INSERT OR IGNORE INTO sources VALUES (?, ?)", (content_id(text), text.encode("utf-8", "surrogatepass"))


def _text(value: Value) -> str:
    assert isinstance(value, bytes)
    return value.decode("utf-8", "surrogatepass")


def _event(
    run: str,
    kind: str,
    body: object,
    *,
    source: str | None = None,
    time_us: float | None = None,
    key: str | None = None,
) -> Statement:
    sql = "INSERT INTO events (run, kind, at_s, source, time_us, body, key) VALUES (?, ?, ?, ?, ?, ?, ?)"
    return sql, (run, kind, time.time(), source, time_us, dumps(body), key)


def _loads(database: Database, kind: type[T], body: Value) -> T:
    try:
        return loads(kind, str(body))
    except CodecError as error:
        raise JournalError(
            f"The journal {database.path} holds a record that this Tilesmith cannot read ({error}); "
            "use the Tilesmith that wrote it."
        ) from error
