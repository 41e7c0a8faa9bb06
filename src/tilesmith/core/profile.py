"""Why a candidate takes the time it takes: launches, what the compiled code holds, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Limiter = Literal["launch", "parallelism", "latency", "dram", "l2", "tensor", "alu", "atomics"]
"""What a kernel's time goes to.

launch       the fixed cost of starting kernels
parallelism  too few programs, or a ragged last wave, for the multiprocessors of the GPU
latency      too few bytes in flight to cover the memory's latency
dram         device memory bandwidth
l2           second-level cache bandwidth
tensor       matrix units
alu          arithmetic outside the matrix units
atomics      contended read-modify-write operations
"""

Scalar = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel that a call of the candidate starts, as the compiler and the launcher saw it."""

    kernel: str
    grid: tuple[int, int, int]
    warps: int
    stages: int
    shared_bytes: int
    registers: int
    spills: int
    arguments: tuple[tuple[str, Scalar], ...] = ()
    """Scalars and constexprs by name, sorted; a tensor stands as its dtype and shape, "bf16[2048, 1048576]"."""
    features: frozenset[str] = frozenset()
    """What the compiled code holds; see `tilesmith.bench.features`."""

    def argument(self, name: str) -> Scalar:
        """The value of one scalar argument or constexpr; None where there is none."""
        return dict(self.arguments).get(name)


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """Where the time of one launch goes. Times in microseconds, traffic in bytes."""

    kernel: str
    time_us: float
    limiter: Limiter
    dram_bytes: float
    """Traffic to device memory."""
    loaded_bytes: float
    """What the programs load and store, before any cache."""
    flops: float
    occupancy: float
    """Resident warps over the most that a multiprocessor can hold, 0 to 1."""
    waves: float
    """Programs over those that can be resident at once."""
    metrics: tuple[tuple[str, float], ...] = ()
    """What else is known, by name, sorted; each name ends in its unit where it has one. An estimate has none."""

    def metric(self, name: str) -> float | None:
        """The value of one metric; None where it is not known."""
        return dict(self.metrics).get(name)


@dataclass(frozen=True, slots=True)
class Profile:
    """The launches of one call, and what limits them."""

    source: Literal["estimate", "ncu"]
    """An estimate comes from the compiled code and a roofline model, ncu from hardware counters."""
    target: str
    kernels: tuple[KernelProfile, ...]

    @property
    def time_us(self) -> float:
        """The sum over launches; they run one after another."""
        return sum(kernel.time_us for kernel in self.kernels)

    def ranked(self) -> tuple[Limiter, ...]:
        """Limiters by the share of time that they hold, the greatest first."""
        share: dict[Limiter, float] = {}
        for kernel in self.kernels:
            share[kernel.limiter] = share.get(kernel.limiter, 0.0) + kernel.time_us
        return tuple(sorted(share, key=lambda limiter: -share[limiter]))
