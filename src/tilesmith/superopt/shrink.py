"""The same programs at small sizes, for evaluation: every dimension becomes a product of small numbers.

A dimension is a row of atoms (`rows`), and maps and loops break them up as operators do: a dimension of 4096 that a
kernel cuts by a grid of 64 and a loop of 16 becomes three, 64 · 16 · 4. Then each atom gets a small size, such
that dimensions that need not be equal get different ones: what mixes them up cannot stay unnoticed. What has extent 1
stays. Constants stay too, 1/4096 for a mean as well: see `macros`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Dims, Graph, Kernel, Load, Node, Op, Store, Tensor
from tilesmith.core.graph_check import tensors
from tilesmith.core.operators import Misfit
from tilesmith.superopt.macros import expand
from tilesmith.superopt.rows import Atom, Row, Shape, flat, fresh, result_of, row_of, step_of, unify


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

    Raises `Misfit` for others, and `OptionError` for malformed ones.
    """
    spelled = tuple(expand(graph) for graph in graphs)
    try:
        return _shrunk(spelled, rng)
    except Misfit:
        if sum(math.prod(tensor.dims) for graph in spelled for tensor in tensors(graph)) > SMALL:
            raise
        return spelled


def _shrunk(spelled: Sequence[Graph], rng: random.Random) -> tuple[Graph, ...]:
    inputs = tuple(fresh(tensor.dims) for tensor in spelled[0].inputs)
    made = [_rows_of(graph, inputs) for graph in spelled]
    # Rows of device memory must differ from one another, and those of one block.
    groups = [[shape for values, _ in made for shape in values]]
    for _, insides in made:
        groups += [list(inside.values) for inside in insides.values()]
    cuts = [row for _, insides in made for inside in insides.values() for row in (*inside.grid, inside.loop)]
    sizes = _choose(groups, cuts, rng)
    return tuple(_rebuilt(graph, *rows, sizes) for graph, rows in zip(spelled, made, strict=True))


# What graphs say about rows ------------------------------------------------------------------------------------------


def _rows_of(graph: Graph, inputs: tuple[Shape, ...]) -> tuple[list[Shape], dict[int, _Inside]]:
    """The rows of every value, and by its place those of every kernel."""
    known = tensors(graph)
    values, insides = list(inputs), {}
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Op):
            values.append(result_of(node, [values[value] for value in node.operands]))
        else:
            insides[place] = _inside(node, values, known)
            values += [_joined(store, insides[place]) for store in node.stores]
    return values, insides


def _inside(kernel: Kernel, values: Sequence[Shape], known: Sequence[Tensor]) -> _Inside:
    grid, loop = fresh(kernel.grid), row_of(kernel.loop)
    made = [_tile(kernel, load, values[load.source], known[load.source].dims, grid, loop) for load in kernel.loads]
    for step in kernel.body:
        made.append(step_of(step, [made[value] for value in step.operands], loop))
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
        tile = row_of(extent)
        unify(row, (*cuts, *tile))
        made.append(tile)
    return tuple(made)


def _joined(store: Store, inside: _Inside) -> Shape:
    tile = inside.values[store.source]
    return tuple(
        (*inside.grid[store.omap.index(dim)], *row) if dim in store.omap else row for dim, row in enumerate(tile)
    )


# Sizes ---------------------------------------------------------------------------------------------------------------


class _Sizes:
    """What every root atom has become."""

    def __init__(self, chosen: dict[Atom, int]) -> None:
        self.chosen = chosen

    def atom(self, atom: Atom) -> int:
        if atom.rule is None:
            return atom.size if atom.pinned else self.chosen[atom]
        rows = [self.row(row) for row in atom.rule.rows]
        return sum(rows) if atom.rule.window is None else atom.rule.window.places(rows[0])

    def row(self, row: Row) -> int:
        return math.prod(self.atom(atom) for atom in flat(row))

    def dims(self, shape: Shape) -> Dims:
        return tuple(self.row(row) for row in shape)


def _choose(groups: Sequence[Sequence[Shape]], cuts: Sequence[Row], rng: random.Random) -> _Sizes:
    """Small sizes for all free atoms, such that as many rows of a group as can be have sizes of their own."""
    roots_of = [[tuple(flat(row) for row in shape) for shape in group] for group in groups]
    rows = [list(dict.fromkeys(row for shape in group for row in shape)) for group in roots_of]
    stack = [atom for group in [*rows, cuts] for row in group for atom in flat(row)]
    roots: dict[Atom, None] = {}
    while stack:
        atom = stack.pop()
        if atom not in roots:
            roots[atom] = None
            stack += [other for row in (atom.rule.rows if atom.rule else ()) for other in flat(row)]
    free = [atom for atom in roots if not atom.rule and not atom.pinned]
    best: tuple[tuple[int, int], _Sizes] | None = None
    for attempt in range(240):
        largest = 3 + attempt // 40
        sizes = _Sizes({atom: rng.randint(atom.least, max(largest, atom.least + 1)) for atom in free})
        if any(sizes.atom(atom) < 2 for atom in roots):
            continue
        made = [{row: sizes.row(row) for row in group} for group in rows]
        same = sum(len(group) - len(set(group.values())) for group in made)
        rank = same, sum(math.prod(made[0][row] for row in shape) for shape in roots_of[0])
        if best is None or rank < best[0]:
            best = rank, sizes
        if not best[0][0] and attempt % 40 == 39:
            break
    if best is None:
        raise Misfit("no small size fits its windows")
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
