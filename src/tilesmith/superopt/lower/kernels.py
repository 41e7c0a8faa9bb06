"""Every operator between kernels as a small kernel of its own, and macros spelled the way that they can run.

A grid axis or a loop of extent 1 still says which dimension it cuts: the lowering chooses its tiles. So a predefined
operator becomes a kernel whose grid axes are its batch (one element each) and, cut into one part, the dimensions along
which tiles lie; its sums are loops of one iteration.

A softmax is shifted by its maximum here, which exact arithmetic does not need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from tilesmith.core.graph import Accumulate, Dims, Graph, Kernel, Load, Node, Op, Step, Store, Tensor, Thread
from tilesmith.core.graph_check import apply, block, tensors
from tilesmith.core.operators import OPERATORS, broadcast
from tilesmith.superopt.lower.forms import factored, joins, laned, spread, summed_at_once, walked
from tilesmith.superopt.lower.upright import upright
from tilesmith.superopt.macros import spell
from tilesmith.superopt.needed import needed, pruned

SMALL_IMAGE = 1 << 10
"""Places of windows, but for those of the first dimension, that do not fill a program."""
WHOLE_ROW = 1 << 15
"""Elements of a row that one program holds; longer ones are walked along."""

Emit = Callable[[Op], int]


def prepared(graph: Graph, library: bool) -> Graph:
    """The same program of kernels, views, joins and constants; with `library`, also of products.

    Raises `OptionError` for a malformed graph.
    """
    made = tensors(graph)
    number = {value: value for value in range(len(graph.inputs))}
    known = list(graph.inputs)
    constants: dict[int, Fraction] = {}
    nodes: list[Node] = []
    value = len(graph.inputs)

    def emit(op: Op) -> int:
        row = OPERATORS[op.operator]
        stays = row.kind in ("view", "join", "constant") or (library and row.kind == "contraction")
        if row.kind == "macro" and not _fits(op, known):
            return _stable(op, known, emit)
        known.append(apply(op, known))
        if op.operator == "constant":
            constants[len(known) - 1] = op.values[0]
        nodes.append(op if stays else _alone(op, known[:-1], constants))
        return len(known) - 1

    turns = _turns(graph)
    for node in graph.nodes:
        if isinstance(node, Op):
            turned = node.operator == "permute" and node.operands[0] in turns
            moved = replace(node, operands=tuple(number[o] for o in node.operands))
            number[value] = moved.operands[0] if turned else emit(moved)
            value += 1
            continue
        stored = range(value, value + len(node.stores))
        straight = spelled(_turned(node, [turns.get(each) for each in stored]), made)
        straight = upright(straight, made, [made[each].dims for each in stored])
        lanes = laned(straight, made)
        loads = []
        for load, order in zip(lanes.kernel.loads, lanes.orders, strict=True):
            source = number[load.source]
            if order != tuple(range(len(order))):
                source = emit(Op("permute", (source,), axes=order))
            loads.append(replace(load, source=source))
        nodes.append(replace(lanes.kernel, loads=tuple(loads)))
        for value in stored:
            number[value] = len(known)
            axes = turns.get(value, tuple(range(len(made[value].dims))))
            known.append(replace(made[value], dims=tuple(made[value].dims[axis] for axis in axes)))
        value = stored.stop
    return needed(Graph(graph.inputs, tuple(nodes), tuple(number[output] for output in graph.outputs)))


def _turns(graph: Graph) -> dict[int, tuple[int, ...]]:
    """Values of kernels that are only wanted with their dimensions in another order, with that order."""
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        used = node.operands if isinstance(node, Op) else [load.source for load in node.loads]
        for value in used:
            readers.setdefault(value, []).append(node)
    turns: dict[int, tuple[int, ...]] = {}
    value = len(graph.inputs)
    for node in graph.nodes:
        if isinstance(node, Op):
            value += 1
            continue
        for store in node.stores:
            only = readers.get(value, [])
            turner = only[0] if len(only) == 1 and value not in graph.outputs else None
            joined = store.source >= len(node.loads) and joins(node.body[store.source - len(node.loads)])
            if isinstance(turner, Op) and turner.operator == "permute" and not joined:
                turns[value] = turner.axes
            value += 1
    return turns


def _turned(kernel: Kernel, orders: Sequence[tuple[int, ...] | None]) -> Kernel:
    """A kernel that stores its tensors with their dimensions in other orders."""
    body, stores = list(kernel.body), []
    for store, order in zip(kernel.stores, orders, strict=True):
        if order is None:
            stores.append(store)
            continue
        body.append(Op("permute", (store.source,), axes=order))
        omap = tuple(None if dim is None else order.index(dim) for dim in store.omap)
        stores.append(Store(len(kernel.loads) + len(body) - 1, omap))
    return replace(kernel, body=tuple(body), stores=tuple(stores))


# Inside kernels ------------------------------------------------------------------------------------------------------


def spelled(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    """A kernel in primitives: macros and threads spelled out, products of joined matrices as sums of products."""
    tiles = block(kernel, sources).tiles
    known = list(tiles[: len(kernel.loads)])
    number = {value: value for value in range(len(known))}
    body: list[Step] = []
    joins: dict[int, Op] = {}

    def emit(op: Op) -> int:
        if op.operator == "matmul" and op.operands[0] in joins and op.operands[1] in joins:
            left, right = (joins[operand] for operand in op.operands)
            if _same_cuts(left, right, known):
                return _summed(left, right, emit)
        if OPERATORS[op.operator].kind == "macro":
            return _stable(op, known, emit)
        body.append(op)
        known.append(apply(op, known))
        if op.operator == "concat":
            joins[len(known) - 1] = op
        return len(known) - 1

    for value, step in enumerate(kernel.body, len(kernel.loads)):
        operands = tuple(number[operand] for operand in step.operands)
        if isinstance(step, Accumulate):
            number[value] = len(known)
            body.append(replace(step, operands=operands))
            known.append(tiles[value])
            continue
        inner = list(operands)
        for op in step.ops if isinstance(step, Thread) else (step,):
            used = tuple(inner[o] for o in op.operands) if isinstance(step, Thread) else operands
            inner.append(emit(replace(op, operands=used)))
        number[value] = inner[-1]
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    made = pruned(replace(kernel, body=tuple(body), stores=stores))
    return summed_at_once(spread(walked(factored(made, sources), sources), sources))


def _same_cuts(left: Op, right: Op, known: Sequence[Tensor]) -> bool:
    """Whether both join the dimension over which they are multiplied, at the same places."""
    ranks = len(known[left.operands[0]].dims), len(known[right.operands[0]].dims)
    if left.axes != (ranks[0] - 1,) or right.axes != (ranks[1] - 2,):
        return False
    return [known[o].dims[-1] for o in left.operands] == [known[o].dims[-2] for o in right.operands]


def _summed(left: Op, right: Op, emit: Emit) -> int:
    total = -1
    for x, y in zip(left.operands, right.operands, strict=True):
        made = emit(Op("matmul", (x, y)))
        total = made if total < 0 else emit(Op("add", (total, made)))
    return total


def _stable(op: Op, known: Sequence[Tensor], emit: Emit) -> int:
    if op.operator != "softmax":
        return spell(op, known, emit)
    (x,) = op.operands
    shifted = emit(Op("sub", (x, emit(Op("amax", (x,), axes=op.axes)))))
    e = emit(Op("exp", (shifted,)))
    return emit(Op("div", (e, emit(Op("sum", (e,), axes=op.axes)))))


# Predefined operators ------------------------------------------------------------------------------------------------


def _fits(op: Op, known: Sequence[Tensor]) -> bool:
    """Whether a macro is one kernel that holds the rows over which it goes."""
    if op.windows:
        return op.operator != "convolve"
    return math.prod(known[op.operands[0]].dims[axis] for axis in op.axes) <= WHOLE_ROW


def _alone(op: Op, known: Sequence[Tensor], constants: dict[int, Fraction]) -> Kernel:
    """One operator as a kernel of its own."""
    kind = OPERATORS[op.operator].kind
    shapes = [known[operand].dims for operand in op.operands]
    if kind == "contraction":
        return _product(op, shapes)
    if kind == "element-wise":
        return _elementwise(op, shapes, constants)
    if op.windows:
        return _windows(op, known[op.operands[0]])
    x = shapes[0]
    kept = [axis for axis, extent in enumerate(x) if axis not in op.axes and extent > 1]
    walked = max(op.axes, key=lambda axis: (x[axis], axis))
    if kind == "reduction" and math.prod(x[axis] for axis in op.axes) > WHOLE_ROW:
        step: Step = Accumulate("sum" if op.operator == "sum" else "max", (0,), op.axes)
        return _kernel(op, shapes, x, kept, {0: walked}, (step,))
    return _kernel(op, shapes, x, kept, {}, (replace(op, operands=tuple(range(len(shapes)))),))


def _windows(op: Op, x: Tensor) -> Kernel:
    """Tiles of places over the grid, of one image; of several where images are small."""
    first = len(x.dims) - len(op.windows)
    made = apply(replace(op, operands=(0,)), [x]).dims
    kept = [axis for axis, extent in enumerate(made) if extent > 1]
    several = first - 1 if math.prod(made[first + 1 :]) <= SMALL_IMAGE else first
    grid = tuple(1 if axis >= several else made[axis] for axis in kept)
    imap = tuple(axis if axis < first else None for axis in kept)
    kernel = Kernel(grid, 1, (Load(op.operands[0], imap),), (replace(op, operands=(0,)),), (Store(1, tuple(kept)),))
    counts = {axis: count for axis, count in zip(imap, grid, strict=True) if axis is not None}
    tile = Tensor(tuple(extent // counts.get(axis, 1) for axis, extent in enumerate(x.dims)), x.dtype)
    return _local(kernel, [tile])


def _product(op: Op, shapes: Sequence[Dims]) -> Kernel:
    """Batches and tiles of rows and columns over the grid, the inner dimension along the loop."""
    dims = (*broadcast((shapes[0][:-2], shapes[1][:-2])), shapes[0][-2], shapes[1][-1])
    kept = [axis for axis, extent in enumerate(dims) if extent > 1]
    inner = {0: len(shapes[0]) - 1, 1: len(shapes[1]) - 2} if shapes[0][-1] > 1 else {}
    body: tuple[Step, ...] = (Op("matmul", (0, 1)), *([Accumulate("sum", (2,))] if inner else []))
    rank = len(dims)
    own = {0: rank - 1, 1: rank - 2}
    grid, cuts = _grid(dims, kept)

    def cut(place: int, axis: int) -> int | None:
        here = axis - rank + len(shapes[place])
        absent = here < 0 or axis == own[place] or shapes[place][here] == 1
        return None if absent else here

    loads = tuple(
        Load(source, tuple(cut(place, axis) for axis in cuts), inner.get(place))
        for place, source in enumerate(op.operands)
    )
    return Kernel(grid, 1, loads, body, (Store(1 + len(body), tuple(cuts)),))


def _grid(dims: Dims, kept: Sequence[int]) -> tuple[Dims, list[int]]:
    """One element of every dimension but the last two, which are cut into tiles."""
    tiled = kept[-2:]
    return tuple(1 if axis in tiled else dims[axis] for axis in kept), list(kept)


def _elementwise(op: Op, shapes: Sequence[Dims], constants: dict[int, Fraction]) -> Kernel:
    dims = broadcast(shapes)
    kept = [axis for axis, extent in enumerate(dims) if extent > 1]
    loaded = [o for o in dict.fromkeys(op.operands) if o not in constants]
    body: list[Step] = []
    number = {source: place for place, source in enumerate(loaded)}
    for operand in op.operands:
        if operand in constants and operand not in number:
            number[operand] = len(loaded) + len(body)
            body.append(Op("constant", values=(constants[operand],)))
    body.append(replace(op, operands=tuple(number[o] for o in op.operands)))
    by_source = dict(zip(op.operands, shapes, strict=True))
    return _kernel(
        replace(op, operands=tuple(loaded)), [by_source[o] for o in loaded], dims, kept, {}, tuple(body)
    )  # fmt: skip


def _kernel(
    op: Op, shapes: Sequence[Dims], dims: Dims, kept: Sequence[int], walked: dict[int, int], body: tuple[Step, ...]
) -> Kernel:
    """Over the grid what is kept: of operands that broadcast to `dims`, those dimensions that they have."""
    grid, cuts = _grid(dims, kept)

    def cut(shape: Dims, axis: int) -> int | None:
        here = axis - len(dims) + len(shape)
        return None if here < 0 or shape[here] == 1 else here

    loads = tuple(
        Load(source, tuple(cut(shape, axis) for axis in cuts), walked.get(place))
        for place, (source, shape) in enumerate(zip(op.operands, shapes, strict=True))
    )
    made = Kernel(grid, 1, loads, body, (Store(len(loads) + len(body) - 1, tuple(cuts)),))
    tiles = [Tensor(_tile(shape, load, grid), "fp32") for shape, load in zip(shapes, loads, strict=True)]
    return _local(made, tiles)


def _tile(shape: Dims, load: Load, grid: Dims) -> Dims:
    cuts = {axis: count for axis, count in zip(load.imap, grid, strict=True) if axis is not None}
    return tuple(extent // cuts.get(axis, 1) for axis, extent in enumerate(shape))


def _local(kernel: Kernel, tiles: list[Tensor]) -> Kernel:
    """With its macros spelled out."""
    known, body = list(tiles), list[Step]()
    number = {value: value for value in range(len(tiles))}

    def emit(op: Op) -> int:
        if OPERATORS[op.operator].kind == "macro":
            return _stable(op, known, emit)
        body.append(op)
        known.append(apply(op, known))
        return len(known) - 1

    for value, step in enumerate(kernel.body, len(tiles)):
        moved = replace(step, operands=tuple(number[o] for o in step.operands))
        if isinstance(moved, Op):
            number[value] = emit(moved)
        else:
            number[value] = len(known)
            body.append(moved)
            known.append(tiles[0])
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return replace(kernel, body=tuple(body), stores=stores)
