"""The same programs at small sizes, for evaluation: every dimension becomes a product of small numbers.

A dimension is a row of atoms, outermost first. Where operators, maps and loops say that dimensions are equal, their
rows are made equal, and an atom is broken up where one row cuts it and the other does not: a dimension of 4096 that a
kernel cuts by a grid of 64 and a loop of 16 becomes three atoms, 64 · 16 · 4. Then each atom gets a small size, such
that dimensions that need not be equal get different ones: what mixes them up cannot stay unnoticed. What has extent 1
stays. Constants stay too, 1/4096 for a mean as well: see `macros`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Dims, Graph, Kernel, Load, Node, Op, Step, Store, Tensor, Thread, Window
from tilesmith.core.graph_check import tensors
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.macros import expand


class Unshrinkable(Exception):
    """Sizes of the graphs depend on each other in a way that rows of atoms cannot say; the message is a clause."""


class _Atom:
    """One factor of a dimension: a root, or the same as another, or broken into others. Sizes are the original's."""

    __slots__ = ("least", "parts", "pinned", "rule", "size")

    def __init__(self, size: int, pinned: bool = False, rule: _Rule | None = None) -> None:
        self.size = size
        self.parts: Row | None = None
        """What it has turned out to be: another atom, or several."""
        self.pinned = pinned
        """Keeps its size: how many pieces a slice chooses from, or a window sees."""
        self.rule = rule
        """Where its size follows from others."""
        self.least = 2
        """Of its small size: windows that move take some room."""


