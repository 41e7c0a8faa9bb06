"""A part's winner: everything that proposes without a model, judged by a bench, the fastest judged once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tilesmith.bench.gpus import Device
from tilesmith.core.budget import Limits
from tilesmith.core.facts import Derivation
from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench
from tilesmith.core.search import best, confirm, lineage, search, standing
from tilesmith.core.trial import Correct, Estimate, Trial
from tilesmith.journal import RunOptions, open_store
from tilesmith.propose import JoinedProposer, RewriteProposer
from tilesmith.splice.found import Evidence, Found
from tilesmith.superopt.proposer import SuperoptProposer
from tilesmith.superopt.schema import from_json
from tilesmith.superopt.verify import Verified, verify

JOURNAL = "tilesmith.db"
SEARCH_SHARE = 0.25
"""Of a part's time, for each search of its µGraphs; the rest is for judging."""
PATIENCE = 3
"""Rounds of rewrites that may bring nothing faster."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where parts are judged."""

    gpu: Gpu
    device: Device | None
    """None without a GPU: then times are estimates."""

    def __str__(self) -> str:
        return self.device.name if self.device else f"estimates for {self.gpu.name}"

    def bench(self) -> AbstractContextManager[Bench]:
        """It holds processes only while it is entered."""
        if self.device is not None:
            from tilesmith.bench.local import LocalBench

            return LocalBench([self.device], 3)
        from tilesmith.bench.offline import OfflineBench

        return OfflineBench(self.gpu)


def optimize(
    problem: Problem, graph: Graph, where: Where, bench: Bench, folder: Path, seconds: float, seed: int
) -> Found:
    """The fastest kernel that is correct, judged twice, and not yet compared with PyTorch; or why there is none.

    `graph` is what the problem computes. Of a problem that nothing can be done about the answer says why; what is wrong
    with the machine or the journal is raised.
    """
    said: list[str] = []
    with open_store(folder / JOURNAL) as store:
        run = store.create(problem, RunOptions('{"for": "tilesmith.compile"}'))
        by_search = SuperoptProposer(where.gpu, run, seconds=SEARCH_SHARE * seconds, seed=seed, say=said.append)
        proposer = JoinedProposer([by_search, RewriteProposer(seed=seed)])
        stop = search(problem, proposer, bench, run, Limits(seconds=seconds, patience=PATIENCE))
        confirm(problem, bench, run)
        run.stop(stop)
        trials = standing(run.trials(), run.confirmations())
        fastest = best(trials)
        if fastest is None or not fastest.confirmed or not isinstance(fastest.verdict, Correct):
            return Found(_why(trials, said), seconds=seconds)
        line = lineage(fastest, trials)
        behind = next((fact for fact in run.facts(Derivation) if fact.key == line[0].candidate.id), None)
        verdict, place = fastest.verdict, fastest.environment
        evidence = Evidence(
            error=verdict.error,
            checks=verdict.checks,
            protection=fastest.protection,
            graph=behind.graph_hash if behind else "",
            bound=_bound(from_json(behind.graph), graph, seed) if behind else None,
            lineage=tuple(trial.candidate.origin for trial in line),
            run=run.id,
            machine="" if place is None else place.gpu or f"no GPU, compiled for {place.target}",
            estimate_us=verdict.time.estimate_us if isinstance(verdict.time, Estimate) else None,
        )
        return Found(source=fastest.candidate.source, evidence=evidence, seconds=seconds)


def _bound(made: Graph, graph: Graph, seed: int) -> float | None:
    """How sure it is that a µGraph computes another: verified once more, whole, whatever it was put together of."""
    verdict = verify(made, graph, seed)
    return verdict.bound if isinstance(verdict, Verified) else None


def _why(trials: tuple[Trial, ...], said: list[str]) -> str:
    if said:
        return said[0]
    if not trials:
        return "no µGraph was found for it within the time"
    kinds = sorted({type(trial.verdict).__name__.lower() for trial in trials})
    first = next((trial.verdict for trial in trials if not isinstance(trial.verdict, Correct)), trials[0].verdict)
    told = getattr(first, "message", getattr(first, "reason", ""))
    return f"none of {len(trials)} kernels is known to be correct ({', '.join(kinds)}; the first: {told[:160]})"


@contextmanager
def lazily(where: Where) -> Iterator[Callable[[], Bench]]:
    """A bench that starts when it is first asked for: where the cache holds everything no process starts."""
    from contextlib import ExitStack

    with ExitStack() as life:
        opened: list[Bench] = []

        def bench() -> Bench:
            if not opened:
                opened.append(life.enter_context(where.bench()))
            return opened[0]

        yield bench
