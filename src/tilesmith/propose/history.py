"""What was tried before, as far as it tells a model what to try next. Pure functions of the complete rounds' trials."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tilesmith.core.search import lineage
from tilesmith.core.trial import (
    Correct,
    Duplicate,
    Failed,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Verdict,
    Wrong,
)
from tilesmith.propose.words import micros, one_line

MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trial, or several siblings that ended alike."""

    relation: Literal["ancestor", "parent", "sibling"]
    """To the candidate that is to be written: siblings have the same parent as it."""
    origin: str
    techniques: tuple[str, ...]
    time_us: float | None
    """None for what is not correct."""
    measured: bool
    """Whether `time_us` was measured; else it is an estimate."""
    gain: float | None
    """How many times as fast as its own parent it is; None unless both have times of one kind."""
    message: str | None
    """What the verdict says, in one line; None for what is correct and new."""
    count: int = 1
    """Siblings that ended with this message."""


def history(
    parent: Trial | None, trials: Sequence[Trial], techniques: Callable[[Trial], Collection[str]], siblings: int = 12
) -> tuple[Attempt, ...]:
    """The parent's line from the root, the parent included, then the most telling of its children.

    Without a parent the children are what was written from the reference. They are at most `siblings`: the fastest
    of the correct ones, and the faults that were seen most often, of which half the places are kept free.

    The order of the trials does not count: a run that was killed may have another one.
    """
    first = {trial.candidate.id: trial for trial in reversed(trials)}
    line = lineage(parent, trials) if parent is not None else ()
    told = [
        replace(_attempt(trial, first, techniques), relation="parent" if trial is parent else "ancestor")
        for trial in line
    ]
    above = parent.candidate.id if parent is not None else None
    children = {t.candidate.id: t for t in trials if t.candidate.parent == above and t.candidate.id != above}
    attempts = [_attempt(children[key], first, techniques) for key in sorted(children)]
    return (*told, *_relevant(attempts, siblings))


def _relevant(attempts: Sequence[Attempt], most: int) -> tuple[Attempt, ...]:
    correct = sorted((a for a in attempts if a.message is None), key=lambda attempt: attempt.time_us or 0.0)
    alike: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt.message is not None:
            # Line numbers and sizes differ where the fault is the same.
            kind = re.sub(r"\d+", "0", attempt.message)
            known = alike.get(kind)
            alike[kind] = replace(known, count=known.count + 1) if known else attempt
    failed = sorted(alike.values(), key=lambda attempt: (-attempt.count, attempt.message))
    failed = failed[: max(most // 2, most - len(correct))]
    return (*correct[: most - len(failed)], *failed)


def _attempt(trial: Trial, first: dict[str, Trial], techniques: Callable[[Trial], Collection[str]]) -> Attempt:
    above = first.get(trial.candidate.parent or "")
    return Attempt(
        relation="sibling",
        origin=one_line(trial.candidate.origin, 80),
        techniques=tuple(sorted(techniques(trial))),
        time_us=trial.time_us,
        measured=measured(trial),
        gain=_gain(trial, above) if above is not None else None,
        message=_message(trial, first),
    )


def measured(trial: Trial) -> bool:
    """Whether a trial's time was measured."""
    return isinstance(trial.verdict, Correct) and isinstance(trial.verdict.time, Timing)


def _gain(trial: Trial, above: Trial) -> float | None:
    """By the run in which the two were timed in turns, where there is one; else by their times of one kind."""
    if isinstance(trial.verdict, Correct) and isinstance(trial.verdict.time, Timing):
        timing = trial.verdict.time
        if timing.rival == above.candidate.id and timing.gain is not None:
            return timing.gain[0]
    if not trial.time_us or above.time_us is None or measured(trial) != measured(above):
        return None
    return above.time_us / trial.time_us


def _message(trial: Trial, first: dict[str, Trial]) -> str | None:
    match trial.verdict:
        case Correct():
            return None
        case Duplicate(of=of) if of == trial.candidate.parent:
            return "compiles to what its parent compiles to: nothing changed"
        case Duplicate(of=of) if of in first and first[of].time_us is not None:
            return f"compiles to what was judged before ({micros(first[of].time_us or 0.0)})"
        case verdict:
            return one_line(said(verdict), MESSAGE_CHARACTERS)


def said(verdict: Verdict) -> str:
    """A verdict in words, with its message in full."""
    match verdict:
        case Correct():
            return "correct"
        case Wrong(message=message, error=error):
            return f"wrong: {message}" + (f" (scaled error {error:.3g}, the limit is 1)" if error is not None else "")
        case Rejected(reason=reason):
            return f"rejected: {reason}"
        case Failed(stage=stage, message=message):
            return f"failed ({stage}): {message}"
        case Duplicate():
            return "compiles to what was judged before"
        case Unchecked(message=message):
            return f"unchecked: {message}"
