"""The introductions: the one place where the concrete classes of the rooms are named and put together.

Each is imported when it is chosen, so that nobody waits for a bench that is not used.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilesmith.bench import gpus
from tilesmith.bench.effort import Effort
from tilesmith.cli.options import REWRITE, SUPEROPT, BenchOptions, Options
from tilesmith.cli.screen import say
from tilesmith.config import Preset
from tilesmith.core.activity import Notice, unnoticed
from tilesmith.core.budget import Limits
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import Gpu, target
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench, Proposer
from tilesmith.core.trial import Trial
from tilesmith.journal import Run

if TYPE_CHECKING:
    from tilesmith.propose.chat import Models
    from tilesmith.propose.model import Manner
    from tilesmith.propose.taxonomy import Taxonomy


def chosen(options: BenchOptions, problem: Problem) -> BenchOptions:
    """The options with nothing left to choose: auto made local or offline, GPUs and target known to exist.

    Raises `OptionError` for options that contradict this machine or each other, `MachineError` for a bench that
    cannot work here.
    """
    if options.bench.startswith("replay:"):
        return options
    if options.bench == "ray":
        return _for_ray(options, problem)
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


def bench(
    options: BenchOptions, journal: Path, effort: Effort | None = None, notice: Notice = unnoticed
) -> AbstractContextManager[Bench]:
    """The bench that `chosen` options name; it holds processes only while it is entered. `notice` hears of steps."""
    kind, _, run = options.bench.partition(":")
    if kind == "replay":
        from tilesmith.bench.replay import ReplayBench
        from tilesmith.journal import open_store

        with open_store(journal, must_exist=True) as store:
            return nullcontext(ReplayBench(store.run(run).trials()))
    if kind == "local":
        from tilesmith.bench.local import LocalBench

        devices = [device for device in gpus.find() if options.gpus is None or device.index in options.gpus]
        return LocalBench(devices, options.workers_per_gpu, effort=effort, notice=notice)
    if kind == "ray":
        from tilesmith.bench.ray import RayBench

        return RayBench(
            options.address, options.target, options.otherwise, options.workers_per_gpu, effort, say, notice
        )
    from tilesmith.bench.offline import OfflineBench

    return OfflineBench(target(options.target), effort=effort, notice=notice)


def devices(options: BenchOptions, bench: Bench) -> Callable[[], tuple[str, ...]]:
    """Asks the bench that these options name for its GPUs, as leases name them; those of a cluster come and go."""
    if options.bench == "ray":
        from tilesmith.bench.ray import RayBench

        assert isinstance(bench, RayBench)
        return lambda: bench.devices
    mine = [device for device in gpus.find() if options.gpus is None or device.index in options.gpus]
    found = tuple(str(device.index) for device in mine) if options.bench == "local" else ()
    return lambda: found


def taxonomy(preset: Preset | None) -> Taxonomy:
    """Of techniques, for who only looks: the packaged one where the file of the run's own is gone, or is none."""
    from tilesmith.propose.taxonomy import default, load_taxonomy

    try:
        asked = preset.technique_clustering if preset is not None else None
        return load_taxonomy(asked.techniques_yaml, asked.classifier) if asked else default()
    except OptionError:
        return default()


def pool(
    options: Options, trials: Sequence[Trial], vectors: Mapping[str, frozenset[str]]
) -> tuple[tuple[str, int], ...]:
    """The techniques of the kernels that the next round would expand, and how many have just these.

    `vectors`: what is recorded of kernels, by its key. What the run did not classify is read from the code.
    """
    from tilesmith.propose.beam import kernel_id, select
    from tilesmith.propose.techniques import COMPILED, vector, vector_key

    known = taxonomy(options.preset)

    def names(trial: Trial) -> frozenset[str]:
        found = vectors.get(vector_key(kernel_id(trial), known.id, COMPILED))
        return vector(trial, known) if found is None else found

    clustered = options.preset is not None and options.preset.technique_clustering.enabled
    chosen = select(trials, options.candidate_pool_size, names if clustered else None)
    counts = Counter(", ".join(sorted(names(trial))) or "no technique that is known" for trial in chosen)
    return tuple(counts.most_common())


