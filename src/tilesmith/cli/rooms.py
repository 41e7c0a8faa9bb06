"""The introductions: the one place where the concrete classes of the rooms are named and put together.

Each is imported when it is chosen, so that nobody waits for a bench that is not used.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from tilesmith.bench import gpus
from tilesmith.bench.effort import Effort
from tilesmith.cli.options import BenchOptions, Options
from tilesmith.cli.screen import say
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench, Proposer


def chosen(options: BenchOptions, problem: Problem) -> BenchOptions:
    """The options with nothing left to choose: auto made local or offline, GPUs and target known to exist.

    Raises `OptionError` for options that contradict this machine or each other, `MachineError` for a bench that
    cannot work here.
    """
    if options.bench.startswith("replay:"):
        return options
    found = gpus.find() if options.bench != "offline" else ()
    bench = options.bench
    if bench == "auto":
        bench = "local" if found else "offline"
        why = ", ".join(device.name for device in found) or "no GPU found, so times are estimates"
        say(f"bench: {bench} ({why})")
    if bench == "local":
        _check_local(options, found)
        return replace(options, bench=bench)
    if options.gpus is not None:
        raise OptionError("--gpus names GPUs of this machine, and the offline bench uses none; leave it out")
    return replace(options, bench=bench, target=target(options.target or problem.settings.target).name)


def bench(options: BenchOptions, journal: Path, effort: Effort | None = None) -> AbstractContextManager[Bench]:
    """The bench that `chosen` options name; it holds processes only while it is entered."""
    kind, _, run = options.bench.partition(":")
    if kind == "replay":
        from tilesmith.bench.replay import ReplayBench
        from tilesmith.journal import open_store

        with open_store(journal, must_exist=True) as store:
            return nullcontext(ReplayBench(store.run(run).trials()))
    if kind == "local":
        from tilesmith.bench.local import LocalBench

        devices = [device for device in gpus.find() if options.gpus is None or device.index in options.gpus]
        return LocalBench(devices, options.workers_per_gpu, effort=effort)
    from tilesmith.bench.offline import OfflineBench

    return OfflineBench(target(options.target), len(os.sched_getaffinity(0)), effort)


def proposer(options: Options) -> Proposer:
    """Who suggests candidates."""
    from tilesmith.propose import RewriteProposer

    return RewriteProposer(
        candidate_pool_size=options.candidate_pool_size, num_bottlenecks=options.num_bottlenecks, seed=options.seed
    )


def _check_local(options: BenchOptions, found: tuple[gpus.Device, ...]) -> None:
    if not found:
        raise MachineError("--bench local needs an NVIDIA GPU and none was found; `tilesmith doctor` says why")
    used = [device for device in found if options.gpus is None or device.index in options.gpus]
    if missing := set(options.gpus or ()) - {device.index for device in used}:
        there = ", ".join(str(device.index) for device in found)
        raise OptionError(f"--gpus names {min(missing)}, and this machine has {there}")
    if options.target is not None and {device.gpu.name for device in used} != {target(options.target).name}:
        here = ", ".join(sorted({device.gpu.name for device in used}))
        raise OptionError(
            f"--target is {options.target}, and the GPU here is {here}; say --bench offline, or leave it out"
        )
