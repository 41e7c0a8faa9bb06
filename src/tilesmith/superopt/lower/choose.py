"""The short list of choices for a kernel: what fits, best estimate first, and not all alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import Gpu
from tilesmith.superopt.lower.estimate import Estimate, Misfit, estimate, lasting
from tilesmith.superopt.lower.options import Choice, grid_order, may_group, may_prefetch, may_split, may_stream, slices
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.specialize import LEAST_ROWS, fits_groups, may_specialize, may_widen, tallest
from tilesmith.superopt.lower.specialize import WARPS as GROUPED
from tilesmith.superopt.lower.tma import fits, may_copy
from tilesmith.superopt.lower.window_estimate import window_estimate
from tilesmith.superopt.lower.windows import WARPS, window_ways

DOT_ROWS, DOT_COLUMNS, DOT_STEPS = (16, 32, 64, 128), (32, 64, 128, 256), (32, 64, 128, 256)
LONG, SHORT = (1, 4, 16, 64, 128, 256, 512, 1024, 2048), (1, 4, 16, 64)
"""Tiles of axes without products: along memory, and across."""
SPLITS = (1, 2, 4, 8, 16, 32)
STAGES = (2, 3, 4, 5)
DOUBLE = 64 * 128
"""Elements of a product from which 8 warps may share it."""
GROUP = 8
TILES = 1 << 15
"""Elements of one value that a program may hold."""
TMA_ARCH, WGMMA_ARCH = 90, 90
"""From where on tiles are copied by coordinates, and where groups of four warps multiply."""
ALIKE = 2
"""Choices with the same tiles and split in one list."""

Ranked = tuple[Choice, Estimate]


def power(number: int) -> int:
    """The smallest power of two that is no less."""
    return 1 << max(0, number - 1).bit_length()


def choices(plan: Plan, gpu: Gpu, most: int) -> tuple[Ranked, ...]:
    """At most so many, best estimate first. Raises `OptionError` with the kernel's name where none fits."""
    fitting: list[Ranked] = []
    least: Misfit | None = None
    for choice in ways(plan, gpu):
        made = window_estimate(plan, choice, gpu) if plan.axes.views else estimate(plan, choice, gpu)
        if isinstance(made, Estimate):
            fitting.append((choice, made))
        elif least is None or made.needed - made.limit < least.needed - least.limit:
            least = made
    if not fitting and least is not None:
        raise OptionError(
            f"Kernel {plan.node} ({plan.name}) needs {least.needed} {least.what} at its smallest tiles, and {gpu.name} "
            f"has {least.limit}; cut the dimensions that its blocks hold whole."
        )
    # A tie goes to less splitting, and to more loads under way: measured, 4 or 5 stages were never behind 3 by 5 %, and
    # up to 15 % before.
    fitting.sort(key=lambda ranked: (ranked[1].seconds, ranked[0].split, -ranked[0].stages, ranked[0].warps))
    return tuple(_varied(fitting, most, any(plan.dots(step) for step in plan.kernel.body)))


def _varied(ranked: Sequence[Ranked], most: int, dots: bool) -> list[Ranked]:
    """The first of every tiling and way of loading, then others until there are so many; one that waits among them.

    Without products the number of warps is a way of loading: it says how much each thread has under way.
    """
    seen: dict[object, int] = {}
    ways: set[object] = set()
    first: list[Ranked] = []
    others: list[Ranked] = []
    for choice, made in ranked:
        alike = (choice.blocks, choice.split, choice.programs > 0, choice.descriptors, choice.consumers)
        how = (choice.prefetch, choice.together, choice.gather, choice.walk, 0 if dots else choice.warps)
        way = (*alike, *how, choice.wide)
        if seen.get(alike, 0) == ALIKE or way in ways:
            others.append((choice, made))
            continue
        seen[alike] = seen.get(alike, 0) + 1
        ways.add(way)
        first.append((choice, made))
    listed = [*first, *others]
    # Whether to wait for one another is the closest call; both are worth judging.
    shared = next((place for place, (choice, _) in enumerate(listed) if choice.together), 0)
    if shared >= most > 1:
        listed.insert(most - 1, listed.pop(shared))
    return listed[:most]


def ways(plan: Plan, gpu: Gpu) -> Iterator[Choice]:
    """Every choice that is looked at, whether or not it fits."""
    if plan.axes.views:
        yield from window_ways(plan)
        return
    loads = [load for load in range(len(plan.kernel.loads)) if plan.sources[load] is not None]
    order = tuple(grid_order(plan))
    for blocks in _tiles(plan):
        tiles = math.prod(_count(plan, blocks, grid) for grid in range(len(plan.kernel.grid)))
        streams = any(may_stream(plan, load, blocks) for load in loads)
        plain = Choice(blocks, 4, 1, stream=streams, order=order, again=gpu.arch == 90)
        if may_group(plan) and tiles > gpu.multiprocessors and min(_count(plan, blocks, g) for g in order) > 1:
            plain = replace(plain, group=GROUP)
        splits = [s for s in SPLITS if s == 1 or (may_split(plan) and _worth(plan, blocks, s, tiles, gpu))]
        for split, warps, way in product(splits, _warps(plan, blocks), _ways(plan, blocks)):
            choice = replace(plain, split=split, warps=warps, stages=way[0], prefetch=way[1])
            yield choice
            shared = replace(choice, together=slices(plan, blocks, split) is not None)
            if shared.together and tiles * split <= lasting(plan, shared, gpu):
                yield shared
            if split == 1 and tiles > (programs := lasting(plan, choice, gpu)):
                yield replace(choice, programs=programs)
            if split == 1 and choice.stages > 1 and tiles > gpu.multiprocessors:
                yield from copied_ways(plan, choice, tiles, gpu)


