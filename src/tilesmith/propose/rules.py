"""What may hold a call back: one rule for each limiter, which weighs it and says why and what to do."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tilesmith.core.gpu import DRAM_LATENCY_S
from tilesmith.core.profile import Limiter
from tilesmith.propose.figures import COUNTERS, Figures
from tilesmith.propose.words import amount, micros, percent

SECTOR_BYTES = 32
STALLS = {
    "stall_barrier_pct": "waiting for other warps at a barrier",
    "stall_gmma_pct": "waiting for matrix instructions of the warp group",
    "stall_lg_throttle_pct": "a full queue of loads and stores to memory",
    "stall_long_scoreboard_pct": "waiting for data from memory",
    "stall_math_pipe_throttle_pct": "busy arithmetic pipes",
    "stall_membar_pct": "memory barriers",
    "stall_mio_throttle_pct": "a full queue to shared memory",
    "stall_not_selected_pct": "other warps that go first",
    "stall_short_scoreboard_pct": "waiting for shared memory or special functions",
}

Finding = tuple[float, str, str]
"""The share of the call's time that is lost or taken, the cause, the advice."""


def _dram(f: Figures) -> Finding:
    if not f.kernels:
        return (
            0.5,
            "No profile says how much device memory it moves.",
            "Read every byte once, in wide and aligned loads.",
        )
    cause = (
        f"It moves {amount(f.dram_bytes, 'B')} of device memory; at the {amount(f.gpu.readable_bytes_per_s, 'B/s')} "
        f"that can be read this is {micros(f.time_us * f.dram)} of {micros(f.time_us)}, {percent(f.dram)} of the "
        f"roofline{_counter(f, 'dram_throughput_pct', ', and counters show {:.0f} % of the peak')}."
    )
    used = f.metric("bytes_used_per_loaded_sector")
    if used is not None and used < 0.75 * SECTOR_BYTES:
        advice = (
            f"Of each sector of {SECTOR_BYTES} bytes that is loaded only {used:.0f} are used: let neighbouring threads "
            "read neighbouring elements, along the dimension that is contiguous in memory."
        )
    elif f.busy("dram") > 0.85:
        advice = (
            "It is near what the memory gives, so only fewer bytes or a smoother stream help: read each byte once, "
            "do not write what is read back, stream with eviction_policy='evict_first', keep shared data in the cache."
        )
    elif f.loaded_bytes > 1.5 * f.dram_bytes > 0:
        advice = (
            f"Programs load {f.loaded_bytes / f.dram_bytes:.1f} times what comes from device memory: make tiles larger "
            "or order programs so that those that run together share operands, then stream the rest in 16-byte loads."
        )
    else:
        advice = (
            "Keep more of the stream in flight: contiguous, aligned 16-byte loads along the fastest dimension, longer "
            "steps per program, several loads before the first use, and no masks where sizes divide evenly."
        )
    return f.busy("dram"), cause, advice


def _latency(f: Figures) -> Finding:
    resources: dict[Limiter, str] = {
        "dram": "device memory",
        "l2": "the second-level cache",
        "tensor": "the matrix units",
        "alu": "arithmetic",
    }
    busiest = max(resources, key=f.busy)
    # Of the multiprocessors that have work: what of their time nothing but waiting explains.
    working = 1 - min(f.idle, 0.999)
    taken = max(f.busy("dram"), f.launching, max(f.busy("l2"), f.busy("tensor"), f.busy("alu")) / working)
    lost = working * max(0.0, 1 - taken) if f.kernels else 0.4

    flight = f"{amount(f.gpu.readable_bytes_per_s * DRAM_LATENCY_S, 'B')} must be in flight to keep device memory busy"
    words = [f"The busiest resource, {resources[busiest]}, is used {percent(f.busy(busiest))} of the time", flight]
    words = words if f.kernels else [flight]
    occupancy = f.mean(lambda kernel: kernel.occupancy)
    if occupancy is not None:
        words.append(f"{percent(occupancy)} of the warps that fit are resident")
    stalls = [(value, name) for name, value in f.metrics if name.startswith("stall_") and name != "stall_wait_pct"]
    if stalls:
        value, name = max(stalls)
        words.append(f"warps spend {value:.0f} % of their time on {STALLS.get(name, name)} ({name})")
    cause = "; ".join(words)
    main = f.main
    if main is not None and main.spills:
        advice = (
            f"{main.kernel} spills {main.spills} registers: use smaller tiles or more warps, so that loads can wait "
            "in registers."
        )
    elif main is not None and not {"cp.async", "tma"} & main.features:
        advice = (
            "Put more loads in flight: issue several before the first use, take longer steps, let a loop with tl.dot "
            "or tl.range(..., num_stages=3 or more) copy ahead, or give each multiprocessor more warps."
        )
    else:
        stages = main.stages if main else 2
        advice = (
            f"Copies are asynchronous with {stages} stages: raise num_stages or shorten a stage so that more of them "
            "fit, and keep work that needs no new data between the load and its use."
        )
    return lost, f"{cause}.", advice


