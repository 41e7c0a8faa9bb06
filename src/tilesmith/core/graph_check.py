"""Whether a µGraph is well formed, within limits, and what its values are. Everything wrong is said with its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Graph, Kernel, Limits, Load, Node, Op, Step, Store, Tensor, Thread
from tilesmith.core.operators import OPERATORS, Misfit, result_dims
from tilesmith.core.problem import Dtype

BYTES: dict[Dtype, int] = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2}
ACCUMULATOR_BYTES = 4
"""Sums are kept in float32."""


class Phase(Enum):
    """When a value of a kernel exists."""

    INVARIANT = "invariant"
    """The same in every iteration."""
    VARYING = "varying"
    """Another one in every iteration."""
    AFTER = "after"
    """Only once the loop has ended."""


@dataclass(frozen=True, slots=True)
class Block:
    """What the values of a kernel are: the tiles of its loads and steps, their phases, the tensors that it stores."""

    tiles: tuple[Tensor, ...]
    phases: tuple[Phase, ...]
    stored: tuple[Tensor, ...]


def promote(operands: Sequence[Tensor]) -> Dtype:
    """The dtype of a result, as in PyTorch: a number without dimensions counts only among its like."""
    kinds = {tensor.dtype for tensor in operands if tensor.dims} or {tensor.dtype for tensor in operands}
    if len(kinds) == 1:
        return kinds.pop()
    return "fp64" if "fp64" in kinds else "fp32"


def check(graph: Graph, limits: Limits | None = None) -> tuple[str, ...]:
    """Everything that is wrong with a graph, each in one sentence with its place; empty for a good one."""
    made, faults = _infer(graph)
    if not faults and limits is not None:
        faults = tuple(_excess(graph, made, limits))
    return faults


def tensors(graph: Graph) -> tuple[Tensor, ...]:
    """Every value of a graph: inputs, then what the nodes make. Raises `OptionError` with the first fault."""
    made, faults = _infer(graph)
    if faults:
        raise OptionError(f"The graph is malformed: {faults[0]}.")
    return made


def apply(op: Op, made: Sequence[Tensor | None]) -> Tensor:
    """What an operator makes, given every value before it. Raises `Misfit`."""
    if any(not 0 <= value < len(made) for value in op.operands):
        raise Misfit("it refers to a value that is not made before it")
    operands = [tensor for value in op.operands if (tensor := made[value]) is not None]
    dims = result_dims(op, [tensor.dims for tensor in operands])
    if op.dtype is not None and op.dtype not in BYTES:
        raise Misfit(f"there is no dtype {op.dtype!r}")
    return Tensor(dims, op.dtype or (promote(operands) if operands else "fp32"))


def block(kernel: Kernel, sources: Sequence[Tensor | None]) -> Block:
    """The tiles, phases and results of a kernel, given every value of the graph before it. Raises `Misfit`."""
    made, phases = tiles(kernel, sources)
    if not kernel.stores:
        raise Misfit("it stores nothing")
    bare = Block(made, phases, ())
    return replace(bare, stored=tuple(_store(kernel, place, store, bare) for place, store in enumerate(kernel.stores)))


def tiles(kernel: Kernel, sources: Sequence[Tensor | None]) -> tuple[tuple[Tensor, ...], tuple[Phase, ...]]:
    """What a kernel loads and computes, and when, whatever it stores. Raises `Misfit`."""
    if any(extent < 1 for extent in (*kernel.grid, kernel.loop)):
        raise Misfit("its grid or its loop has an extent below 1")
    made: list[Tensor] = []
    phases: list[Phase] = []
    for place, load in enumerate(kernel.loads):
        source = sources[load.source]
        assert source is not None, "the caller leaves out kernels whose sources are unknown"
        tile, phase = _load(kernel, place, load, source)
        made.append(tile)
        phases.append(phase)
    for place, step in enumerate(kernel.body, len(kernel.loads)):
        try:
            tile, phase = _step(kernel, step, made, phases)
        except Misfit as misfit:
            raise Misfit(f"value {place} ({label(step)}): {misfit}") from None
        made.append(tile)
        phases.append(phase)
    return tuple(made), tuple(phases)


def label(node: Step | Kernel) -> str:
    """A short name for messages and drawings."""
    if isinstance(node, Op):
        return node.operator
    if isinstance(node, Accumulate):
        return f"accumulate {node.how}"
    if isinstance(node, Thread):
        return "thread " + "·".join(op.operator for op in node.ops)
    return "kernel"


def shared_bytes(kernel: Kernel, sources: Sequence[Tensor]) -> int:
    """The shared memory of one block in bytes: the most that is alive at once, with one buffer for every load.

    Loads that the loop cuts and accumulators live as long as the loop; what is computed lives until its last use.
    Views and constants have no memory of their own.
    """
    made = block(kernel, sources)
    first, count = len(kernel.loads), len(made.tiles)
    owner = list(range(count))
    for value, step in enumerate(kernel.body, first):
        if isinstance(step, Op) and OPERATORS[step.operator].kind == "view":
            owner[value] = owner[step.operands[0]]
    last = [-1] * count
    for value, step in enumerate(kernel.body, first):
        for operand in step.operands:
            last[owner[operand]] = max(last[owner[operand]], value)
    for store in kernel.stores:
        last[owner[store.source]] = count
    in_loop = [value for value in range(first, count) if made.phases[value] is Phase.VARYING]
    gathered = [value for value, step in enumerate(kernel.body, first) if isinstance(step, Accumulate)]
    loop_end = max([*in_loop, *gathered], default=first)

    def size(value: int) -> int:
        tile = made.tiles[value]
        step = kernel.body[value - first] if value >= first else None
        if owner[value] != value or (isinstance(step, Op) and step.operator == "constant"):
            return 0
        return math.prod(tile.dims) * (ACCUMULATOR_BYTES if isinstance(step, Accumulate) else BYTES[tile.dtype])

    def alive(value: int, now: int) -> bool:
        step = kernel.body[value - first] if value >= first else None
        if value < first or isinstance(step, Accumulate):
            return now <= max(last[value], loop_end)
        # What does not change is needed again in the next iteration.
        held = loop_end if made.phases[value] is Phase.INVARIANT and last[value] <= loop_end else -1
        return value <= now <= max(last[value], held)

    return max((sum(size(v) for v in range(count) if alive(v, now)) for now in range(first, count + 1)), default=0)


def block_ops(kernel: Kernel) -> int:
    """How many operators a kernel counts: loads, operators and accumulators; not constants, views or stores."""
    ops = [op for step in kernel.body for op in (step.ops if isinstance(step, Thread) else (step,))]
    return len(kernel.loads) + sum(isinstance(op, Accumulate) or _counts(op) for op in ops)


def kernel_ops(graph: Graph) -> int:
    """How many kernels a graph launches, predefined ones and its own; not constants or views."""
    return sum(isinstance(node, Kernel) or _counts(node) for node in graph.nodes)


def _counts(op: Op) -> bool:
    return OPERATORS[op.operator].kind not in ("view", "constant")


# The graph -----------------------------------------------------------------------------------------------------------


def _sources(node: Node) -> tuple[int, ...]:
    return node.operands if isinstance(node, Op) else tuple(load.source for load in node.loads)


def _infer(graph: Graph) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Every value, and every fault. Where there are faults the values are incomplete."""
    faults = list(_input_faults(graph))
    made: list[Tensor | None] = list(graph.inputs)
    for place, node in enumerate(graph.nodes):
        count = 1 if isinstance(node, Op) else len(node.stores)
        where = f"node {place} ({label(node)})"
        wild = [value for value in _sources(node) if not 0 <= value < len(made)]
        if wild:
            # Numbers after this one may be off: nothing more can be said.
            return (), (*faults, f"{where}: value {wild[0]} is not made before it")
        if any(made[value] is None for value in _sources(node)):
            made += [None] * count
            continue
        try:
            made += [apply(node, made)] if isinstance(node, Op) else block(node, made).stored
        except Misfit as misfit:
            faults.append(f"{where}: {misfit}")
            made += [None] * count
    if not graph.outputs:
        faults.append("it has no outputs")
    faults += [f"output {value} is not among its {len(made)} values" for value in graph.outputs
               if not 0 <= value < len(made)]  # fmt: skip
    return tuple(tensor for tensor in made if tensor is not None), tuple(faults)


