"""A problem, a GPU and a trial as lines of a prompt: the values of templates `question` and `kernel`."""

from __future__ import annotations

from collections.abc import Mapping

from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Constant, Problem
from tilesmith.core.profile import KernelProfile, Launch, Limiter
from tilesmith.core.trial import Correct, Estimate, Timing, Trial
from tilesmith.propose.figures import Figures
from tilesmith.propose.words import amount, cut, fenced, micros, one_line, percent

SOURCE_CHARACTERS = 60_000
PROBLEM_CHARACTERS = 30_000
LINE_CHARACTERS = 600
LINES = 12
"""Launches of a call, kernels of a profile: at most so many of each."""

MEANINGS: dict[Limiter, str] = {
    "launch": "the fixed cost of starting kernels",
    "parallelism": "too few programs, or a ragged last wave, for the multiprocessors of the GPU",
    "latency": "too few bytes in flight to cover the memory's latency",
    "dram": "device memory bandwidth",
    "l2": "second-level cache bandwidth",
    "tensor": "matrix units",
    "alu": "arithmetic outside the matrix units",
    "atomics": "contended read-modify-write operations",
}


def question(problem: Problem, gpu: Gpu, trial: Trial | None) -> dict[str, object]:
    """The GPU and the problem. A trial tells the versions of the compiler."""
    return {
        "gpu": [*_gpu(gpu), *_versions(trial)],
        "name": one_line(problem.name, 80),
        "problem": fenced(cut(problem.source, PROBLEM_CHARACTERS), "python"),
        "settings": _settings(problem),
    }


def kernel(figures: Figures) -> dict[str, object]:
    """A trial: its source, time, launches, profile and roofline."""
    trial = figures.trial
    launches = [_launch(launch) for launch in trial.launches[:LINES]]
    if len(trial.launches) > LINES:
        launches.append(f"and {len(trial.launches) - LINES} more")
    return {
        "source": fenced(cut(trial.candidate.source, SOURCE_CHARACTERS), "python"),
        "timing": _timing(trial),
        "launches": launches,
        "profile": _profile(figures),
    }


def _gpu(gpu: Gpu) -> tuple[str, ...]:
    capability = f"{gpu.arch // 10}.{gpu.arch % 10}"
    shared, most = gpu.shared_bytes // 1024, gpu.block_shared_bytes // 1024
    rates = {
        "fp16 and bf16": gpu.matrix_flops("fp16"),
        "tf32": gpu.matrix_flops("tf32"),
        "fp8": gpu.matrix_flops("fp8") if gpu.fp8_flops else 0.0,
    }
    matrix = ", ".join(f"{name} {amount(rate, 'FLOP/s')}" for name, rate in rates.items() if rate)
    clock = f"{gpu.clock_hz / 1e9:.2f} GHz"
    holds = f"{gpu.registers} registers, {shared} KiB of shared memory, {gpu.warps} warps and {gpu.blocks} programs"
    return (
        f"{gpu.name}: compute capability {capability}, {gpu.multiprocessors} multiprocessors, {clock}",
        f"one multiprocessor holds {holds}; one program has at most {most} KiB of shared memory",
        f"second-level cache: {gpu.l2_bytes / (1 << 20):.0f} MiB, cold before each timed call",
        f"device memory: {amount(gpu.readable_bytes_per_s, 'B/s')} can be read",
        f"matrix units sustain {matrix}, without sparsity; other arithmetic in fp32 {amount(gpu.fp32_flops, 'FLOP/s')}",
    )


def _versions(trial: Trial | None) -> tuple[str, ...]:
    if trial is None or trial.environment is None:
        return ()
    return (f"Triton {one_line(trial.environment.triton, 40)}, torch {one_line(trial.environment.torch, 40)}",)


def _settings(problem: Problem) -> tuple[str, ...]:
    settings = problem.settings
    lines = ["inputs, parameters and buffers have the dtypes that the problem gives them"]
    if settings.dtype:
        lines = [f"floating inputs, parameters and buffers are cast to {settings.dtype}"]
    if settings.large:
        lines.append(f"some constants have other values: {_constants(settings.large)}")
    if settings.small:
        small = _constants(settings.small)
        lines.append(f"it is also checked with smaller constants ({small}), so take every size from the inputs")
    if settings.tolerance != 1.0:
        lines.append(f"the limits of the error are multiplied by {settings.tolerance:g}")
    lines.append(f"dots of float32 operands {'may' if settings.tf32 else 'may not'} round them to TF32")
    if settings.library:
        lines.append(
            "the framework's own kernels, such as torch.mm, may do a part of the work in a call, against the rule"
        )
    return tuple(lines)


def _constants(values: Mapping[str, Constant]) -> str:
    return one_line(", ".join(f"{name} = {value!r}" for name, value in sorted(values.items())), LINE_CHARACTERS)


def _timing(trial: Trial) -> str:
    match trial.verdict:
        case Correct(time=Timing() as time):
            return (
                f"One call takes {micros(time.time_us)}, measured: the median of {time.samples} samples, 95 % interval "
                f"{micros(time.low_us)} to {micros(time.high_us)}."
            )
        case Correct(time=Estimate() as time):
            return (
                f"One call takes {micros(time.estimate_us)} by estimate, from the compiled code; it was not measured."
            )
        case _:
            return "Its time is not known."


def _launch(launch: Launch) -> str:
    x, y, z = launch.grid
    words = [
        f"{launch.kernel}: grid ({x}, {y}, {z}), {launch.warps} warps, {launch.stages} stages",
        f"{launch.registers} registers a thread, {launch.spills} spilled, {launch.shared_bytes} bytes of shared memory",
    ]
    if launch.arguments:
        words.append(", ".join(f"{name} = {value}" for name, value in launch.arguments))
    if launch.features:
        words.append(f"the compiled code has {', '.join(sorted(launch.features))}")
    return one_line("; ".join(words), LINE_CHARACTERS)


def _profile(figures: Figures) -> tuple[str, ...]:
    if figures.profile is None or not figures.kernels:
        return ()
    shares = {
        "device memory": figures.dram,
        "second-level cache": figures.l2,
        "matrix units": figures.tensor,
        "other arithmetic": figures.alu,
    }
    counted = figures.profile.source == "ncu"
    lines = [
        "source: " + ("hardware counters" if counted else "an estimate from the compiled code; nothing was measured"),
        "roofline, shares of the call's time: "
        + ", ".join(f"{name} {percent(share)}" for name, share in shares.items()),
        f"at full rate the same traffic and arithmetic would take {micros(figures.floor_us)}",
        *(_profiled(kernel, figures.share_of(kernel)) for kernel in figures.kernels[:LINES]),
    ]
    if figures.metrics:
        counters = ", ".join(f"{name} {value:.4g}" for name, value in figures.metrics if value)
        words = f"counters that are not 0, kernels weighted by their time: {counters}"
        lines.append(one_line(words, 4 * LINE_CHARACTERS))
    return tuple(lines)


def _profiled(kernel: KernelProfile, share: float) -> str:
    words = (
        f"{kernel.kernel}: {micros(kernel.time_us)}, {percent(share)} of the time, limited by {kernel.limiter}",
        f"{amount(kernel.dram_bytes, 'B')} of device memory, {amount(kernel.loaded_bytes, 'B')} loaded and stored",
        f"{amount(kernel.flops, 'FLOP')}, {percent(kernel.occupancy)} of the warps resident, {kernel.waves:.2f} waves",
    )
    return one_line("; ".join(words), LINE_CHARACTERS)
