"""The search: from a program to the µGraphs that compute it, ranked, scheduled and verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith import _core
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Limits
from tilesmith.core.graph_check import check
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt import engine as engines
from tilesmith.superopt.engine_lower import lower
from tilesmith.superopt.limits import Plan, checked
from tilesmith.superopt.table import Named, named
from tilesmith.superopt.verify import Verified, verify


@dataclass(frozen=True, slots=True)
class Pruned:
    """Candidates that were not grown, by cause."""

    shape: int
    """Dimensions or extents that do not fit."""
    phase: int
    """One operand is of an iteration, the other exists after the loop; or nothing varies that could be gathered."""
    table: int
    """No value on the way to the target."""
    duplicate: int
    """Computed before in the same kernel."""
    bound: int
    """Too few operators are left to use everything, or to reach the target."""
    unfit: int
    """Kernels that no schedule fits."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """What told whether a value is on the way to the target."""

    name: str
    classes: int
    rows: int
    complete: bool
    probes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Worker:
    states: int
    busy_seconds: float
    wait_seconds: float
    oracle_seconds: float


@dataclass(frozen=True, slots=True)
class KernelSummary:
    """Of one kernel: how it is launched and what it moves."""

    grid: tuple[int, ...]
    loop: int
    estimate_us: float
    bytes: float
    """Read and written once."""
    traffic_bytes: float
    """Between the blocks and the second-level cache."""
    flops: float
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A verified µGraph."""

    hash: str
    graph: Graph
    estimate_us: float
    kernels: tuple[KernelSummary, ...]
    block_ops: int
    """Of its largest kernel."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a search found, and why it ended: exhausted, seconds, graphs, interrupted, incomplete."""

    stop: str
    reason: str
    """Of `incomplete`."""
    seconds: float
    """Of the table and the search."""
    table_seconds: float
    rank_seconds: float
    states: int
    candidates: int
    """µGraphs before schedules: every one computes the program."""
    pruned: Pruned
    oracle: Oracle
    verified: int
    error_bound: float
    """The most probable that a wrong one among `graphs` passed; 1 where there is none."""
    graphs: tuple[Found, ...]
    """The fastest by estimate first."""
    workers: tuple[Worker, ...]


def search(graph: Graph, limits: Limits, plan: Plan) -> Results:
    """Every µGraph within limits that computes the graph of operators; the best of them scheduled and verified.

    The same graph, limits and seed give the same graphs in the same order, unless time ended the search. Raises
    `OptionError` for a program that the space does not know, or for limits of nothing.
    """
    checked(limits, plan)
    gpu = target(plan.target)
    program = named(graph, limits)
    made = engines.engine(program, limits, plan, gpu)
    result = engines.run(made)
    found, bounds = _verified(program, made, plan)
    counters = [worker.counters for worker in result.workers]
    return Results(
        stop=result.stop,
        reason=result.incomplete,
        seconds=result.table_s + result.search_s,
        table_seconds=result.table_s,
        rank_seconds=result.rank_s,
        states=sum(c.states for c in counters),
        candidates=result.graphs,
        pruned=Pruned(
            shape=sum(c.shape for c in counters),
            phase=sum(c.phase for c in counters),
            table=sum(c.table for c in counters),
            duplicate=sum(c.duplicate for c in counters),
            bound=sum(c.bound for c in counters),
            unfit=result.unfit,
        ),
        oracle=Oracle(
            "table", made.classes, made.rows, not result.incomplete, sum(c.candidates for c in counters), result.table_s
        ),
        verified=len(found),
        error_bound=max(bounds, default=1.0),
        graphs=tuple(found),
        workers=tuple(Worker(w.counters.states, w.busy_s, w.wait_s, w.oracle_s) for w in result.workers),
    )


def _verified(program: Named, made: _core.Engine, plan: Plan) -> tuple[list[Found], list[float]]:
    found: list[Found] = []
    bounds: list[float] = []
    for kernels in made.graphs():
        graph = lower(program, made, kernels)
        faults = check(graph)
        assert not faults, f"the engine makes well-formed graphs: {faults[0]}"
        verdict = verify(graph, program.graph, plan.seed)
        assert isinstance(verdict, Verified), f"the engine makes right graphs: {verdict.message}"
        bounds.append(verdict.bound)
        found.append(_summary(graph, kernels))
    return found, bounds


def _summary(graph: Graph, kernels: Sequence[_core.Kernel]) -> Found:
    return Found(
        graph_hash(graph),
        graph,
        1e6 * sum(kernel.seconds for kernel in kernels),
        tuple(
            KernelSummary(
                tuple(count for _, count in kernel.cuts) + ((kernel.split,) if kernel.walk[2] else ()),
                kernel.loop,
                1e6 * kernel.seconds,
                kernel.bytes,
                kernel.traffic,
                kernel.flops,
                int(kernel.shared_bytes),
            )
            for kernel in kernels
        ),
        max(len(kernel.inputs) + len(kernel.steps) for kernel in kernels),
    )
