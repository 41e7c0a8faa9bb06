"""How long a call should take, told from its compiled kernels alone: a roofline with Little's law.

Every resource of the GPU gives a time; they overlap, but not wholly, so that the time of a kernel is their p-norm:
a little above the longest, and still moved by the others, which is what a search needs. `docs/estimates.md` has the
model, where each constant comes from, and what it cannot see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from tilesmith.bench.compiled import Call, Choice, Compiled, Operator
from tilesmith.bench.features import load_bytes
from tilesmith.bench.gpus import Gpu
from tilesmith.bench.ttir import Dot, Work, work
from tilesmith.core.profile import KernelProfile, Limiter, Profile

FIRST_LAUNCH_S = 3.3e-6
"""What an empty kernel reads under the bench's clock."""
NEXT_LAUNCH_S = 1.5e-6
RAMP_S = 0.6e-6
"""Filling the multiprocessors with programs and draining them."""
DRAM_LATENCY_S = 0.7e-6
L2_LATENCY_S = 0.3e-6
ITERATION_S = 0.03e-6
"""Barriers and address arithmetic of one pass of a loop."""
SM_BYTES_PER_CLOCK = 23.4
"""What one multiprocessor pulls through its port to the L2 cache."""
WRITE_COST = 1.07
"""Of a byte written to device memory, against one read."""
DIRTY_SHARE = 0.42
"""Of the L2 cache that the bench leaves behind dirty, so that a kernel's first reads push writes out."""
L2_SHARE = 0.75
"""Of the L2 cache that a tensor may fill and still be found there."""
ATOMIC_S = 2.5e-9
"""Between two atomics on one address."""
ATOMICS_PER_CLOCK = 512.0
"""On different addresses, whole GPU."""
NARROW_COST = 3.0
"""Lane operations that one load instruction brings with it."""
FLIGHT_SHARE = 0.6
"""Of a thread's registers that can wait for loads."""
LANES = 128
"""Of one multiprocessor."""
MMA_SHARE = 0.62
"""Of the rate of warp-group instructions that plain matrix instructions reach where there are both."""
NORM = 5.0


def estimate(call: Call, gpu: Gpu) -> Profile:
    """Where the time of one call goes, with the L2 cache cold at its beginning, as the bench times it.

    Of an autotuned launch whose configuration is not chosen yet, the fastest one's. Framework operators are kernels
    that move their bytes once. Never below a kernel's bytes over the readable bandwidth or its products over the
    sustained rate; more traffic or more operations never take less time.
    """
    kernels: list[KernelProfile] = []
    cache = _Cache(dirty_bytes=DIRTY_SHARE * gpu.l2_bytes)
    for step in call:
        launch_s = NEXT_LAUNCH_S if kernels else FIRST_LAUNCH_S
        match step:
            case Operator():
                kernels.append(_operator(step, gpu, launch_s))
            case Choice():
                index = step.chosen if step.chosen is not None else choose(step, gpu)
                kernels.append(_kernel(step.configurations[index], gpu, launch_s, cache))
            case Compiled():
                kernels.append(_kernel(step, gpu, launch_s, cache))
            case _:
                assert_never(step)
        cache = cache.after(step, kernels[-1], gpu)
    return Profile(source="estimate", target=gpu.name, kernels=tuple(kernels))


def choose(choice: Choice, gpu: Gpu) -> int:
    """The index of the configuration with the least estimate; of equals the first."""
    cache = _Cache(dirty_bytes=DIRTY_SHARE * gpu.l2_bytes)
    times = [_kernel(each, gpu, FIRST_LAUNCH_S, cache).time_us for each in choice.configurations]
    return times.index(min(times))


