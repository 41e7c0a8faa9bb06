"""Where kernels stand under the roof of their GPU: arithmetic over traffic, and the rate that they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tilesmith.core.gpu import TABLE, Gpu
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Timing, Trial
from tilesmith.report.chronicle import Chronicle
from tilesmith.report.words import time_of


@dataclass(frozen=True, slots=True)
class Place:
    """One correct trial: all kernels of a call together."""

    number: int
    flops_per_byte: float
    """Of traffic to device memory."""
    flops_per_s: float
    counted: bool
    """By hardware counters; else its traffic and arithmetic are estimated from the compiled code."""
    measured: bool
    """Whether its time was; else that is an estimate, too."""


@dataclass(frozen=True, slots=True)
class Roofs:
    """The GPU's limits, and who stands under them."""

    gpu: Gpu
    peak_flops_per_s: float
    """What the matrix units sustain, or the arithmetic outside them where no kernel uses them."""
    peak_name: str
    places: tuple[Place, ...]
    without: int
    """Correct trials whose arithmetic or traffic is not known."""


def roofs(chronicle: Chronicle) -> Roofs | None:
    """None where nothing is correct, or nobody knows the GPU."""
    correct = [(n, t) for n, t in chronicle.numbered() if t.time_us is not None]
    where = next((t.environment for _, t in correct if t.environment), None)
    gpu = TABLE.get(where.target) if where else None
    if gpu is None:
        return None
    profiles = chronicle.profiles()
    places = [place for number, trial in correct if (place := _place(number, trial, profiles.get(number)))]
    if not places:
        return None
    kind = _kind([trial for _, trial in correct])
    peak, name = (
        (gpu.fp32_flops, "arithmetic outside the matrix units")
        if kind is None
        else (gpu.matrix_flops(kind), f"matrix units, {kind}, sustained")
    )
    return Roofs(gpu, peak, name, tuple(places), len(correct) - len(places))


def _place(number: int, trial: Trial, profile: Profile | None) -> Place | None:
    if profile is None or not trial.time_us:
        return None
    flops = sum(kernel.flops for kernel in profile.kernels)
    moved = sum(kernel.dram_bytes for kernel in profile.kernels)
    if flops <= 0 or moved <= 0:
        return None
    measured = isinstance(time_of(trial.verdict), Timing)
    return Place(number, flops / moved, flops / trial.time_us * 1e6, profile.source == "ncu", measured)


def _kind(trials: Sequence[Trial]) -> Literal["fp16", "tf32"] | None:
    """Of the matrix units that kernels use; None where none does."""
    features = {feature for trial in trials for launch in trial.launches for feature in launch.features}
    if not features & {"mma", "wgmma"}:
        return None
    return "tf32" if "tf32" in features else "fp16"
