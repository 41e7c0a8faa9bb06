"""From samples to a measurement: how many launches to time, in what order, and what their spread says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from tilesmith.core.trial import Timing

BLOCK_US = 20_000.0
"""Candidate and rival alternate in blocks of about this much device time."""
BLOCKS = 5
OVERHEAD_US = 300.0
"""Of what comes before each launch: the host's head start, and clearing the cache."""
HOPELESS = 1.25
"""A candidate this many times slower than its rival is not measured further."""

Batch = Callable[[int], Sequence[float]]
"""Time so many launches; microseconds each."""


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, from order statistics: no distribution is assumed."""
    ordered = sorted(samples)
    half = 0.98 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half))
    return ordered[low], ordered[high]


def alternate(own: Batch, rival: Batch | None, rival_id: str | None) -> Timing:
    """Time a candidate in alternation with its rival, so that what the clock does happens to both."""
    first = median(own(3))
    launches = max(4, min(60, round(BLOCK_US / (first + OVERHEAD_US))))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(BLOCKS):
        ours += own(launches)
        if rival is not None:
            theirs += rival(launches)
            if median(ours) > HOPELESS * median(theirs):
                break
    low, high = interval(ours)
    if not theirs:
        return Timing(median(ours), low, high, len(ours))
    return Timing(median(ours), low, high, len(ours), rival_id, median(theirs), *interval(theirs))
