"""Who descends from whom: the trials of a run as a forest, each under the trial that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilesmith.core.facts import Analysis
from tilesmith.core.search import best, lineage
from tilesmith.core.trial import Estimate, Timing, Trial
from tilesmith.report.words import time_of, value_us


@dataclass(frozen=True, slots=True)
class Member:
    """One trial in its family."""

    number: int
    """Of the trial, in the order of recording."""
    trial: Trial
    parent: int | None
    """The number of the trial that it was made from."""
    children: tuple[int, ...]
    depth: int
    author: str
    """The model that wrote it, or the proposer."""
    way: str
    """What it answers or does: the bottleneck, the rewrite."""
    winning: bool
    """Whether the best descends from it, or is it."""
    gain: float | None
    """How many times as fast as its parent; None where the two cannot be compared."""


@dataclass(frozen=True, slots=True)
class Family:
    """Every member by its number, in order, and those without a parent."""

    members: Mapping[int, Member]
    roots: tuple[int, ...]

    def walk(self) -> Iterator[Member]:
        """Everyone, parents before children, children in the order in which they were recorded."""
        waiting = list(reversed(self.roots))
        while waiting:
            member = self.members[waiting.pop()]
            yield member
            waiting.extend(reversed(member.children))


def family(numbered: Sequence[tuple[int, Trial]], analyses: Sequence[Analysis] = ()) -> Family:
    """The forest of trials, each with its number. What descends from one that is not among them is a root."""
    numbers: dict[str, int] = {}
    for number, trial in numbered:
        numbers.setdefault(trial.candidate.id, number)
    parents: dict[int, int | None] = {}
    for number, trial in numbered:
        parent = numbers.get(trial.candidate.parent or "")
        # A parent is recorded before its child; anything else would be a circle.
        parents[number] = parent if parent is not None and parent < number else None
    children: dict[int, list[int]] = {number: [] for number in parents}
    depths: dict[int, int] = {}
    for number, parent in parents.items():
        depths[number] = 0 if parent is None else depths[parent] + 1
        if parent is not None:
            children[parent].append(number)
    by_number = dict(numbered)
    trials = tuple(by_number.values())
    fastest = best(trials)
    winning = {trial.candidate.id for trial in lineage(fastest, trials)} if fastest else set()
    ranked = {analysis.key.partition("/")[0]: analysis for analysis in analyses}
    members = {}
    for number, trial in numbered:
        up = parents[number]
        above = None if up is None else by_number[up]
        members[number] = Member(
            number,
            trial,
            up,
            tuple(children[number]),
            depths[number],
            author(trial),
            _way(trial, ranked.get((above.fingerprint if above else None) or "")),
            trial.candidate.id in winning,
            ratio(above, trial) if above else None,
        )
    return Family(members, tuple(number for number, parent in parents.items() if parent is None))


def author(trial: Trial) -> str:
    """Who wrote it: the model, or the proposer."""
    if trial.candidate.direction is not None:
        return trial.candidate.direction.model
    return trial.candidate.origin.partition(":")[0]


def ratio(slow: Trial, fast: Trial) -> float | None:
    """How many times as fast the second is; an estimate is compared with no measurement."""
    a, b = time_of(slow.verdict), time_of(fast.verdict)
    if slow.time_us is None or fast.time_us is None or a is None or b is None:
        return None
    if isinstance(b, Timing) and b.rival == slow.candidate.id and b.gain is not None:
        return b.gain[0]
    if isinstance(a, Estimate) is not isinstance(b, Estimate) or value_us(b) <= 0:
        return None
    return value_us(a) / value_us(b)


def _way(trial: Trial, analysis: Analysis | None) -> str:
    way, candidate = trial.candidate.direction, trial.candidate
    if way is None:
        return candidate.origin.partition(":")[2]
    known = analysis.bottlenecks[way.rank - 1 : way.rank] if analysis else ()
    limiter = known[0].limiter if known else f"bottleneck {way.rank}"
    return f"{limiter}, repair {candidate.attempt}" if candidate.attempt else limiter
