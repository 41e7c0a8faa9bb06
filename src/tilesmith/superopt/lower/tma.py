"""Tiles that the tensor memory accelerator copies: which loads may come through descriptors, and how they are said.

A descriptor says where a tensor lies and how large a tile is. A copy takes coordinates instead of addresses, costs no
registers, and gives zeros beyond the tensor, so no mask is compared. The hardware asks for neighbours in memory along
the last dimension and for all other strides in multiples of 16 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.graph import Op, Step
from tilesmith.core.graph_check import BYTES, Phase
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower.axes import Rows
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.places import Places
from tilesmith.superopt.lower.plan import Plan, stored_sizes
from tilesmith.superopt.lower.sizes import Size, View, contiguous

ALIGNED = 16
"""Bytes."""
BOX = 256
"""Elements along one dimension of a copy, at most."""
DIMENSIONS = 5


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor whose tiles are copied, as the wrapper says it."""

    name: str
    """Of the kernel's parameter."""
    buffer: str
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]
    block: tuple[str, ...]
    """Elements of a tile along each dimension: names of constants, or 1."""
    dtype: Dtype | None = None
    """Where its tiles are laid out by the kernel (gluon.py)."""


def may_copy(plan: Plan) -> bool:
    """Whether everything that products in the loop read as it was loaded can come through descriptors."""
    factors = copied(plan)
    return bool(factors) and all(_regular(plan, value) for value in factors)


def copied(plan: Plan) -> tuple[int, ...]:
    """Loads of the loop that products read."""
    if not plan.loops or plan.axes.step is None or plan.axes.views:
        return ()
    wanted: set[int] = set()
    first = len(plan.kernel.loads)
    for value in range(len(plan.made.tiles) - 1, first - 1, -1):
        step = plan.kernel.body[value - first]
        if plan.dots(step):
            wanted |= set(step.operands[:2])
        elif value in wanted and _turns(step):
            wanted |= set(step.operands)
    varying = (value for value in sorted(wanted) if value < first and plan.made.phases[value] is Phase.VARYING)
    return tuple(value for value in varying if plan.sources[value] is not None)


def _turns(step: Step) -> bool:
    return isinstance(step, Op) and step.operator == "permute"


def _regular(plan: Plan, value: int) -> bool:
    view, rows = plan.sources[value], plan.axes.rows[value]
    assert view is not None, "a number is not copied"
    kept = _kept(view)
    if view.offset or not 1 <= len(kept) <= DIMENSIONS or any(len(view.rows[dim]) != 1 for dim in kept):
        return False
    strides = [view.rows[dim][0].stride for dim in kept]
    size = BYTES[view.dtype]
    if strides[-1].number != 1 or any(not s.number or s.number * size % ALIGNED for s in strides[:-1]):
        return False
    axes = [plan.axes.axes[axis] for dim in kept for axis in rows[dim]]
    single = all(len(rows[dim]) <= 1 for dim in kept) and bool(rows[kept[-1]])
    return single and all(axis.kind in ("tiles", "steps", "whole") for axis in axes)


def rows_stored(plan: Plan, place: int) -> bool:
    """Whether what is stored has rows of multiples of 16 bytes."""
    return stored_sizes(plan, place)[-1].number * BYTES[plan.dtypes[place]] % ALIGNED == 0


def fits(plan: Plan, choice: Choice) -> bool:
    """Whether tiles of these sizes are what one copy takes."""
    for value in copied(plan):
        view = plan.sources[value]
        sizes = [choice.blocks[axis] for row in plan.axes.rows[value] for axis in row]
        if view is None or max(sizes) > BOX or sizes[-1] * BYTES[view.dtype] < ALIGNED:
            return False
    return True


def _kept(view: View) -> list[int]:
    """Dimensions with more than one element."""
    return [dim for dim, row in enumerate(view.rows) if row]


def descriptor(plan: Plan, places: Places, value: int, name: str) -> Descriptor:
    """Of the tensor that a load takes tiles from."""
    view, rows = plan.sources[value], plan.axes.rows[value]
    assert view is not None, "a number is not copied"
    kept = _kept(view)
    block = tuple(places.block(rows[dim][0]) if rows[dim] else "1" for dim in kept)
    shape, strides = (view.sizes[dim] for dim in kept), (view.rows[dim][0].stride for dim in kept)
    return Descriptor(name, view.buffer, tuple(shape), tuple(strides), block)


def may_store(plan: Plan, choice: Choice, place: int) -> bool:
    """Whether a tile can be stored by coordinates: its rows lie along one axis each, and all dimensions are tiled."""
    rows = plan.axes.rows[plan.kernel.stores[place].source]
    if len(rows) < 2 or not rows_stored(plan, place) or any(len(row) != 1 for row in rows):
        return False
    sizes = [choice.blocks[row[0]] for row in rows]
    tiled = all(plan.axes.axes[row[0]].kind in ("tiles", "whole") for row in rows)
    return tiled and max(sizes) <= BOX and sizes[-1] * BYTES[plan.dtypes[place]] >= ALIGNED


def kept_bytes(plan: Plan, choice: Choice) -> int:
    """Shared memory of the tiles that are stored by coordinates."""
    made = 0
    for place, store in enumerate(plan.kernel.stores):
        if may_store(plan, choice, place):
            rows = plan.axes.rows[store.source]
            made += math.prod(choice.blocks[axis] for row in rows for axis in row) * BYTES[plan.dtypes[place]]
    return made


def stored(plan: Plan, places: Places, place: int, buffer: str, sizes: Sequence[Size], name: str) -> Descriptor:
    """Of the tensor that a store fills."""
    rows = plan.axes.rows[plan.kernel.stores[place].source]
    view = contiguous(buffer, plan.dtypes[place], sizes)
    kept = _kept(view)
    block = tuple(places.block(rows[dim][0]) if rows[dim] else "1" for dim in kept)
    shape, strides = (view.sizes[dim] for dim in kept), (view.rows[dim][0].stride for dim in kept)
    return Descriptor(name, buffer, tuple(shape), tuple(strides), block, plan.dtypes[place])


def coordinates(plan: Plan, places: Places, value: int) -> list[str]:
    """Where the tile of this program and iteration begins."""
    view, load = plan.sources[value], plan.kernel.loads[value]
    assert view is not None, "a number is not copied"
    return _corner(places, view, plan.axes.rows[value], load.imap, load.fmap)


def stored_coordinates(plan: Plan, places: Places, place: int, sizes: Sequence[Size]) -> list[str]:
    """Where the tile that this program stores begins."""
    store = plan.kernel.stores[place]
    view = contiguous("", plan.dtypes[place], sizes)
    return _corner(places, view, plan.axes.rows[store.source], store.omap, None)


def _corner(places: Places, view: View, rows: Rows, imap: Sequence[int | None], fmap: int | None) -> list[str]:
    made = []
    for dim in _kept(view):
        grid = imap.index(dim) if dim in imap else None
        made.append(places.start(rows[dim][0]) if rows[dim] else places.index((), grid, dim == fmap))
    return made


def copy(plan: Plan, places: Places, value: int, name: str) -> str:
    """The expression that loads a tile through descriptor `name`."""
    view, rows = plan.sources[value], plan.axes.rows[value]
    assert view is not None, "a number is not copied"
    made = f"{name}.load([{', '.join(coordinates(plan, places, value))}])"
    if all(rows[dim] for dim in _kept(view)):
        return made
    return f"tl.reshape({made}, {places.shape([row for row in rows if row])})"
