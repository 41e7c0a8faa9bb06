"""The concrete space: the published search, kept as the baseline that is searched in parallel.

A graph grows by predefined kernels and by graph-defined ones, whose grids, maps and loops are tried with their numbers.
Sums are known by their degree alone, so that what reaches the target is a candidate until it is verified. What it finds
depends on program, limits and choices only, not on the number of threads.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilesmith import _core
from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import FIRST_LAUNCH_S, PORT_BYTES_PER_CLOCK, Gpu, target
from tilesmith.core.graph import Graph, Kernel, Limits, Op
from tilesmith.core.graph_check import BYTES, block, block_ops, check, shared_bytes, tensors
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt.concrete_lower import FoundGraph, FoundNode, lower
from tilesmith.superopt.concrete_program import Described, described
from tilesmith.superopt.engine import MAX_CLASSES, PASS_S
from tilesmith.superopt.heard import heard
from tilesmith.superopt.limits import Plan, checked
from tilesmith.superopt.search import Found, KernelSummary, Oracle, Pruned, Results, Worker
from tilesmith.superopt.verify import Verified, verify


@dataclass(frozen=True, slots=True)
class Choices:
    """What the space has of grids and loops. The defaults are those of the published code."""

    bounded: bool = True
    """Under the rules of the paper, cut where more values are unused than the operators left could join."""
    tiles: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """A grid leaves that much of some dimension to each block."""
    loops: tuple[int, ...] = (4, 16, 64)
    least_blocks: int = 32
    most_blocks: int = 4096


def published(program: Graph) -> Limits:
    """Those of the published code: 9 operators of a block, 5 of the graph with its inputs, one graph-defined kernel."""
    return Limits(kernel_ops=max(1, 5 - len(program.inputs)), block_ops=9, inputs=3, shared_bytes=96 << 10)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a worker did, and why candidates were not grown."""

    states: int
    candidates: int
    tested: int
    """Graphs with as many results as the program."""
    shape: int
    phase: int
    memory: int
    oracle: int
    bound: int
    unsound: int
    """Graphs that reach the target by gathering what does not vary over the loop."""
    roots: int
    calls: int
    """Of z3; what a cache answered is in `hits`."""
    hits: int
    unknown: int
    only_oracle: int
    """Expressions that z3 accepts and the table does not."""
    only_table: int
    frontier: int
    """The most states that waited at once."""
    depths: tuple[int, ...]
    """States, by how many steps led to them."""
    given: int
    """Pieces of open work that it left to idle workers."""
    taken: int
    """The same of others, with which it went on."""
    busy_seconds: float
    wait_seconds: float
    """For work and for shared answers."""
    steal_seconds: float
    oracle_seconds: float
    lock_seconds: float
    """Of what it waited: for shared answers."""
    cpu_seconds: float
    spans: tuple[tuple[str, float, float], ...]
    """What it did when; empty without a timeline."""
    first_seconds: float
    """When the first graph was reached; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What a search found, by root: candidates, not verified."""

    program: Described
    stop: str
    reason: str
    classes: int
    rows: int
    table_seconds: float
    roots: int
    unfit_roots: int
    """Whose loads alone do not fit into shared memory."""
    seconds: float
    """Of the table, the roots and the search."""
    found: tuple[FoundGraph, ...]
    beginning: Counted
    """What comes before the roots."""
    workers: tuple[Counted, ...]

    @property
    def counts(self) -> tuple[Counted, ...]:
        return (self.beginning, *self.workers)


@dataclass(slots=True)
class Space:
    """A space with its roots, for whoever deals them out."""

    program: Described
    made: _core.ConcreteSearch
    roots: int
    began_s: float
    """When it began to be made, of the monotonic clock."""

    def search_root(self, index: int) -> tuple[list[FoundGraph], Counted]:
        """What is under a root; the same whoever asks and when."""
        found, counts = self.made.search_root(index)
        return found, counted(counts)


