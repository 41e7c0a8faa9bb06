"""A study of the parallel search: what each cell measured, and the cells in comparison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from statistics import median
from typing import Any

COPIES = "copies"
"""No schedule: as many serial searches at once as there would be workers. What they lose, the machine loses."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One search of a study."""

    workload: str
    schedule: str
    order: str
    oracle: str
    """table, or z3-none, z3-thread, z3-shared by where answers are kept; /N where only each Nth level asks."""
    threads: int
    """Of each rank."""
    ranks: int = 1
    repeat: int = 0

    @property
    def workers(self) -> int:
        return self.threads * self.ranks

    def __str__(self) -> str:
        ranks = f"{self.ranks} ranks of " if self.ranks > 1 else ""
        return f"{self.workload}, {self.schedule}, {self.order}, {self.oracle}, {ranks}{self.threads} threads"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cell took. Seconds are of a clock on the wall unless they are named for the processor."""

    cell: Cell
    stop: str
    seconds: float
    """Of the table and the search, not of starting the process."""
    first_seconds: float | None
    """Until the first graph was reached."""
    states: int
    candidates: int
    graphs: str
    """A digest of the graphs that are shown, in their order."""
    busy_seconds: tuple[float, ...]
    """By worker: searching or inside the oracle."""
    cpu_seconds: tuple[float, ...]
    """The same by the clocks of their threads; empty where those were not read."""
    wait_seconds: float
    """Of all workers, for work and for locks."""
    oracle_seconds: float
    """Inside the oracle, of all workers."""
    calls: int
    hits: int
    undecided: int
    lock_seconds: float
    """Waited for shared answers, of all workers."""
    given: int
    """Pieces of open work that workers left to idle ones."""
    peak_bytes: int
    """Of the process; of the first where there are ranks."""

    def to_line(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def measured(cell: Cell, document: Mapping[str, Any]) -> Measured:
    """What the JSON answer of a search says of a cell. Raises `KeyError` for a document that is none."""
    workers, oracle = document["workers"], document["oracle"]
    cpu = tuple(worker.get("cpu_seconds") for worker in workers)
    names = [graph["hash"] for graph in document["graphs"]]
    return Measured(
        cell,
        document["stop"],
        document["seconds"],
        document.get("first_seconds"),
        document["states"],
        document["candidates"],
        sha256(" ".join(names).encode()).hexdigest()[:16],
        tuple(worker["busy_seconds"] + worker["oracle_seconds"] for worker in workers),
        cpu if None not in cpu else (),
        sum(worker["wait_seconds"] for worker in workers),
        sum(worker["oracle_seconds"] for worker in workers),
        oracle.get("calls", 0),
        oracle.get("hits", 0),
        oracle.get("undecided", 0),
        oracle.get("wait_seconds", 0.0),
        sum(worker["given"] for worker in workers),
        document["peak_bytes"],
    )


def from_line(line: str) -> Measured | None:
    """What `to_line` wrote; None for a line that was cut off, or that another version wrote."""
    try:
        row: dict[str, Any] = json.loads(line)
        row["cell"] = Cell(**row["cell"])
        row["busy_seconds"], row["cpu_seconds"] = tuple(row["busy_seconds"]), tuple(row["cpu_seconds"])
        return Measured(**row)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """Repeats of a cell together: medians, compared with one worker of the same workload and oracle."""

    cell: Cell
    repeats: int
    stop: str
    seconds: float
    first_seconds: float | None
    states: int
    states_per_s: float
    candidates: int
    baseline: str
    """What speed-ups are over; empty where it was not measured."""
    speedup: float | None
    efficiency: float | None
    of_ceiling: float | None
    """The speed-up over that of as many serial searches at once, where those were measured."""
    cpu_speedup: float | None
    """The baseline's processor time over that of the worker that had most: what balance and overhead leave, had every
    worker a core of its own."""
    imbalance: float
    """The most busy seconds of a worker over their mean."""
    cpu_imbalance: float | None
    extra_states: float | None
    """Over the baseline's, as a share of them."""
    wait_share: float
    """Of the workers' time."""
    oracle_share: float
    """Of their busy time."""
    oracle_seconds: float
    lock_seconds: float
    given: int
    """Work that moved from a worker to an idle one, in pieces."""
    calls: int
    hits: int
    undecided: int
    peak_bytes: int


def rows(all_measured: Iterable[Measured]) -> tuple[Row, ...]:
    """By cell, repeats together."""
    groups: dict[Cell, list[Measured]] = {}
    for one in all_measured:
        groups.setdefault(replace(one.cell, repeat=0), []).append(one)
    return tuple(_row(cell, same, groups) for cell, same in sorted(groups.items()))