@contextmanager
def proposer(options: Options, opened: Models | None, bench: Bench, run: Run) -> Iterator[Proposer]:
    """Who suggests candidates; tasks and connections end with the block."""
    from tilesmith.propose import JoinedProposer, RewriteProposer

    chosen: list[Proposer] = []
    with ExitStack() as life:
        if SUPEROPT in options.proposers:
            from tilesmith.superopt.proposer import SuperoptProposer

            chosen.append(SuperoptProposer(_gpu(options.bench, bench)[0], run, seed=options.seed, say=say))
        if REWRITE in options.proposers:
            shape = options.preset
            chosen.append(
                RewriteProposer(
                    candidate_pool_size=options.candidate_pool_size,
                    num_bottlenecks=options.num_bottlenecks,
                    clustered=shape is not None and shape.technique_clustering.enabled,
                    seed=options.seed,
                )
            )
        if opened is not None and options.preset is not None:
            from tilesmith.propose.model import ModelProposer, Place

            gpu, measured = _gpu(options.bench, bench)
            place = Place(gpu, bench.profile, measured)
            by_models = ModelProposer(manner(options.preset, options.limits), opened, run, place, say)
            chosen.append(life.enter_context(by_models))
        yield chosen[0] if len(chosen) == 1 else JoinedProposer(chosen)


def models(options: Options) -> Models | None:
    """The models of a run, before anything else begins. Raises `OptionError` for one that cannot be asked.

    Providers are asked, at no cost, whether names and keys are right, over connections that end with the question:
    those of the run belong to another event loop.
    """
    if options.preset is None:
        return None
    from tilesmith.propose.chat import default_path, open_models, read_book

    path = Path(options.models_file) if options.models_file else default_path(os.environ)
    names, book = manner(options.preset, options.limits).models, read_book(path)
    opened = open_models(names, book, os.environ, say)
    if options.budget_usd is not None:
        opened.require_prices()
    asyncio.run(_check(open_models(names, book, os.environ)))
    return opened


async def _check(models: Models) -> None:
    try:
        await models.check()
    finally:
        await models.close()


def manner(preset: Preset, limits: Limits) -> Manner:
    """A preset as the proposer takes it. Raises `OptionError` for a taxonomy that is none."""
    from tilesmith.propose.directions import Width
    from tilesmith.propose.model import Diversity, Manner
    from tilesmith.propose.taxonomy import load_taxonomy

    diversity, asked = None, preset.technique_clustering
    taxonomy = load_taxonomy(asked.techniques_yaml, asked.classifier)
    if asked.enabled:
        model = None if asked.classifier == "compiled" else asked.classifier_model or preset.models[0]
        diversity = Diversity(taxonomy, model, asked.classifier == "both", asked.max_concurrency)
    return Manner(
        Width(preset.candidate_pool_size, preset.num_bottlenecks, preset.models, preset.samples_per_prompt),
        preset.repairs,
        preset.analyst,
        diversity,
        preset.call_seconds,
        preset.round_seconds,
        preset.max_output_tokens,
        limits,
    )


def _gpu(options: BenchOptions, bench: Bench) -> tuple[Gpu, bool]:
    """What candidates are written for, and whether it is there."""
    if options.bench == "ray":
        from tilesmith.bench.ray import RayBench

        assert isinstance(bench, RayBench)
        return bench.gpu, bench.measured
    if options.bench == "local":
        used = [device for device in gpus.find() if options.gpus is None or device.index in options.gpus]
        return used[0].gpu, True
    return target(options.target), False


def _for_ray(options: BenchOptions, problem: Problem) -> BenchOptions:
    from tilesmith.bench.ray.reach import chosen, greet

    if options.gpus is not None:
        raise OptionError("--gpus names GPUs of this machine, and a Ray cluster lends its own; leave it out")
    named = None if options.target is None else target(options.target).name
    address = chosen(options.address)
    # Now, so that no run begins that nobody can judge.
    greet(address)
    say(f"bench: ray ({'this machine alone' if address == 'local' else address})")
    return replace(options, target=named, otherwise=target(problem.settings.target).name)


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