def space(graph: Graph, limits: Limits, plan: Plan, choices: Choices | None = None) -> Space:
    """The space of a program: its table and its roots. Raises `OptionError` for what it does not know."""
    choices, coded = choices or Choices(), plan.rules == "code"
    began_s = time.monotonic()
    checked(limits, plan)
    if not choices.tiles or not choices.loops:
        raise OptionError("The concrete space needs a tile and a loop to try.")
    program = described(graph, opaque_norms=coded)
    degrees = program.degrees
    try:
        made = _core.ConcreteSearch(
            inputs=program.inputs,
            outputs=program.outputs,
            primes=degrees.primes,
            functions=degrees.function_rows,
            nodes=degrees.nodes,
            targets=degrees.outputs,
            unary=program.unary,
            norms=[(norm.extent, norm.root) for norm in program.norms],
            transposes=program.transposes,
            subtracts=program.subtracts,
            element_bytes=program.element_bytes,
            as_coded=coded,
            bounded=choices.bounded and not coded,
            heads=all(len(tensor.dims) == 3 for tensor in graph.inputs),
            tiles=choices.tiles,
            loops=choices.loops,
            least_blocks=choices.least_blocks,
            most_blocks=min(choices.most_blocks, limits.blocks),
            kernel_ops=limits.kernel_ops,
            block_ops=limits.block_ops,
            graph_defined=limits.graph_defined_kernels,
            loads=limits.inputs,
            stores=limits.outputs,
            shared_bytes=limits.shared_bytes,
            oracle_every=plan.oracle_every,
            max_classes=MAX_CLASSES,
            seconds=plan.seconds or 0.0,
        )
    except ValueError as fault:
        raise OptionError(f"The concrete space cannot be searched: {fault}.") from None
    if plan.oracle == "z3":
        made.ask_z3(_core.Z3(str(libz3())), plan.oracle_cache, plan.oracle_effort)
    if plan.order == "bfs":
        made.breadth_first(plan.frontier_bytes)
    return Space(program, made, heard(made.roots, made.interrupt), began_s)


def libz3() -> Path:
    """The library of the z3-solver package. Raises `OptionError` without one."""
    spec = importlib.util.find_spec("z3")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for name in ("libz3.so", "libz3.dylib"):
            if (path := Path(folder) / "lib" / name).exists():
                return path
    raise OptionError("The z3 oracle needs z3; install it with: pip install z3-solver")


def explore(graph: Graph, limits: Limits, plan: Plan, choices: Choices | None = None) -> Explored:
    """Every candidate of the space, not verified. `plan.schedule` static deals roots out, otherwise they are pulled.

    Ctrl-C ends the search, not the program: what was found until then is the result.
    """
    made = space(graph, limits, plan, choices)
    native = made.made
    found: list[FoundGraph] = list(native.predefined)
    counts: list[_core.ConcreteCounts] = []
    if not plan.max_graphs or len(found) < plan.max_graphs:
        dealt, most = plan.schedule == "static", plan.max_graphs or 0
        rooted, counts = heard(lambda: native.run(plan.threads, dealt, most, plan.timeline), native.interrupt)
        found += [graph for _, graph in rooted]
    return explored(made, found, [counted(count) for count in counts])


def explored(
    made: Space, found: Sequence[FoundGraph], workers: Sequence[Counted], ended: tuple[str, str] | None = None
) -> Explored:
    """What workers found and did. `ended`: why, and the reason, where the space does not know."""
    native = made.made
    incomplete = native.incomplete
    stop, reason = ended or (native.stop, "")
    return Explored(
        made.program,
        "incomplete" if incomplete else stop,
        incomplete or reason,
        native.classes,
        native.rows,
        native.table_s,
        made.roots,
        native.unfit_roots,
        time.monotonic() - made.began_s,
        tuple(found),
        counted(native.root_counts),
        tuple(workers),
    )


def counted(counts: _core.ConcreteCounts) -> Counted:
    return Counted(
        counts.states, counts.candidates, counts.tested, counts.shape, counts.phase, counts.memory, counts.oracle,
        counts.bound, counts.unsound, counts.roots, counts.calls, counts.hits, counts.unknown,
        counts.only_oracle, counts.only_table, counts.frontier, tuple(counts.depths),
        counts.given, counts.taken, counts.times.busy_s, counts.times.wait_s, counts.times.steal_s,
        counts.times.oracle_s, counts.lock_s, counts.cpu_s, tuple(counts.times.spans), counts.first_s,
    )  # fmt: skip


