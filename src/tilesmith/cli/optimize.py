"""`tilesmith optimize` and `resume`: search, show it, and write the winner with its evidence."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import tilesmith
from tilesmith import config
from tilesmith.cli import rooms, winner
from tilesmith.cli.history import record_of
from tilesmith.cli.options import Given, Options, allowing
from tilesmith.cli.screen import answer, say, show, watching
from tilesmith.core.activity import Board
from tilesmith.core.budget import Stop
from tilesmith.core.facts import Ending, TechniqueVector
from tilesmith.core.reply import Reply
from tilesmith.core.search import best, confirm, lineage, search
from tilesmith.core.trial import Trial
from tilesmith.journal import Run, RunOptions, open_store
from tilesmith.report import document, tables
from tilesmith.report.live import Progress, best_words
from tilesmith.report.record import Agreed, RunRecord
from tilesmith.report.spending import model_words, spending_words
from tilesmith.report.winner import Provenance, winner_file
from tilesmith.report.words import counts, harmless, one_line, seconds, verdict_message, verdict_name

if TYPE_CHECKING:
    from tilesmith.propose.chat import Models


def start(options: Options, journal: Path, as_json: bool, *, start_kernel: bool = True) -> int:
    """A new run. 0 where something correct was found, 1 where nothing was."""
    problem = allowing(config.load_problem(Path(options.problem_path)), options.allow)
    problem = problem if start_kernel else replace(problem, start=None)
    options = options.settled(problem)
    opened = rooms.models(options)
    out = winner.place(options.out, problem.name, options.problem_path)
    settled = replace(options, out=str(out), bench=rooms.chosen(options.bench, problem))
    with open_store(journal) as store:
        return _carry_on(store.create(problem, RunOptions(settled.to_json())), settled, opened, journal, as_json)


def resume(prefix: str, given: Given, journal: Path, as_json: bool) -> int:
    """An old run, from where it stopped."""
    with open_store(journal, must_exist=True) as store:
        run = store.run(prefix)
        run.claim()
        options = Options.from_json(run.options.text).extended(given)
        out = winner.place(options.out, run.problem.name, options.problem_path)
        return _carry_on(run, replace(options, out=str(out)), rooms.models(options), journal, as_json)


def _carry_on(run: Run, options: Options, opened: Models | None, journal: Path, as_json: bool) -> int:
    began = time.monotonic()
    board, clusters = Board(), _Clusters(run, options)

    def progress() -> Progress:
        trials = run.trials()
        return Progress(
            run.problem.name,
            run.id,
            options.bench.bench,
            options.limits,
            trials,
            time.monotonic() - began,
            run.facts(Reply),
            run.facts(Ending),
            options.preset.directions if options.preset else 0,
            board.steps,
            devices(),
            clusters.of(trials),
        )

    say(f"run {run.id} in {journal}: `tilesmith resume {run.id}` goes on with it if it is stopped")
    with _interruptible():
        try:
            with rooms.bench(options.bench, journal, None, board) as bench:
                devices = rooms.devices(options.bench, bench)
                with watching(progress) as watch:
                    with rooms.proposer(options, opened, bench, run) as proposer:
                        stop = search(run.problem, proposer, bench, run, options.limits, watch)
                    say("checking the fastest again, many times")
                    confirm(run.problem, bench, run)
        except KeyboardInterrupt:
            stop = Stop.INTERRUPTED
    run.stop(stop)
    agreed = _agreed(run, options)
    record = record_of(run)
    fastest = best(record.trials)
    out = Path(options.out)
    drawn = None
    if fastest is not None:
        drawn = winner.draw(lineage(fastest, record.trials), run, out)
        provenance = Provenance(run.id, tilesmith.__version__, _again(options, out))
        winner.write(out, winner_file(run.problem, fastest, record.trials, provenance, record.replies))
    if as_json:
        answer(document.optimization(record, None if fastest is None else str(out), agreed))
    else:
        _tell(record, time.monotonic() - began, stop, fastest, out)
        if agreed is not None:
            show(tables.agreement(agreed))
        if drawn is not None:
            answer(f"its µGraph is drawn in {drawn}")
    return 0 if fastest is not None else 1


class _Clusters:
    """Of the pool, worked out once a round: only complete rounds fill it."""

    def __init__(self, run: Run, options: Options) -> None:
        self._run, self._options = run, options
        self._known: tuple[int, tuple[tuple[str, int], ...]] = (0, ())

    def of(self, trials: Sequence[Trial]) -> tuple[tuple[str, int], ...]:
        number = trials[-1].round if trials else 0
        if number > self._known[0]:
            vectors = {fact.key: fact.names for fact in self._run.facts(TechniqueVector)}
            complete = [trial for trial in trials if trial.round < number]
            self._known = number, rooms.pool(self._options, complete, vectors)
        return self._known[1]


def _agreed(run: Run, options: Options) -> tuple[Agreed, ...] | None:
    """How often the two classifiers said the same, where both were asked; None where they were not."""
    if options.preset is None or not options.preset.technique_clustering.enabled:
        return None
    diversity = rooms.manner(options.preset, options.limits).diversity
    if diversity is None or diversity.model is None or not diversity.both:
        return None
    from tilesmith.propose.techniques import agreement

    found = agreement(run.trials(), diversity.taxonomy, diversity.model, run)
    return tuple(Agreed(each.technique, each.both, each.neither, each.only_compiled, each.only_model) for each in found)


def _tell(record: RunRecord, spent_s: float, stop: Stop, fastest: Trial | None, out: Path) -> None:
    trials, spent = record.trials, record.spending
    told = f" ({counts(trials)})" if trials else ""
    answer(f"{len(trials)} trials{told} in {seconds(spent_s)}; stopped: {stop.value}")
    if spent.models:
        answer(f"models: {spending_words(spent)}")
    if unpaid := sum(count for each in spent.rounds for outcome, count in each.outcomes if outcome == "unpaid"):
        answer(f"{unpaid} directions were not followed to their end: a budget had no room for the next call")
    if len(spent.models) > 1:
        for each in spent.models:
            answer(f"  {one_line(each.model)}: {model_words(each)}")
    if fastest is None:
        first = trials[0].verdict if trials else None
        why = f": the start kernel is {verdict_name(first)}: {harmless(verdict_message(first) or '')}" if first else ""
        answer(f"nothing correct was found{why}")
        return
    answer(f"best: {best_words(trials)}")
    if fastest.candidate.origin == "start":
        answer("no improvement: nothing that was tried is faster than the start kernel")
    answer(f"written to {out}")


def _again(options: Options, out: Path) -> str:
    """The command that judges the winner again, said in the folder in which the run was."""
    bench, here = options.bench, Path.cwd()
    file = out.relative_to(here) if out.is_relative_to(here) else out
    where = ["--bench", bench.bench] if bench.bench in {"local", "offline"} else []
    target = ["--target", bench.target] if bench.bench == "offline" and bench.target else []
    allow = ["--allow", ",".join(options.allow)] if options.allow else []
    return shlex.join(["tilesmith", "evaluate", options.problem_path, str(file), *where, *target, *allow])


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt, so that everything is put away; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
