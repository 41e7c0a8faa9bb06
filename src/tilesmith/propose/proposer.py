"""Proposals with no key: the rewrites of the table, applied to the beam's parents."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilesmith.core.errors import OptionError
from tilesmith.core.problem import Problem, content_id
from tilesmith.core.seams import Given
from tilesmith.core.trial import Candidate, Trial
from tilesmith.propose.beam import distinct, select
from tilesmith.propose.diagnose import answers, bottlenecks, multiprocessors
from tilesmith.propose.program import parse
from tilesmith.propose.rewrites import TABLE
from tilesmith.propose.techniques import vector

ORIGIN = "rewrite:"


@dataclass(frozen=True, slots=True)
class Variant:
    """The `place`-th source, from 1, that a rewrite makes of a parent."""

    rewrite: str
    place: int
    source: str


@dataclass(frozen=True)
class RewriteProposer:
    """A `Proposer`: its answers are a function of these options and the trials alone; what it keeps is a cache."""

    candidate_pool_size: int = 4
    """Parents that a round expands; each gets an equal share of the proposals."""
    num_bottlenecks: int = 2
    """Limiters of a parent that its first proposals answer."""
    proposals: int = 15
    """Candidates a round, at most."""
    clustered: bool = False
    """Whether the pool takes the fastest of every technique vector in turn, instead of the fastest."""
    seed: int = 0
    """0 keeps the table's order; others shuffle among proposals of equal promise."""
    _variants: dict[str, tuple[Variant, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("candidate_pool_size", "num_bottlenecks", "proposals"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}, but must be at least 1")

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Given:
        """At most `proposals` new candidates: the pool's parents in turn, the fastest first; each gives its best.

        When the pool has nothing new, the next best trials take its place. Empty when no rewrite applies to any.
        """
        del problem, number
        pool = select(trials, self.candidate_pool_size, vector if self.clustered else None)
        kept = {trial.candidate.id for trial in pool}
        others = [trial for trial in distinct(trials) if trial.candidate.id not in kept]
        seen = {trial.candidate.id for trial in trials}
        handicaps = _handicaps(trials)
        found: list[Candidate] = []
        for parents in (pool, *((trial,) for trial in others)):
            queues = deque(iter(self._ranked(parent, handicaps)) for parent in parents)
            while queues and len(found) < self.proposals:
                queue = queues.popleft()
                candidate = next((candidate for candidate in queue if candidate.id not in seen), None)
                if candidate is not None:
                    seen.add(candidate.id)
                    found.append(candidate)
                    queues.append(queue)
            if len(found) == self.proposals:
                break
        return Given(found)

    def _ranked(self, parent: Trial, handicaps: Mapping[str, float]) -> list[Candidate]:
        """Every rewrite of one parent, the most promising first.

        The n-th variant of the m-th rewrite comes at place n * m: strong rewrites get more turns, none gets all. What
        this run has seen of a rewrite moves it up or down.
        """
        order = answers(bottlenecks(parent), self.num_bottlenecks)

        def promise(variant: Variant) -> tuple[float, str, int]:
            rank = order.index(variant.rewrite)
            noise = content_id(f"{self.seed}:{variant.source}") if self.seed else ""
            return variant.place * (rank + 1) * handicaps.get(variant.rewrite, 1.0), noise, rank

        ranked = sorted(self._expanded(parent), key=promise)
        return [Candidate(v.source, origin=f"{ORIGIN}{v.rewrite}", parent=parent.candidate.id) for v in ranked]

    def _expanded(self, parent: Trial) -> tuple[Variant, ...]:
        key = parent.candidate.id
        if key not in self._variants:
            program = parse(parent.candidate.source, parent.launches, multiprocessors(parent))
            self._variants[key] = tuple(
                Variant(rewrite.name, place, source)
                for rewrite in TABLE
                for place, source in enumerate(rewrite.variants(program), start=1)
            )
        return self._variants[key]


def _handicaps(trials: Sequence[Trial]) -> dict[str, float]:
    """For each rewrite that was tried: below 1 where its children were faster than their parents, up to many times 1
    where they compiled to what was known, or to nothing. Two imagined trials of middling success keep it calm.
    """
    times = {trial.candidate.id: trial.time_us for trial in trials}
    tried: dict[str, int] = {}
    worth: dict[str, float] = {}
    for trial in trials:
        name = trial.candidate.origin.removeprefix(ORIGIN)
        before = times.get(trial.candidate.parent or "")
        tried[name] = tried.get(name, 0) + 1
        if trial.time_us is not None:
            worth[name] = worth.get(name, 0.0) + (1.0 if before is not None and trial.time_us < before else 0.5)
    return {name: (count + 2) / (2 * worth.get(name, 0.0) + 2) for name, count in tried.items()}
