"""What a kernel over windows may be written like: its tiles, whether it walks, and how it gets what windows see.

A tile is one of places. Along the last dimension, where elements are neighbours in memory, it either loads every tap,
or whole rows, of which it gathers the taps in registers: a row is read in wide loads, and compared with other rows
before anything is gathered. Along the first dimension it either loads every tap, or walks from place to place and
carries what later windows see again, so that each element is loaded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from tilesmith.core.graph import Window
from tilesmith.superopt.lower.axes import Viewed
from tilesmith.superopt.lower.options import Choice, grid_order
from tilesmith.superopt.lower.plan import Plan

IMAGES = (1, 4, 16)
LAST = (16, 64, 256, 1024)
OTHERS = (1, 4, 8, 16, 32)
WALKS = (16, 32, 64)
"""Places that a program walks along, if not all."""
WARPS = (1, 2, 4, 8, 16)
LANES = (4, 16)
"""Elements of one thread: few enough for many threads at once."""
UNROLLED = 27
"""Taps whose loads are written out; of more there are loops."""
ROW = 1 << 11
"""Elements of a row that a program holds to gather from."""
LEAST_ROW = 4
"""The same at least: rows are split into as many lanes."""
TILE = 1 << 13
"""Elements of one value that a program holds."""


@dataclass(frozen=True, slots=True)
class Delay:
    """A tap that sees at one place what another tap saw so many places before."""

    tap: int
    of: int
    places: int


def delays(window: Window) -> tuple[Delay, ...]:
    """For each tap that is a later tap's again, after as few places as can be, which.

    Tap t at place o sees element s·o + d·t - p. Tap t' > t saw that k places before if s·k = d·(t' - t).
    """
    made = []
    for tap in range(window.size):
        for later in range(tap + 1, window.size):
            steps, rest = divmod(window.dilation * (later - tap), window.stride)
            if not rest:
                made.append(Delay(tap, later, steps))
                break
    return tuple(made)


def walked(plan: Plan) -> Viewed | None:
    """The dimension along which a program may walk: the first that windows see, where it is not the last."""
    views = plan.axes.views
    one = len({view.value for view in views}) == 1
    return views[0] if one and len(views) > 1 and views[0].places is not None and delays(views[0].window) else None


def walking(plan: Plan) -> Plan:
    """The plan of a program that walks: its values have one place at a time."""
    view = walked(plan)
    assert view is not None, "only what may walk does"
    rows = tuple(tuple(tuple(a for a in row if a != view.places) for row in value) for value in plan.axes.rows)
    return replace(plan, axes=replace(plan.axes, rows=rows))


def gathers(plan: Plan) -> bool:
    """Whether rows may be gathered from: they are neighbours in memory, and fit."""
    view = plan.axes.views[-1]
    if view.seen is None or view.places is None or view.window.size == 1:
        return False
    pieces = _source(plan, view)
    return pieces == 1 and plan.sizes[view.seen].number <= ROW


def parts(window: Window) -> int:
    """Into how many lanes rows are split before anything is gathered: each tap sees only one of them."""
    return window.stride if window.stride in (2, 4) else 1


def _source(plan: Plan, view: Viewed) -> int:
    """The distance between neighbours of the dimension in memory."""
    load = plan.kernel.body[view.value - len(plan.kernel.loads)].operands[0]
    tensor = plan.sources[load]
    return tensor.rows[view.dim][-1].stride.number if tensor is not None and tensor.rows[view.dim] else 0


def tile(plan: Plan, blocks: Sequence[int], walk: bool, gather: bool) -> tuple[int, int]:
    """Elements of a tile of places, and of what is held before anything is gathered."""
    last = plan.axes.views[-1]
    rows = (walking(plan) if walk else plan).axes.rows[last.value]
    places = math.prod(blocks[axis] for row in rows for axis in row)
    if not gather or last.seen is None or last.places is None:
        return places, places
    return places, places // blocks[last.places] * blocks[last.seen]


def window_ways(plan: Plan) -> Iterator[Choice]:
    """Every choice that is looked at, whether or not it fits."""
    order = tuple(grid_order(plan))
    for walk, gather in product({False, walked(plan) is not None}, {False, gathers(plan)}):
        for blocks in _tiles(plan, walk, gather):
            _, largest = tile(plan, blocks, walk, gather)
            if largest > TILE:
                continue
            fit = [warps for warps in WARPS if LANES[0] <= largest / (32 * warps) <= LANES[1]]
            fit = fit or [WARPS[0] if largest < 32 * LANES[0] else WARPS[-1]]
            for warps, ahead in product(fit, (False, True) if walk and _few(plan, gather) else (False,)):
                yield Choice(blocks, warps, 1, ahead, again=False, order=order, walk=walk, gather=gather)


def _few(plan: Plan, gather: bool) -> bool:
    """Whether the loads of a plane are written out, so that they may be started a place ahead."""
    views = plan.axes.views[1:-1] if gather else plan.axes.views[1:]
    return math.prod(view.window.size for view in views) <= UNROLLED


def _tiles(plan: Plan, walk: bool, gather: bool) -> Iterator[tuple[int, ...]]:
    last, first = plan.axes.views[-1], walked(plan)
    options: list[list[int]] = []
    places = {view.places for view in plan.axes.views}
    for number, axis in enumerate(plan.axes.axes):
        full = max(LEAST_ROW if axis.kind == "seen" else 1, 1 << (plan.sizes[number].number - 1).bit_length())
        sizes: tuple[int, ...] = OTHERS if number in places else IMAGES
        if axis.kind == "seen":
            options.append([full if gather and number == last.seen else 1])
        elif axis.kind != "tiles" or (gather and number == last.places):
            options.append([full])
        elif walk and first is not None and number == first.places:
            options.append([*(size for size in WALKS if size < full), full])
        else:
            sizes = LAST if number == last.places else sizes
            options.append([size for size in sizes if size < full] + [full] * (full <= max(sizes)) or [full])
    yield from product(*options)
