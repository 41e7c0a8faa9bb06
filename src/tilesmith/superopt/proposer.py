"""What the search proves, as candidates: a program's best µGraphs, lowered to Triton.

The first round gets them all; rewrites and models go on from there. A program that the search cannot take whole gives
none, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tilesmith.core.errors import TilesmithError
from tilesmith.core.facts import Derivation
from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph, Limits
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Given, Journal
from tilesmith.core.trial import Candidate, Trial
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.lower import Lowered, Lowering, lower
from tilesmith.superopt.schema import to_json
from tilesmith.superopt.search import Found, search
from tilesmith.superopt.trace import trace

ORIGIN = "superopt:"
KERNELS = (1, 2)
"""Graph-defined kernels, one number after another until something is found."""

KEPT = 24
"""µGraphs that a search returns; some fit no tiles that kernels can have."""


@dataclass(frozen=True, slots=True)
class _Proposal:
    candidate: Candidate
    derivation: Derivation


@dataclass(frozen=True)
class SuperoptProposer:
    """A `Proposer`: its answers are a function of the problem; what it keeps is a cache."""

    gpu: Gpu
    journal: Journal
    """Where the µGraph of every candidate is noted."""
    graphs: int = 4
    """µGraphs that are lowered, the best by estimate."""
    sources: int = 4
    """Of each µGraph at most."""
    seconds: float = 30.0
    """For each search."""
    seed: int = 0
    say: Callable[[str], None] = lambda _: None
    _found: dict[str, tuple[_Proposal, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Given:
        """The lowered µGraphs that were not judged before: in the first round all, later none."""
        del number
        if problem.id not in self._found:
            try:
                self._found[problem.id] = tuple(self._proposals(problem))
            except TilesmithError as error:
                self.say(f"the superoptimizer proposes nothing: {error}")
                self._found[problem.id] = ()
        known = {trial.candidate.id for trial in trials}
        fresh = [made for made in self._found[problem.id] if made.candidate.id not in known]
        noted = {fact.key for fact in self.journal.facts(Derivation)}
        for made in fresh:
            if made.derivation.key not in noted:
                self.journal.note(made.derivation)
        return Given(made.candidate for made in fresh)

    def _proposals(self, problem: Problem) -> Iterator[_Proposal]:
        traced = trace(problem)
        whole = traced.graph()
        lowered: list[tuple[_Proposal, ...]] = []
        faults: list[str] = []
        for found in self._searched(whole):
            options = Lowering(most=self.sources, library=problem.settings.library, tf32=problem.settings.tf32)
            try:
                sources = lower(found.graph, self.gpu, options)
                lowered.append(tuple(_proposal(found, made) for made in sources))
            except TilesmithError as error:
                faults.append(str(error))
            if len(lowered) == self.graphs:
                break
        if faults and not lowered:
            self.say(f"none of {len(faults)} µGraphs could be lowered; the first: {faults[0]}")
        # The first of each graph before the second of any: a lowering's estimate is good within its graph only.
        seen: set[str] = set()
        for place in range(self.sources):
            for made in lowered:
                if place < len(made) and made[place].candidate.id not in seen:
                    seen.add(made[place].candidate.id)
                    yield made[place]

    def _searched(self, whole: Graph) -> Iterator[Found]:
        for kernels in KERNELS:
            limits = Limits(graph_defined_kernels=kernels)
            plan = Plan(seconds=self.seconds, keep=KEPT, seed=self.seed, target=self.gpu.name)
            if found := search(whole, limits, plan).graphs:
                yield from found
                return


def _proposal(found: Found, made: Lowered) -> _Proposal:
    candidate = Candidate(made.source, f"{ORIGIN}{_short(made.note)}")
    text = " ".join(to_json(found.graph).split())
    return _Proposal(candidate, Derivation(candidate.id, text, found.hash, made.note, made.estimate_us))


def _short(note: str) -> str:
    return note if len(note) <= 60 else note[:57] + "..."
