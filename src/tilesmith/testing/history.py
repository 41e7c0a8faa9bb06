"""Runs that never happened: as many trials as wanted, of every kind, for what reads journals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tilesmith.core.budget import Stop
from tilesmith.core.facts import Analysis, Bottleneck, Ending, Fact, Profiled
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.profile import KernelProfile, Launch, Limiter, Profile
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Direction,
    Duplicate,
    Environment,
    Estimate,
    Failed,
    Lease,
    Rejected,
    Timing,
    Trial,
    Verdict,
    Wrong,
)
from tilesmith.journal import RunOptions, open_store

KERNEL = '''"""Rows in blocks, sums in 32 bits."""

import torch
import triton
import triton.language as tl


@triton.jit
def row_kernel(x_ptr, w_ptr, y_ptr, rows, columns, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for step in range(STEPS):
        column = step * BLOCK + tl.arange(0, BLOCK)
        mask = column < columns
        x = tl.load(x_ptr + row * columns + column, mask=mask, other=0.0).to(tl.float32)
        total += x * x
    scale = tl.rsqrt(tl.sum(total, axis=0) / columns + 1e-6)
    for step in range(STEPS):
        column = step * BLOCK + tl.arange(0, BLOCK)
        mask = column < columns
        x = tl.load(x_ptr + row * columns + column, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(y_ptr + row * columns + column, (x * scale * w).to(y_ptr.dtype.element_ty), mask=mask)


def kernel_function(x, w):
    y = torch.empty_like(x)
    rows, columns = x.shape
    block = 1024
    row_kernel[(rows,)](x, w, y, rows, columns, BLOCK=block, STEPS=triton.cdiv(columns, block), num_warps=4)
    return y
'''
MODELS = ("anthropic:claude-opus-5-5", "openai:gpt-6.1-sol", "gate:qwen/qwen3-coder")
LIMITERS: tuple[Limiter, ...] = ("dram", "latency", "parallelism", "l2", "alu")
FEATURES = ("vector128", "cp_async", "mma", "wgmma", "tma")
WHERE = Environment("local", "h200", "NVIDIA H200", "580.159.04", "2.11.0", "3.6.0", "3.12.3")
OFFLINE = Environment("offline", "h200", None, None, "2.13.0+cpu", "3.6.0", "3.11.7")


@dataclass(frozen=True, slots=True)
class History:
    """What a journal would hold of a run."""

    problem: Problem
    trials: tuple[Trial, ...]
    confirmations: tuple[Trial, ...]
    """Of the fastest, timed in turns with the start kernel."""
    replies: tuple[Reply, ...]
    endings: tuple[Ending, ...]
    analyses: tuple[Analysis, ...]
    profiled: tuple[Profiled, ...]


def history(
    count: int,
    *,
    kernels: Sequence[str] = (KERNEL,),
    models: Sequence[str] = MODELS,
    measured: bool = True,
    began_s: float = 1.8e9,
    gpus: int = 2,
    seed: int = 0,
) -> History:
    """A start kernel and `count` - 1 descendants over ten rounds; the same for the same arguments.

    Sources grow out of `kernels` line by line, so that they are as alike, and as different, as those of a search.
    """
    draw = random.Random(seed)
    time_us = {0: 400.0}
    start = Candidate(kernels[0], "start")
    trials = [_judged(start, Correct(_time(draw, 400.0, None, measured), 0.2, 7), 0, 0, began_s, measured, gpus, draw)]
    replies: list[Reply] = []
    endings: list[Ending] = []
    sources = {start.source}
    for number in range(1, count):
        at = 1 + (number - 1) * 10 // max(1, count - 1)
        good = sorted(time_us, key=lambda known: time_us[known])[: 4 + number // 20]
        parent = draw.choice(good)
        way = Direction(at, 1 + draw.randrange(4), 1 + draw.randrange(2), draw.choice(models), number)
        source = _changed(
            draw, trials[parent].candidate.source if draw.random() < 0.9 else draw.choice(kernels), number
        )
        if source in sources:
            continue
        sources.add(source)
        candidate = Candidate(source, way.model, trials[parent].candidate.id, way, int(draw.random() < 0.2))
        verdict = _verdict(draw, time_us[parent], trials[parent], measured)
        trials.append(_judged(candidate, verdict, at, number, began_s, measured, gpus, draw))
        if isinstance(verdict, Correct):
            time_us[len(trials) - 1] = trials[-1].time_us or 0.0
        text = f"I change one thing, in step {number}: {draw.choice(LIMITERS)}.\n\n```python\n{source}```\n"
        usage = Usage(draw.randrange(2000, 9000), draw.randrange(500, 4000), draw.randrange(3000))
        usd = None if way.model.startswith("gate:") else usage.tokens * 4e-6
        key = f"{way.key}/{candidate.attempt}/{number:016x}"
        replies.append(Reply(key, way.model, text, usage, usd, draw.uniform(2, 40)))
        endings.append(Ending(way.key, "judged"))
    prints = {trial.fingerprint: trial for trial in trials if trial.time_us is not None and trial.fingerprint}
    analyses = tuple(_analysis(f"{name}/h200/rules/estimate/2", draw) for name in prints)
    fastest = min(prints.values(), key=lambda trial: trial.time_us or 0.0)
    again = replace(
        fastest, verdict=_again(fastest, trials[0]), confirmed=True, evidence=("memcheck: clean",), leases=()
    )
    counted = () if fastest.profile is None else (Profiled(f"{fastest.fingerprint}/h200", _counted(fastest.profile)),)
    problem = Problem("rows", "class Model: ...\n", Settings(dtype="bf16"), kernels[0])
    return History(problem, tuple(trials), (again,), tuple(replies), tuple(endings), analyses, counted)


def recorded(made: History, journal: Path, *, ended: bool = True, options: str = "{}") -> str:
    """Write a history to a journal as a search would, and return the run's id."""
    replies = {reply.key.rpartition("/")[0]: reply for reply in made.replies}
    with open_store(journal) as store:
        run = store.create(made.problem, RunOptions(options))
        facts: tuple[Fact, ...] = (*made.analyses, *made.profiled)
        for fact in facts:
            run.note(fact)
        for trial in made.trials:
            way = trial.candidate.direction
            if way is not None and (reply := replies.get(f"{way.key}/{trial.candidate.attempt}")):
                run.note(reply)
            run.record(trial)
        for again in made.confirmations if ended else ():
            run.confirmed(again)
        for ending in made.endings:
            run.note(ending)
        if ended:
            run.stop(Stop.ROUNDS)
        return run.id


