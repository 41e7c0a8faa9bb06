"""What a search shows while it runs: one panel on a terminal, calm lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from tilesmith.core.activity import State, Step
from tilesmith.core.budget import Limits
from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply
from tilesmith.core.search import best, lineage
from tilesmith.core.trial import Correct, Duplicate, Timing, Trial
from tilesmith.report.spending import (
    ModelSpending,
    Spending,
    money,
    outcome_words,
    spending,
    tokens_of,
    told_tokens,
    usd_of,
)
from tilesmith.report.words import (
    baseline,
    brief,
    clipped,
    counts,
    figure,
    gain,
    harmless,
    interval_words,
    seconds,
    time_of,
    verdict_message,
    verdict_name,
)

MODEL_ROWS, CLUSTER_ROWS, GPU_ROWS = 4, 3, 8
SHARE = 0.003
"""Of the time at most that goes into working out how a run stands."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run so far. `spent_s` counts from the start of this process's part of it, `directions` are those of a round."""

    problem: str
    run: str
    bench: str
    limits: Limits
    trials: Sequence[Trial]
    spent_s: float
    replies: Sequence[Reply] = ()
    endings: Sequence[Ending] = ()
    directions: int = 0
    steps: Sequence[Step] = ()
    """Where candidates are now."""
    devices: Sequence[str] = ()
    """The GPUs of the bench."""
    clusters: Sequence[tuple[str, int]] = ()
    """Of the pool: techniques, and how many of its kernels have just these."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What trials, replies, endings and clusters decide; the rest of a picture changes from second to second."""

    spent: Spending
    usd: float
    tokens: int
    gpu_s: float
    trials: str
    merged: str
    latest: str
    best: str
    interval: str
    """Empty for an estimate, which has none."""


class Panel:
    """Draws a run again and again, and works out only what is new: the search must not wait for its picture.

    The more there is to work out, the less often it is done: news of thousands of trials may show seconds late.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: tuple[tuple[int, int, int], Standing] | None = None
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> Table:
        seen = (len(progress.trials), len(progress.replies), len(progress.endings))
        if self._known is None or (self._known[0] != seen and self._clock() >= self._next_s):
            began_s = self._clock()
            self._known = seen, standing(progress)
            ended_s = self._clock()
            self._next_s = ended_s + (ended_s - began_s) / SHARE
        return _table(rows(progress, self._known[1]))


def standing(progress: Progress) -> Standing:
    """How the run stands."""
    trials = progress.trials
    merged = sum(isinstance(trial.verdict, Duplicate) for trial in trials)
    latest = "waiting for the first"
    if trials:
        latest = f"{verdict_name(trials[-1].verdict)}: {brief(trials[-1].candidate.origin)}"
    return Standing(
        spending(trials, progress.replies, progress.endings),
        usd_of(progress.replies),
        tokens_of(progress.replies),
        sum(trial.cost.gpu_s for trial in trials),
        f"{len(trials)}" + (f" ({counts(trials)})" if trials else ""),
        f"{merged} duplicate{'' if merged == 1 else 's'} of what was judged before" if merged else "",
        clipped(latest, 100),
        best_words(trials),
        _interval(trials),
    )


def rows(progress: Progress, told: Standing | None = None) -> list[tuple[str, str]]:
    """The panel's rows: name and words."""
    told = told or standing(progress)
    lines = [
        ("problem", f"{progress.problem} (run {progress.run}, {progress.bench} bench)"),
        ("round", _round(progress, told.spent)),
    ]
    if progress.directions:
        lines.append(("directions", _directions(progress, told.spent)))
    lines += _places(progress)
    lines.append(("trials", told.trials))
    if told.merged:
        lines.append(("merged", told.merged))
    lines += [("latest", told.latest), ("best", told.best)]
    if told.interval:
        lines.append(("interval", told.interval))
    lines += [
        ("pool" if place == 0 else "", f"{count} x {names}")
        for place, (names, count) in enumerate(progress.clusters[:CLUSTER_ROWS])
    ]
    if rest := sum(count for _, count in progress.clusters[CLUSTER_ROWS:]):
        lines.append(("", f"{rest} in other clusters"))
    if len(told.spent.models) > 1:
        lines += [
            ("models" if place == 0 else "", clipped(f"{brief(each.model)}: {_model(each)}", 100))
            for place, each in enumerate(told.spent.models[:MODEL_ROWS])
        ]
        if len(told.spent.models) > MODEL_ROWS:
            lines.append(("", f"and {len(told.spent.models) - MODEL_ROWS} more"))
    lines += [
        ("spent", ", ".join([seconds(progress.spent_s), *_bill(progress, told.spent)])),
        ("left", _left(progress, told)),
    ]
    return lines


def line(progress: Progress) -> str:
    """The latest trial in one line, for a log."""
    trial = progress.trials[-1]
    verdict = trial.verdict
    told = figure(verdict.time) if isinstance(verdict, Correct) else verdict_message(verdict)
    where = f"round {trial.round}, trial {len(progress.trials)}, {seconds(progress.spent_s)}"
    return clipped(f"{where}: {verdict_name(verdict)}, {brief(trial.candidate.origin)}: {told}", 160)


def status(progress: Progress) -> str:
    """How the models' round goes, in one line for a log: directions, what was spent, what is left."""
    now = standing(progress)
    ways = f"round {_round(progress, now.spent)}, directions: {_directions(progress, now.spent)}"
    return clipped(f"{', '.join([ways, *_bill(progress, now.spent)])}; left: {_left(progress, now)}", 240)


