"""Tile sizes, warps, stages and the rest, ranked by an estimate from the µGraph itself."""

from __future__ import annotations

from collections.abc import Iterator

from tilesmith.core.gpu import Gpu
from tilesmith.superopt.lower.plan import Choice, Plan


def power(number: int) -> int:
    """The smallest power of two that is no less."""
    return 1 << max(0, number - 1).bit_length()


def choices(plan: Plan, gpu: Gpu) -> Iterator[Choice]:
    del gpu
    blocks = []
    for number, axis in enumerate(plan.axes.axes):
        full = power(plan.sizes[number].number)
        least = 16 if axis.dot else 1
        block = full if axis.kind in ("whole", "part") else min(full, 32)
        blocks.append(max(least, block))
    yield Choice(tuple(blocks), 4, 2)
