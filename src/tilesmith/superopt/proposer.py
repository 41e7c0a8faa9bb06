"""What the search proves, as candidates: a program's best µGraphs, lowered to Triton.

The first round gets them all; rewrites and models go on from there. A program of which something stays PyTorch's gives
none, and it is said why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction

from tilesmith.core.errors import OptionError, TilesmithError
from tilesmith.core.facts import Derivation
from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph, Op
from tilesmith.core.graph_hash import graph_hash
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Given, Journal
from tilesmith.core.trial import Candidate, Trial
from tilesmith.superopt.lower import Lowered, Lowering, lower
from tilesmith.superopt.schema import to_json
from tilesmith.superopt.trace import trace
from tilesmith.superopt.traced import Traced
from tilesmith.superopt.whole import Best

ORIGIN = "superopt:"


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
    graphs: int = 5
    """µGraphs that are lowered, the best by estimate."""
    sources: int = 8
    """Of each µGraph at most."""
    seconds: float = 20.0
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
        with ThreadPoolExecutor(1) as beside:
            # Meanwhile, in a process of its own: which of its constants are the same at other sizes.
            small = beside.submit(trace, problem, problem.settings.small) if problem.settings.small else None
            whole = trace(problem)
            fixed = _constants(whole) & _constants(small.result()) if small is not None else _constants(whole)
        settings = problem.settings
        options = Lowering(self.sources, settings.library, settings.tf32, fixed=fixed, parameters=_parameters(whole))
        done: dict[Graph, tuple[Lowered, ...]] = {}

        def fits(graph: Graph) -> str:
            try:
                done[graph] = lower(graph, self.gpu, options)
            except OptionError as error:
                return str(error)
            return ""

        found = Best(self.gpu, self.seconds, self.seed, fits, self.say).of(whole.graph())
        lists = [[_proposal(g, made) for made in done.get(g) or lower(g, self.gpu, options)] for g in found]
        # The first of each graph before the second of any: a lowering's estimate is good within its graph only.
        kept = _different(lists)[: self.graphs]
        for place in range(self.sources):
            yield from (made[place] for made in kept if place < len(made))


def _different(lists: Sequence[Sequence[_Proposal]]) -> list[list[_Proposal]]:
    """Without µGraphs that differ from earlier ones in the order of arithmetic only: lowered, they cost the same."""
    kept: dict[object, list[_Proposal]] = {}
    for made in lists:
        tiles = tuple(re.sub(r"\w+: ", "", each.derivation.note) for each in made)
        costs = tuple(round(each.derivation.estimate_us, 1) for each in made)
        kept.setdefault((tiles, costs), list(made))
    return list(kept.values())


def _constants(traced: Traced) -> frozenset[Fraction]:
    """Every number that the program applies, and what dividing by it multiplies with; those of windows, and of how much
    they see."""
    ops = [node for node in traced.nodes if isinstance(node, Op)]
    values = {value for op in ops for value in op.values} | {Fraction(1)}
    for op in ops:
        numbers = [n for w in op.windows for n in (w.size, w.stride, w.padding, w.dilation)]
        values |= {*map(Fraction, numbers), Fraction(math.prod(window.size for window in op.windows))}
    return frozenset(values | {1 / value for value in values if value})


def _parameters(traced: Traced) -> tuple[str, ...]:
    """Inputs that are the model's own."""
    return tuple(value.name for value in traced.inputs if value.origin.split(" ")[0] in ("parameter", "buffer"))


def _proposal(graph: Graph, made: Lowered) -> _Proposal:
    candidate = Candidate(made.source, f"{ORIGIN}{_short(made.note)}")
    text = " ".join(to_json(graph).split())
    return _Proposal(candidate, Derivation(candidate.id, text, graph_hash(graph), made.note, made.estimate_us))


def _short(note: str) -> str:
    """Its tiles, which tell it from the others; not the names of its kernels, which they share."""
    tiles = re.sub(r"\w+: ", "", note)
    return tiles if len(tiles) <= 80 else tiles[:79] + "…"
