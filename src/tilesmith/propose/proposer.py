"""Proposals with no key: the rewrites of the table, applied to the beam's parents."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tilesmith.core.errors import OptionError
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate, Trial
from tilesmith.propose.beam import distinct, select
from tilesmith.propose.diagnose import answers, bottlenecks, multiprocessors
from tilesmith.propose.program import parse
from tilesmith.propose.rewrites import TABLE
from tilesmith.propose.techniques import vector


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
    _variants: dict[tuple[str, tuple[str, ...]], tuple[Candidate, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("candidate_pool_size", "num_bottlenecks", "proposals"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}, but must be at least 1")

    def propose(self, problem: Problem, trials: Sequence[Trial]) -> Sequence[Candidate]:
        """At most `proposals` new candidates: the pool's parents in turn, the fastest first; each gives its best.

        When the pool has nothing new, the next best trials take its place. Empty when no rewrite applies to any.
        """
        del problem
        pool = select(trials, self.candidate_pool_size, vector if self.clustered else None)
        kept = {trial.candidate.id for trial in pool}
        others = [trial for trial in distinct(trials) if trial.candidate.id not in kept]
        seen = {trial.candidate.id for trial in trials}
        found: list[Candidate] = []
        for parents in (pool, *((trial,) for trial in others)):
            queues = deque(iter(self.variants(parent)) for parent in parents)
            while queues and len(found) < self.proposals:
                queue = queues.popleft()
                candidate = next((candidate for candidate in queue if candidate.id not in seen), None)
                if candidate is not None:
                    seen.add(candidate.id)
                    found.append(candidate)
                    queues.append(queue)
            if len(found) == self.proposals:
                break
        return tuple(found)

    def variants(self, parent: Trial) -> tuple[Candidate, ...]:
        """Every rewrite of one trial's candidate, the most promising first."""
        order = answers(bottlenecks(parent), self.num_bottlenecks)
        key = (parent.candidate.id, order)
        if key not in self._variants:
            self._variants[key] = tuple(self._expand(parent, order))
        return self._variants[key]

    def _expand(self, parent: Trial, order: tuple[str, ...]) -> Iterator[Candidate]:
        """The n-th variant of the m-th rewrite comes at place n * m: strong rewrites get more turns, none gets all."""
        program = parse(parent.candidate.source, parent.launches, multiprocessors(parent))
        ranked = [
            (
                depth * (order.index(rewrite.name) + 1),
                self._noise(source),
                order.index(rewrite.name),
                rewrite.name,
                source,
            )
            for rewrite in TABLE
            for depth, source in enumerate(rewrite.variants(program), start=1)
        ]
        for *_, name, source in sorted(ranked):
            yield Candidate(source, origin=f"rewrite:{name}", parent=parent.candidate.id)

    def _noise(self, source: str) -> str:
        return hashlib.sha256(f"{self.seed}:{source}".encode()).hexdigest() if self.seed else ""