def _changed(draw: random.Random, source: str, number: int) -> str:
    """A few lines other than before."""
    lines = source.splitlines()
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(8, len(lines))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        match draw.randrange(3):
            case 0 if len(lines) < 160:
                lines.insert(place, f"{indent}# {number}: {draw.getrandbits(48):012x}")
            case 1:
                lines[place] = lines[place].replace("1024", str(draw.choice((256, 512, 1024, 2048))))
            case _:
                lines[place] = f"{lines[place].split('  # ')[0]}  # {draw.getrandbits(24):06x}"
    return "\n".join(lines) + "\n"


def _verdict(draw: random.Random, parent_us: float, parent: Trial, measured: bool) -> Verdict:
    match draw.random():
        case chance if chance < 0.55:
            us = max(90.0, parent_us * draw.uniform(0.9, 1.35))
            return Correct(_time(draw, us, parent, measured), draw.uniform(0.05, 0.9), 7)
        case chance if chance < 0.7:
            return Wrong(f"on the inputs 'own' its error is {draw.uniform(2, 90):.3g} times the limit", 3.0)
        case chance if chance < 0.8:
            return Failed("compile", f"CompilationError: at {draw.randrange(9, 60)}:8: NameError('offsets')")
        case chance if chance < 0.85:
            return Rejected("it computes outside its own kernels, with the framework's mm")
        case _:
            return Duplicate(parent.candidate.id)


def _time(draw: random.Random, time_us: float, rival: Trial | None, measured: bool) -> Timing | Estimate:
    if not measured:
        return Estimate(time_us)
    wide = time_us * draw.uniform(0.001, 0.01)
    if rival is None or rival.time_us is None:
        return Timing(time_us, time_us - wide, time_us + wide, 100)
    us = rival.time_us
    return Timing(time_us, time_us - wide, time_us + wide, 100, rival.candidate.id, us, us * 0.995, us * 1.005)


def _again(fastest: Trial, start: Trial) -> Verdict:
    if not isinstance(fastest.verdict, Correct) or not isinstance(fastest.verdict.time, Timing):
        return fastest.verdict
    base_us = start.time_us or 0.0
    time = replace(
        fastest.verdict.time,
        rival=start.candidate.id,
        rival_us=base_us,
        rival_low_us=base_us - 1,
        rival_high_us=base_us + 1,
    )
    return replace(fastest.verdict, time=time, checks=141)


def _judged(
    candidate: Candidate,
    verdict: Verdict,
    number: int,
    place: int,
    began_s: float,
    measured: bool,
    gpus: int,
    draw: random.Random,
) -> Trial:
    """With the evidence that a bench would give."""
    compiled = isinstance(verdict, Correct | Wrong | Duplicate)
    launch = Launch(
        "row_kernel", (4096, 1, 1), 4, 3, draw.choice((0, 8192, 65536)), draw.randrange(24, 200), 0,
        (("BLOCK", 1024), ("x_ptr", "bf16[4096, 8192]")), frozenset(draw.sample(FEATURES, 2)),
    )  # fmt: skip
    flops, moved = 3.4e8 * draw.uniform(1, 1.2), 1.34e8 * draw.uniform(1, 2)
    estimate = KernelProfile(
        "row_kernel", 60.0, draw.choice(LIMITERS), moved, 2 * moved, flops, draw.uniform(0.1, 1), draw.uniform(0.5, 9)
    )
    at_s, device = began_s + place * 1.5, str(place % gpus)
    leases = (
        (Lease(device, at_s, at_s + 0.6, exclusive=False), Lease(device, at_s + 0.7, at_s + 1.2, exclusive=True))
        if compiled and measured
        else ()
    )
    return Trial(
        candidate,
        verdict,
        f"{candidate.id[:15]}f" if compiled else None,
        (launch,) if compiled else (),
        Profile("estimate", "h200", (estimate,)) if compiled else None,
        Cost(2.1, 0.5 if leases else 0.0, 0.3 if leases else 0.0),
        WHERE if measured else OFFLINE,
        "screened source, own mounts, no network",
        number,
        leases=leases,
    )


def _analysis(key: str, draw: random.Random) -> Analysis:
    found = draw.sample(LIMITERS, 2)
    return Analysis(
        key, "rules", tuple(Bottleneck(each, f"It spends its time on {each}.", "Do less of it.") for each in found)
    )


def _counted(profile: Profile) -> Profile:
    [kernel] = profile.kernels
    counted = KernelProfile(
        kernel.kernel, kernel.time_us, kernel.limiter, kernel.dram_bytes, kernel.loaded_bytes, kernel.flops,
        kernel.occupancy, kernel.waves, (("dram_throughput_pct", 71.5), ("l2_hit_pct", 12.0)),
    )  # fmt: skip
    return Profile("ncu", profile.target, (counted,))
