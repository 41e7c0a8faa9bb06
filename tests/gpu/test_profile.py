"""Hardware profiles on a real GPU: ncu, its counters, and what it must not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesmith.bench.counters import available, profile
from tilesmith.bench.gpus import find
from tilesmith.bench.profiled import WALLS
from tilesmith.core.errors import MachineError
from tilesmith.core.problem import Problem, Settings

GPUS = find()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="this machine has no NVIDIA GPU"),
    pytest.mark.skipif(bool(GPUS) and available() is not None, reason=str(available())),
]

N = 1 << 27
PROBLEM = Problem(
    "addition",
    """import torch
from torch import nn

N = 5000


class Model(nn.Module):
    def forward(self, x, y):
        return x + y


def get_inputs():
    return [torch.rand(N), torch.rand(N)]


def get_init_inputs():
    return []
""",
    Settings("fp32", large={"N": N}),
)
ADD = """import torch
import triton
import triton.language as tl


@triton.jit
def add(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(z_ptr + at, tl.load(x_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside), mask=inside)


def kernel_function(x, y):
    z = torch.empty_like(x)
    add[(triton.cdiv(x.numel(), 1024),)](x, y, z, x.numel(), BLOCK=1024)
    return z
"""
TUNED = (
    ADD.replace(
        "@triton.jit",
        '@triton.autotune([triton.Config({"BLOCK": size}) for size in (256, 512, 2048)], key=["n"])\n@triton.jit',
    )
    .replace("add[(triton.cdiv(x.numel(), 1024),)](x, y, z, x.numel(), BLOCK=1024)", "add[GRID](x, y, z, x.numel())")
    .replace(
        "def kernel_function", 'GRID = lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]),)\n\n\ndef kernel_function'
    )
)
TWICE = ADD.replace("    return z", "    add[(1,)](x, y, z, 1024, BLOCK=1024)\n    return z")
FEW = (
    ADD.replace("def kernel_function(x, y):", "def kernel_function(x, y):\n    n = x.numel()")
    .replace(
        "    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n    inside = at < n\n    tl.store(z_ptr + at, ",
        "    for start in range(tl.program_id(0) * BLOCK, n, 8 * BLOCK):\n        at = start + tl.arange(0, BLOCK)\n"
        "        inside = at < n\n        tl.store(z_ptr + at, ",
    )
    .replace("(triton.cdiv(x.numel(), 1024),)", "(8,)")
)
RAISES = ADD.replace("    return z", "    raise RuntimeError('boom')")
HANGS = ADD.replace("    return z", "    while True: pass")


def test_a_stream_of_additions_is_limited_by_device_memory(tmp_path: Path) -> None:
    found = profile(GPUS[0], PROBLEM, ADD, str(tmp_path))
    (kernel,) = found.kernels
    assert found.source == "ncu"
    assert (kernel.kernel, kernel.limiter) == ("add", "dram")
    assert kernel.dram_bytes == pytest.approx(12 * N, rel=0.1)
    assert kernel.loaded_bytes == pytest.approx(12 * N, rel=0.01)
    assert kernel.flops == pytest.approx(N, rel=0.05)
    assert kernel.time_us * GPUS[0].gpu.dram_bytes_per_s >= 0.9e6 * 12 * N
    assert kernel.metric("dram_throughput_pct") is not None
    assert kernel.metric("registers") is not None
    assert 0 < kernel.occupancy <= 1
    assert kernel.waves > 1


def test_tuning_and_warming_up_do_not_count(tmp_path: Path) -> None:
    (kernel,) = profile(GPUS[0], PROBLEM, TUNED, str(tmp_path)).kernels
    assert kernel.kernel == "add"
    assert kernel.limiter == "dram"


def test_every_launch_of_a_call_counts(tmp_path: Path) -> None:
    found = profile(GPUS[0], PROBLEM, TWICE, str(tmp_path))
    assert [kernel.kernel for kernel in found.kernels] == ["add", "add"]
    large, small = found.kernels
    assert small.limiter == "launch"
    assert small.time_us < large.time_us / 10
    assert found.ranked()[0] == "dram"


def test_a_few_programs_are_too_few(tmp_path: Path) -> None:
    (kernel,) = profile(GPUS[0], PROBLEM, FEW, str(tmp_path)).kernels
    assert kernel.limiter == "parallelism"
    assert (kernel.metric("sm_active_pct") or 0) < 10


def test_a_kernel_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"failed while it was profiled: RuntimeError: boom \(line"):
        profile(GPUS[0], PROBLEM, RAISES, str(tmp_path))


def test_a_kernel_that_never_returns_ends_with_its_deadline(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="deadline"):
        profile(GPUS[0], PROBLEM, HANGS, str(tmp_path), timeout_s=20.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wall", WALLS)
def test_walls_that_profiling_does_without_do_not_stop_it(tmp_path: Path, wall: str) -> None:
    assert profile(GPUS[0], PROBLEM, ADD, str(tmp_path), raised=[wall]).kernels[0].limiter == "dram"