def _input_faults(graph: Graph) -> Iterator[str]:
    names = [tensor.name for tensor in graph.inputs]
    for place, tensor in enumerate(graph.inputs):
        if not tensor.name:
            yield f"input {place} has no name"
        elif names.index(tensor.name) != place:
            yield f"inputs {names.index(tensor.name)} and {place} are both named {tensor.name!r}"
        if any(extent < 1 for extent in tensor.dims):
            yield f"input {tensor.name!r} has an extent below 1"
        if tensor.dtype not in BYTES:
            yield f"input {tensor.name!r} has the unknown dtype {tensor.dtype!r}"


def _excess(graph: Graph, made: Sequence[Tensor], limits: Limits) -> Iterator[str]:
    kernels = [node for node in graph.nodes if isinstance(node, Kernel)]
    if len(kernels) > limits.graph_defined_kernels:
        yield f"it defines {len(kernels)} kernels, more than the limit of {limits.graph_defined_kernels}"
    if kernel_ops(graph) > limits.kernel_ops:
        yield f"it has {kernel_ops(graph)} kernels, more than the limit of {limits.kernel_ops}"
    for place, node in enumerate(graph.nodes):
        if not isinstance(node, Kernel):
            continue
        for what, count, limit in (
            ("operators in a block", block_ops(node), limits.block_ops),
            ("inputs", len(node.loads), limits.inputs),
            ("outputs", len(node.stores), limits.outputs),
            ("blocks", math.prod(node.grid), limits.blocks),
            ("bytes of shared memory", shared_bytes(node, made), limits.shared_bytes),
        ):
            if count > limit:
                yield f"node {place} (kernel): {count} {what}, more than the limit of {limit}"


# The block -----------------------------------------------------------------------------------------------------------


