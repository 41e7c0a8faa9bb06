"""A winner and torch timed in turns, in a fresh process: what a search left behind must not count.

Run as `python -m lib.contest PROBLEM WINNER` it prints one JSON list.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from lib.answer import say
from lib.command import environment
from tilesmith.bench.gpus import Device, lease
from tilesmith.bench.timing import interval
from tilesmith.config import load_problem
from tilesmith.splice.contest import FLUSH_BYTES

LAUNCHES = 11
"""In a block, of which the median counts."""
HEAD_START_CYCLES = 1_000_000
"""About 0.5 ms: a compiled call of many kernels costs the host more than the bench's 0.2 ms on a slow one."""


def contest(
    problem: Path,
    winner: Path,
    folder: Path,
    *,
    compiled: bool = True,
    rounds: int = 40,
    limit_s: float = 200.0,
    device: Device | None = None,
) -> list[dict[str, object]]:
    """A row a contender: eager, compiled, compiled with max-autotune, the winner, and a pure reader of as many bytes as
    the problem reads and writes; medians with the second-level cache cold.

    Short blocks in many rounds, so that clocks and heat happen to all alike. Before each launch the device waits until
    the host has enqueued all of it: what is timed is the device's work alone, whatever the host costs. With `device`
    nobody else is on that GPU meanwhile. `over_tilesmith` is the median over rounds
    of the contender's time over the winner's in the same round, with its 95 % interval. Raises
    `subprocess.SubprocessError` where the process fails or takes too long.
    """
    command = [sys.executable, "-m", "lib.contest", str(problem), str(winner), "--rounds", str(rounds)]
    command += [] if compiled else ["--no-compile"]
    only = {} if device is None else {"CUDA_VISIBLE_DEVICES": device.uuid}
    caches = environment(
        **only, TRITON_CACHE_DIR=str(folder / "triton"), TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor")
    )
    command += [] if device is None else ["--alone-on", device.uuid]
    done = subprocess.run(
        command, cwd=folder, env=caches, stdout=subprocess.PIPE, text=True, check=True, timeout=limit_s
    )
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def loaded(winner: Path) -> ModuleType:
    """A winner's file as a module; Triton reads the text of its kernels from there."""
    spec = importlib.util.spec_from_file_location("winner", winner)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["winner"] = module
    spec.loader.exec_module(module)
    return module


def cold_us(call: Callable[[], Any], flush: Any) -> list[float]:
    """Device time of each of a few calls, microseconds."""
    import torch

    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(1 + LAUNCHES)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        torch.cuda._sleep(HEAD_START_CYCLES)
        flush.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    # The first follows another contender.
    return [1000 * start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)][1:]


def contend(problem: Path, winner: Path, compiled: bool, rounds: int, alone_on: str | None) -> list[dict[str, object]]:
    import torch

    asked = load_problem(problem)
    reference: dict[str, Any] = {"__name__": "problem"}
    # The compiler looks for the file of what it compiles.
    exec(compile(asked.source, str(problem / "problem.py"), "exec"), reference)
    names = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    dtype = getattr(torch, names[asked.settings.dtype]) if asked.settings.dtype else None

    def placed(tensor: Any) -> Any:
        return tensor.to("cuda", dtype if dtype and tensor.is_floating_point() else tensor.dtype)

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = reference["Model"](*reference["get_init_inputs"]()).eval()
        inputs = [placed(value) if isinstance(value, torch.Tensor) else value for value in reference["get_inputs"]()]
    model = model.to("cuda", dtype) if dtype else model.to("cuda")
    module = loaded(winner)
    if hasattr(module, "ModelNew"):
        own = module.ModelNew(*reference["get_init_inputs"]()).to("cuda")
    else:
        own = module.kernel_function
    contenders: dict[str, Callable[..., Any]] = {"torch eager": model}
    if compiled:
        contenders["torch.compile"] = torch.compile(model)
        # With CUDA graphs each call would first copy its inputs to where the graph reads them.
        contenders["torch.compile max-autotune"] = torch.compile(model, mode="max-autotune-no-cudagraphs")
    contenders["tilesmith"] = own
    from lib.reader import reader

    tensors = [*(value for value in inputs if isinstance(value, torch.Tensor)), *model.parameters()]
    with torch.no_grad():
        expected = model(*inputs)
    floor = reader(sum(tensor.numel() * tensor.element_size() for tensor in [*tensors, expected]))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    # While the compiler tries its kernels nobody else may be there either.
    alone = lease(alone_on, "exclusive") if alone_on else nullcontext()
    with torch.no_grad(), alone:
        expected = expected.float()
        scale = float(expected.abs().max())
        for name, call in contenders.items():
            began = time.perf_counter()
            worst = float((call(*inputs).float() - expected).abs().max()) / scale
            torch.cuda.synchronize()
            say(f"  {name}: first call {time.perf_counter() - began:.1f} s, off by {worst:.2%} of the range")
        contenders["pure reader"] = floor
        times["pure reader"] = []
        flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        for _ in range(rounds):
            for name, call in contenders.items():
                times[name].append(median(cold_us(lambda c=call: c(*inputs), flush)))
    rows = []
    for name, each in times.items():
        ratios = [theirs / ours for theirs, ours in zip(each, times["tilesmith"], strict=True)]
        low, high = interval(ratios)
        rows.append(
            {
                "contender": name,
                "median_us": median(each),
                "fastest_us": min(each),
                "slowest_us": max(each),
                "over_tilesmith": median(ratios),
                "low": low,
                "high": high,
            }
        )
    return rows


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("problem", type=Path)
    options.add_argument("winner", type=Path)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--no-compile", action="store_true")
    options.add_argument("--alone-on", help="the GPU that nobody else may use meanwhile")
    given = options.parse_args()
    print(json.dumps(contend(given.problem, given.winner, not given.no_compile, given.rounds, given.alone_on)))
