"""Along what the tiles of a kernel lie: the axes of one block, and how programs and iterations share them.

A dimension of a tile is a row of axes: one, none where its extent is 1, several where a reshape joins or splits. Where
operators say that dimensions are equal, they lie along one axis. What the grid and the loop cut is the first axis of
a row.

    whole    a block has all of it
    tiles    a grid axis cuts it, nothing depends on where: any tile size will do, the last tile may be ragged
    steps    the loop cuts it, and all that is done with it is to gather it: any tile size
    span     both: every program has a fixed share of it, and walks along that in tiles of any size
    part     cut as the graph says, where its parts mean something, or where parts of different axes go together
    seen     windows look along it: what they see is loaded for the tile of their places, which is an axis of its own

The first four are what searches make. They hold for any extents, and so does the source then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Kernel, Op, Step, Thread, Window
from tilesmith.core.graph_check import Block, Phase
from tilesmith.core.operators import OPERATORS, Misfit
from tilesmith.superopt.rows import Shape, extent_of, flat, fresh, step_of

Kind = Literal["whole", "tiles", "steps", "span", "part", "seen"]
Row = tuple[int, ...]
"""Numbers of axes, outermost first."""
Rows = tuple[Row, ...]
Cut = tuple[int | None, bool]
"""The grid axis that cuts a dimension, and whether the loop does."""
UNCUT: Cut = (None, False)
UNSEEN = ("slice", "concat", "unfold")
"""Views that tiles cannot be read through."""


@dataclass(frozen=True, slots=True)
class Axis:
    kind: Kind
    tile: int
    """Its extent in a tile of the graph."""
    grid: int | None
    loop: bool
    dot: bool
    """Whether a product of matrices runs along it."""


@dataclass(frozen=True, slots=True)
class Viewed:
    """One dimension that windows look along, of what a load or an operator has."""

    value: int
    """What the windows make."""
    dim: int
    window: Window
    seen: int | None
    """The axis that is looked at; None where its extent is 1."""
    places: int | None
    """The axis of the windows' places."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a kernel, and for each of its values the rows of its dimensions."""

    axes: tuple[Axis, ...]
    rows: tuple[Rows, ...]
    grid: tuple[int | None, ...]
    """For each axis of the grid the axis that its programs cut into tiles; None where the graph says how many."""
    step: int | None
    """The axis along which the loop walks; None where the graph says how often."""
    views: tuple[Viewed, ...] = ()


# One kernel ----------------------------------------------------------------------------------------------------------


def axes_of(kernel: Kernel, made: Block) -> Axes:
    """The axes of a kernel without macros and threads. Raises `OptionError` with a clause for what has none."""
    first = len(kernel.loads)
    shapes = [fresh(tile.dims) for tile in made.tiles[:first]]
    for step in kernel.body:
        assert not isinstance(step, Thread), "threads are spelled out before"
        shapes.append(_made(step, [shapes[value] for value in step.operands]))
    roots = [tuple(flat(row) for row in shape) for shape in shapes]
    atoms = list(dict.fromkeys(atom for shape in roots for row in shape for atom in row))
    number = {atom: place for place, atom in enumerate(atoms)}
    rows = tuple(tuple(tuple(number[atom] for atom in row) for row in shape) for shape in roots)
    views = tuple(_views(kernel, rows))
    facts = _Facts(kernel, made, rows, views)
    kinds = [facts.kind(axis) for axis in range(len(atoms))]
    axes = tuple(
        Axis(kind, atom.size, cut[0], cut[1], facts.dot(axis))
        for axis, (atom, (kind, cut)) in enumerate(zip(atoms, kinds, strict=True))
    )
    grid = tuple(
        next((n for n, axis in enumerate(axes) if axis.kind == "tiles" and axis.grid == place), None)
        for place in range(len(kernel.grid))
    )
    step_axis = next((n for n, axis in enumerate(axes) if axis.kind in ("steps", "span")), None)
    return Axes(axes, rows, grid, step_axis, views)


