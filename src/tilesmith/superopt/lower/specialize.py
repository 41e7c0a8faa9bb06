"""Kernels whose warps have different work: which may be written so, and whether they fit.

One warp copies tiles into rings of shared memory, groups of four warps multiply them as they come, and a program goes
on to its next tile while the last one is still being stored. That asks for a loop that does nothing but add products,
on operands that can be copied (tma.py), and for element-wise operators after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilesmith.core.graph import Accumulate, Op, Step
from tilesmith.core.graph_check import BYTES, Phase
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.tma import BOX, copied, may_copy, rows_stored

WARPS = 8
"""That multiply."""
REGISTERS = 65_536
"""Of a multiprocessor, for one program."""
COPIER_REGISTERS = 24
GROUP_WARPS = 4
"""Warps are given registers in groups of four."""
LEAST_ROWS, STEP = 64, 16
"""Rows of four warps' product, and how deep one instruction reaches."""
ACCUMULATED = 128
"""Registers of a thread for what is carried over the loop, at most; others are for what follows."""
BARRIER_BYTES = 16
"""Of a stage: one for what has come, one for what is free."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product that the loop adds."""

    value: int
    """Its accumulator."""
    left: int
    right: int
    """Loads."""


def products(plan: Plan) -> tuple[Product, ...] | None:
    """What the loop adds, in order; None where it does anything else."""
    first = len(plan.kernel.loads)
    made: list[Product] = []
    for value, step in enumerate(plan.kernel.body, first):
        varies = plan.made.phases[value] is Phase.VARYING
        if isinstance(step, Accumulate):
            product = _product(plan, value, step)
            if product is None:
                return None
            made.append(product)
        elif varies and not (plan.dots(step) or (isinstance(step, Op) and step.operator == "permute")):
            return None
    return tuple(made) or None


def _product(plan: Plan, value: int, step: Accumulate) -> Product | None:
    first = len(plan.kernel.loads)
    source = step.operands[0]
    made = plan.kernel.body[source - first] if source >= first else None
    if step.how != "sum" or step.axes or not isinstance(made, Op) or made.operator != "matmul" or not plan.dots(made):
        return None
    left, right = (_loaded(plan, operand) for operand in made.operands)
    return None if left is None or right is None else Product(value, left, right)


def _loaded(plan: Plan, value: int) -> int | None:
    """The load that a factor is, seen otherwise."""
    first = len(plan.kernel.loads)
    while value >= first:
        step = plan.kernel.body[value - first]
        if not isinstance(step, Op) or step.operator != "permute":
            return None
        value = step.operands[0]
    return value


def extents(plan: Plan) -> tuple[int, int, int] | None:
    """The axes of rows, columns and depth that all products have; None where they differ."""
    made = products(plan)
    if made is None or plan.axes.step is None:
        return None
    rows = {tuple(row for row in plan.axes.rows[product.value] if row) for product in made}
    if len(rows) != 1 or len(first := rows.pop()) != 2 or any(len(row) != 1 for row in first):
        return None
    (row,), (column,) = first
    for product in made:
        for load, other in ((product.left, row), (product.right, column)):
            if sorted(axis for r in plan.axes.rows[load] for axis in r) != sorted((other, plan.axes.step)):
                return None
    return row, column, plan.axes.step


def may_specialize(plan: Plan) -> bool:
    """Whether a kernel can be written for warps of different work."""
    found, made = extents(plan), products(plan)
    if found is None or made is None or not may_copy(plan) or plan.shares(found[2]) > 1:
        return False
    loads = {load for product in made for load in (product.left, product.right)}
    varying = {v for v in range(len(plan.kernel.loads)) if plan.made.phases[v] is Phase.VARYING}
    dtypes = {plan.made.tiles[load].dtype for load in loads}
    if loads != varying or len(dtypes) != 1 or dtypes & {"fp32", "fp64"}:
        return False
    if {product.left for product in made} & {product.right for product in made}:
        return False
    return all(_plain(plan, value, found[:2]) for value in _after(plan)) and _stored(plan, found[:2])


