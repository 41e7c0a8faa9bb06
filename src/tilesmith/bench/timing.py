"""From samples to a measurement: how many launches to time, in what order, and what their spread says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from tilesmith.core.trial import Timing

BLOCK_US = 20_000.0
"""Candidate and rival alternate in blocks of about this much device time."""
BLOCKS = 5
OVERHEAD_US = 300.0
"""Of what comes before each launch: the host's head start, and clearing the cache."""
NOISE = 0.02
"""A wider interval, as a share of the median on either side, is measured again, with the old samples kept."""
REPEATS = 2
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
    for block in range(BLOCKS * (1 + REPEATS)):
        if block % BLOCKS == 0 and block and _calm(ours):
            break
        repeats = block // BLOCKS
        ours += own(launches)
        if rival is not None:
            theirs += rival(launches)
            if median(ours) > HOPELESS * median(theirs):
                break
    low, high = interval(ours)
    timing = Timing(median(ours), low, high, len(ours), repeats=repeats)
    if not theirs:
        return timing
    rival_low, rival_high = interval(theirs)
    return replace(timing, rival=rival_id, rival_us=median(theirs), rival_low_us=rival_low, rival_high_us=rival_high)


def _calm(samples: Sequence[float]) -> bool:
    low, high = interval(samples)
    middle = median(samples)
    return max(high - middle, middle - low) <= NOISE * middle
