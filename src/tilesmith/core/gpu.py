"""GPUs, by model: what a kernel can count on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from tilesmith.core.errors import OptionError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Measured on an H200 and taken for all, see docs/estimates.md.
FIRST_LAUNCH_S = 3.3e-6
"""What an empty kernel reads under the bench's clock."""
NEXT_LAUNCH_S = 1.5e-6
DRAM_LATENCY_S = 0.6e-6
L2_LATENCY_S = 0.3e-6
PORT_BYTES_PER_CLOCK = 43.0
"""What one multiprocessor pulls through its port to the second-level cache."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU. Rates are peaks of the whole chip, per second; matrix rates are DENSE and sum in float32."""

    name: str
    arch: int
    """The compute capability without its dot: 90 is 9.0."""
    multiprocessors: int
    shared_bytes: int
    """Of one multiprocessor."""
    block_shared_bytes: int
    """The most that one program can have."""
    warps: int
    """The most that one multiprocessor holds."""
    blocks: int
    """The most programs that one multiprocessor holds."""
    l2_bytes: int
    memory_bytes: int
    dram_bytes_per_s: float
    """The datasheet's."""
    fp16_flops: float
    """Of float16 and bfloat16."""
    tf32_flops: float
    fp8_flops: float | None
    """None where the matrix units know no fp8."""
    fp32_flops: float
    """Outside the matrix units, two for a multiplication and addition."""
    clock_hz: float
    readable: float = 0.92
    """The share of `dram_bytes_per_s` that a kernel can read. Measured on the H200; assumed of the others."""
    practical: float = 0.85
    """The share of the matrix peaks that a good kernel sustains. Measured on the H200; assumed of the others."""
    registers: int = 65_536
    """Of one multiprocessor, each 4 bytes."""

    @property
    def readable_bytes_per_s(self) -> float:
        """What a kernel can read from device memory."""
        return self.dram_bytes_per_s * self.readable

    def matrix_flops(self, kind: Literal["fp16", "tf32", "fp8"]) -> float:
        """What the matrix units sustain. Without units for fp8 its operands are widened to fp16."""
        peak = {"fp16": self.fp16_flops, "tf32": self.tf32_flops, "fp8": self.fp8_flops or self.fp16_flops}[kind]
        return peak * self.practical


_A100 = Gpu(
    "a100-80", 80, 108, 164 * KIB, 163 * KIB, 64, 32, 40 * MIB, 80 * GIB,
    2_039e9, 312e12, 156e12, None, 19.5e12, 1.41e9,
)  # fmt: skip
_H100 = Gpu(
    "h100-sxm", 90, 132, 228 * KIB, 227 * KIB, 64, 32, 50 * MIB, 80 * GIB,
    3_350e9, 989e12, 494e12, 1_979e12, 66.9e12, 1.98e9, practical=0.76,
)  # fmt: skip

TABLE: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        replace(_A100, name="a100-40", memory_bytes=40 * GIB, dram_bytes_per_s=1_555e9),
        _A100,
        _H100,
        replace(
            _H100, name="h100-pcie", multiprocessors=114, dram_bytes_per_s=2_039e9,
            fp16_flops=756e12, tf32_flops=378e12, fp8_flops=1_513e12, fp32_flops=51.2e12, clock_hz=1.755e9,
        ),
        replace(
            _H100, name="h100-nvl", memory_bytes=94 * GIB, dram_bytes_per_s=3_938e9,
            fp16_flops=835e12, tf32_flops=417e12, fp8_flops=1_671e12, fp32_flops=60e12, clock_hz=1.785e9,
        ),
        # 4.42 TB/s and 750 TFLOP/s measured.
        replace(
            _H100, name="h200", l2_bytes=60 * MIB, memory_bytes=150_109_880_320, dram_bytes_per_s=4_800e9,
            readable=4_420 / 4_800, practical=750 / 989,
        ),
        Gpu(
            "b200", 100, 148, 228 * KIB, 227 * KIB, 64, 32, 126 * MIB, 180 * GIB,
            8_000e9, 2_250e12, 1_100e12, 4_500e12, 75e12, 1.965e9, practical=0.76,
        ),
        Gpu(
            "l40s", 89, 142, 100 * KIB, 99 * KIB, 48, 24, 96 * MIB, 48 * GIB,
            864e9, 362e12, 183e12, 733e12, 91.6e12, 2.52e9,
        ),
        Gpu(
            "rtx4090", 89, 128, 100 * KIB, 99 * KIB, 48, 24, 72 * MIB, 24 * GIB,
            1_008e9, 165.2e12, 82.6e12, 330.3e12, 82.6e12, 2.52e9,
        ),
        Gpu(
            "rtx5090", 120, 170, 100 * KIB, 99 * KIB, 48, 24, 96 * MIB, 32 * GIB,
            1_792e9, 209.5e12, 104.8e12, 419e12, 104.8e12, 2.407e9,
        ),
    )
}  # fmt: skip
"""Figures of the makers' datasheets. Those print matrix rates with sparsity, twice the dense ones that stand here."""

DEFAULT = "h200"


def target(name: str | None = None) -> Gpu:
    """The model of this name, `DEFAULT` without one. Raises `OptionError` for one that nobody knows."""
    wanted = (name or DEFAULT).strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in TABLE:
        return TABLE[wanted]
    near = [known for known in TABLE if known.startswith(wanted)] if wanted else []
    near = near or difflib.get_close_matches(wanted, TABLE, n=3, cutoff=0.5) or list(TABLE)
    raise OptionError(f"target {name!r} is not a known GPU; use one of {', '.join(near)}")
