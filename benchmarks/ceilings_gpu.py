"""What can this GPU do at the most: read, copy, multiply matrices, and start kernels?

The roofline needs what a kernel can reach, which is less than the datasheet says: `readable` of the memory bandwidth,
`practical` of the matrix peaks. Measured with a Triton kernel that only reads 4 GiB, a copy of as much, and large
products by torch; each is the best of a few shapes, and the median of its launches with the cache cold. Prints the
entry for the table in `tilesmith.core.gpu`. Measured before on an H200: 4.42 TB/s read, 4.27 copied (read and written),
690 to 790 TFLOP/s in bfloat16. Takes about a minute.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from lib.answer import answer, parser, say
from lib.gpu import described, first_gpu
from tilesmith.bench.gpus import Device, lease
from tilesmith.core.gpu import GIB, TABLE, Gpu

MEMORY_SHARE = 0.25
"""Of the GPU's memory at most, for each of the buffers."""
SIZE = 8192
"""Rows and columns of the matrices."""
LAUNCHES = 200
MORE_LAUNCHES = 9
HEAD_START_CYCLES = 2_000_000
"""The device waits, about 1 ms, so that the host has enqueued every launch by then."""
SHAPES = [(block, warps) for block in (2048, 4096, 8192, 16384) for warps in (4, 8)]

KERNELS = """
import triton
import triton.language as tl


@triton.jit
def read(source, sums, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    tl.store(sums + tl.program_id(0), tl.sum(tl.load(source + at, eviction_policy="evict_first")))


@triton.jit
def copy(source, target, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    tl.store(target + at, tl.load(source + at, eviction_policy="evict_first"), eviction_policy="evict_first")


@triton.jit
def empty(source):
    pass
"""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What was measured. Rates per second; a copy counts what it reads and what it writes."""

    read_bytes_per_s: float
    copy_bytes_per_s: float
    fp16_flops: float
    bf16_flops: float
    tf32_flops: float
    launch_us: float
    """What events around an empty kernel read."""
    next_launch_us: float
    """What every further one adds."""


def measured(gpu: Gpu, ceilings: Ceilings) -> Gpu:
    """The same GPU with the shares of its datasheet that were reached. Raises `ValueError` where one is no share."""
    readable = ceilings.read_bytes_per_s / gpu.dram_bytes_per_s
    practical = max(ceilings.fp16_flops, ceilings.bf16_flops) / gpu.fp16_flops
    for name, share in (("memory bandwidth", readable), ("matrix rate", practical)):
        if not 0 < share <= 1:
            raise ValueError(f"{share:.0%} of the {name} of {gpu.name}'s datasheet was measured: another GPU's entry?")
    return replace(gpu, readable=readable, practical=practical)


def entry(gpu: Gpu, ceilings: Ceilings) -> str:
    """The fields for the table, in its form."""
    read, sheet = ceilings.read_bytes_per_s / 1e9, gpu.dram_bytes_per_s / 1e9
    rate, peak = max(ceilings.fp16_flops, ceilings.bf16_flops) / 1e12, gpu.fp16_flops / 1e12
    return f'"{gpu.name}": readable={read:_.0f} / {sheet:_.0f}, practical={rate:_.0f} / {peak:_.0f}'


def best_us(calls: Iterable[tuple[str, Callable[[], object]]]) -> float:
    """The least of the calls' medians, microseconds."""
    import triton.testing

    times = {}
    for name, call in calls:
        times[name] = 1000 * triton.testing.do_bench(call, warmup=100, rep=300, return_mode="median")
        say(f"  {name}: {times[name]:.1f} us")
    return min(times.values())


def memory(kernels: Any, memory_bytes: int) -> tuple[float, float]:
    """Bytes a second read, and copied."""
    import torch

    largest = max(block for block, _ in SHAPES)
    count = min(4 * GIB, int(memory_bytes * MEMORY_SHARE)) // 4 // largest * largest
    source = torch.ones(count, dtype=torch.float32, device="cuda")
    sums = torch.empty(count // min(block for block, _ in SHAPES), dtype=torch.float32, device="cuda")

    def read(block: int, warps: int) -> tuple[str, Callable[[], object]]:
        return f"read by {block}, {warps} warps", lambda: kernels.read[(count // block,)](
            source, sums, block, num_warps=warps
        )

    read_us = best_us([read(*shape) for shape in SHAPES])
    programs = count // SHAPES[-1][0]
    if not bool((sums[:programs] == SHAPES[-1][0]).all()):
        raise RuntimeError("the reading kernel did not read everything")
    target = torch.empty_like(source)

    def copy(block: int, warps: int) -> tuple[str, Callable[[], object]]:
        return f"copy by {block}, {warps} warps", lambda: kernels.copy[(count // block,)](
            source, target, block, num_warps=warps
        )

    copy_us = best_us([("copy by torch", lambda: target.copy_(source)), *(copy(*shape) for shape in SHAPES)])
    return 1e6 * 4 * count / read_us, 1e6 * 8 * count / copy_us


def products(dtype: str) -> float:
    """Operations a second of a product of two square matrices of random numbers, the draw on power being theirs."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    left, right = (torch.randn(SIZE, SIZE, device="cuda").to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty(SIZE, SIZE, dtype=left.dtype, device="cuda")
    return 2e6 * SIZE**3 / best_us([(f"{dtype} product", lambda: torch.matmul(left, right, out=out))])


def launches(kernels: Any) -> tuple[float, float]:
    """Microseconds of one empty kernel between two events, and of each further one."""
    import torch

    at = torch.empty(1, device="cuda")

    def timed_us(count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START_CYCLES)
        start.record()
        for _ in range(count):
            kernels.empty[(1,)](at)
        end.record()
        torch.cuda.synchronize()
        return 1000 * float(start.elapsed_time(end))

    one, more = (median([timed_us(count) for _ in range(LAUNCHES)]) for count in (1, 1 + MORE_LAUNCHES))
    return one, (more - one) / MORE_LAUNCHES


def measure(device: Device) -> Ceilings:
    """With nobody else on the GPU."""
    from tilesmith.bench.candidate import load

    os.environ["CUDA_VISIBLE_DEVICES"] = device.uuid
    with tempfile.TemporaryDirectory() as folder, lease(device.uuid, "exclusive"):
        # Triton reads a kernel's text from its file.
        kernels = load(KERNELS, folder)
        read, copied = memory(kernels, device.memory_bytes)
        rates = [products(dtype) for dtype in ("float16", "bfloat16", "float32")]
        return Ceilings(read, copied, *rates, *launches(kernels))


def main() -> int:
    given = parser(__doc__).parse_args()
    device = first_gpu()
    ceilings = measure(device)
    document: dict[str, object] = {"gpu": described(device), **asdict(ceilings)}
    document["in_the_table"] = device.gpu.name in TABLE
    try:
        found = measured(device.gpu, ceilings)
    except ValueError as error:
        say(str(error))
        answer({**document, "entry": None}, given.json)
        return 1
    document |= {"readable": found.readable, "practical": found.practical, "entry": entry(device.gpu, ceilings)}
    answer(document, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