def _load(kernel: Kernel, place: int, load: Load, source: Tensor) -> tuple[Tensor, Phase]:
    dims = list(source.dims)
    cuts = [axis for axis in load.imap if axis is not None]
    if len(load.imap) != len(kernel.grid):
        raise Misfit(f"load {place}: imap has {len(load.imap)} entries for a grid of {len(kernel.grid)} axes")
    if len(set(cuts)) != len(cuts):
        raise Misfit(f"load {place}: two axes of the grid cut dimension {max(cuts, key=cuts.count)}")
    parts = [*zip(load.imap, kernel.grid, strict=True), (load.fmap, kernel.loop)]
    for axis, count in parts:
        if axis is None:
            continue
        if not 0 <= axis < len(dims):
            raise Misfit(f"load {place}: there is no dimension {axis} in a tensor of {len(dims)}")
        if dims[axis] % count:
            raise Misfit(f"load {place}: {count} parts of dimension {axis}, {dims[axis]} long, would not be equal")
        dims[axis] //= count
    return Tensor(tuple(dims), source.dtype), Phase.INVARIANT if load.fmap is None else Phase.VARYING


def _step(kernel: Kernel, step: Step, tiles: Sequence[Tensor], phases: Sequence[Phase]) -> tuple[Tensor, Phase]:
    wild = [value for value in step.operands if not 0 <= value < len(tiles)]
    if wild:
        raise Misfit(f"value {wild[0]} is not made before it")
    used = {phases[value] for value in step.operands}
    if isinstance(step, Accumulate):
        if used != {Phase.VARYING}:
            raise Misfit("it gathers what does not vary over the loop")
        return _gathered(kernel, step, [tiles[value] for value in step.operands]), Phase.AFTER
    if used >= {Phase.VARYING, Phase.AFTER}:
        raise Misfit("it joins a value of one iteration with one that exists only after the loop")
    phase = next((p for p in (Phase.VARYING, Phase.AFTER) if p in used), Phase.INVARIANT)
    if isinstance(step, Op):
        return apply(step, tiles), phase
    if not step.ops:
        raise Misfit("a thread without operators")
    inner = [tiles[value] for value in step.operands]
    for op in step.ops:
        if op.operator in OPERATORS and OPERATORS[op.operator].kind not in ("element-wise", "constant"):
            raise Misfit(f"{op.operator} is not element-wise")
        if any(not 0 <= value < len(inner) for value in op.operands):
            raise Misfit(f"{op.operator} refers to a value that is not made before it")
        inner.append(apply(op, inner))
    return inner[-1], phase


def _gathered(kernel: Kernel, step: Accumulate, operands: Sequence[Tensor]) -> Tensor:
    first = operands[0]
    if step.how == "rescale":
        if len(operands) == 1:
            made = result_dims(Op("sum", (0,), axes=(len(first.dims) - 1,)), [first.dims])
        else:
            made = result_dims(Op("matmul", (0, 1)), [tensor.dims for tensor in operands])
        if len(operands) > 2 or step.axes:
            raise Misfit("rescale takes scores, or scores and values, and no axes")
        return Tensor(made, promote(operands))
    if len(operands) != 1:
        raise Misfit(f"{step.how} takes 1 operand, not {len(operands)}")
    if step.how == "concat":
        if len(step.axes) != 1 or not 0 <= step.axes[0] < len(first.dims):
            raise Misfit("concat takes the one axis along which the tiles lie")
        dims = tuple(e * kernel.loop if axis in step.axes else e for axis, e in enumerate(first.dims))
        return Tensor(dims, first.dtype)
    if step.how not in ("sum", "max"):
        raise Misfit(f"there is no accumulator {step.how!r}")
    if not step.axes:
        return first
    return Tensor(result_dims(Op("sum", (0,), axes=step.axes), [first.dims]), first.dtype)


def _store(kernel: Kernel, place: int, store: Store, made: Block) -> Tensor:
    if not 0 <= store.source < len(made.tiles):
        raise Misfit(f"store {place}: value {store.source} is not among the {len(made.tiles)} of the kernel")
    if made.phases[store.source] is Phase.VARYING:
        raise Misfit(f"store {place}: value {store.source} is that of one iteration; accumulate it first")
    if len(store.omap) != len(kernel.grid):
        raise Misfit(f"store {place}: omap has {len(store.omap)} entries for a grid of {len(kernel.grid)} axes")
    tile = made.tiles[store.source]
    dims = list(tile.dims)
    used = [axis for axis in store.omap if axis is not None]
    for grid_axis, (axis, count) in enumerate(zip(store.omap, kernel.grid, strict=True)):
        if axis is None and count > 1:
            raise Misfit(f"store {place}: the {count} blocks along axis {grid_axis} of the grid write the same cells")
        if axis is not None:
            if not 0 <= axis < len(dims) or used.count(axis) > 1:
                raise Misfit(f"store {place}: axis {grid_axis} of the grid cannot lie along dimension {axis}")
            dims[axis] *= count
    return Tensor(tuple(dims), tile.dtype)