Row = tuple[_Atom, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a size follows from: the sum of the rows' sizes, or the places of a window in the one row."""

    rows: tuple[Row, ...]
    window: Window | None = None


Shape = tuple[Row, ...]
"""A row for each dimension."""


@dataclass(frozen=True, slots=True)
class _Inside:
    """The rows of one kernel."""

    grid: Shape
    loop: Row
    values: tuple[Shape, ...]


SMALL = 1 << 14
"""Graphs with no more elements in all their values are small as they are."""


def shrink(graphs: Sequence[Graph], rng: random.Random) -> tuple[Graph, ...]:
    """Graphs of the same inputs, with macros spelled out, at small sizes; or as they are if they are small.

    Raises `Unshrinkable` for others, and `OptionError` for malformed ones.
    """
    spelled = tuple(expand(graph) for graph in graphs)
    try:
        return _shrunk(spelled, rng)
    except Unshrinkable:
        if sum(math.prod(tensor.dims) for graph in spelled for tensor in tensors(graph)) > SMALL:
            raise
        return spelled


def _shrunk(spelled: Sequence[Graph], rng: random.Random) -> tuple[Graph, ...]:
    inputs = tuple(_fresh(tensor.dims) for tensor in spelled[0].inputs)
    made = [_rows_of(graph, inputs) for graph in spelled]
    # Rows of device memory must differ from one another, and those of one block.
    groups = [[shape for values, _ in made for shape in values]]
    for _, insides in made:
        groups += [list(inside.values) for inside in insides.values()]
    cuts = [row for _, insides in made for inside in insides.values() for row in (*inside.grid, inside.loop)]
    sizes = _choose(groups, cuts, rng)
    return tuple(_rebuilt(graph, *rows, sizes) for graph, rows in zip(spelled, made, strict=True))


# Rows ----------------------------------------------------------------------------------------------------------------


def _row(extent: int, pinned: bool = False) -> Row:
    return () if extent == 1 else (_Atom(extent, pinned),)


def _fresh(dims: Dims) -> Shape:
    return tuple(_row(extent) for extent in dims)


def _flat(row: Iterable[_Atom]) -> Row:
    """The roots that a row stands for."""
    made: list[_Atom] = []
    stack = list(row)[::-1]
    while stack:
        atom = stack.pop()
        if atom.parts is None:
            made.append(atom)
        else:
            stack += atom.parts[::-1]
    return tuple(made)


def _unify(left: Row, right: Row) -> Row:
    """Make two rows of one extent the same."""
    while True:
        a, b = _flat(left), _flat(right)
        pairs = [(x, y) for x, y in zip(a, b, strict=False) if x is not y]
        if not pairs:
            if len(a) != len(b):
                raise Unshrinkable("extents that must be equal differ")
            return a
        x, y = pairs[0]
        if x.size == y.size:
            _merge(x, y)
        elif x.size > y.size:
            _break(x, y.size)
        else:
            _break(y, x.size)


def _merge(x: _Atom, y: _Atom) -> None:
    if x.rule and y.rule:
        if x.rule.window != y.rule.window or len(x.rule.rows) != len(y.rule.rows):
            raise Unshrinkable("two extents follow from others in different ways")
        for left, right in zip(x.rule.rows, y.rule.rows, strict=True):
            if _extent(left) != _extent(right):
                raise Unshrinkable("two extents follow from others in different ways")
            _unify(left, right)
    elif (x.rule and y.pinned) or (y.rule and x.pinned):
        raise Unshrinkable("an extent that cannot change follows from others")
    root, other = (x, y) if x.rule else (y, x)
    root.pinned |= other.pinned
    root.least = max(root.least, other.least)
    other.parts = (root,)


def _break(atom: _Atom, outer: int) -> None:
    if atom.rule or atom.size % outer:
        raise Unshrinkable(f"an extent of {atom.size} is cut into {outer} parts in one place and otherwise in another")
    atom.parts = (_Atom(outer, atom.pinned), _Atom(atom.size // outer, atom.pinned))


def _extent(row: Row) -> int:
    return math.prod(atom.size for atom in row)


# What graphs say about rows ------------------------------------------------------------------------------------------


def _rows_of(graph: Graph, inputs: tuple[Shape, ...]) -> tuple[list[Shape], dict[int, _Inside]]:
    """The rows of every value, and by its place those of every kernel."""
    known = tensors(graph)
    values, insides = list(inputs), {}
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Op):
            values.append(_result(node, [values[value] for value in node.operands]))
        else:
            insides[place] = _inside(node, values, known)
            values += [_joined(store, insides[place]) for store in node.stores]
    return values, insides


def _inside(kernel: Kernel, values: Sequence[Shape], known: Sequence[Tensor]) -> _Inside:
    grid, loop = _fresh(kernel.grid), _row(kernel.loop)
    made = [_tile(kernel, load, values[load.source], known[load.source].dims, grid, loop) for load in kernel.loads]
    for step in kernel.body:
        made.append(_step(step, [made[value] for value in step.operands], loop))
    return _Inside(grid, loop, tuple(made))


def _tile(kernel: Kernel, load: Load, shape: Shape, dims: Dims, grid: Shape, loop: Row) -> Shape:
    made = []
    for dim, row in enumerate(shape):
        cuts: Row = ()
        extent = dims[dim]
        if dim in load.imap:
            axis = load.imap.index(dim)
            cuts, extent = grid[axis], extent // kernel.grid[axis]
        if dim == load.fmap:
            cuts, extent = (*cuts, *loop), extent // kernel.loop
        tile = _row(extent)
        _unify(row, (*cuts, *tile))
        made.append(tile)
    return tuple(made)


def _step(step: Step, operands: Sequence[Shape], loop: Row) -> Shape:
    if isinstance(step, Op):
        return _result(step, operands)
    if isinstance(step, Thread):
        inner = list(operands)
        for op in step.ops:
            inner.append(_result(op, [inner[value] for value in op.operands]))
        return inner[-1]
    first = operands[0]
    if step.how == "rescale":
        return (*first[:-1], ()) if len(operands) == 1 else _matmul(first, operands[1])
    if step.how == "concat":
        return tuple((*loop, *row) if axis in step.axes else row for axis, row in enumerate(first))
    return tuple(() if axis in step.axes else row for axis, row in enumerate(first))


def _joined(store: Store, inside: _Inside) -> Shape:
    tile = inside.values[store.source]
    return tuple(
        (*inside.grid[store.omap.index(dim)], *row) if dim in store.omap else row for dim, row in enumerate(tile)
    )


def _result(op: Op, operands: Sequence[Shape]) -> Shape:
    kind = OPERATORS[op.operator].kind
    if kind == "constant":
        return ()
    if kind == "element-wise":
        return _broadcast(operands)
    if kind == "contraction":
        return _matmul(operands[0], operands[1])
    first = operands[0]
    if kind == "window":
        return _unfold(op, first)[: len(first)]
    if kind == "reduction":
        return tuple(() if axis in op.axes else row for axis, row in enumerate(first))
    match op.operator:
        case "permute":
            return tuple(first[axis] for axis in op.axes)
        case "reshape":
            made = _fresh(op.dims)
            _unify(_all(first), _all(made))
            return made
        case "expand":
            return _broadcast([first, tuple(() if extent == 1 else row for extent, row in _expanded(op.dims, first))])
        case "slice":
            return _sliced(op, first)
        case "concat":
            return _concat(op, operands)
        case _:
            return _unfold(op, first)


def _all(shape: Shape) -> Row:
    return tuple(atom for row in shape for atom in row)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    made: list[Row] = [()] * rank
    for shape in shapes:
        for axis, row in enumerate(shape, rank - len(shape)):
            made[axis] = _unify(made[axis], row) if made[axis] and row else made[axis] or row
    return tuple(made)


def _expanded(dims: Dims, shape: Shape) -> list[tuple[int, Row]]:
    """For each extent of the result its row: the operand's where that has one."""
    old: list[Row] = [*([()] * (len(dims) - len(shape))), *shape]
    return [(extent, row or _row(extent)) for extent, row in zip(dims, old, strict=True)]


def _matmul(left: Shape, right: Shape) -> Shape:
    _unify(left[-1], right[-2])
    return (*_broadcast([left[:-2], right[:-2]]), left[-2], right[-1])


def _sliced(op: Op, shape: Shape) -> Shape:
    axis, (begin, end) = op.axes[0], op.dims
    extent, part = _extent(_flat(shape[axis])), end - begin
    row = _row(part)
    if extent % part == 0 and begin % part == 0:
        _unify(shape[axis], (*_row(extent // part, pinned=True), *row))
    else:
        _pin(shape[axis])
        row = _row(part, pinned=True)
    return (*shape[:axis], row, *shape[axis + 1 :])


def _pin(row: Row) -> None:
    for atom in _flat(row):
        if atom.rule:
            raise Unshrinkable("an extent that cannot change follows from others")
        atom.pinned = True


def _concat(op: Op, operands: Sequence[Shape]) -> Shape:
    axis = op.axes[0]
    rows = tuple(shape[axis] for shape in operands)
    rest = _broadcast([(*shape[:axis], *shape[axis + 1 :]) for shape in operands])
    extents = [_extent(_flat(row)) for row in rows]
    if len(set(extents)) == 1:
        for row in rows[1:]:
            _unify(rows[0], row)
        row = (*_row(len(rows), pinned=True), *rows[0])
    else:
        row = (_Atom(sum(extents), rule=_Rule(rows)),)
    return (*rest[:axis], row, *rest[axis:])


def _unfold(op: Op, shape: Shape) -> Shape:
    first = len(shape) - len(op.windows)
    places: list[Row] = []
    for row, window in zip(shape[first:], op.windows, strict=True):
        extent = _extent(_flat(row))
        if window == Window(1):
            places.append(row)
        elif window.places(extent) == 1:
            _pin(row)
            places.append(())
        else:
            for atom in _flat(row) if len(_flat(row)) == 1 else ():
                needed = window.stride + window.dilation * (window.size - 1) + 1 - 2 * window.padding
                atom.least = max(atom.least, window.dilation, needed)
            places.append((_Atom(window.places(extent), rule=_Rule((row,), window)),))
    return (*shape[:first], *places, *(_row(window.size, pinned=True) for window in op.windows))


# Sizes ---------------------------------------------------------------------------------------------------------------


class _Sizes:
    """What every root atom has become."""

    def __init__(self, chosen: dict[_Atom, int]) -> None:
        self.chosen = chosen

    def atom(self, atom: _Atom) -> int:
        if atom.rule is None:
            return atom.size if atom.pinned else self.chosen[atom]
        rows = [self.row(row) for row in atom.rule.rows]
        return sum(rows) if atom.rule.window is None else atom.rule.window.places(rows[0])

    def row(self, row: Row) -> int:
        return math.prod(self.atom(atom) for atom in _flat(row))

    def dims(self, shape: Shape) -> Dims:
        return tuple(self.row(row) for row in shape)


def _choose(groups: Sequence[Sequence[Shape]], cuts: Sequence[Row], rng: random.Random) -> _Sizes:
    """Small sizes for all free atoms, such that as many rows of a group as can be have sizes of their own."""
    flat = [[tuple(_flat(row) for row in shape) for shape in group] for group in groups]
    rows = [list(dict.fromkeys(row for shape in group for row in shape)) for group in flat]
    stack = [atom for group in [*rows, cuts] for row in group for atom in _flat(row)]
    roots: dict[_Atom, None] = {}
    while stack:
        atom = stack.pop()
        if atom not in roots:
            roots[atom] = None
            stack += [other for row in (atom.rule.rows if atom.rule else ()) for other in _flat(row)]
    free = [atom for atom in roots if not atom.rule and not atom.pinned]
    best: tuple[tuple[int, int], _Sizes] | None = None
    for attempt in range(240):
        largest = 3 + attempt // 40
        sizes = _Sizes({atom: rng.randint(atom.least, max(largest, atom.least + 1)) for atom in free})
        if any(sizes.atom(atom) < 2 for atom in roots):
            continue
        made = [{row: sizes.row(row) for row in group} for group in rows]
        same = sum(len(group) - len(set(group.values())) for group in made)
        rank = same, sum(math.prod(made[0][row] for row in shape) for shape in flat[0])
        if best is None or rank < best[0]:
            best = rank, sizes
        if not best[0][0] and attempt % 40 == 39:
            break
    if best is None:
        raise Unshrinkable("no small size fits its windows")
    return best[1]


# Rebuilding ----------------------------------------------------------------------------------------------------------


def _rebuilt(graph: Graph, values: Sequence[Shape], insides: dict[int, _Inside], sizes: _Sizes) -> Graph:
    inputs = tuple(replace(t, dims=sizes.dims(shape)) for t, shape in zip(graph.inputs, values, strict=False))
    nodes: list[Node] = []
    value = len(inputs)
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Op):
            nodes.append(_resized(node, values[value], sizes))
            value += 1
            continue
        inside = insides[place]
        body = [
            _resized(step, shape, sizes) if isinstance(step, Op) else step
            for step, shape in zip(node.body, inside.values[len(node.loads) :], strict=True)
        ]
        nodes.append(replace(node, grid=sizes.dims(inside.grid), loop=sizes.row(inside.loop), body=tuple(body)))
        value += len(node.stores)
    return Graph(inputs, tuple(nodes), graph.outputs)


def _resized(op: Op, made: Shape, sizes: _Sizes) -> Op:
    if op.operator in ("reshape", "expand"):
        return replace(op, dims=sizes.dims(made))
    if op.operator == "slice":
        begin, part = op.dims[0], op.dims[1] - op.dims[0]
        new = sizes.row(made[op.axes[0]])
        start = begin // part * new if begin % part == 0 else begin
        return replace(op, dims=(start, start + new))
    return op