def _after(plan: Plan) -> list[int]:
    """What is computed or loaded for what follows the loop."""
    first = len(plan.kernel.loads)
    return [
        value
        for value, phase in enumerate(plan.made.phases)
        if phase is not Phase.VARYING and not (value >= first and isinstance(_step(plan, value), Accumulate))
    ]


def _step(plan: Plan, value: int) -> Step:
    return plan.kernel.body[value - len(plan.kernel.loads)]


def _plain(plan: Plan, value: int, tile: tuple[int, int]) -> bool:
    """Whether a value lies along rows, columns, both or neither, in this order, and is loaded or element-wise."""
    present = [row for row in plan.axes.rows[value] if row]
    places = [tile.index(row[0]) if len(row) == 1 and row[0] in tile else -1 for row in present]
    if -1 in places or places != sorted(set(places)):
        return False
    if value < len(plan.kernel.loads):
        return True
    step = _step(plan, value)
    return isinstance(step, Op) and OPERATORS[step.operator].kind in ("element-wise", "constant")


def _stored(plan: Plan, tile: tuple[int, int]) -> bool:
    whole = [(axis,) for axis in tile]
    for place, store in enumerate(plan.kernel.stores):
        step = _step(plan, store.source) if store.source >= len(plan.kernel.loads) else None
        if (
            step is None
            or [row for row in plan.axes.rows[store.source] if row] != whole
            or not rows_stored(plan, place)
        ):
            return False
    return True


def fits_groups(plan: Plan, choice: Choice) -> bool:
    """Whether tiles of these sizes can be shared by the groups of warps, and are not more than they can hold."""
    found, made = extents(plan), products(plan)
    if found is None or made is None:
        return False
    rows, columns, depth = (choice.blocks[axis] for axis in found)
    held = len(made) * rows * columns // (32 * choice.warps)
    if rows < LEAST_ROWS * choice.warps // GROUP_WARPS or columns > BOX or depth % STEP or held > ACCUMULATED:
        return False
    if choice.consumers == 1:
        return True
    # Every group takes its rows of the left operands.
    return all(next(r for r in plan.axes.rows[product.left] if r) == (found[0],) for product in made)


def may_widen(plan: Plan, choice: Choice) -> bool:
    """Whether both products of a loop may be one instruction's: one left operand, right ones of columns by depth."""
    made, found = products(plan), extents(plan)
    if made is None or found is None or len(made) != 2 or made[0].left != made[1].left:
        return False
    flat = all(plan.axes.rows[product.right] == ((found[1],), (found[2],)) for product in made)
    return flat and made[0].right != made[1].right and 2 * choice.blocks[found[1]] <= BOX


def ring_bytes(plan: Plan, choice: Choice) -> int:
    """Shared memory for what is copied, what is stored, and barriers."""

    def tile(value: int) -> int:
        return math.prod(choice.blocks[axis] for row in plan.axes.rows[value] for axis in row)

    stage = sum(tile(value) * BYTES[plan.made.tiles[value].dtype] for value in copied(plan))
    kept = sum(tile(s.source) * BYTES[d] for s, d in zip(plan.kernel.stores, plan.dtypes, strict=True))
    return choice.stages * (stage + BARRIER_BYTES) + kept


def group_registers(choice: Choice) -> int:
    """Of a thread that multiplies."""
    each = REGISTERS // (32 * (choice.warps + GROUP_WARPS)) // 8 * 8
    spare = (each - COPIER_REGISTERS) * GROUP_WARPS // choice.warps
    return min(240, (each + spare) // 8 * 8)


def tallest(plan: Plan, choice: Choice) -> int:
    """Rows of the largest product."""
    steps = [step for step in plan.kernel.body if plan.dots(step)]
    return max((math.prod(choice.blocks[a] for a in plan.axes.rows[s.operands[0]][-2]) for s in steps), default=0)
