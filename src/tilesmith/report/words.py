"""The words and figures that every other page of the report uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

from tilesmith.core.search import best
from tilesmith.core.trial import (
    Correct,
    Duplicate,
    Estimate,
    Failed,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Verdict,
    Wrong,
)

VerdictName = Literal["correct", "wrong", "rejected", "failed", "duplicate", "unchecked"]
VERDICTS: tuple[VerdictName, ...] = ("correct", "wrong", "rejected", "failed", "duplicate", "unchecked")


def verdict_name(verdict: Verdict) -> VerdictName:
    """The one word for a verdict."""
    match verdict:
        case Correct():
            return "correct"
        case Wrong():
            return "wrong"
        case Rejected():
            return "rejected"
        case Failed():
            return "failed"
        case Duplicate():
            return "duplicate"
        case Unchecked():
            return "unchecked"
        case _:
            assert_never(verdict)


def verdict_message(verdict: Verdict) -> str | None:
    """Why it is what it is; None for what is correct."""
    match verdict:
        case Correct():
            return None
        case Wrong(message=message) | Failed(message=message) | Unchecked(message=message):
            return message
        case Rejected(reason=reason):
            return reason
        case Duplicate(of=of):
            return f"compiles to what candidate {of} compiles to"
        case _:
            assert_never(verdict)


def error_of(verdict: Verdict) -> float | None:
    """The scaled error, 1 being the limit; None where there is none."""
    return verdict.error if isinstance(verdict, Correct | Wrong) else None


def time_of(verdict: Verdict) -> Timing | Estimate | None:
    """The time that a verdict carries."""
    return verdict.time if isinstance(verdict, Correct | Unchecked) else None


def micros(time_us: float) -> str:
    """A time with three or four figures and a unit that suits it."""
    if time_us < 1e3:
        return f"{time_us:.4g} µs"
    return f"{time_us / 1e3:.4g} ms" if time_us < 1e6 else f"{time_us / 1e6:.4g} s"


def figure(time: Timing | Estimate) -> str:
    """A time and whether it was measured: an estimate never stands without its label."""
    if isinstance(time, Estimate):
        return f"{micros(time.estimate_us)} estimated"
    return f"{micros(time.time_us)} measured"


def interval_words(time: Timing | Estimate | None) -> str:
    """ "31.5 µs to 32.4 µs"; of an estimate none."""
    return f"{micros(time.low_us)} to {micros(time.high_us)}" if isinstance(time, Timing) else "none"


def value_us(time: Timing | Estimate) -> float:
    """The bare number, in microseconds."""
    return time.time_us if isinstance(time, Timing) else time.estimate_us


def baseline(trials: Sequence[Trial]) -> Trial | None:
    """The start kernel's trial, where it was correct: what every speed-up is over."""
    return next((t for t in trials if t.candidate.origin == "start" and isinstance(t.verdict, Correct)), None)


def gain(trials: Sequence[Trial]) -> float | None:
    """How many times as fast as the start kernel the best is; None unless both are correct and timed alike."""
    first, fastest = baseline(trials), best(trials)
    if first is None or fastest is None:
        return None
    a, b = time_of(first.verdict), time_of(fastest.verdict)
    if isinstance(b, Timing) and b.rival == first.candidate.id and b.gain is not None:
        return b.gain[0]
    if a is None or b is None or type(a) is not type(b) or value_us(b) <= 0:
        return None
    return value_us(a) / value_us(b)


def counts(trials: Sequence[Trial]) -> str:
    """How often each verdict was given: "12 correct, 3 wrong"; empty for no trials."""
    names = [verdict_name(trial.verdict) for trial in trials]
    return ", ".join(f"{names.count(name)} {name}" for name in VERDICTS if name in names)


def one_line(text: str) -> str:
    """The text with everything that is not printable, line ends above all, made a space."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def harmless(text: str) -> str:
    """The text in its lines, for a terminal: what would move the cursor, turn the writing or hide is a space."""
    return "\n".join(one_line(line) for line in text.strip().split("\n"))


def brief(name: str) -> str:
    """A model's name without the folders of a path in it: "replay:…/matvec"; any other name as it is."""
    line = one_line(name)
    kind, colon, rest = line.partition(":")
    return f"{kind}:…/{rest.rstrip('/').rpartition('/')[2]}" if colon and rest.startswith(("/", "./", "../")) else line


def clipped(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(one_line(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def seconds(spent_s: float) -> str:
    """A duration for people: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = int(spent_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
