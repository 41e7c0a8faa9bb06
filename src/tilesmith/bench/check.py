"""How far an answer may be from the reference's. Runs in the oracle only.

The truth is the reference in float64. What the reference itself loses in the problem's own dtype says how much rounding
is natural; an answer may lose a few times that. Both are measured against the *variation* of the output, not its
magnitude: of a long sum of numbers in [0, 1) every element is nearly the same, and a constant would pass any test that
is relative to it.

With truth r, the reference's own answer n, the candidate's answer c, and s the standard deviation of r:

    whole output     rms(c - r)   <= tolerance * max(4 rms(n - r), noise)
    each element     |c - r|      <= tolerance * (max(4 max|n - r|, 16 noise) + 2 eps |r|)

`noise` is what honest arithmetic may differ by for its order of summation alone: a share of s that the dtype gives, or
what float32 accumulators lose on sums as large as r, or as the terms of r where it has few elements, whichever is more.
`eps` is the dtype's machine epsilon. The scaled error is the larger of the two ratios: 1 is the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

NOISE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-4, torch.bfloat16: 4e-3}
ACCUMULATED = 4e-6
"""The share of its magnitude that a long sum in float32 loses, some thousand tiles one after another."""
NUDGE = 2.0**-24
FEW = 1024
"""Outputs of so many elements at most have no variation of their own to tell what is large for them."""
TELLING = 8
"""Numbers that tell the size of an output's terms: the distance of one nudged sum may be near zero by chance."""
CHUNK = 1 << 25
"""Elements compared at once: the largest outputs have billions, and float64 copies of them would not fit."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One output tensor as it should be, with what the reference's own dtype loses on it."""

    truth: torch.Tensor
    """In float64, or float32 where memory is short; integers and booleans in their own dtype."""
    dtype: torch.dtype
    variation: float
    noise: float
    rms_lost: float
    most_lost: float


def expect(truth: torch.Tensor, native: torch.Tensor, terms: float = 0.0) -> Expected:
    """What to compare with: `truth` from the reference in higher precision, `native` as the problem computes it.

    `terms` says how large the terms are that an output is made of, see `terms_of`: of a sum of both signs the value may
    be near zero, and the terms are not.
    """
    if not native.is_floating_point():
        return Expected(native, native.dtype, 0.0, 0.0, 0.0, 0.0)
    rms_lost, most_lost = _distance(native, truth)
    variation, magnitude = _variation(truth)
    accumulated = 0.0 if native.dtype is torch.float64 else ACCUMULATED * max(magnitude, terms)
    noise = max(NOISE.get(native.dtype, 2e-5) * variation, accumulated)
    return Expected(truth, native.dtype, variation, noise, rms_lost, most_lost)


def terms_of(truth: torch.Tensor, nudged: Sequence[torch.Tensor]) -> float:
    """The root mean square of a sum's terms times the root of their number, from truths for inputs that were changed.

    Each `nudged` is the truth for inputs of which every one was changed by a share of `NUDGE`, up or down by chance.
    """
    return math.sqrt(sum(_distance(other, truth)[0] ** 2 for other in nudged) / len(nudged)) / NUDGE


def scaled_error(answer: torch.Tensor, expected: Expected, tolerance: float) -> float:
    """The error of an answer of the right shape; at most 1 is right, infinite is not even finite where it should be."""
    truth = expected.truth
    if not truth.is_floating_point():
        return 0.0 if torch.equal(answer.to(truth.device), truth) else math.inf
    eps = torch.finfo(expected.dtype).eps
    rms_limit = max(4 * expected.rms_lost, expected.noise, 1e-300)
    base = max(4 * expected.most_lost, 16 * expected.noise, 1e-300)
    squares, worst = 0.0, 0.0
    for got, true in _chunks(answer, truth):
        gap = (got - true).abs()
        if not bool(torch.isfinite(gap).all()):
            return math.inf
        squares += float((gap * gap).sum())
        worst = max(worst, float((gap / (base + 2 * eps * true.abs())).max()))
    rms = math.sqrt(squares / max(1, truth.numel()))
    return max(rms / rms_limit, worst) / tolerance


def _distance(answer: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Root mean square and greatest distance."""
    squares, worst = 0.0, 0.0
    for got, true in _chunks(answer, truth):
        gap = (got - true).abs()
        squares += float((gap * gap).sum())
        worst = max(worst, float(gap.max()))
    return math.sqrt(squares / max(1, truth.numel())), worst


def _variation(truth: torch.Tensor) -> tuple[float, float]:
    """The standard deviation over all elements (the magnitude where there is but one value), and the magnitude."""
    count = max(1, truth.numel())
    mean = sum(float(true.sum()) for _, true in _chunks(truth, truth)) / count
    spread = math.sqrt(sum(float(((true - mean) ** 2).sum()) for _, true in _chunks(truth, truth)) / count)
    return spread if spread > 1e-12 * abs(mean) else abs(mean), math.hypot(mean, spread)


def _chunks(answer: torch.Tensor, truth: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both in float64, flat, a part at a time, on the truth's device."""
    left, right = answer.reshape(-1), truth.reshape(-1)
    for start in range(0, right.numel(), CHUNK):
        part = left[start : start + CHUNK].to(device=truth.device, dtype=torch.float64)
        yield part, right[start : start + CHUNK].double()


def finite(value: Any) -> bool:
    """Whether every element of every floating tensor in a flat list is finite."""
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in value
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    )