# Verification -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Structure:
    """Candidates that differ in the numbers of their grids and loops alone; the verdict on one is that on all."""

    verified: Verified | None
    members: tuple[FoundGraph, ...]


def structures(explored: Explored, seed: int) -> tuple[Structure, ...]:
    """The candidates by structure, with the verdict on the first of each."""
    groups: dict[tuple[object, ...], list[FoundGraph]] = {}
    for found in explored.found:
        groups.setdefault(_structure(explored.program, found), []).append(found)
    return tuple(Structure(_verdict(explored.program, members[0], seed), tuple(members)) for members in groups.values())


def _structure(program: Described, found: FoundGraph) -> tuple[object, ...]:
    """Without numbers, but for where a tile has an extent of 1, along which it would broadcast."""
    return (*(_node_structure(program, node) for node in found[0]), tuple(found[1]))


def _node_structure(program: Described, node: FoundNode) -> tuple[object, ...]:
    if len(node) == 4:
        return tuple(node)
    grid, loop, loads, body, stored, omap = node
    cut = []
    for source, imap, fmap in loads:
        dims = list(program.inputs[source]) if source < len(program.inputs) else []
        for axis, dim in enumerate(imap):
            if dim >= 0 and dims:
                dims[dim] //= grid[axis]
        if fmap >= 0 and dims:
            dims[fmap] //= loop
        cut.append((source, tuple(imap), fmap, tuple(extent == 1 for extent in dims)))
    return tuple(extent > 1 for extent in grid), loop > 1, tuple(cut), tuple(body), tuple(stored), tuple(omap)


def _verdict(program: Described, found: FoundGraph, seed: int) -> Verified | None:
    graph = lower(program, found)
    if check(graph):
        return None
    verdict = verify(graph, program.graph, seed)
    return verdict if isinstance(verdict, Verified) else None


def search(graph: Graph, limits: Limits, plan: Plan, choices: Choices | None = None) -> Results:
    """The graphs of the concrete space that compute the program, verified; the `plan.keep` fastest by estimate.

    Raises `OptionError` for a program that the space does not know, or for limits of nothing.
    """
    return results_of(explore(graph, limits, plan, choices), graph, plan)


def results_of(explored: Explored, graph: Graph, plan: Plan) -> Results:
    """What was found, verified and ranked."""
    began = time.monotonic()
    gpu = target(plan.target)
    good = [s for s in structures(explored, plan.seed) if s.verified is not None]
    ranked: list[tuple[float, str, Graph, tuple[KernelSummary, ...]]] = []
    for structure in good:
        for member in structure.members:
            made = lower(explored.program, member)
            summaries = tuple(_summaries(made, gpu))
            ranked.append((sum(summary.estimate_us for summary in summaries), graph_hash(made), made, summaries))
    ranked.sort(key=lambda entry: entry[:2])
    graphs: dict[str, Found] = {}
    bounds: list[float] = []
    for estimate_us, identity, made, summaries in ranked:
        if len(graphs) == plan.keep:
            break
        # Limits hold as the space counts: a norm is one operator, and what is computed in place takes no memory.
        if identity in graphs or check(made):
            continue
        verdict = verify(made, graph, plan.seed)
        if not isinstance(verdict, Verified):
            continue
        bounds.append(verdict.bound)
        ops = max((block_ops(node) for node in made.nodes if isinstance(node, Kernel)), default=0)
        graphs[identity] = Found(identity, made, estimate_us, summaries, ops)
    counts = explored.counts
    table = plan.oracle == "table"
    return Results(
        stop=explored.stop,
        reason=explored.reason,
        seconds=explored.seconds,
        table_seconds=explored.table_seconds,
        rank_seconds=time.monotonic() - began,
        states=sum(c.states for c in counts),
        candidates=sum(len(s.members) for s in good),
        pruned=Pruned(
            shape=sum(c.shape for c in counts),
            phase=sum(c.phase for c in counts),
            table=sum(c.oracle for c in counts),
            duplicate=0,
            bound=sum(c.bound for c in counts),
            unfit=sum(c.memory for c in counts),
        ),
        oracle=Oracle(
            plan.oracle,
            explored.classes,
            explored.rows,
            not explored.reason,
            sum(c.candidates for c in counts) if table else sum(c.calls + c.hits for c in counts),
            explored.table_seconds if table else sum(c.oracle_seconds for c in counts),
            calls=sum(c.calls for c in counts),
            hits=sum(c.hits for c in counts),
            undecided=sum(c.unknown for c in counts),
            wait_seconds=sum(c.lock_seconds for c in counts),
        ),
        verified=len(graphs),
        error_bound=max(bounds, default=1.0),
        graphs=tuple(graphs.values()),
        workers=tuple(worker(c) for c in explored.workers),
        first_seconds=min((c.first_seconds for c in counts if c.first_seconds), default=None),
    )


