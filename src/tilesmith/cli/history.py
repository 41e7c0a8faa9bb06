"""`tilesmith runs` and `tilesmith show`: what a journal remembers."""

from __future__ import annotations

from pathlib import Path

from tilesmith.cli.screen import answer, show
from tilesmith.core.errors import OptionError
from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply
from tilesmith.core.search import best, standing
from tilesmith.journal import Run, RunSummary, Store, open_store
from tilesmith.report import document, tables
from tilesmith.report.record import RunLine, RunRecord
from tilesmith.report.spending import tokens_of, usd_of


def runs(journal: Path, as_json: bool) -> int:
    """Every run of the journal; a journal that is not there yet has none."""
    found: list[RunLine] = []
    if journal.exists():
        with open_store(journal, must_exist=True) as store:
            found = [_line(store, run) for run in store.runs()]
    if as_json:
        answer(document.runs(found))
    elif found:
        show(tables.runs(found))
    else:
        answer(f"no runs in {journal}; `tilesmith optimize` makes one")
    return 0


def show_run(prefix: str, journal: Path, as_json: bool) -> int:
    """One run, with all its trials."""
    found = _read(prefix, journal)
    if as_json:
        answer(document.run(found))
    else:
        show(tables.run(found))
    return 0


def show_trial(prefix: str, number: int | None, source: bool, journal: Path, as_json: bool) -> int:
    """One trial of a run, or its bare source. Raises `OptionError` where there is no such trial."""
    found = _read(prefix, journal)
    fastest = best(found.trials)
    if number is None:
        if fastest is None:
            raise OptionError(f"run {found.run} has found nothing correct; name a trial with --trial")
        number = found.trials.index(fastest) + 1
    if not 1 <= number <= len(found.trials):
        raise OptionError(f"--trial is {number}; run {found.run} has {len(found.trials)} trials, counted from 1")
    trial = found.trials[number - 1]
    if as_json:
        answer(document.trial(number, trial, trial.candidate.source if source else None))
    elif source:
        answer(trial.candidate.source.removesuffix("\n"))
    else:
        show(tables.evaluation(trial))
    return 0


def _line(store: Store, run: RunSummary) -> RunLine:
    replies = store.run(run.id).facts(Reply)
    bill = (usd_of(replies), tokens_of(replies))
    return RunLine(run.id, run.problem, run.trials, run.best, run.stop, run.live, *bill)


def _read(prefix: str, journal: Path) -> RunRecord:
    with open_store(journal, must_exist=True) as store:
        return record_of(store.run(prefix))


def record_of(run: Run) -> RunRecord:
    """All that the journal holds of a run, with the last word on each trial."""
    trials = standing(run.trials(), run.confirmations())
    return RunRecord(run.id, run.problem.name, trials, run.stops, run.facts(Reply), run.facts(Ending))
