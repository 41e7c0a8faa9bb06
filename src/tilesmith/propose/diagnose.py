"""What a kernel's time goes to, and which rewrites answer it."""

from __future__ import annotations

from math import prod

from tilesmith.core.gpu import DEFAULT, TABLE
from tilesmith.core.profile import Launch, Limiter
from tilesmith.core.trial import Trial

ANSWERS: tuple[tuple[Limiter, tuple[str, ...]], ...] = (
    (
        "parallelism",
        (
            "split_atomics",
            "more_programs",
            "trade_tiles",
            "split_partials",
            "more_splits",
            "warps",
        ),
    ),
    (
        "latency",
        (
            "warps",
            "longer_steps",
            "trade_tiles",
            "prefetch",
            "pipeline",
            "reduce_once",
            "stages",
            "more_splits",
            "unroll",
            "more_programs",
            "shorter_steps",
        ),
    ),
    (
        "dram",
        (
            "evict_first",
            "trade_tiles",
            "warps",
            "longer_steps",
            "prefetch",
            "split_atomics",
            "reduce_once",
            "more_programs",
            "pipeline",
            "split_partials",
            "unmask",
            "more_splits",
            "evict_last",
            "vector_hints",
            "fewer_splits",
            "persistent",
        ),
    ),
    (
        "l2",
        (
            "group_programs",
            "fewer_programs",
            "swap_axes",
            "evict_last",
            "trade_tiles",
            "longer_steps",
            "persistent",
        ),
    ),
    (
        "tensor",
        (
            "fewer_programs",
            "longer_steps",
            "stages",
            "warps",
            "trade_tiles",
            "group_programs",
            "persistent",
        ),
    ),
    (
        "alu",
        (
            "reduce_once",
            "unmask",
            "warps",
            "vector_hints",
            "unroll",
            "shorter_steps",
            "persistent",
            "fewer_splits",
        ),
    ),
    (
        "atomics",
        (
            "fewer_splits",
            "split_partials",
            "fewer_programs",
            "longer_steps",
        ),
    ),
    (
        "launch",
        (
            "fewer_splits",
            "fewer_programs",
            "autotune",
        ),
    ),
)
"""For each limiter the rewrites that answer it, the strongest first."""


def multiprocessors(trial: Trial) -> int:
    """Of the GPU that a trial was judged for; those of the default where it is not in the table."""
    names = (trial.profile.target if trial.profile else "", trial.environment.target if trial.environment else "")
    known = next((TABLE[name] for name in names if name in TABLE), TABLE[DEFAULT])
    return known.multiprocessors


def bottlenecks(trial: Trial) -> tuple[Limiter, ...]:
    """Limiters, the first the one to answer first: those of the profile, then what the launches show, then memory.

    A launch with too few programs for the GPU comes first whatever the profile's model says of the bytes: no other
    rewrite matters while multiprocessors idle.
    """
    ranked: list[Limiter] = []
    main = _main(trial)
    count = multiprocessors(trial)
    if main is not None and prod(main.grid) < count:
        ranked.append("parallelism")
    ranked += trial.profile.ranked() if trial.profile else ()
    if main is not None:
        if "wgmma" in main.features or "mma" in main.features:
            ranked += ["dram", "tensor"]
        if prod(main.grid) < 2 * count:
            ranked.append("parallelism")
        if main.spills:
            ranked.append("alu")
        if "atomic" in main.features:
            ranked.append("atomics")
    ranked += ["dram", "latency", "l2", "alu"]
    return tuple(dict.fromkeys(ranked))


def answers(limiters: tuple[Limiter, ...], count: int) -> tuple[str, ...]:
    """Names of rewrites: dovetailed over the first `count` limiters, then those of the rest of the table."""
    known = dict(ANSWERS)
    first = [known[limiter] for limiter in limiters[:count]]
    depth = max(map(len, first), default=0)
    order = [names[index] for index in range(depth) for names in first if index < len(names)]
    rest = [name for limiter in limiters[count:] for name in known[limiter]]
    everything = [name for _, names in ANSWERS for name in names]
    return tuple(dict.fromkeys([*order, *rest, *everything]))


def _main(trial: Trial) -> Launch | None:
    """The launch that holds most of the time; without a profile the first with the most shared work: the first."""
    if trial.profile and trial.profile.kernels:
        longest = max(trial.profile.kernels, key=lambda kernel: kernel.time_us).kernel
        return next((launch for launch in trial.launches if launch.kernel == longest), None)
    return trial.launches[0] if trial.launches else None