def _made(step: Step, operands: Sequence[Shape]) -> Shape:
    if isinstance(step, Op) and step.operator in UNSEEN:
        raise OptionError(f"{step.operator} of what a block holds cannot be lowered")
    if isinstance(step, Op) and OPERATORS[step.operator].kind == "window":
        # Places are axes of their own, whatever they follow from.
        x = operands[0]
        first = len(x) - len(step.windows)
        counts = [w.places(extent_of(row)) for w, row in zip(step.windows, x[first:], strict=True)]
        return (*x[:first], *fresh(tuple(counts)))
    try:
        # The tiles that concat joins stay along their axis; only stores take them.
        return step_of(step, operands, loop=())
    except Misfit as misfit:
        raise OptionError(str(misfit)) from None


def _views(kernel: Kernel, rows: Sequence[Rows]) -> Iterator[Viewed]:
    """What windows look along. Raises `OptionError` with a clause unless they look at what was loaded for them."""
    first = len(kernel.loads)
    for value, step in enumerate(kernel.body, first):
        if not isinstance(step, Op) or OPERATORS[step.operator].kind != "window":
            continue
        source = step.operands[0]
        if source >= first or sum(source in other.operands for other in kernel.body) > 1:
            raise OptionError(f"{step.operator} looks at what a block has computed or uses otherwise, too")
        load = kernel.loads[source]
        for dim, window in enumerate(step.windows, len(rows[source]) - len(step.windows)):
            if dim in load.imap or load.fmap is not None or len(rows[source][dim]) > 1:
                raise OptionError(f"{step.operator} looks along a dimension that the kernel cuts")
            seen, places = (next(iter(row), None) for row in (rows[source][dim], rows[value][dim]))
            yield Viewed(value, dim, window, seen, places)