def best_words(trials: Sequence[Trial]) -> str:
    """The best so far against the start kernel: "41.2 µs estimated, 2.91 times as fast as the start kernel (...)"."""
    fastest, first = best(trials), baseline(trials)
    if fastest is None or not isinstance(fastest.verdict, Correct):
        return "none yet"
    words = figure(fastest.verdict.time)
    path = " > ".join(brief(trial.candidate.origin) for trial in lineage(fastest, trials))
    if first is None or not isinstance(first.verdict, Correct):
        return f"{words}; {path}"
    if fastest.candidate == first.candidate:
        return f"{words}: the start kernel itself"
    ratio = gain(trials)
    times = f"{ratio:.2f} times as fast as" if ratio is not None else "against"
    return f"{words}, {times} the start kernel ({figure(first.verdict.time)}); {path}"


def left(progress: Progress) -> str:
    """What is left of each limit: "48 trials, 1 min 12 s"; "no limit" where there is none."""
    return _left(progress, standing(progress))


def _left(progress: Progress, told: Standing) -> str:
    limits = progress.limits
    parts = []
    if limits.trials is not None:
        parts.append(f"{max(0, limits.trials - len(progress.trials))} trials")
    if limits.seconds is not None:
        parts.append(seconds(max(0.0, limits.seconds - progress.spent_s)))
    if limits.gpu_seconds is not None:
        parts.append(f"{max(0.0, limits.gpu_seconds - told.gpu_s):.1f} GPU seconds")
    if limits.usd is not None:
        parts.append(money(max(0.0, limits.usd - told.usd)))
    if limits.tokens is not None:
        parts.append(told_tokens(max(0, limits.tokens - told.tokens)))
    return ", ".join(parts) or "no limit"


def _table(lines: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in lines:
        table.add_row(name, Text(harmless(words), style="bold" if name == "best" else ""))
    return table


def _round(progress: Progress, spent: Spending) -> str:
    number = max((each.number for each in spent.rounds), default=0)
    return f"{number}" if progress.limits.rounds is None else f"{number} of {progress.limits.rounds}"


def _directions(progress: Progress, spent: Spending) -> str:
    """ "12 of 90 ended (10 judged, 2 no code); 60 wait for a model, 3 capturing, 9 queued, 6 judging"."""
    latest = spent.rounds[-1] if spent.rounds else None
    if latest is None or latest.number == 0:
        return f"{progress.directions} a round"
    told = f"{latest.ended} of {progress.directions} ended" + (f" ({outcome_words(latest)})" if latest.ended else "")
    way = max(0, progress.directions - latest.ended)
    if not progress.steps:
        return f"{told}, {way} under way" if way else told
    states = Counter(step.state for step in progress.steps)
    waiting = max(0, way - states.total())
    ahead = [f"{waiting} waiting for a model"] if waiting else []
    return "; ".join([told, ", ".join([*ahead, *_states(states)])])


def _places(progress: Progress) -> list[tuple[str, str]]:
    """Each GPU with who has a lease of it, those in use first where they are many; without any, how many do what."""
    if not progress.devices:
        states = _states(Counter(step.state for step in progress.steps))
        return [("bench", ", ".join(states))] if states and not progress.directions else []
    holders = {device: [step for step in progress.steps if step.device == device] for device in progress.devices}
    shown = list(holders)
    if len(shown) > GPU_ROWS:
        shown = sorted(shown, key=lambda device: not holders[device])[:GPU_ROWS]
    lines = []
    for device in shown:
        held = holders.pop(device)
        words = [f"timing {brief(step.origin)}" for step in held if step.exclusive]
        words = words or [f"checking {brief(step.origin)}" for step in held]
        lines.append((f"GPU {device}", clipped(", ".join(words) or "idle", 100)))
    if holders:
        idle = sum(not held for held in holders.values())
        lines.append(("", f"and {len(holders)} GPUs more, {idle} of them idle"))
    queued = _states(Counter(step.state for step in progress.steps if step.state != "judging"))
    return [*lines, ("queue", ", ".join(queued))] if queued and not progress.directions else lines


def _states(states: Counter[State]) -> list[str]:
    order: tuple[State, ...] = ("capturing", "queued", "judging")
    return [f"{states[state]} {state}" for state in order if states[state]]


def _interval(trials: Sequence[Trial]) -> str:
    fastest, first = best(trials), baseline(trials)
    timing = time_of(fastest.verdict) if fastest else None
    if not isinstance(timing, Timing):
        return ""
    words = f"95 %: {interval_words(timing)}"
    if first is not None and timing.gain is not None and timing.rival == first.candidate.id:
        words += f"; {timing.gain[1]:.2f} to {timing.gain[2]:.2f} times as fast as the start kernel"
    return words


def _model(each: ModelSpending) -> str:
    price = "price not known" if each.usd is None else money(each.usd)
    return f"{told_tokens(each.usage.tokens)}, {price}, {each.correct} of {each.proposals} correct"


def _bill(progress: Progress, spent: Spending) -> list[str]:
    """Money and tokens; nothing where no model is asked."""
    if not progress.directions and not progress.replies:
        return []
    return [("at least " if spent.unpriced else "") + money(spent.usd), told_tokens(spent.tokens)]
