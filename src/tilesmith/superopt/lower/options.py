"""What a kernel may be written like beside the plain way, and when each is allowed. Every choice computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.graph import Accumulate, Op
from tilesmith.core.graph_check import Phase
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.lower.plan import Plan

UNROLLED = 8
"""Partial tiles of a split loop whose loads may wait together in one program's registers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a kernel is written and launched. Every choice computes the same."""

    blocks: tuple[int, ...]
    """For every axis the elements that a program holds at once, a power of two."""
    warps: int
    stages: int
    """Iterations whose loads are under way at once through shared memory; 1 does not overlap them."""
    prefetch: bool = False
    """Loads of the next iteration are started before this one is computed, and wait in registers. Needs `stages` 1."""
    split: int = 1
    """Programs that share one loop; the last to arrive adds what they have. Needs sums that can be added."""
    together: bool = False
    """Programs that share a loop wait for one another, and each adds a slice of the tile; none waits for long, and the
    last to arrive does what is left. Needs a slice."""
    stream: bool = False
    """What is read once leaves the second-level cache first."""
    again: bool = True
    """A tile that a product and other operators read is loaded for each. On Hopper with stages above 1 they must not
    share it: the pipelined buffer of an operand that both read was found overwritten too early."""
    order: tuple[int, ...] = ()
    """The grid's axes, that of neighbouring programs first."""
    group: int = 0
    """So many tiles of the second axis of `order` go together with all of the first; 0 walks along all."""
    walk: bool = False
    """A program takes the places of windows along their first dimension one after another, and carries along what it
    has seen of planes that later windows see again. Then `blocks` says how many places are walked along. Needs a first
    dimension that is not the last."""
    gather: bool = False
    """Of the dimension along which windows' elements are neighbours in memory a tile has all; what windows see of it
    is gathered from registers. Else every tap is loaded."""
    programs: int = 0
    """Where above 0: so many programs are launched, and each takes tile after tile."""
    descriptors: bool = False
    """What products read in the loop is copied tile by tile, by coordinates (tma.py). Needs `stages` above 1, and
    tensors that `may_copy`."""
    consumers: int = 0
    """Where above 0: one warp copies, and so many groups of warps multiply what it copied (gluon.py). Needs
    `descriptors`, `programs`, and a kernel that `may_specialize`."""
    wide: bool = False
    """Two products of one left operand are one, their right operands side by side. Needs one that `may_widen`."""


def grid_order(plan: Plan, order: tuple[int, ...] = ()) -> list[int]:
    """The axes of the grid that have more than one program, or may have, that of neighbouring programs first.

    Unless `order` says otherwise, neighbours share what the largest tensor has for all of them.
    """
    many = [grid for grid in range(len(plan.kernel.grid)) if plan.many(grid)]
    chosen = [grid for grid in order if grid in many]
    rest = [grid for grid in reversed(many) if grid not in chosen]
    return chosen + sorted(rest, key=lambda grid: _cuts_largest(plan, grid))


def _cuts_largest(plan: Plan, grid: int) -> bool:
    views = [(view, load) for view, load in zip(plan.sources, plan.kernel.loads, strict=True) if view is not None]
    if not views:
        return False
    _, load = max(views, key=lambda pair: pair[0].elements)
    return load.imap[grid] is not None


def may_stream(plan: Plan, load: int, blocks: Sequence[int] = ()) -> bool:
    """Whether no two programs or iterations read the same of a tensor: every grid axis with programs cuts it.

    An axis whose tiles, of so many elements, have all of it has one program.
    """
    if plan.loops and plan.made.phases[load] is not Phase.VARYING:
        return False

    def one(grid: int) -> bool:
        axis = plan.axes.grid[grid]
        return axis is not None and bool(blocks) and blocks[axis] >= plan.sizes[axis].number

    return all(one(grid) or plan.kernel.loads[load].imap[grid] is not None for grid in grid_order(plan))


def may_prefetch(plan: Plan) -> bool:
    """Whether the loop walks along an axis: what the next iteration loads is known in this one."""
    return plan.axes.step is not None and plan.loops


def may_split(plan: Plan) -> bool:
    """Whether programs may share the loop: it walks along one axis, and what it gathers can be added afterwards."""
    step = plan.axes.step
    if step is None or plan.axes.axes[step].kind != "steps":
        return False
    return all(step.how != "concat" for step in plan.kernel.body if isinstance(step, Accumulate))


def slices(plan: Plan, blocks: Sequence[int], split: int) -> int | None:
    """The axis along which the programs of a tile can each finish an equal slice; None without one.

    Nothing after the loop may sum over it or read what was loaded for the loop, and every store has it.
    """
    if split < 2 or split & (split - 1) or not may_split(plan):
        return None
    fit = [axis for axis in range(len(plan.axes.axes)) if blocks[axis] % split == 0 and _slices(plan, axis)]
    # What lies first in a partial tile comes in runs; among axes that do, the one with most to share.
    return max(fit, key=lambda axis: (not _last(plan, axis), min(blocks[axis], plan.sizes[axis].number)), default=None)


def _last(plan: Plan, axis: int) -> bool:
    """Whether neighbours in some partial result lie along an axis, and other axes before it."""
    gathered = (plan.axes.rows[value] for value, step in enumerate(plan.kernel.body, len(plan.kernel.loads))
                if isinstance(step, Accumulate))  # fmt: skip
    present = ([row for row in rows if row] for rows in gathered)
    return any(len(rows) > 1 and axis in rows[-1] for rows in present)


def _slices(plan: Plan, axis: int) -> bool:
    first, rows = len(plan.kernel.loads), plan.axes.rows
    if plan.axes.axes[axis].kind != "tiles":
        return False
    if any([row for row in rows[store.source] if axis in row] != [(axis,)] for store in plan.kernel.stores):
        return False
    after = [step for value, step in enumerate(plan.kernel.body, first)
             if isinstance(step, Op) and plan.made.phases[value] is Phase.AFTER]  # fmt: skip
    late = {o for step in after for o in step.operands} | {store.source for store in plan.kernel.stores}
    for value in late:
        still = plan.made.phases[value] is Phase.INVARIANT
        if still and any(axis in row for row in rows[value]):
            return False
    for step in after:
        along = any(axis in row for o in step.operands for row in rows[o])
        if along and OPERATORS[step.operator].kind not in ("element-wise", "view"):
            return False
        if along and any(len(row) > 1 and axis in row for o in step.operands for row in rows[o]):
            return False
    return True


def may_group(plan: Plan) -> bool:
    """Whether two axes of the grid, and only those, have tiles that can be walked in strips."""
    order = grid_order(plan)
    return len(order) == 2 and all(plan.axes.grid[grid] is not None for grid in order)
