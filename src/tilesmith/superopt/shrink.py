"""The same programs at small sizes, for evaluation: every dimension becomes a product of small numbers.

A dimension is a row of atoms (`rows`), and maps and loops break them up as operators do: a dimension of 4096 that a
kernel cuts by a grid of 64 and a loop of 16 becomes three, 64 · 16 · 4. Then each atom gets a small size, such
that dimensions that need not be equal get different ones: what mixes them up cannot stay unnoticed. What has extent 1
stays. Constants stay too, 1/4096 for a mean as well: see `macros`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesmith.core.graph import Dims, Graph, Kernel, Load, Node, Op, Store, Tensor
from tilesmith.core.graph_check import tensors
from tilesmith.core.operators import Misfit
from tilesmith.superopt.macros import expand
from tilesmith.superopt.rows import Atom, Row, Shape, extent_of, flat, fresh, result_of, row_of, step_of, unify

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Inside:
    """The rows of one kernel."""

    grid: Shape
    loop: Row
    values: tuple[Shape, ...]


SMALL = 1 << 14
"""Graphs with no more elements in all their values are small as they are."""
AT_ONCE = 1 << 12
"""Graphs with no more elements in all their values are looked at in all their kernels at once."""

Graphs = tuple[Graph, ...]


def shrink(graphs: Sequence[Graph], rng: random.Random) -> Graphs:
    """Graphs of the same inputs, with macros spelled out, at small sizes; or as they are if they are small.

    Raises `Misfit` for others, and `OptionError` for malformed ones.
    """
    return _made(graphs, lambda spelled, rows: (_sized(spelled, rows, rng),))[0]


@lru_cache(maxsize=16)
def views(graphs: Graphs, seed: int) -> tuple[Graphs, ...]:
    """The same at one choice of sizes or several, such that every kernel is cut in one of them as it says.

    A dimension that many kernels cut, each in its own way, has many factors, and is not small where each is 2. What one
    kernel makes of whole tensors does not depend on how others cut them: so they are looked at a few at a time, and for
    the others a cut may be into one part. No tensor has an extent of 1 for it. Raises as `shrink` does.
    """
    rng = random.Random(seed)
    return _made(graphs, lambda spelled, rows: _views(spelled, rows, rng))


_Rows = Sequence[tuple[list[Shape], dict[int, _Inside]]]
"""For each graph the rows of its values, and of its kernels."""


def _made(graphs: Sequence[Graph], make: Callable[[Graphs, _Rows], tuple[Graphs, ...]]) -> tuple[Graphs, ...]:
    spelled = tuple(expand(graph) for graph in graphs)
    try:
        inputs = tuple(fresh(tensor.dims) for tensor in spelled[0].inputs)
        rows = [_rows_of(graph, inputs) for graph in spelled]
        _match_outputs(spelled, rows, inputs)
        return make(spelled, rows)
    except Misfit:
        if _elements(spelled) > SMALL:
            raise
        return (spelled,)


def _match_outputs(graphs: Graphs, rows: _Rows, inputs: tuple[Shape, ...]) -> None:
    """What a grid copies has one extent in all graphs, though it comes from no input."""
    given = {atom for shape in inputs for row in shape for atom in flat(row)}
    for graph, (values, _) in zip(graphs[1:], rows[1:], strict=True):
        for mine, theirs in zip(graph.outputs, graphs[0].outputs, strict=False):
            for row, other in zip(values[mine], rows[0][0][theirs], strict=False):
                free = not given.issuperset((*flat(row), *flat(other)))
                if free and extent_of(row) == extent_of(other):
                    unify(row, other)


def _elements(graphs: Graphs) -> int:
    return sum(math.prod(tensor.dims) for graph in graphs for tensor in tensors(graph))


def _sized(spelled: Graphs, made: _Rows, rng: random.Random, seen: _Seen | None = None) -> Graphs:
    """With `seen`, other kernels than these need not be cut."""
    kernels = [inside for _, insides in made for inside in insides.values()] if seen is None else seen.kernels
    # Rows of device memory must differ from one another, and those of one block.
    values = [shape for shapes, _ in made for shape in shapes]
    blocks = [inside.values for inside in kernels]
    cuts = [row for _, insides in made for inside in insides.values() for row in (*inside.grid, inside.loop)]
    sizes = _choose(values, blocks, cuts, rng, None if seen is None else seen.wide)
    return tuple(_rebuilt(graph, *rows, sizes) for graph, rows in zip(spelled, made, strict=True))


@dataclass(frozen=True, slots=True)
class _Seen:
    """Some kernels, and atoms that are wider than 1 so that each of their rows is, and each in device memory."""

    kernels: tuple[_Inside, ...]
    wide: frozenset[Atom]

    def and_in(self, inside: _Inside) -> _Seen:
        rows = [*inside.grid, inside.loop, *(row for shape in inside.values for row in shape)]
        return _Seen((*self.kernels, inside), _widened(self.wide, rows))


def _widened(wide: frozenset[Atom], rows: Sequence[Row]) -> frozenset[Atom]:
    made = set(wide)
    for row in sorted(map(flat, rows), key=len):
        if row and not any(atom in made or atom.pinned or atom.rule for atom in row):
            made.add(row[-1])
    return frozenset(made)


def _views(spelled: Graphs, made: _Rows, rng: random.Random) -> tuple[Graphs, ...]:
    whole = _sized(spelled, made, rng)
    kernels = [inside for _, insides in made for inside in insides.values()]
    if _elements(whole) <= AT_ONCE or len(kernels) < 2:
        return (whole,)
    values = [shape for shapes, _ in made for shape in shapes]
    none = _Seen((), _widened(frozenset(), [row for shape in values for row in shape]))
    batches: list[_Seen] = []
    for inside in kernels:
        alone = none.and_in(inside)
        joined = batches[-1].and_in(inside) if batches else alone
        if batches and _least_elements(values, joined) > TOGETHER * _least_elements(values, none):
            batches.append(alone)
        else:
            batches[-1:] = [joined]
    return tuple(_sized(spelled, made, rng, seen) for seen in (none, *batches))


def _least_elements(values: Sequence[Shape], seen: _Seen) -> int:
    sizes = _Sizes(dict.fromkeys(seen.wide, 2))
    return sum(math.prod(sizes.dims(shape)) for shape in values)


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

    def __init__(self, chosen: Mapping[Atom, Any]) -> None:
        self.chosen = chosen
        """A number, or an array of several choices."""

    def atom(self, atom: Atom) -> int:
        if atom.rule is None:
            return atom.size if atom.pinned else self.chosen.get(atom, 1)
        rows = [self.row(row) for row in atom.rule.rows]
        return sum(rows) if atom.rule.window is None else atom.rule.window.places(rows[0])

    def row(self, row: Row) -> int:
        return math.prod(self.atom(atom) for atom in flat(row))

    def dims(self, shape: Shape) -> Dims:
        return tuple(self.row(row) for row in shape)


DRAWS = 40
"""Of sizes, before larger ones are drawn too."""
TOGETHER = 2
"""Kernels are looked at together as long as values have at most this many times the least number of elements."""
WORSE = 1e15
"""What a row that is not different counts, in elements."""
CONFUSED = 1.05
"""How many times as many elements are as bad as two equal dimensions of device memory, where another choice of sizes
has none."""


@dataclass(frozen=True, slots=True)
class _Ranking:
    """How good choices of sizes are, many at once: first as many rows of a group as can be differ, then it is small."""

    values: Sequence[Shape]
    """Of device memory."""
    groups: Sequence[Sequence[Row]]
    roots: Sequence[Atom]
    loosely: bool
    """Whether the rows of device memory may be equal."""

    def of(self, sizes: _Sizes, count: int) -> Array:
        """The lower the better, infinite where no window has a place."""
        known = {row: np.broadcast_to(sizes.row(row), count) for shape in self.values for row in shape}
        score = sum(
            (np.prod([known[row] for row in shape], axis=0, dtype=float) for shape in self.values), np.zeros(count)
        )
        if self.loosely:
            score = score * CONFUSED ** _alike(list(known.values()))
        for group in self.groups:
            score = score + WORSE * _alike([np.broadcast_to(sizes.row(row), count) for row in group])
        for atom in self.roots:
            if atom.rule:
                score = np.where(np.asarray(sizes.atom(atom)) < 2, np.inf, score)
        return np.asarray(score)


def _alike(rows: Sequence[Array]) -> Array:
    """How many are equal to another, for each choice."""
    ordered = np.sort(np.array(rows), axis=0)
    return np.asarray(np.count_nonzero(ordered[1:] == ordered[:-1], axis=0))


def _choose(
    values: Sequence[Shape],
    blocks: Sequence[Sequence[Shape]],
    cuts: Sequence[Row],
    rng: random.Random,
    wide: frozenset[Atom] | None,
) -> _Sizes:
    """Small sizes for all free atoms, such that as many rows of a group as can be have sizes of their own.

    Groups are each of the blocks, and device memory where `wide` is not given or there are no blocks. All atoms are 2
    at least, or those in `wide`; of the others then few are.
    """
    rooted = [[tuple(flat(row) for row in shape) for shape in group] for group in (values, *blocks)]
    groups = [list(dict.fromkeys(row for shape in group for row in shape)) for group in rooted]
    stack = [atom for group in [*groups, cuts] for row in group for atom in flat(row)]
    roots: dict[Atom, None] = {}
    while stack:
        atom = stack.pop()
        if atom not in roots:
            roots[atom] = None
            stack += [other for row in (atom.rule.rows if atom.rule else ()) for other in flat(row)]
    loosely = wide is not None and bool(blocks)
    ranking = _Ranking(rooted[0], groups[loosely:], list(roots), loosely)
    free = [atom for atom in roots if not atom.rule and not atom.pinned]
    drawn = np.random.default_rng(rng.getrandbits(64))
    least = {atom: atom.least if wide is None or atom in wide or atom.least > 2 else 1 for atom in free}
    best, score = dict.fromkeys(free, 0), math.inf
    for more in range(6):
        made: dict[Atom, Array] = {}
        for atom in free:
            low = least[atom]
            made[atom] = (
                drawn.integers(low, max(3 + more, low + 1), DRAWS, endpoint=True)
                if low > 1
                else 1 + (drawn.integers(0, 16, DRAWS) < more)
            )
        scores = ranking.of(_Sizes(made), DRAWS)
        place = int(np.argmin(scores))
        if scores[place] < score:
            best, score = {atom: int(sizes[place]) for atom, sizes in made.items()}, float(scores[place])
        if score < WORSE:
            break
    if math.isinf(score):
        raise Misfit("no small size fits its windows")
    return _Sizes(_smallest(best, score, least, ranking))


def _smallest(best: dict[Atom, int], score: float, least: dict[Atom, int], ranking: _Ranking) -> dict[Atom, int]:
    """Smaller in one atom after another, as long as that is better."""
    while True:
        ways = [(atom, size) for atom, old in best.items() for size in range(least[atom], old)]
        if not ways:
            return best
        made = {atom: np.array([size if atom is other else old for other, size in ways]) for atom, old in best.items()}
        scores = ranking.of(_Sizes(made), len(ways))
        place = int(np.argmin(scores))
        if scores[place] >= score:
            return best
        best, score = {**best, ways[place][0]: ways[place][1]}, float(scores[place])


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