class _Facts:
    """What a kernel does with its axes."""

    def __init__(self, kernel: Kernel, made: Block, rows: tuple[Rows, ...], views: Sequence[Viewed]) -> None:
        self.kernel, self.made, self.rows = kernel, made, rows
        self.seen = {view.seen for view in views}
        self.places = {view.places for view in views}
        self.first = len(kernel.loads)
        self.loaded: list[tuple[Row, Cut]] = []
        """For every dimension of every load its row, and what cuts it."""
        for place, load in enumerate(kernel.loads):
            for dim, row in enumerate(rows[place]):
                grid = load.imap.index(dim) if dim in load.imap else None
                self.loaded.append((row, (grid, load.fmap == dim)))

    def kind(self, axis: int) -> tuple[Kind, Cut]:
        """How an axis is cut. As parts of the graph where that is not the same everywhere."""
        if axis in self.seen:
            return "seen", UNCUT
        if axis in self.places:
            # No load has it: the grid may cut it as its stores say.
            stored = {store.omap.index(dim) for store in self.kernel.stores for dim, row
                      in enumerate(self.rows[store.source]) if row == (axis,) and dim in store.omap}  # fmt: skip
            one = next(iter(stored)) if len(stored) == 1 else None
            free = one is not None and self._alone_on(one, axis, False) and not self._reduced(axis)
            if free and self.kernel.grid[one or 0] == 1:
                return "tiles", (one, False)
        cuts = {cut if row[0] == axis else UNCUT for row, cut in self.loaded if axis in row}
        if cuts <= {UNCUT} and not self._stored_in_parts(axis):
            return "whole", UNCUT
        if len(cuts) != 1:
            return "part", UNCUT
        (cut,) = cuts
        grid, loop = cut
        if grid is not None and not self._alone_on(grid, axis, loop):
            return "part", cut
        if loop and not (self._loop_is(axis) and self._only_gathered(axis)):
            return "part", cut
        if grid is not None and not loop and self._reduced(axis):
            return "part", cut
        if grid is None and not loop:
            return "part", cut
        return ("span" if grid is not None and loop else "tiles" if grid is not None else "steps"), cut

    def dot(self, axis: int) -> bool:
        for step in self.kernel.body:
            product = isinstance(step, Op) and step.operator == "matmul"
            if product or (isinstance(step, Accumulate) and step.how == "rescale" and len(step.operands) == 2):
                left, right = (self.rows[operand] for operand in step.operands[:2])
                if left[-2] and left[-1] and right[-1] and axis in (*left[-2], *left[-1], *right[-1]):
                    return True
        return False

    def _stored_in_parts(self, axis: int) -> bool:
        """Whether a store puts tiles along this axis that no load cuts."""
        return any(
            row and row[0] == axis and dim in store.omap and self.kernel.grid[store.omap.index(dim)] > 1
            for store in self.kernel.stores
            for dim, row in enumerate(self.rows[store.source])
        )

    def _alone_on(self, grid: int, axis: int, loop: bool) -> bool:
        """Whether a grid axis cuts this axis and no other, in every load and every store.

        A share that is walked along may also be numbered: a store may have the parts along a dimension of extent 1.
        """
        for row, cut in self.loaded:
            if cut[0] == grid and (not row or row[0] != axis):
                return False
        for store in self.kernel.stores:
            rows = self.rows[store.source]
            place = store.omap[grid]
            here = () if place is None else rows[place]
            along = any(axis in row for row in rows)
            if along and (not here or here[0] != axis or sum(row.count(axis) for row in rows) != 1):
                return False
            if not along and (here or not loop) and place is not None:
                return False
            if not along and place is None and not loop:
                return False
        return True

    def _loop_is(self, axis: int) -> bool:
        """Whether the loop cuts this axis only."""
        return all(not cut[1] or (row and row[0] == axis) for row, cut in self.loaded)

    def _only_gathered(self, axis: int) -> bool:
        """Whether whatever sums over this axis, in an iteration, is gathered at once; so no tile means anything."""
        for value, rows in enumerate(self.rows):
            step = self.kernel.body[value - self.first] if value >= self.first else None
            along = any(axis in row for row in rows)
            if self.made.phases[value] is Phase.AFTER and along and not _joins(step):
                return False
            if isinstance(step, Op) and self._reduces(step, axis) and not self._goes_to(value, _SUMS[step.operator]):
                return False
            if isinstance(step, Accumulate) and step.how == "rescale" and not self._rescales(step, axis):
                return False
        return True

    def _rescales(self, step: Accumulate, axis: int) -> bool:
        scores = self.rows[step.operands[0]]
        return axis in scores[-1] and not any(axis in row for row in scores[:-1])

    def _goes_to(self, value: int, how: str) -> bool:
        """Whether a value's only uses, seen through other shapes, are accumulators of one kind."""
        for place, step in enumerate(self.kernel.body, self.first):
            if value not in step.operands:
                continue
            if isinstance(step, Accumulate):
                if step.how != how:
                    return False
            elif OPERATORS[step.operator].kind != "view" or not self._goes_to(place, how):  # type: ignore[union-attr]
                return False
        return all(store.source != value for store in self.kernel.stores)

    def _reduces(self, step: Op, axis: int) -> bool:
        rows = self.rows[step.operands[0]] if step.operands else ()
        if OPERATORS[step.operator].kind == "reduction":
            return any(axis in rows[dim] for dim in step.axes)
        return step.operator == "matmul" and axis in rows[-1]

    def _reduced(self, axis: int) -> bool:
        steps: Sequence[Step] = self.kernel.body
        if any(isinstance(step, Op) and self._reduces(step, axis) for step in steps):
            return True
        for step in steps:
            if isinstance(step, Accumulate):
                rows = self.rows[step.operands[0]]
                axes = (len(rows) - 1,) if step.how == "rescale" else step.axes if step.how != "concat" else ()
                if any(axis in rows[dim] for dim in axes):
                    return True
        return False


_SUMS = {"sum": "sum", "matmul": "sum", "amax": "max"}


def _joins(step: Step | None) -> bool:
    return isinstance(step, Accumulate) and step.how == "concat"


def extent(axes: Axes, row: Row) -> int:
    """How many elements of a tile of the graph lie along a row."""
    return math.prod(axes.axes[axis].tile for axis in row)
