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
from tilesmith.bench.ttir import Dot, Work, work
from tilesmith.core.gpu import DRAM_LATENCY_S, FIRST_LAUNCH_S, L2_LATENCY_S, NEXT_LAUNCH_S, PORT_BYTES_PER_CLOCK, Gpu
from tilesmith.core.profile import KernelProfile, Limiter, Profile

RAMP_S = 0.6e-6
"""Filling the multiprocessors with programs and draining them."""
PROGRAMS_PER_CLOCK = 0.84
"""That the GPU starts."""
ITERATION_S = 0.03e-6
"""Address arithmetic and the jump of one pass of a loop."""
HANDOVER_S = 0.12e-6
"""Of one pass of a loop with asynchronous copies: the wait, the barrier and the first matrix instruction."""
WRITE_COST = 1.07
"""Of a byte written to device memory, against one read."""
DIRTY_SHARE = 0.42
"""Of the L2 cache that a kernel leaves dirty behind it, and the bench before it."""
L2_SHARE = 0.75
"""Of the L2 cache that a tensor may fill and still be found there."""
ATOMIC_S = 1.8e-9
"""Between two atomics on one address."""
ATOMICS_PER_CLOCK = 128.0
"""On different addresses, whole GPU."""
ACCESS_LANES = 12.0
"""Lane operations that one load or store of a thread takes, whatever its width."""
SPILL_BYTES = 200_000
"""Spilled registers of the programs on one multiprocessor that no longer fit its first-level cache."""
FLIGHT_SHARE = 0.6
"""Of a thread's registers that can wait for loads."""
UNROLL_BYTES = 32
"""Loops that load less than this a thread and pass are unrolled by the assembler, up to `UNROLL` times."""
UNROLL = 4.0
MMA_SHARE = 0.62
"""Of the rate of warp-group instructions that plain matrix instructions reach where there are both."""
EVEN_SHARE = 0.7
"""Of the multiprocessors that must have work in every wave, or the launch has too few programs."""
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
    computing_s = operator.flops / gpu.matrix_flops("fp16")
    body_s = RAMP_S + max(moving_s, computing_s)
    return KernelProfile(
        kernel=operator.name,
        time_us=1e6 * (launch_s + body_s),
        limiter="launch" if launch_s > body_s else "tensor" if computing_s > moving_s else "dram",
        dram_bytes=float(operator.nbytes),
        loaded_bytes=float(operator.nbytes),
        flops=float(operator.flops),
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
    evicted = min(cache.dirty_bytes, DIRTY_SHARE * (read_bytes + written_bytes))
    evicted *= 0.5 if "evict_first" in launch.features else 1.0
    dram_s = (read_bytes + WRITE_COST * (written_bytes + evicted)) / gpu.readable_bytes_per_s
    moved = programs * done.moved
    share_cold = min(1.0, read_bytes / moved) if moved else 0.0
    program = _program(compiled, done, share_cold, held, gpu)
    atomics_s = _atomics(compiled, done, programs, gpu)
    start_s = programs / (PROGRAMS_PER_CLOCK * gpu.clock_hz)

    together = held * gpu.multiprocessors
    full, rest = divmod(programs, together)
    waves_s = full * program.wave(held, dram_s * together / programs)
    if rest:
        waves_s += program.wave(math.ceil(rest / gpu.multiprocessors), dram_s * rest / programs)
    longest_s = program.alone_s * done.imbalance
    body_s = _norm((waves_s, longest_s, atomics_s, start_s))
    fill_s = RAMP_S + (DRAM_LATENCY_S if done.moved else 0.0)

    share = programs / gpu.multiprocessors
    serial_s = program.serial_s * max(1.0, waves)
    local: dict[Limiter, float] = {
        "l2": share * program.bytes_s,
        "tensor": share * program.dot_s,
        "alu": share * program.alu_s,
        "latency": serial_s,
    }
    times: dict[Limiter, float] = {"dram": dram_s, "atomics": atomics_s, "launch": launch_s + fill_s + start_s, **local}
    limiter = max(times, key=lambda name: times[name])
    # Work of the multiprocessors themselves goes faster where more of them take part in it.
    columns = math.ceil(programs / gpu.multiprocessors) if waves <= 1 else math.ceil(waves) * held
    uneven = programs < EVEN_SHARE * columns * gpu.multiprocessors or longest_s > waves_s
    if uneven and limiter != "launch" and body_s > 1.3 * max(dram_s, atomics_s):
        limiter = "parallelism"
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
    exposed_s: float
    """What a wave adds to the time of device memory: waits outside loops, which only other programs can fill."""

    @property
    def alone_s(self) -> float:
        return _norm((self.bytes_s, self.alu_s, self.dot_s, self.serial_s))

    def wave(self, programs: int, dram_s: float) -> float:
        """Of so many programs at once on a multiprocessor, while device memory needs `dram_s` for all of them."""
        shared = (programs * each for each in (self.bytes_s, self.alu_s, self.dot_s))
        return _norm((*shared, self.serial_s, dram_s + self.exposed_s))


def _program(compiled: Compiled, done: Work, share_cold: float, held: int, gpu: Gpu) -> _Program:
    """The waits of a program overlap its arithmetic where copies are asynchronous, and only there."""
    launch = compiled.launch
    threads = 32 * launch.warps
    passes = max(1.0, done.iterations)
    spilled_bytes = 4.0 * launch.spills * threads
    beyond = 0.25 + 2.75 * min(1.0, spilled_bytes * held / SPILL_BYTES)
    width = load_bytes(compiled.ptx) or 16.0
    accesses = (done.loaded + done.stored) / width + 2 * launch.spills * threads * passes

    lanes_per_s = gpu.fp32_flops / 2 / gpu.multiprocessors
    bytes_s = (done.moved + 2 * spilled_bytes * passes * beyond) / (PORT_BYTES_PER_CLOCK * gpu.clock_hz)
    alu_s = (done.alu + ACCESS_LANES * accesses) / lanes_per_s
    dot_s = sum(_dot_s(dot, compiled, gpu) for dot in done.dots)

    latency_s = L2_LATENCY_S + share_cold * (DRAM_LATENCY_S - L2_LATENCY_S)
    # Few warps do not keep every unit of a multiprocessor busy.
    own_alu_s = done.alu / lanes_per_s / min(1.0, launch.warps / 8)
    own_dot_s = dot_s / min(1.0, launch.warps / 4)
    if {"cp.async", "tma"} & launch.features:
        depth = max(1, (done.stages or launch.stages) - 1)
        waits_s = latency_s * (done.rounds + done.loop_rounds / depth)
        serial_s = _norm((waits_s, own_alu_s, own_dot_s)) + done.iterations * HANDOVER_S
        return _Program(bytes_s, alu_s, dot_s, serial_s, latency_s * done.rounds / held)
    # Without asynchronous copies what is in flight waits in registers: a round that does not fit takes several.
    waits = done.rounds + done.loop_rounds
    each = done.loaded / waits / threads if waits else 0.0
    fits = 4 * max(launch.registers, 16) * FLIGHT_SHARE
    unrolled = min(UNROLL, max(1.0, UNROLL_BYTES / each)) if each else 1.0
    waits_s = latency_s * (done.rounds + done.loop_rounds / unrolled) * max(1.0, each / fits)
    serial_s = waits_s + own_alu_s + own_dot_s + done.iterations * ITERATION_S
    exposed_s = (latency_s * done.rounds if done.iterations else serial_s) / held
    return _Program(bytes_s, alu_s, dot_s, serial_s, exposed_s)


def _dram(compiled: Compiled, done: Work, programs: int, waves: float, gpu: Gpu, cache: _Cache) -> tuple[float, float]:
    """Bytes read from and written to device memory.

    What is read again is found in the L2 cache where the tensor fits. A larger tensor comes between once, where the
    programs of a wave share what they read, and once a wave, where they do not: the geometric mean is taken.
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
        times = 1.0 if pointer.nbytes <= L2_SHARE * gpu.l2_bytes else math.sqrt(max(1.0, waves))
        if pointer.tensor not in cache.warm:
            read += min(loads, times * pointer.nbytes)
        written += min(stores + programs * access.atomic_bytes, float(pointer.nbytes))
    # What is written last is still in the cache when the kernel ends.
    return read, max(0.0, written - DIRTY_SHARE * gpu.l2_bytes)


def _dot_s(dot: Dot, compiled: Compiled, gpu: Gpu) -> float:
    """Of one program's products on its multiprocessor's matrix units."""
    rows = 64 if "wgmma" in compiled.launch.features else 16
    used = dot.m / (math.ceil(dot.m / rows) * rows)
    # Each instruction reads its left operand again, which narrow right operands do not hide.
    wide = min(1.0, dot.n / (dot.n + 16) * (144 / 128))
    kind = 1.0 if rows == 64 or gpu.arch < 90 or gpu.arch >= 120 else MMA_SHARE
    rate = gpu.matrix_flops(dot.kind) / gpu.multiprocessors
    return dot.flops / (rate * used * wide * kind)


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
