"""What a kernel over windows would cost under a choice: bytes, instructions of loads and comparisons, registers.

As in `estimate` the result ranks choices and is no time. That each element comes from device memory once is what tiles
and walks are for; what they differ in is how often it is loaded again, how wide, and how many programs are under way.
"""

from __future__ import annotations

import math

from tilesmith.core.gpu import Gpu
from tilesmith.core.graph_check import BYTES
from tilesmith.superopt.lower.estimate import L2_OVER_DRAM, LATENCY_S, LAUNCH_S, PROGRAM_S, REGISTERS, Estimate, Misfit
from tilesmith.superopt.lower.options import Choice, grid_order
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.windows import delays, parts, tile, walked, walking

LOAD_INSTRUCTIONS = 3.0
"""Of a load of neighbours, for all of a thread's."""
SINGLE_INSTRUCTIONS = 6.0
"""Of a load of one element, which has an address and maybe a mask of its own."""
WIDE = 16
"""Bytes of one load of a thread."""
COMPARED = 0.3
"""Instructions of a byte that is compared: two elements at once, where they are short."""
GATHERED = 12.0
"""Instructions of an element that is gathered: shuffles among a row's registers, and choices between them."""
EXCHANGED = 4.0
"""Instructions of an element that other threads store than made it."""
FIXED = 38
"""Registers of addresses and masks."""
GATHERING = 0.75
"""Registers for an element of what is gathered from."""
ISSUE = 0.7
"""Of the instructions that a multiprocessor could issue, how many it does."""
FULL = 32
"""Warps of a multiprocessor that issue so many."""


def window_estimate(plan: Plan, choice: Choice, gpu: Gpu) -> Estimate | Misfit:
    """Seconds of one launch on cold caches, or what it needs too much of."""
    shown = walking(plan) if choice.walk else plan
    views, blocks = plan.axes.views, choice.blocks
    first, last = walked(plan), views[-1]
    (value,) = {view.value for view in views[-1:]}
    rows = shown.axes.rows[value]
    load = plan.kernel.body[value - len(plan.kernel.loads)].operands[0]
    source = plan.sources[load]
    assert source is not None, "windows look at tensors"
    size = BYTES[source.dtype]
    places, held = tile(plan, blocks, choice.walk, choice.gather)
    tiles, seen = 1.0, 1.0
    for grid in grid_order(plan):
        axis = plan.axes.grid[grid]
        tiles *= plan.counts[grid].number if axis is None else math.ceil(plan.sizes[axis].number / blocks[axis])
    steps, planes, carried, extra = 1, 1, 0, 0
    if choice.walk and first is not None and first.places is not None:
        again = delays(first.window)
        steps = min(blocks[first.places], plan.sizes[first.places].number)
        planes, carried = first.window.size - len(again), sum(delay.places for delay in again)
        extra = carried
    loaded = [view for view in views if not ((choice.walk and view is first) or (choice.gather and view is last))]
    taps = math.prod(view.window.size for view in loaded)
    # What a program sees of each dimension, and how often it sees it.
    for view in views:
        room = 1 if view.seen is None else plan.sizes[view.seen].number
        if choice.gather and view is last:
            seen *= room
        else:
            count = 1 if view.places is None else min(blocks[view.places], plan.sizes[view.places].number)
            seen *= min(room, (count - 1) * view.window.stride + view.window.dilation * (view.window.size - 1) + 1)
    lead = math.prod(blocks[axis] for row in rows[: views[0].dim] for axis in row)
    wide = min(WIDE // size, max(1, int(held) // (32 * choice.warps))) if _neighbours(plan, choice) else 1
    loads = (steps * planes + extra) * taps * held
    loading = LOAD_INSTRUCTIONS / wide if wide > 1 else SINGLE_INSTRUCTIONS
    instructions = loads * (loading + COMPARED * size)
    instructions += steps * places * GATHERED / parts(last.window) * last.window.size * choice.gather
    if choice.gather and last.seen is not None and held / choice.warps > blocks[last.seen]:
        # What lies along rows goes through shared memory on its way out, unless a warp has one row.
        instructions += steps * places * EXCHANGED
    words = (carried + planes + choice.prefetch * taps * planes) * size / 4 + GATHERING
    registers = FIXED + math.ceil(words * held / (32 * choice.warps))
    if registers > REGISTERS:
        return Misfit("registers of a thread", registers, REGISTERS)
    resident = max(1, min(gpu.registers // (registers * 32 * choice.warps), gpu.warps // choice.warps, gpu.blocks))
    active = min(tiles, gpu.multiprocessors * resident)
    # Programs that walk all begin at once; the last wave of them has few.
    waves = tiles / active
    idle = math.ceil(waves) / waves if choice.walk else 1.0
    written = math.prod(plan.sizes[axis].number for row in plan.axes.rows[value] for axis in row)
    written *= math.prod(count.number for grid, count in enumerate(plan.counts) if plan.axes.grid[grid] is None)
    once = float((source.elements + written) * size)
    # A walk that begins anew reads again what the one before it carries.
    once *= 1 + extra * min(first.window.stride, 2) / 2 / (steps * first.window.stride) if extra and first else 1.0
    flight = active * planes * taps * held * size * (1.0 if choice.prefetch else 0.5)
    dram = min(gpu.readable_bytes_per_s, flight / LATENCY_S)
    cache = tiles * (lead * seen + places * steps) * size / (L2_OVER_DRAM * gpu.readable_bytes_per_s)
    busy = ISSUE * min(1.0, resident * choice.warps / FULL)
    issued = tiles * instructions / (128 * busy * gpu.clock_hz * gpu.multiprocessors)
    costs = sorted((once / dram * (1 + 0.3 * (idle - 1)), cache, issued * idle))
    seconds = LAUNCH_S + LATENCY_S + costs[2] + 0.2 * (costs[0] + costs[1]) + tiles * PROGRAM_S
    return Estimate(seconds, int(tiles), 0, registers)


def _neighbours(plan: Plan, choice: Choice) -> bool:
    """Whether a thread's elements are neighbours in memory, so that one load takes several."""
    last = plan.axes.views[-1]
    return choice.gather or (last.window.stride == 1 and last.window.size == 1)
