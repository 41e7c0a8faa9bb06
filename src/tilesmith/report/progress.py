"""The best so far: over trials, rounds, money, tokens and time."""

from __future__ import annotations

from dataclasses import dataclass

from tilesmith.core.trial import Timing
from tilesmith.report.chronicle import Chronicle
from tilesmith.report.words import time_of


@dataclass(frozen=True, slots=True)
class Gain:
    """A correct trial, and what had been spent when it was recorded."""

    number: int
    round: int
    time_us: float
    low_us: float
    high_us: float
    best_us: float
    """Of the trials up to it."""
    improves: bool
    seconds: float
    """From the beginning of the run."""
    usd: float
    tokens: int


def gains(chronicle: Chronicle) -> tuple[Gain, ...]:
    """Every correct trial in the order of recording. Measured ones only, where there are any: no scale has both."""
    timed = [(n, *pair) for n, pair in enumerate(chronicle.numbered()) if pair[1].time_us is not None]
    measured = any(isinstance(time_of(trial.verdict), Timing) for _, _, trial in timed)
    replies = sorted(zip(chronicle.reply_times_s, chronicle.record.replies, strict=False), key=lambda pair: pair[0])
    found: list[Gain] = []
    usd, tokens, place = 0.0, 0, 0
    best_us = float("inf")
    for index, number, trial in timed:
        time = time_of(trial.verdict)
        if trial.time_us is None or isinstance(time, Timing) is not measured:
            continue
        at_s = chronicle.trial_times_s[index] if index < len(chronicle.trial_times_s) else chronicle.began_s
        while place < len(replies) and replies[place][0] <= at_s:
            usd += replies[place][1].usd or 0.0
            tokens += replies[place][1].usage.tokens
            place += 1
        low, high = (time.low_us, time.high_us) if isinstance(time, Timing) else (trial.time_us, trial.time_us)
        improves = trial.time_us < best_us
        best_us = min(best_us, trial.time_us)
        seconds = max(0.0, at_s - chronicle.began_s)
        found.append(Gain(number, trial.round, trial.time_us, low, high, best_us, improves, seconds, usd, tokens))
    return tuple(found)