def copied_ways(plan: Plan, choice: Choice, tiles: int, gpu: Gpu) -> Iterator[Choice]:
    """Ways whose operands are copied by coordinates: of products that have more tiles than there are multiprocessors.

    Kernels with fewer wait for memory, and copies drop the hint of what is read once.
    """
    if gpu.arch < TMA_ARCH or not may_copy(plan) or not fits(plan, choice):
        return
    if tallest(plan, choice) < LEAST_ROWS:
        return
    # Where few tiles lie along the first axis, neighbours have them all, and read the same of the other one at once.
    few = bool(choice.group) and _count(plan, choice.blocks, choice.order[0]) <= choice.group
    copied = replace(choice, descriptors=True, group=0 if few else choice.group)
    if gpu.arch == WGMMA_ARCH and choice.warps == GROUPED and may_specialize(plan):
        for consumers in (1, 2):
            special = replace(copied, consumers=consumers, programs=gpu.multiprocessors)
            if fits_groups(plan, special):
                yield replace(special, wide=may_widen(plan, special))
    programs = lasting(plan, copied, gpu)
    yield replace(copied, programs=programs) if tiles > programs else copied


def _count(plan: Plan, blocks: Sequence[int], grid: int) -> int:
    axis = plan.axes.grid[grid]
    return plan.counts[grid].number if axis is None else math.ceil(plan.sizes[axis].number / blocks[axis])


def _worth(plan: Plan, blocks: Sequence[int], split: int, tiles: int, gpu: Gpu) -> bool:
    """Whether programs that share a loop all have work, and multiprocessors are idle without."""
    axis = plan.axes.step
    steps = math.ceil(plan.sizes[axis].number / blocks[axis]) if axis is not None else 1
    return steps >= split and tiles * split <= 4 * gpu.multiprocessors


def _ways(plan: Plan, blocks: Sequence[int]) -> list[tuple[int, bool]]:
    """Stages of the pipeline, and whether the next iteration's loads wait in registers."""
    axis = plan.axes.step
    if not plan.loops or (axis is not None and blocks[axis] >= plan.sizes[axis].number):
        return [(1, False)]
    ahead = [(1, True)] if may_prefetch(plan) else []
    dots = any(plan.dots(step) for step in plan.kernel.body)
    return [*((stages, False) for stages in (STAGES if dots else (1, 3))), *ahead]


def _warps(plan: Plan, blocks: Sequence[int]) -> list[int]:
    """Such that a thread has a few elements of the largest value; of products that of the largest result."""
    products = [value for value, step in enumerate(plan.kernel.body, len(plan.kernel.loads)) if plan.dots(step)]
    values = products or range(len(plan.axes.rows))
    largest = max((math.prod(blocks[a] for row in plan.axes.rows[v] for a in row) for v in values), default=1)
    if products:
        return [4] if largest < DOUBLE else [4, 8]
    return [warps for warps in WARPS if 4 <= largest / (32 * warps) <= 64] or [4]


def _tiles(plan: Plan) -> Iterator[tuple[int, ...]]:
    """A tile size for every axis."""
    along = _along(plan)
    options: list[list[int]] = []
    for number, axis in enumerate(plan.axes.axes):
        full = max(16 if axis.dot else 1, power(plan.sizes[number].number))
        if axis.kind in ("whole", "part"):
            options.append([full])
        elif axis.dot:
            sizes: tuple[int, ...] = DOT_STEPS if axis.loop else DOT_COLUMNS if _is_column(plan, number) else DOT_ROWS
            options.append([size for size in sizes if size <= full] or [min(full, sizes[0])])
        else:
            sizes = LONG if number in along else SHORT
            options.append([size for size in sizes if size <= full] or [full])
    kept = [rows for value, rows in enumerate(plan.axes.rows) if plan.sources[value : value + 1] != (None,)]
    made = 0
    for blocks in product(*options):
        if all(math.prod(blocks[axis] for row in rows for axis in row) <= TILES for rows in kept):
            made += 1
            yield blocks
    if not made:
        yield tuple(min(sizes) for sizes in options)


def _is_column(plan: Plan, axis: int) -> bool:
    """Whether an axis is that of a product's columns."""
    products = [step for step in plan.kernel.body if plan.dots(step)]
    return any(axis in plan.axes.rows[step.operands[1]][-1] for step in products)


def _along(plan: Plan) -> set[int]:
    """Axes along which some tensor's neighbours in memory lie."""
    made: set[int] = set()
    for value, view in enumerate(plan.sources):
        for pieces, row in zip(view.rows if view else (), plan.axes.rows[value], strict=False):
            if row and pieces and pieces[-1].stride.number == 1:
                made.add(row[-1])
    return made