def _parallelism(f: Figures) -> Finding:
    kernels = list(zip(f.kernels, f.launches, strict=True))
    kernel, launch = max(
        ((k, launch) for k, launch in kernels if launch is not None),
        key=lambda pair: f.share_of(pair[0]) * f.idle_in(*pair),
        default=(None, f.main),
    )
    if launch is None:
        return 0.0, "No launch is known, nor how many programs it has.", "Start several programs per multiprocessor."
    programs, sms = prod(launch.grid), f.gpu.multiprocessors
    idle = f.idle_in(kernel, launch)
    if programs < sms:
        cause = f"{launch.kernel} starts {programs} programs for {sms} multiprocessors: {percent(idle)} have no work."
        advice = (
            f"Give each program less, so that {2 * sms} or more run: smaller tiles, or the reduction split over "
            "programs, with a second kernel or atomics to add the parts."
        )
        # Nothing else matters while multiprocessors have nothing to do.
        return 2 * f.idle, cause, advice
    waves = kernel.waves if kernel is not None else None
    together = programs / waves if waves else None
    cause = f"{launch.kernel} starts {programs} programs on {sms} multiprocessors"
    if waves and together:
        cause += f", {waves:.2f} waves of {together:.0f}: {percent(idle)} of the places stay empty"
    advice = (
        "Choose tiles so that the programs fill whole waves, or start as many programs as fit at once and let each "
        "loop over tiles; split the longest programs."
    )
    return f.idle, cause + ".", advice


def _l2(f: Figures) -> Finding:
    if not f.kernels:
        return 0.1, "No profile says how much the programs load.", "Let programs that run together share operand tiles."
    cause = (
        f"Programs load and store {amount(f.loaded_bytes, 'B')}, which takes {micros(f.time_us * f.l2)} of "
        f"{micros(f.time_us)} through the second-level cache, {percent(f.l2)}"
        f"{_counter(f, 'l2_hit_pct', '; {:.0f} % of it hits there')}{_counted(f, 'l2')}."
    )
    conflicts, wavefronts = f.metric("shared_bank_conflicts") or 0.0, f.metric("shared_wavefronts") or 0.0
    if conflicts > 0.2 * wavefronts > 0:
        advice = (
            f"{percent(conflicts / wavefronts)} of what shared memory does repeats for conflicts of its banks: avoid "
            "transposes and reductions across warps in the loop, or change the shape of the tile."
        )
        return f.busy("l2"), cause, advice
    advice = (
        "Load each operand less often: larger tiles in both dimensions, programs in groups that share rows and "
        "columns, operands that stay in registers or shared memory over the loop."
    )
    return f.busy("l2"), cause, advice