def resident(compiled: Compiled, gpu: Gpu) -> int:
    """Programs of this launch that one multiprocessor holds at once, at least 1."""
    launch = compiled.launch
    # Registers are given out to a warp in units of 256, and each program loses 1 KiB of shared memory.
    registers = math.ceil(max(launch.registers, 16) * 32 / 256) * 256 * launch.warps
    shared = launch.shared_bytes + 1024
    fit = min(gpu.registers // registers, gpu.shared_bytes // shared, gpu.warps // launch.warps, gpu.blocks)
    return max(1, fit)


# The L2 cache between launches ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cache:
    dirty_bytes: float
    """To be written back before their lines can hold anything else."""
    warm: frozenset[str] = frozenset()
    """Tensors that the launch before left in the cache."""

    def after(self, step: Compiled | Operator | Choice, kernel: KernelProfile, gpu: Gpu) -> _Cache:
        dirty = max(0.0, self.dirty_bytes - DIRTY_SHARE * kernel.dram_bytes)
        touched = step.configurations[step.chosen or 0] if isinstance(step, Choice) else step
        if isinstance(touched, Operator):
            return _Cache(dirty, self.warm)
        small = {p.tensor for p in touched.pointers if p.tensor and p.nbytes <= gpu.l2_bytes / 4}
        return _Cache(dirty, frozenset(small))


# One kernel ----------------------------------------------------------------------------------------------------------


def _operator(operator: Operator, gpu: Gpu, launch_s: float) -> KernelProfile:
    cost = WRITE_COST if operator.kind == "fill" else (1 + WRITE_COST) / 2
    moving_s = operator.nbytes * cost / gpu.readable_bytes_per_s
    body_s = RAMP_S + moving_s
    return KernelProfile(
        kernel=operator.name,
        time_us=1e6 * (launch_s + body_s),
        limiter="launch" if launch_s > body_s else "dram",
        dram_bytes=float(operator.nbytes),
        loaded_bytes=float(operator.nbytes),
        flops=0.0,
        occupancy=1.0,
        waves=1.0,
    )


def _kernel(compiled: Compiled, gpu: Gpu, launch_s: float, cache: _Cache) -> KernelProfile:
    launch = compiled.launch
    done = work(compiled.ttir, dict(launch.arguments), launch.grid)
    programs = math.prod(launch.grid)
    held = resident(compiled, gpu)
    waves = programs / (held * gpu.multiprocessors)

    read_bytes, written_bytes = _dram(compiled, done, programs, waves, gpu, cache)
    evicted = min(cache.dirty_bytes, DIRTY_SHARE * read_bytes) * (0.5 if "evict_first" in launch.features else 1.0)
    dram_s = (read_bytes + WRITE_COST * (written_bytes + evicted)) / gpu.readable_bytes_per_s

    moved = done.moved + _spilled(compiled, done)
    share_cold = min(1.0, (read_bytes + written_bytes) / (programs * done.moved)) if done.moved else 0.0
    program = _Program(
        bytes_s=moved / _port(gpu),
        alu_s=_lanes(compiled, done) / (gpu.fp32_flops / 2 / gpu.multiprocessors),
        dot_s=sum(_dot_s(dot, compiled, gpu) for dot in done.dots),
        serial_s=_serial(compiled, done, share_cold, gpu),
    )
    atomics_s = _atomics(compiled, done, programs, gpu)

    busiest_s = program.on_one(math.ceil(programs / gpu.multiprocessors), held)
    longest_s = program.alone_s * done.imbalance
    even_s = program.on_one(programs / gpu.multiprocessors, held)
    body_s = _norm((dram_s, busiest_s, longest_s, atomics_s))
    share = programs / gpu.multiprocessors
    times: dict[Limiter, float] = {
        "dram": dram_s,
        "l2": share * program.bytes_s,
        "tensor": share * program.dot_s,
        "alu": share * program.alu_s,
        "atomics": atomics_s,
        "latency": share / held * program.serial_s if waves > 1 else program.serial_s,
    }
    limiter = max(times, key=lambda name: times[name])
    if max(busiest_s, longest_s) > 1.3 * max(even_s, *times.values(), 1e-12):
        limiter = "parallelism"
    fill_s = RAMP_S + (DRAM_LATENCY_S if done.moved else 0.0)
    if launch_s + fill_s > body_s:
        limiter = "launch"
    return KernelProfile(
        kernel=launch.kernel,
        time_us=1e6 * (launch_s + fill_s + body_s),
        limiter=limiter,
        dram_bytes=read_bytes + written_bytes,
        loaded_bytes=programs * (done.loaded + done.stored),
        flops=programs * (done.dot_flops + done.flops),
        occupancy=min(1.0, held * launch.warps / gpu.warps),
        waves=waves,
    )


@dataclass(frozen=True, slots=True)
class _Program:
    """Times of one program: what it takes of each of its multiprocessor's resources, and what it waits by itself."""

    bytes_s: float
    alu_s: float
    dot_s: float
    serial_s: float

    @property
    def shared_s(self) -> float:
        return _norm((self.bytes_s, self.alu_s, self.dot_s))

    @property
    def alone_s(self) -> float:
        return _norm((self.shared_s, self.serial_s))

    def on_one(self, programs: float, held: int) -> float:
        """Of so many programs on one multiprocessor that holds `held` at once: whole waves, and the ragged last."""
        whole, rest = divmod(programs, held)
        last = _norm((rest * self.shared_s, self.serial_s)) if rest else 0.0
        return whole * _norm((held * self.shared_s, self.serial_s)) + last


def _dram(compiled: Compiled, done: Work, programs: int, waves: float, gpu: Gpu, cache: _Cache) -> tuple[float, float]:
    """Bytes read from and written to device memory.

    A tensor comes once, whatever part of it is used. What is read again is found in the L2 cache where the tensor
    fits; a larger tensor comes once a wave, since programs that run together share what they read.
    """
    sizes = {pointer.name: pointer for pointer in compiled.pointers}
    read = written = 0.0
    for access in done.accesses:
        both = access.loaded + access.stored
        loads, stores = (
            programs * access.moved * (part / both if both else 0.0) for part in (access.loaded, access.stored)
        )
        pointer = sizes.get(access.pointer)
        if pointer is None:
            read, written = read + loads, written + stores
            continue
        times = 1.0 if pointer.nbytes <= L2_SHARE * gpu.l2_bytes else max(1.0, waves)
        if pointer.tensor not in cache.warm:
            read += min(loads, times * pointer.nbytes)
        written += min(stores + programs * access.atomic_bytes, float(pointer.nbytes))
    return read, written


def _port(gpu: Gpu) -> float:
    """Bytes a second between one multiprocessor and the L2 cache."""
    return SM_BYTES_PER_CLOCK * gpu.clock_hz


def _spilled(compiled: Compiled, done: Work) -> float:
    """Bytes a program that spilled registers move beyond the first-level cache: a quarter of them, each pass."""
    threads = 32 * compiled.launch.warps
    return 2 * 4 * compiled.launch.spills * threads * max(1.0, done.iterations) / 4


def _lanes(compiled: Compiled, done: Work) -> float:
    """Lane operations of one program, with what narrow loads and spills add."""
    width = load_bytes(compiled.ptx) or 16.0
    threads = 32 * compiled.launch.warps
    spilled = 2 * compiled.launch.spills * threads * max(1.0, done.iterations)
    return done.alu + NARROW_COST * (done.loaded + done.stored) / width + spilled


def _dot_s(dot: Dot, compiled: Compiled, gpu: Gpu) -> float:
    """Of one program's products on its multiprocessor's matrix units."""
    rows = 64 if "wgmma" in compiled.launch.features else 16
    used = dot.m / (math.ceil(dot.m / rows) * rows)
    # Each instruction reads its left operand again, which narrow right operands do not hide.
    wide = min(1.0, dot.n / (dot.n + 16) * (144 / 128))
    kind = 1.0 if rows == 64 or gpu.arch < 90 or gpu.arch >= 120 else MMA_SHARE
    rate = gpu.matrix_flops(dot.kind) / gpu.multiprocessors
    return dot.flops / (rate * used * wide * kind)


def _serial(compiled: Compiled, done: Work, share_cold: float, gpu: Gpu) -> float:
    """What one program takes by itself: its waits for memory and, where it does not overlap them, its arithmetic."""
    launch = compiled.launch
    latency_s = L2_LATENCY_S + share_cold * (DRAM_LATENCY_S - L2_LATENCY_S)
    threads = 32 * launch.warps
    few = min(1.0, launch.warps / 8)
    arithmetic_s = _lanes(compiled, done) / (gpu.fp32_flops / 2 / gpu.multiprocessors * few)
    arithmetic_s += sum(_dot_s(dot, compiled, gpu) for dot in done.dots) / min(1.0, launch.warps / 4)
    waits = done.rounds + done.loop_rounds
    if {"cp.async", "tma"} & launch.features:
        depth = max(1, (done.stages or launch.stages) - 1)
        return (
            _norm((latency_s * (done.rounds + done.loop_rounds / depth), arithmetic_s)) + done.iterations * ITERATION_S
        )
    # Without asynchronous copies what is in flight waits in registers; a round that does not fit takes several.
    fits = 4 * max(launch.registers, 16) * FLIGHT_SHARE * threads
    rounds = waits * max(1.0, done.loaded / waits / fits) if waits else 0.0
    return latency_s * rounds + arithmetic_s + done.iterations * ITERATION_S


def _atomics(compiled: Compiled, done: Work, programs: int, gpu: Gpu) -> float:
    """Of all atomics: as many at once as there are different addresses, one after another on the same."""
    sizes = {pointer.name: pointer.nbytes for pointer in compiled.pointers}
    total_s = 0.0
    for access in done.accesses:
        if not access.atomics:
            continue
        count = programs * access.atomics
        addresses = max(1.0, sizes.get(access.pointer, 0) / (access.atomic_bytes / access.atomics))
        queue_s = count / min(addresses, count) * ATOMIC_S
        total_s += max(queue_s, count / (ATOMICS_PER_CLOCK * gpu.clock_hz))
    return total_s


def _norm(times: Iterable[float]) -> float:
    """The p-norm of times that overlap: at least the longest, at most their sum."""
    given = list(times)
    longest = max(given)
    return longest * sum((each / longest) ** NORM for each in given) ** (1 / NORM) if longest > 0 else 0.0
