"""Runs side by side: what each found, against its own start kernel and against the first run, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from tilesmith.core.search import best
from tilesmith.core.trial import Estimate, Timing, Trial
from tilesmith.report import charts, document
from tilesmith.report.chronicle import Chronicle
from tilesmith.report.page import content_hash, environment, style
from tilesmith.report.progress import gains
from tilesmith.report.spending import money
from tilesmith.report.tables import plain, stop_words
from tilesmith.report.words import baseline, counts, figure, harmless, interval_words, one_line, seconds, time_of


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast, and the least and most that the intervals allow; an estimate has no interval."""

    ratio: float
    low: float | None
    high: float | None
    turns: bool
    """Whether both were timed in turns, so that the ratio is one to trust."""

    @property
    def words(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.ratio:.3f} times, by estimates"
        return f"{self.ratio:.3f} times ({self.low:.3f} to {self.high:.3f}{', timed in turns' if self.turns else ''})"


@dataclass(frozen=True, slots=True)
class Column:
    """One run."""

    run: str
    problem: str
    trials: int
    counts: str
    best: Trial | None
    start: Trial | None
    speedup: Ratio | None
    """Of the best over the run's own start kernel."""
    against: Ratio | None
    """Of the best over the first run's best."""
    apart: str
    """Why the two bests cannot be compared; empty where they are, and of the first run."""
    seconds: float
    """From the first event to the last."""
    best_seconds: float | None
    """Until the best was recorded."""
    best_trial: int | None
    gpu_s: float
    usd: float
    tokens: int
    priced: bool
    """Whether `usd` is all of it."""
    where: str
    stop: str

    def rows(self) -> list[tuple[str, str]]:
        """What there is to say, name and words; every column has the same names."""
        time = time_of(self.best.verdict) if self.best else None
        first = time_of(self.start.verdict) if self.start else None
        found = ""
        if self.best_seconds is not None and self.best_trial is not None:
            found = f"{seconds(self.best_seconds)}, trial {self.best_trial}"
        return [
            ("problem", self.problem),
            ("best", figure(time) if time else "none"),
            ("95 % interval", interval_words(time)),
            ("by", one_line(self.best.candidate.origin) if self.best else ""),
            ("start kernel", figure(first) if first else "none"),
            ("over its start kernel", self.speedup.words if self.speedup else "not known"),
            ("over the first run's best", self.against.words if self.against else self.apart or "the same"),
            ("found after", found),
            ("trials", f"{self.trials:,} ({self.counts})" if self.trials else "0"),
            ("took", seconds(self.seconds)),
            ("GPU, alone", f"{self.gpu_s:,.1f} s"),
            ("models", f"{'' if self.priced else 'at least '}{money(self.usd)}, {self.tokens:,} tokens"),
            ("where", self.where),
            ("stopped", self.stop),
        ]


def columns(chronicles: Sequence[Chronicle]) -> tuple[Column, ...]:
    """One a run, in the order given."""
    fastest = [best(chronicle.trials) for chronicle in chronicles]
    return tuple(
        _column(chronicle, own, chronicles[0], fastest[0] if place else None)
        for place, (chronicle, own) in enumerate(zip(chronicles, fastest, strict=True))
    )


def ratio(slow: Trial, fast: Trial) -> Ratio | None:
    """None where either has no time, or one is an estimate and the other a measurement."""
    a, b = time_of(slow.verdict), time_of(fast.verdict)
    match a, b:
        case Timing(), Timing():
            if b.rival == slow.candidate.id and b.gain is not None:
                return Ratio(*b.gain, turns=True)
            return Ratio(a.time_us / b.time_us, a.low_us / b.high_us, a.high_us / b.low_us, turns=False)
        case Estimate(), Estimate() if b.estimate_us > 0:
            return Ratio(a.estimate_us / b.estimate_us, None, None, turns=False)
    return None


