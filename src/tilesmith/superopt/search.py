"""The search: from a program to the µGraphs that compute it, ranked, scheduled and verified."""

from __future__ import annotations

import math
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
from tilesmith.superopt.numeric import difference
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
    """Of the table, or of the caches and what they do not know."""
    seconds: float
    """Of making the table, or inside the solver."""
    calls: int = 0
    """Of the solver."""
    hits: int = 0
    """What a cache answered instead."""
    undecided: int = 0
    """Calls that the solver gave up within its effort."""
    wait_seconds: float = 0.0
    """Of all workers, for shared answers: that another is asking for, or for their lock."""


@dataclass(frozen=True, slots=True)
class Worker:
    states: int
    busy_seconds: float
    """Searching, outside an oracle that is a solver."""
    wait_seconds: float
    """For work, or for locks."""
    oracle_seconds: float
    """Inside the solver; what a table takes is nanoseconds, and counts as busy."""
    cpu_seconds: float | None = None
    """Of its thread, where that is known."""
    steal_seconds: float = 0.0
    """Giving work away, and going on with another's."""
    items: int = 0
    """Pieces of work."""
    given: int = 0
    """Of open work that it left to idle workers."""
    nodes: int = 0
    """Programs that it continued."""
    rank: int = 0
    spans: tuple[tuple[str, float, float], ...] = ()
    """What it did when: busy, waiting, stealing or oracle, from and to in seconds. Empty without a timeline."""


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
    closest: str = ""
    """Where there are no graphs: what stopped the nearest."""
    first_seconds: float | None = None
    """From the start until the first graph was reached; None where there is none, or nobody looked at the clock."""
    refused: int = 0
    """Graphs that verification did not accept, and that are not among `graphs`."""


AGREES = 1e-6
"""How far a graph's outputs may be from the program's in float64, in standard deviations."""


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
    return results_of(program, made, result, workers_of(result), counted(result), limits, plan)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a worker counted, apart from the engine."""

    states: int
    candidates: int
    shape: int
    phase: int
    table: int
    duplicate: int
    bound: int
    short_by: int


def counted(result: _core.Result) -> tuple[Counted, ...]:
    return tuple(
        Counted(c.states, c.candidates, c.shape, c.phase, c.table, c.duplicate, c.bound, c.short_by)
        for c in (worker.counters for worker in result.workers)
    )


def workers_of(result: _core.Result) -> tuple[Worker, ...]:
    return tuple(_worker(worker) for worker in result.workers)


def results_of(
    program: Named,
    made: _core.Engine,
    result: _core.Result,
    workers: Sequence[Worker],
    counters: Sequence[Counted],
    limits: Limits,
    plan: Plan,
    ended: tuple[str, str] | None = None,
) -> Results:
    """What an engine ranked, lowered and verified. `ended`: why, and the reason, where the engine does not know."""
    stop, reason = ended or (result.stop, result.incomplete)
    ranked = [lower(program, made, kernels) for kernels in made.graphs()]
    found, bounds = _verified(program, ranked, made, plan)
    return Results(
        stop=stop,
        reason=reason,
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
        workers=tuple(workers),
        closest="" if ranked else _closest(program, result, stop, counters, limits, plan),
        refused=len(ranked) - len(found),
    )


def _worker(worker: _core.Worker) -> Worker:
    return Worker(
        worker.counters.states,
        worker.times.busy_s,
        worker.times.wait_s,
        worker.times.oracle_s,
        steal_seconds=worker.times.steal_s,
        items=worker.items,
        given=worker.given,
        nodes=worker.nodes,
        spans=tuple(worker.times.spans),
    )


def _closest(
    program: Named, result: _core.Result, stop: str, counters: Sequence[Counted], limits: Limits, plan: Plan
) -> str:
    """Why nothing was found, in one sentence."""
    if result.incomplete:
        return f"The table of sub-values is incomplete: {result.incomplete}."
    ended = stop != "exhausted"
    # What a closure counts are kernels, which need not have led to the output yet.
    if result.graphs and not (ended and plan.kernels == "closure"):
        shared = min(limits.shared_bytes, target(plan.target).block_shared_bytes)
        return (
            f"All of the {result.graphs} µGraphs that were found have a kernel whose smallest tiles need more than "
            f"{shared} bytes of shared memory, more registers than there are, or more than {limits.blocks} blocks."
        )
    if ended:
        return "The search ended before it found any."
    kernels = min(limits.kernel_ops, limits.graph_defined_kernels)
    reads = len(program.inputs)
    if kernels == 1 and reads > limits.inputs:
        return (
            f"The program reads {reads} tensors, and one kernel may read {limits.inputs}: raise --inputs, or let "
            "several kernels share them with --graph-defined-kernels or --kernels closure."
        )
    lacked = min((c.short_by for c in counters if c.short_by), default=0)
    if lacked:
        more = f"{lacked} more operator{'s' * (lacked > 1)}"
        return f"The nearest needs at least {more} in a block than the {limits.block_ops} of --block-ops."
    return (
        f"No {kernels} kernel{'s' * (kernels > 1)} of up to {limits.block_ops} operators compute it: raise "
        "--block-ops or --graph-defined-kernels, or take --kernels closure."
    )


def _verified(
    program: Named, ranked: Sequence[Graph], made: _core.Engine, plan: Plan
) -> tuple[list[Found], list[float]]:
    """What is right by random evaluation in fields and, where the program is finite, in floating point too."""
    found: list[Found] = []
    bounds: list[float] = []
    for graph, kernels in zip(ranked, made.graphs(), strict=True):
        faults = check(graph)
        assert not faults, f"the engine makes well-formed graphs: {faults[0]}"
        verdict = verify(graph, program.graph, plan.seed)
        if not isinstance(verdict, Verified):
            continue
        apart = difference(graph, program.graph, plan.seed, verdict.order)
        if math.isfinite(apart) and apart > AGREES:
            continue
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