def worker(c: Counted) -> Worker:
    return Worker(
        c.states,
        c.busy_seconds,
        c.wait_seconds,
        c.oracle_seconds,
        cpu_seconds=c.cpu_seconds,
        steal_seconds=c.steal_seconds,
        items=c.roots + c.taken,
        given=c.given,
        spans=c.spans,
    )


# Estimates ----------------------------------------------------------------------------------------------------------


def _summaries(graph: Graph, gpu: Gpu) -> Iterator[KernelSummary]:
    """A roofline of each kernel: bytes of device memory, traffic of the second-level cache, products."""
    made = tensors(graph)
    value = len(graph.inputs)
    for node in graph.nodes:
        if isinstance(node, Kernel):
            yield _kernel_summary(node, graph, value, gpu)
            value += len(node.stores)
            continue
        if node.operator not in ("reshape", "permute", "constant"):
            used = (*node.operands, value)
            moved = float(sum(_bytes(made[v].dims, BYTES[made[v].dtype]) for v in used))
            flops = 0.0
            if node.operator == "matmul":
                flops = 2.0 * _bytes(made[value].dims, 1) * made[node.operands[0]].dims[-1]
            yield _rated((), 1, moved, moved, flops, 0, gpu)
        value += 1


def _kernel_summary(kernel: Kernel, graph: Graph, first: int, gpu: Gpu) -> KernelSummary:
    made = tensors(graph)
    inside = block(kernel, made)
    blocks = _bytes(kernel.grid, 1)
    stored = sum(_bytes(t.dims, BYTES[t.dtype]) for t in made[first : first + len(kernel.stores)])
    read = sum(_bytes(made[s].dims, BYTES[made[s].dtype]) for s in {load.source for load in kernel.loads})
    traffic = float(stored)
    for load, tile in zip(kernel.loads, inside.tiles, strict=False):
        passes = kernel.loop if load.fmap is not None else 1
        traffic += blocks * passes * _bytes(tile.dims, BYTES[tile.dtype])
    flops = 0.0
    for place, step in enumerate(kernel.body, len(kernel.loads)):
        if isinstance(step, Op) and step.operator == "matmul":
            varies = inside.phases[place].value == "varying"
            inner = inside.tiles[step.operands[0]].dims[-1]
            flops += 2.0 * _bytes(inside.tiles[place].dims, 1) * inner * blocks * (kernel.loop if varies else 1)
    return _rated(kernel.grid, kernel.loop, float(read + stored), traffic, flops, shared_bytes(kernel, made), gpu)


def _rated(
    grid: tuple[int, ...], loop: int, moved: float, traffic: float, flops: float, shared: int, gpu: Gpu
) -> KernelSummary:
    blocks = _bytes(grid, 1)
    waves = -(-blocks // gpu.multiprocessors)
    share = blocks / (waves * gpu.multiprocessors)
    l2 = PORT_BYTES_PER_CLOCK * gpu.clock_hz * gpu.multiprocessors
    whole = 1.0 if not grid else share
    seconds = max(moved / gpu.readable_bytes_per_s, traffic / (l2 * whole), flops / (gpu.matrix_flops("fp16") * whole))
    seconds += FIRST_LAUNCH_S + waves * loop * PASS_S
    return KernelSummary(grid, loop, 1e6 * seconds, moved, traffic, flops, shared)


def _bytes(dims: Sequence[int], element: int) -> int:
    total = element
    for extent in dims:
        total *= extent
    return total
