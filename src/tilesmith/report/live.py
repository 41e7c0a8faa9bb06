"""What a search shows while it runs: one panel on a terminal, calm lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from tilesmith.core.budget import Limits
from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply
from tilesmith.core.search import best, lineage
from tilesmith.core.trial import Correct, Trial
from tilesmith.report.spending import Spending, money, outcome_words, spending, tokens_of, told_tokens, usd_of
from tilesmith.report.words import baseline, clipped, counts, figure, gain, seconds, verdict_message, verdict_name


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

    @property
    def spending(self) -> Spending:
        """What models cost so far."""
        return spending(self.trials, self.replies, self.endings)


def panel(progress: Progress) -> Table:
    """Everything worth knowing in a few rows, redrawn in place."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in rows(progress):
        table.add_row(name, Text(words, style="bold" if name == "best" else ""))
    return table


def rows(progress: Progress) -> list[tuple[str, str]]:
    """The panel's rows: name and words."""
    trials, spent = progress.trials, progress.spending
    latest = f"{verdict_name(trials[-1].verdict)}: {trials[-1].candidate.origin}" if trials else "waiting for the first"
    return [
        ("problem", f"{progress.problem} (run {progress.run}, {progress.bench} bench)"),
        ("round", _round(progress)),
        *([("directions", _directions(progress, spent))] if progress.directions else []),
        ("trials", f"{len(trials)}" + (f" ({counts(trials)})" if trials else "")),
        ("latest", clipped(latest, 100)),
        ("best", best_words(trials)),
        ("spent", ", ".join([seconds(progress.spent_s), *_bill(progress, spent)])),
        ("left", left(progress)),
    ]


def line(progress: Progress) -> str:
    """The latest trial in one line, for a log."""
    trial = progress.trials[-1]
    verdict = trial.verdict
    told = figure(verdict.time) if isinstance(verdict, Correct) else verdict_message(verdict)
    where = f"round {trial.round}, trial {len(progress.trials)}, {seconds(progress.spent_s)}"
    return clipped(f"{where}: {verdict_name(verdict)}, {trial.candidate.origin}: {told}", 160)


def status(progress: Progress) -> str:
    """How the models' round goes, in one line for a log: directions, what was spent, what is left."""
    spent = progress.spending
    told = [f"round {_round(progress)}, directions: {_directions(progress, spent)}", *_bill(progress, spent)]
    return clipped(f"{', '.join(told)}; left: {left(progress)}", 240)


def best_words(trials: Sequence[Trial]) -> str:
    """The best so far against the start kernel: "41.2 µs estimated, 2.91 times as fast as the start kernel (...)"."""
    fastest, first = best(trials), baseline(trials)
    if fastest is None or not isinstance(fastest.verdict, Correct):
        return "none yet"
    words = figure(fastest.verdict.time)
    if first is None or not isinstance(first.verdict, Correct):
        return words
    if fastest.candidate == first.candidate:
        return f"{words}: the start kernel itself"
    ratio = gain(trials)
    times = f"{ratio:.2f} times as fast as" if ratio is not None else "against"
    path = " > ".join(trial.candidate.origin for trial in lineage(fastest, trials))
    return f"{words}, {times} the start kernel ({figure(first.verdict.time)}); {path}"


def left(progress: Progress) -> str:
    """What is left of each limit: "48 trials, 1 min 12 s"; "no limit" where there is none."""
    limits, trials = progress.limits, progress.trials
    parts = []
    if limits.trials is not None:
        parts.append(f"{max(0, limits.trials - len(trials))} trials")
    if limits.seconds is not None:
        parts.append(seconds(max(0.0, limits.seconds - progress.spent_s)))
    if limits.gpu_seconds is not None:
        parts.append(f"{max(0.0, limits.gpu_seconds - sum(t.cost.gpu_s for t in trials)):.1f} GPU seconds")
    if limits.usd is not None:
        parts.append(money(max(0.0, limits.usd - usd_of(progress.replies))))
    if limits.tokens is not None:
        parts.append(told_tokens(max(0, limits.tokens - tokens_of(progress.replies))))
    return ", ".join(parts) or "no limit"


def _round(progress: Progress) -> str:
    number = _number(progress.spending)
    return f"{number}" if progress.limits.rounds is None else f"{number} of {progress.limits.rounds}"


def _number(spent: Spending) -> int:
    """The latest round of which anything is known."""
    return max((each.number for each in spent.rounds), default=0)


def _directions(progress: Progress, spent: Spending) -> str:
    """ "12 of 90 ended (10 judged, 2 no code), 78 under way"."""
    latest = spent.rounds[-1] if spent.rounds else None
    if latest is None or latest.number == 0:
        return f"{progress.directions} a round"
    told = f"{latest.ended} of {progress.directions} ended" + (f" ({outcome_words(latest)})" if latest.ended else "")
    way = max(0, progress.directions - latest.ended)
    return f"{told}, {way} under way" if way else told


def _bill(progress: Progress, spent: Spending) -> list[str]:
    """Money and tokens; nothing where no model is asked."""
    if not progress.directions and not progress.replies:
        return []
    return [("at least " if spent.unpriced else "") + money(spent.usd), told_tokens(spent.tokens)]
