"""A graph with its kernels against the graph without, as the caller's clock sees them.

Each part was timed on the device alone. A call also costs the host something, and Triton's launches cost it more than
PyTorch's: where the device waits for the host, faster parts can make a slower whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from tilesmith.splice.words import micros

ROUNDS, CALLS = 9, 10
"""In turns, so many times so many calls; the first round warms up."""
NOTICED = 1.05
"""Times slower from which it is said aloud."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Microseconds of a call, by the clock of this process, caches warm."""

    own_us: float
    original_us: float

    @property
    def slower(self) -> bool:
        return self.own_us > NOTICED * self.original_us

    def __str__(self) -> str:
        told = f"{micros(self.own_us)} a call by the clock, {micros(self.original_us)} without the kernels"
        if not self.slower:
            return told
        return f'{told}: the device waits for the host\'s launches, which rest="cudagraphs" saves'


def clocked(own: Callable[..., Any], original: Callable[..., Any], example: Sequence[Any]) -> Whole:
    """Time both in turns on their example inputs. The state of the random generators stays."""
    device = example[0].device
    spent: dict[Callable[..., Any], list[float]] = {own: [], original: []}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        for number in range(ROUNDS):
            for call, times in spent.items():
                began = time.perf_counter()
                for _ in range(CALLS):
                    call(*example)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number:
                    times.append(1e6 * (time.perf_counter() - began) / CALLS)
    return Whole(median(spent[own]), median(spent[original]))