def disagreements(all_measured: Sequence[Measured]) -> tuple[str, ...]:
    """Exhausted searches of one space by one oracle that found other graphs, a sentence each."""
    firsts: dict[tuple[str, str], Measured] = {}
    found: list[str] = []
    for one in all_measured:
        if one.stop != "exhausted":
            continue
        first = firsts.setdefault((one.cell.workload, one.cell.oracle), one)
        if (one.candidates, one.graphs) != (first.candidates, first.graphs):
            found.append(f"{one.cell} found other graphs than {first.cell}")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Exhausted searches of one space by one oracle that found the same graphs in the same order."""

    workload: str
    oracle: str
    searches: int
    ways: int
    """Schedules, orders and numbers of threads and ranks."""
    repeats: int
    """Of each way, at least."""

    def __str__(self) -> str:
        return (
            f"{self.workload}, {self.oracle}: result sets identical, {self.ways} ways, {self.repeats} "
            f"repeat{'s' * (self.repeats > 1)} ({self.searches} searches)"
        )


def agreements(all_measured: Sequence[Measured]) -> tuple[Agreement, ...]:
    """Where more than one search was made, and none disagrees."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in all_measured:
        if one.stop == "exhausted":
            groups.setdefault((one.cell.workload, one.cell.oracle), []).append(one)
    found: list[Agreement] = []
    for (workload, oracle), same in sorted(groups.items()):
        ways = Counter(replace(one.cell, repeat=0) for one in same)
        if len(same) > 1 and not disagreements(same):
            found.append(Agreement(workload, oracle, len(same), len(ways), min(ways.values())))
    return tuple(found)


def _row(cell: Cell, same: Sequence[Measured], groups: Mapping[Cell, Sequence[Measured]]) -> Row:
    seconds = _median(one.seconds for one in same)
    base = _baseline(cell, groups)
    before = groups[base] if base is not None else ()
    speedup = _over(before, seconds) if before else None
    copies = groups.get(replace(cell, schedule=COPIES, order="dfs", threads=cell.workers, ranks=1), ())
    alone = groups.get(replace(cell, schedule=COPIES, order="dfs", threads=1, ranks=1), ())
    # What n searches at once take longer than one alone, no schedule can win back.
    slower = (
        _median(one.seconds for one in copies) / _median(one.seconds for one in alone) if copies and alone else None
    )
    most_cpu = _median(max(one.cpu_seconds, default=0.0) for one in same)
    base_cpu = _median(sum(one.cpu_seconds) for one in before) if before else 0.0
    states = _median(one.states for one in same)
    base_states = _median(one.states for one in before) if before else 0
    busy = _median(sum(one.busy_seconds) for one in same)
    waits = _median(one.wait_seconds for one in same)
    oracle = _median(one.oracle_seconds for one in same)
    first = [one.first_seconds for one in same if one.first_seconds is not None]
    return Row(
        cell,
        len(same),
        ", ".join(sorted({one.stop for one in same})),
        seconds,
        _median(first) if first else None,
        round(states),
        states / seconds if seconds else 0.0,
        max(one.candidates for one in same),
        str(base) if base is not None else "",
        speedup,
        speedup / cell.workers if speedup is not None else None,
        speedup / cell.workers * slower if speedup is not None and slower is not None else None,
        base_cpu / most_cpu if base_cpu and most_cpu else None,
        _median(_imbalance(one.busy_seconds) for one in same),
        _median(_imbalance(one.cpu_seconds) for one in same) if all(one.cpu_seconds for one in same) else None,
        states / base_states - 1 if base_states else None,
        waits / (busy + waits) if busy + waits else 0.0,
        oracle / busy if busy else 0.0,
        oracle,
        _median(one.lock_seconds for one in same),
        round(_median(one.given for one in same)),
        round(_median(one.calls for one in same)),
        round(_median(one.hits for one in same)),
        round(_median(one.undecided for one in same)),
        max(one.peak_bytes for one in same),
    )


def _baseline(cell: Cell, groups: Mapping[Cell, Sequence[Measured]]) -> Cell | None:
    """One worker that goes depth-first, dealt out where that was measured."""
    if cell.schedule == COPIES:
        return None
    for schedule in ("static", "openmp", "mpi"):
        one = replace(cell, schedule=schedule, order="dfs", threads=1, ranks=1)
        if one in groups:
            return one
    return None


def _over(before: Sequence[Measured], seconds: float) -> float:
    return _median(one.seconds for one in before) / seconds if seconds else 0.0


def _imbalance(each: Sequence[float]) -> float:
    total = sum(each)
    return max(each) * len(each) / total if total else 1.0


def _median(values: Iterable[float]) -> float:
    return float(median(values))
