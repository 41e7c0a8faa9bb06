"""What is known of a call's time, as figures: shares of the roofline, idle places, counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from tilesmith.core.gpu import FIRST_LAUNCH_S, NEXT_LAUNCH_S, PORT_BYTES_PER_CLOCK, Gpu
from tilesmith.core.profile import KernelProfile, Launch, Limiter, Profile
from tilesmith.core.trial import Trial
from tilesmith.propose.history import measured

COUNTERS: dict[Limiter, tuple[str, ...]] = {
    "dram": ("dram_throughput_pct",),
    "l2": ("l2_throughput_pct", "l2_in_port_pct", "l2_out_port_pct", "l1_pipe_pct"),
    "tensor": ("tensor_pipe_pct",),
    "alu": ("alu_pipe_pct", "fma_pipe_pct", "fp64_pipe_pct", "xu_pipe_pct", "lsu_pipe_pct", "issue_pct"),
    "atomics": ("atomic_unit_busiest_pct",),
}
"""Metrics of a profile that tell how busy a resource is, the busiest part of it counts."""


@dataclass(frozen=True)
class Figures:
    """Everything that a trial, its profile and the GPU's data say of a call, all kernels weighted by their time.

    Shares are of the call's time, measured where it was: 1 is a resource that is busy all the time.
    """

    trial: Trial
    profile: Profile | None
    gpu: Gpu

    @cached_property
    def measured(self) -> bool:
        return measured(self.trial)

    @cached_property
    def kernels(self) -> tuple[KernelProfile, ...]:
        return self.profile.kernels if self.profile else ()

    @cached_property
    def time_us(self) -> float:
        """Of one call, above 0."""
        return self.trial.time_us or (self.profile.time_us if self.profile else 0.0) or 1.0

    @cached_property
    def profiled_us(self) -> float:
        """The sum over the profile's kernels; 0 without a profile."""
        return self.profile.time_us if self.profile else 0.0

    @cached_property
    def launches(self) -> tuple[Launch | None, ...]:
        """For each kernel of the profile its launch; None for a kernel of the framework's.

        The n-th kernel of a name is the n-th launch of that name.
        """
        waiting = list(self.trial.launches)
        found: list[Launch | None] = []
        for kernel in self.kernels:
            launch = next((each for each in waiting if each.kernel == kernel.kernel), None)
            if launch is not None:
                waiting.remove(launch)
            found.append(launch)
        return tuple(found)

    @cached_property
    def main(self) -> Launch | None:
        """The launch that takes the longest; without a profile the first."""
        pairs = [(kernel.time_us, launch) for kernel, launch in zip(self.kernels, self.launches, strict=True) if launch]
        if pairs:
            return max(pairs, key=lambda pair: pair[0])[1]
        return self.trial.launches[0] if self.trial.launches else None

    def share_of(self, kernel: KernelProfile) -> float:
        """Of the profile's time."""
        return kernel.time_us / self.profiled_us if self.profiled_us > 0 else 1 / len(self.kernels)

    def mean(self, value: Callable[[KernelProfile], float | None]) -> float | None:
        """Weighted by time, over the kernels that have a value; None where none has."""
        pairs = [(self.share_of(kernel), found) for kernel in self.kernels if (found := value(kernel)) is not None]
        weight = sum(share for share, _ in pairs)
        return sum(share * found for share, found in pairs) / weight if weight > 0 else None

    def metric(self, name: str) -> float | None:
        """One hardware counter, weighted by time; None where no kernel has it."""
        return self.mean(lambda kernel: kernel.metric(name))

    @cached_property
    def metrics(self) -> tuple[tuple[str, float], ...]:
        """Every hardware counter, by name, weighted by time."""
        names = sorted({name for kernel in self.kernels for name, _ in kernel.metrics})
        return tuple((name, found) for name in names if (found := self.metric(name)) is not None)

    @cached_property
    def dram_bytes(self) -> float:
        return sum(kernel.dram_bytes for kernel in self.kernels)

    @cached_property
    def loaded_bytes(self) -> float:
        return sum(kernel.loaded_bytes for kernel in self.kernels)

    @cached_property
    def matrix_flops(self) -> float:
        """Of the kernels that use matrix units."""
        return sum(kernel.flops for kernel, units in zip(self.kernels, self._units, strict=True) if units)

    @cached_property
    def lane_flops(self) -> float:
        """Of the kernels that do not."""
        return sum(kernel.flops for kernel, units in zip(self.kernels, self._units, strict=True) if not units)

    @cached_property
    def _units(self) -> tuple[bool, ...]:
        return tuple(launch is not None and bool({"mma", "wgmma"} & launch.features) for launch in self.launches)

    @cached_property
    def matrix_rate(self) -> float:
        """What the matrix units sustain, per second."""
        tf32 = any(launch is not None and "tf32" in launch.features for launch in self.launches)
        return self.gpu.matrix_flops("tf32" if tf32 else "fp16")

    @cached_property
    def l2_rate(self) -> float:
        """What all multiprocessors pull from the second-level cache, in bytes per second."""
        return PORT_BYTES_PER_CLOCK * self.gpu.multiprocessors * self.gpu.clock_hz

    @cached_property
    def dram(self) -> float:
        return self._share(self.dram_bytes / self.gpu.readable_bytes_per_s)

    @cached_property
    def l2(self) -> float:
        return self._share(self.loaded_bytes / self.l2_rate)

    @cached_property
    def tensor(self) -> float:
        return self._share(self.matrix_flops / self.matrix_rate)

    @cached_property
    def alu(self) -> float:
        return self._share(self.lane_flops / self.gpu.fp32_flops)

    def busy(self, limiter: Limiter) -> float:
        """The share of the call's time for which a resource is busy: counted where it was, else by the roofline.

        0 for what is no resource. Device memory is busy all the time at what a kernel can read, not at its peak.
        """
        found = [value for name in COUNTERS.get(limiter, ()) if (value := self.metric(name)) is not None]
        if found:
            share = max(found) / 100 / (self.gpu.readable if limiter == "dram" else 1.0)
            return min(1.0, share * min(1.0, self.profiled_us / self.time_us))
        computed: dict[Limiter, float] = {"dram": self.dram, "l2": self.l2, "tensor": self.tensor, "alu": self.alu}
        return min(1.0, computed.get(limiter, 0.0))

    @cached_property
    def launching_us(self) -> float:
        count = max(len(self.kernels), len(self.trial.launches), 1)
        return 1e6 * (FIRST_LAUNCH_S + NEXT_LAUNCH_S * (count - 1))

    @cached_property
    def launching(self) -> float:
        return min(1.0, self.launching_us / self.time_us)

    @cached_property
    def floor_us(self) -> float:
        """No kernel that moves these bytes and multiplies as much takes less: the roofline."""
        return self.time_us * max(self.dram, self.tensor, self.alu)

    @cached_property
    def idle(self) -> float:
        """The share of the multiprocessors that have no program, over the call."""
        if not self.kernels:
            return self.idle_in(None, self.main)
        return sum(
            self.share_of(kernel) * self.idle_in(kernel, launch)
            for kernel, launch in zip(self.kernels, self.launches, strict=True)
        )

    def idle_in(self, kernel: KernelProfile | None, launch: Launch | None) -> float:
        """The share of one kernel's places for programs that stay empty: too few programs, or a ragged last wave.

        Where it was counted, the share of the time that the average multiprocessor had no work.
        """
        if launch is None:
            return 0.0
        active = kernel.metric("sm_active_pct") if kernel is not None else None
        if active is not None:
            return min(1.0, max(0.0, 1 - active / 100))
        few = max(0.0, 1 - prod(launch.grid) / self.gpu.multiprocessors)
        ragged = 1 - kernel.waves / ceil(kernel.waves) if kernel is not None and kernel.waves > 1 else 0.0
        return max(few, ragged)

    def held(self, limiter: Limiter) -> float:
        """The share of the call's time in kernels that the profile says are held back by this."""
        held_us = sum(kernel.time_us for kernel in self.kernels if kernel.limiter == limiter)
        return min(1.0, held_us / max(self.time_us, self.profiled_us))

    def _share(self, seconds: float) -> float:
        return 1e6 * seconds / self.time_us