def _tensor(f: Figures) -> Finding:
    main = f.main
    if not f.matrix_flops:
        cause = f"No kernel uses matrix units; {amount(f.lane_flops, 'FLOP')} run on ordinary lanes."
        advice = "If part of this is a product of matrices, pad its tiles to 16 and use tl.dot with float32 sums."
        return 0.0, cause, advice
    cause = (
        f"{amount(f.matrix_flops, 'FLOP')} on matrix units take {micros(f.time_us * f.tensor)} of {micros(f.time_us)} "
        f"at the {amount(f.matrix_rate, 'FLOP/s')} that they sustain, {percent(f.tensor)} of the roofline"
        f"{_counter(f, 'tensor_pipe_pct', ', and counters show their pipe busy {:.0f} %')}."
    )
    if main is not None and 90 <= f.gpu.arch < 120 and "wgmma" not in main.features:
        advice = (
            "The code has plain matrix instructions: tiles of at least 64 rows with four or eight warps, operands of "
            "16 bits and both loaded straight from memory let the compiler use those of warp groups."
        )
    else:
        advice = (
            "Feed the matrix units without a pause: tiles of 128 x 128 or 128 x 256 with eight warps, steps of 64, "
            "three or four stages, and nothing but loads and tl.dot in the loop."
        )
    return f.busy("tensor"), cause, advice


def _alu(f: Figures) -> Finding:
    main = f.main
    cause = (
        f"{amount(f.lane_flops, 'FLOP')} outside matrix units take {percent(f.alu)} of the time at "
        f"{amount(f.gpu.fp32_flops, 'FLOP/s')}, conversions and addresses not counted{_counted(f, 'alu')}"
        if f.kernels
        else "No profile says how much it computes outside matrix units"
    )
    cause += f"; {main.kernel} uses {main.registers} registers a thread and spills {main.spills}" if main else ""
    if main is not None and main.spills:
        return (
            min(1.0, f.alu) + 0.3,
            cause + ".",
            "Stop the spills: smaller tiles, more warps, fewer values alive across the loop.",
        )
    advice = (
        "Do less per element: hoist address arithmetic and conversions out of the loop, reduce once after it, use "
        "exp2 with the factor folded in, drop masks where sizes divide evenly."
    )
    return f.busy("alu"), cause + ".", advice


def _launch(f: Figures) -> Finding:
    count = max(len(f.kernels), len(f.trial.launches), 1)
    cause = (
        f"{count} {'launch costs' if count == 1 else 'launches cost'} about {micros(f.launching_us)} of "
        f"{micros(f.time_us)}, {percent(f.launching)}, before any work is done."
    )
    advice = (
        "Fuse kernels, and drop fills and copies that a kernel can do itself: each launch less saves 1.5 µs and a trip "
        "of its operands through memory."
        if count > 1
        else "Keep it to one launch, with no fill or copy on the host beside it and few arguments."
    )
    return f.launching, cause, advice


def _atomics(f: Figures) -> Finding:
    adders = [launch for launch in f.trial.launches if "atomic" in launch.features]
    if not adders:
        return (
            0.0,
            "The compiled code has no atomic operation, so nothing is lost by waiting for one.",
            "If partial results are added by a second kernel, compare that with atomic additions to a zeroed output.",
        )
    cause = (
        f"{adders[0].kernel} updates memory atomically from {prod(adders[0].grid)} programs{_counted(f, 'atomics')}."
    )
    advice = (
        "Add up more in registers before each atomic, split less, or write partial results and add them in a second "
        "kernel."
    )
    return max(0.05, f.busy("atomics")), cause, advice


def _counted(f: Figures, limiter: Limiter) -> str:
    known = any(f.metric(name) is not None for name in COUNTERS[limiter])
    return f"; by counters its busiest part is busy {percent(f.busy(limiter))} of the time" if known else ""


def _counter(f: Figures, name: str, words: str) -> str:
    found = f.metric(name)
    return "" if found is None else words.format(found)


RULES: tuple[tuple[Limiter, Callable[[Figures], Finding]], ...] = (
    ("dram", _dram),
    ("latency", _latency),
    ("parallelism", _parallelism),
    ("l2", _l2),
    ("alu", _alu),
    ("tensor", _tensor),
    ("launch", _launch),
    ("atomics", _atomics),
)
"""Of equals the first comes first."""
