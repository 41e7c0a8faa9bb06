"""The same kernel in a form that tiles better: factors behind sums, a loop over what a block would hold whole, tiles
along what programs would take one element of.

Each form computes what its kernel does over exact numbers, and is the kernel itself where it does not apply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Kernel, Op, Step, Tensor, Thread
from tilesmith.core.graph_check import Phase, block
from tilesmith.core.operators import OPERATORS, Misfit
from tilesmith.superopt.lower.axes import Axes, axes_of
from tilesmith.superopt.needed import pruned

HELD = 256
"""Elements along which a product is not walked: one iteration takes them all."""
HELD_ROW = 2048
"""The same of sums and maxima."""
WORTH_TILES = 64
"""Elements along which programs share what none of them needs whole."""


def joins(step: Step | None) -> bool:
    """Whether a step puts tiles one after another; what it makes is stored and not read."""
    return isinstance(step, Accumulate) and step.how == "concat"


# Factors behind sums -------------------------------------------------------------------------------------------------


def factored(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    """Constant factors of what is summed are multiplied once, with the sum: Σ cx = c Σx.

    That is fewer operations; and a mean is again a sum times 1/n, which the lowering knows for any n.
    """
    first = len(kernel.loads)
    phases = block(kernel, sources).phases
    floats = _floating(kernel, phases)
    body: list[Step] = []
    number = {value: value for value in range(first)}
    factor = dict.fromkeys(range(first), Fraction(1))
    constants = {v: s.values[0] for v, s in enumerate(kernel.body, first)
                 if isinstance(s, Op) and s.operator == "constant"}  # fmt: skip

    def emit(step: Step) -> int:
        body.append(step)
        return first + len(body) - 1

    for value, step in enumerate(kernel.body, first):
        number[value], factor[value] = -1, Fraction(1)
        scaled = [o for o in step.operands if o not in constants] if _multiplies(step) else []
        if value in floats and len(scaled) == 1 and len(step.operands) == 2:
            (other,) = (o for o in step.operands if o in constants)
            number[value], factor[value] = number[scaled[0]], factor[scaled[0]] * constants[other]
            continue
        number[value] = emit(replace(step, operands=tuple(number[o] for o in step.operands)))
        whole = Fraction(1)
        for operand in step.operands:
            whole *= factor[operand]
        if value in floats:
            factor[value] = whole
        elif whole != 1:
            number[value] = emit(Op("mul", (number[value], emit(Op("constant", values=(whole,))))))
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return pruned(replace(kernel, body=tuple(body), stores=stores))


def _floating(kernel: Kernel, phases: Sequence[Phase]) -> set[int]:
    """Values whose factors may wait: all that is done with them is to multiply, to turn and at last to sum."""
    first = len(kernel.loads)
    floats: set[int] = set()
    stored = {store.source for store in kernel.stores}
    for value in range(first + len(kernel.body) - 1, first - 1, -1):
        readers = [(place, step) for place, step in enumerate(kernel.body, first) if value in step.operands]
        if readers and value not in stored and all(_passes(step, place in floats) for place, step in readers):
            # A product of what does not vary is smaller outside the loop than inside.
            products = any(isinstance(step, Op) and step.operator == "matmul" for _, step in readers)
            if not products or phases[value] is Phase.VARYING:
                floats.add(value)
    return floats


def _passes(step: Step, floats: bool) -> bool:
    if isinstance(step, Accumulate):
        return step.how == "sum"
    if not isinstance(step, Op):
        return False
    if step.operator == "sum":
        return True
    return floats and (step.operator in ("mul", "matmul") or OPERATORS[step.operator].kind == "view")


def _multiplies(step: Step) -> bool:
    return isinstance(step, Op) and step.operator == "mul"


# A loop --------------------------------------------------------------------------------------------------------------


def walked(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    """A kernel without a loop, with one along the longest dimension over which its blocks multiply or sum.

    What is summed over that is gathered; nothing that comes after may lie along it. One iteration takes it all, as far
    as the graph is concerned: the lowering chooses its tiles.
    """
    gathers = any(isinstance(step, Accumulate) for step in kernel.body)
    if kernel.loop != 1 or gathers or any(load.fmap is not None for load in kernel.loads):
        return kernel
    try:
        axes = axes_of(kernel, block(kernel, sources))
    except OptionError:
        return kernel
    summed = [axis for axis in range(len(axes.axes)) if _sums(kernel, axes, axis)]
    for axis in sorted(summed, key=lambda axis: -axes.axes[axis].tile):
        held = HELD if axes.axes[axis].dot else HELD_ROW
        # Parts that the grid makes are tiles of any size once they are walked along.
        if (axes.axes[axis].tile > held or axes.axes[axis].kind == "part") and (
            made := along(kernel, axes, axis, sources)
        ) is not None:
            return made
    return kernel


def _sums(kernel: Kernel, axes: Axes, axis: int) -> bool:
    return any(_sums_over(step, axes, axis) for step in kernel.body)


def _sums_over(step: Step, axes: Axes, axis: int) -> bool:
    if not isinstance(step, Op) or not step.operands:
        return False
    rows = axes.rows[step.operands[0]]
    if OPERATORS[step.operator].kind == "reduction":
        return any(axis in rows[dim] for dim in step.axes)
    return step.operator == "matmul" and axis in rows[-1]


def along(kernel: Kernel, axes: Axes, axis: int, sources: Sequence[Tensor]) -> Kernel | None:
    """The kernel with a loop along an axis; None where there is no such."""
    first = len(kernel.loads)
    loads = []
    for place, load in enumerate(kernel.loads):
        dims = [dim for dim, row in enumerate(axes.rows[place]) if axis in row]
        if len(dims) > 1 or any(axes.rows[place][dim] != (axis,) for dim in dims):
            return None
        loads.append(replace(load, fmap=dims[0] if dims else None))
    body: list[Step] = []
    number = {value: value for value in range(first)}
    for value, step in enumerate(kernel.body, first):
        body.append(replace(step, operands=tuple(number[o] for o in step.operands)))
        number[value] = first + len(body) - 1
        if isinstance(step, Op) and _sums_over(step, axes, axis):
            body.append(Accumulate("max" if step.operator == "amax" else "sum", (number[value],)))
            number[value] += 1
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    made = replace(kernel, loads=tuple(loads), body=tuple(body), stores=stores)
    try:
        again = axes_of(made, block(made, sources))
    except (Misfit, OptionError):
        return None
    return made if again.step is not None else None


def summed_at_once(kernel: Kernel) -> Kernel:
    """Sums over what was gathered become part of the gathering, where nothing else reads that: no tile is kept."""
    first = len(kernel.loads)
    stored = {store.source for store in kernel.stores}
    body = list(kernel.body)
    for value, step in enumerate(kernel.body, first):
        readers = [place for place, other in enumerate(kernel.body) if value in other.operands]
        if not isinstance(step, Accumulate) or step.how not in ("sum", "max") or len(readers) != 1 or value in stored:
            continue
        reader = kernel.body[readers[0]]
        if isinstance(reader, Op) and reader.operator == {"sum": "sum", "max": "amax"}[step.how]:
            body[value - first] = replace(step, axes=tuple(sorted({*step.axes, *reader.axes})))
    # What is summed already has extent 1 there: to sum it again changes nothing.
    return replace(kernel, body=tuple(body))


# Lanes ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Laned:
    """A kernel, and for each of its loads the order in which it takes the dimensions of the tensor."""

    kernel: Kernel
    orders: tuple[tuple[int, ...], ...]


def laned(kernel: Kernel, sources: Sequence[Tensor]) -> Laned:
    """A kernel whose programs have one element each along a grid axis, with tiles along it instead.

    Neighbours in memory must be in one tile, or every program fetches whole sectors of which it uses an element. So
    axes are taken that cut the last dimension of a tensor into single elements: every value that depends on one gets a
    dimension more, in front, and the lowering chooses its tiles.
    """
    made = Laned(kernel, tuple(tuple(range(len(sources[load.source].dims))) for load in kernel.loads))
    for axis, count in enumerate(kernel.grid):
        if count > 1 and _single(kernel, sources, axis):
            made = _Lanes(kernel, sources, axis).run() or made
            break
    return made


def _single(kernel: Kernel, sources: Sequence[Tensor], axis: int) -> bool:
    """Whether a grid axis leaves one element of every dimension that it cuts, one of them the last of a tensor."""
    if any(load.fmap is not None and load.fmap == load.imap[axis] for load in kernel.loads):
        # Iterations walk inside the blocks' parts: neighbours are not those of one iteration.
        return False
    made = block(kernel, sources)
    cuts = [(made.tiles[place], load.imap[axis], len(sources[load.source].dims))
            for place, load in enumerate(kernel.loads)]  # fmt: skip
    cuts += [
        (made.tiles[store.source], store.omap[axis], len(made.tiles[store.source].dims)) for store in kernel.stores
    ]
    along = [(tile, dim, rank) for tile, dim, rank in cuts if dim is not None]
    single = all(tile.dims[dim] == 1 for tile, dim, _ in along)
    last = any(dim == rank - 1 for _, dim, rank in along)
    return single and last and all(store.omap[axis] is not None for store in kernel.stores)


class _Lanes:
    """One grid axis of a kernel as a dimension of its values."""

    def __init__(self, kernel: Kernel, sources: Sequence[Tensor], axis: int) -> None:
        self.kernel, self.axis, self.count = kernel, axis, kernel.grid[axis]
        self.sources = sources
        self.tiles = block(kernel, sources).tiles
        self.first = len(kernel.loads)
        self.body: list[Step] = []
        self.number: dict[int, int] = {}
        self.lanes: set[int] = set()
        """Values of the kernel that have the dimension."""

    def run(self) -> Laned | None:
        orders, loads = [], []
        for place, load in enumerate(self.kernel.loads):
            dim = load.imap[self.axis]
            rank = len(self.sources[load.source].dims)
            order = tuple(range(rank)) if dim is None else (dim, *(d for d in range(rank) if d != dim))
            orders.append(order)
            moved = tuple(None if d is None else order.index(d) for d in load.imap)
            loads.append(replace(load, imap=moved, fmap=None if load.fmap is None else order.index(load.fmap)))
            self.number[place] = place
        for place, load in enumerate(self.kernel.loads):
            if load.imap[self.axis] is not None:
                self.lanes.add(place)
                self.number[place] = self._emit(Op("reshape", (place,), dims=(self.count, *self.tiles[place].dims)))
        for value, step in enumerate(self.kernel.body, self.first):
            if not self._step(value, step):
                return None
        stores = []
        for store in self.kernel.stores:
            dim = store.omap[self.axis]
            if store.source not in self.lanes or dim is None:
                return None
            stores.append(replace(store, source=self._put(store.source, dim)))
        grid = tuple(1 if place == self.axis else extent for place, extent in enumerate(self.kernel.grid))
        return Laned(Kernel(grid, self.kernel.loop, tuple(loads), tuple(self.body), tuple(stores)), tuple(orders))

    def _emit(self, step: Step) -> int:
        self.body.append(step)
        return self.first + len(self.body) - 1

    def _put(self, value: int, dim: int) -> int:
        """A value with its lanes where it had one element."""
        dims = self.tiles[value].dims
        less = (*dims[:dim], *dims[dim + 1 :])
        flat = self._emit(Op("reshape", (self.number[value],), dims=(self.count, *less)))
        order = (*range(1, dim + 1), 0, *range(dim + 1, len(dims)))
        return self._emit(Op("permute", (flat,), axes=order)) if dim else flat

    def _ranked(self, value: int, rank: int) -> int:
        """A value with so many dimensions behind its lanes."""
        dims = self.tiles[value].dims
        if value not in self.lanes or len(dims) == rank:
            return self.number[value]
        return self._emit(Op("reshape", (self.number[value],), dims=(self.count, *(1,) * (rank - len(dims)), *dims)))

    def _step(self, value: int, step: Step) -> bool:
        """Emit a step; False for one that cannot have the dimension."""
        if isinstance(step, Thread) or joins(step):
            return False
        if not self.lanes & set(step.operands):
            self.number[value] = self._emit(replace(step, operands=tuple(self.number[o] for o in step.operands)))
            return True
        self.lanes.add(value)
        rank = len(self.tiles[value].dims)
        kind = "accumulate" if isinstance(step, Accumulate) else OPERATORS[step.operator].kind
        if isinstance(step, Accumulate) and step.how == "rescale" and len(step.operands) == 2:
            kind = "contraction"
        if kind in ("element-wise", "contraction"):
            step = replace(step, operands=tuple(self._ranked(o, rank) for o in step.operands))
        elif kind in ("accumulate", "reduction"):
            axes = tuple(axis + 1 for axis in step.axes)
            step = replace(step, operands=(self.number[step.operands[0]],), axes=axes)
        elif isinstance(step, Op) and step.operator == "permute":
            step = Op("permute", (self.number[step.operands[0]],), axes=(0, *(axis + 1 for axis in step.axes)))
        elif isinstance(step, Op) and step.operator in ("reshape", "expand"):
            source = (
                self.number[step.operands[0]] if step.operator == "reshape" else self._ranked(step.operands[0], rank)
            )
            step = Op(step.operator, (source,), dims=(self.count, *step.dims))
        else:
            return False
        self.number[value] = self._emit(step)
        return True


# More programs -------------------------------------------------------------------------------------------------------


def spread(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    """What every block holds whole, and nothing sums over, as axes of the grid.

    Of the batch dimensions of a product a program has one element each, so that its products are of matrices; of rows
    and columns it has tiles, which the lowering chooses.
    """
    if any(joins(step) or isinstance(step, Thread) for step in kernel.body):
        return kernel
    while True:
        try:
            axes = axes_of(kernel, block(kernel, sources))
        except OptionError:
            return kernel
        ways = (_over_grid(kernel, axes, axis, sources) for axis in range(len(axes.axes)))
        made = next((way for way in ways if way is not None), None)
        if made is None:
            return kernel
        kernel = made


def _over_grid(kernel: Kernel, axes: Axes, axis: int, sources: Sequence[Tensor]) -> Kernel | None:
    """A kernel with one more grid axis, along an axis of its tiles; None where that cannot be, or is not worth it."""
    first, size = len(kernel.loads), axes.axes[axis].tile
    batch = any(
        axis in row
        for step in kernel.body
        for operand in step.operands[:2] * _contracts(step)
        for row in axes.rows[operand][:-2]
    )
    places = any(view.places == axis for view in axes.views)
    if (
        axes.axes[axis].kind != "whole"
        or not (batch or places or size >= WORTH_TILES)
        or _gathers_over(kernel, axes, axis)
    ):
        return None
    cuts = []
    for value in (*range(first), *(store.source for store in kernel.stores)):
        dims = [dim for dim, row in enumerate(axes.rows[value]) if axis in row]
        if len(dims) > 1 or any(axes.rows[value][dim][0] != axis for dim in dims) or (value >= first and not dims):
            return None
        cuts.append(dims[0] if dims else None)
    if all(cut is None for cut in cuts[:first]) and not places:
        return None
    body: list[Step] = []
    for value, step in enumerate(kernel.body, first):
        if batch and isinstance(step, Op) and step.operator in ("reshape", "expand"):
            tiles = [[1 if a == axis else axes.axes[a].tile for a in row] for row in axes.rows[value]]
            body.append(replace(step, dims=tuple(math.prod(row) for row in tiles)))
        else:
            body.append(step)
    made = Kernel(
        (*kernel.grid, size if batch else 1),
        kernel.loop,
        tuple(replace(load, imap=(*load.imap, p)) for load, p in zip(kernel.loads, cuts[:first], strict=True)),
        tuple(body),
        tuple(replace(store, omap=(*store.omap, p)) for store, p in zip(kernel.stores, cuts[first:], strict=True)),
    )
    try:
        again = axes_of(made, block(made, sources))
    except (Misfit, OptionError):
        return None
    return made if batch or again.grid[-1] is not None else None


def _contracts(step: Step) -> int:
    """1 for a product, 0 for anything else."""
    rescales = isinstance(step, Accumulate) and step.how == "rescale" and len(step.operands) == 2
    return int(rescales or (isinstance(step, Op) and step.operator == "matmul"))


def _gathers_over(kernel: Kernel, axes: Axes, axis: int) -> bool:
    """Whether anything sums, multiplies or finds a maximum along an axis."""
    for step in kernel.body:
        if _sums_over(step, axes, axis):
            return True
        if isinstance(step, Accumulate):
            rows = axes.rows[step.operands[0]]
            dims = (len(rows) - 1,) if step.how == "rescale" else step.axes
            if any(axis in rows[dim] for dim in dims):
                return True
    return False