def _column(chronicle: Chronicle, own: Trial | None, first: Chronicle, rival: Trial | None) -> Column:
    trials, spent = chronicle.trials, chronicle.record.spending
    start = baseline(trials)
    where_best = next((p for p, t in enumerate(trials) if own and t.candidate.id == own.candidate.id), None)
    at_s = number = None
    if where_best is not None:
        number = chronicle.numbered()[where_best][0]
        if where_best < len(chronicle.trial_times_s):
            at_s = chronicle.trial_times_s[where_best] - chronicle.began_s
    apart = _apart(chronicle, own, first, rival) if chronicle is not first else ""
    where = next((trial.environment for trial in trials if trial.environment), None)
    return Column(
        run=chronicle.record.run,
        problem=one_line(chronicle.problem.name),
        trials=chronicle.whole or len(trials),
        counts=counts(trials),
        best=own,
        start=start,
        speedup=ratio(start, own) if start and own else None,
        against=ratio(rival, own) if rival and own and not apart else None,
        apart=apart,
        seconds=chronicle.ended_s - chronicle.began_s,
        best_seconds=at_s,
        best_trial=number,
        gpu_s=sum(trial.cost.gpu_s for trial in trials),
        usd=spent.usd,
        tokens=spent.tokens,
        priced=not spent.unpriced,
        where=f"{where.gpu or f'no GPU, compiled for {where.target}'}, triton {where.triton}" if where else "not known",
        stop="running now" if chronicle.live else stop_words(chronicle.record.stops),
    )


def _apart(chronicle: Chronicle, own: Trial | None, first: Chronicle, rival: Trial | None) -> str:
    """Why times of the two runs say nothing about each other."""
    if own is None or rival is None:
        return "nothing correct to compare"
    if chronicle.problem.id != first.problem.id:
        return "not compared: another problem"
    if isinstance(time_of(own.verdict), Timing) is not isinstance(time_of(rival.verdict), Timing):
        return "not compared: one is measured, the other estimated"
    devices = [(t.environment.gpu, t.environment.target) if t.environment else None for t in (own, rival)]
    return "" if devices[0] == devices[1] else "not compared: another GPU"


# As pages -------------------------------------------------------------------------------------------------------------


def table(found: Sequence[Column]) -> RenderableType:
    """For a terminal: the runs are columns."""
    page = plain()
    page.add_column("", style="dim", no_wrap=True)
    for column in found:
        page.add_column(column.run, overflow="fold")
    for name, *cells in _across(found):
        page.add_row(name, *(Text(harmless(words)) for words in cells))
    return Group(page, Text(), Text(_note(found), style="dim")) if _note(found) else page


def text(found: Sequence[Column]) -> str:
    """`tilesmith compare --json`."""
    return document.done({"runs": [_row(column) for column in found]})


def html(found: Sequence[Column], chronicles: Sequence[Chronicle]) -> str:
    """One page that needs nothing else."""
    css = style()
    lines = [(column.run, gains(chronicle)) for column, chronicle in zip(found, chronicles, strict=True)]
    shown = [(name, steps) for name, steps in lines if steps]
    labels = {type(time_of(column.best.verdict)) for column in found if column.best}
    picture = None
    if shown and len(labels) == 1:
        picture = charts.side_by_side(shown, "measured" if Timing in labels else "estimated")
    policy = f"default-src 'none'; style-src '{content_hash(css)}'; img-src data:; base-uri 'none'; form-action 'none'"
    rendered = (
        environment()
        .get_template("compare.html.j2")
        .render(rows=_across(found), columns=found, style=css, policy=policy, picture=picture, note=_note(found))
    )
    return rendered.encode("utf-8", "replace").decode()


def _across(found: Sequence[Column]) -> list[tuple[str, ...]]:
    """The rows of all runs: the name, then a cell for each run."""
    return [(cells[0][0], *(words for _, words in cells)) for cells in zip(*(c.rows() for c in found), strict=True)]


def _note(found: Sequence[Column]) -> str:
    if any(column.best and isinstance(time_of(column.best.verdict), Estimate) for column in found):
        return "Estimates come from a roofline model; a ratio of two is no speed-up that anyone has seen."
    if any(column.against and not column.against.turns for column in found):
        return "Times of different runs were not taken in turns; clocks and heat may differ by more than the intervals."
    return ""


def _row(column: Column) -> dict[str, object]:
    time = time_of(column.best.verdict) if column.best else None
    return {
        "run": column.run,
        "problem": column.problem,
        "trials": column.trials,
        "origin": column.best and column.best.candidate.origin,
        "time_us": time.time_us if isinstance(time, Timing) else None,
        "low_us": time.low_us if isinstance(time, Timing) else None,
        "high_us": time.high_us if isinstance(time, Timing) else None,
        "estimate_us": time.estimate_us if isinstance(time, Estimate) else None,
        "speedup": _ratio(column.speedup),
        "against_first": _ratio(column.against),
        "apart": column.apart or None,
        "seconds": column.seconds,
        "best_seconds": column.best_seconds,
        "gpu_s": column.gpu_s,
        "usd": column.usd,
        "tokens": column.tokens,
        "where": column.where,
        "stop": column.stop,
    }


def _ratio(found: Ratio | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {"ratio": found.ratio, "low": found.low, "high": found.high, "timed_in_turns": found.turns}
