"""The loop: propose, judge, record, until there is a reason to stop.

It holds no state of its own. Whatever the journal remembers is where it resumes: the proposer sees complete rounds
only, so a round that was cut short is proposed again, the same, and goes on with what was not yet judged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from tilesmith.core.budget import Limits, Stop
from tilesmith.core.problem import Problem
from tilesmith.core.reply import Reply
from tilesmith.core.seams import Bench, Given, Journal, Proposals, Proposer
from tilesmith.core.trial import Candidate, Correct, Trial

Watch = Callable[[Trial], None]


def best(trials: Sequence[Trial]) -> Trial | None:
    """The fastest correct trial, of equals the first; where some were confirmed, the fastest of those."""
    timed = [trial for trial in trials if trial.time_us is not None]
    confirmed = [trial for trial in timed if trial.confirmed]
    return min(confirmed or timed, key=lambda trial: trial.time_us or 0.0, default=None)


def standing(trials: Sequence[Trial], confirmations: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials, with the last word on each: a finalist's second judgement in place of its first."""
    last = {trial.candidate.id: trial for trial in confirmations}
    return tuple(last.get(trial.candidate.id, trial) for trial in trials)


def confirm(problem: Problem, bench: Bench, journal: Journal, tries: int = 5) -> None:
    """Have the fastest judged once more, harder; where it falls the next, until one stands or `tries` have fallen."""
    trials = journal.trials()
    done = {trial.candidate.id: trial for trial in journal.confirmations()}
    start = next((trial.candidate for trial in trials if trial.candidate.origin == "start"), None)
    ranked = sorted((t for t in trials if t.time_us is not None), key=lambda trial: trial.time_us or 0.0)
    for trial in ranked[:tries]:
        again = done.get(trial.candidate.id)
        if again is None:
            again = replace(bench.confirm(problem, trial, start), round=trial.round, confirmed=True)
            journal.confirmed(again)
        if isinstance(again.verdict, Correct):
            return


def lineage(trial: Trial, trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """A trial's ancestors and itself, from the root."""
    first: dict[str, Trial] = {}
    for known in trials:
        first.setdefault(known.candidate.id, known)
    line = [trial]
    while (parent := line[-1].candidate.parent) in first and len(line) <= len(first):
        line.append(first[parent or ""])
    return tuple(reversed(line))


def search(
    problem: Problem,
    proposer: Proposer,
    bench: Bench,
    journal: Journal,
    limits: Limits,
    watch: Watch = lambda _: None,
) -> Stop:
    """Search until a `Stop`; every trial is in the journal before `watch` sees it."""
    began = time.monotonic()

    def reached(trials: Sequence[Trial]) -> Stop | None:
        return limits.reached(trials, time.monotonic() - began, journal.facts(Reply))

    def judge(number: int, proposals: Proposals) -> tuple[Stop | None, int]:
        """A round; also how many candidates it had that no earlier round knew."""
        trials = list(journal.trials())
        known = {trial.candidate.id: trial for trial in trials}
        fresh: set[str] = {trial.candidate.id for trial in trials if trial.round >= number}
        old = known.keys() - fresh
        taken: set[str] = set()

        def unjudged() -> Iterator[Candidate]:
            for candidate in proposals:
                if candidate.id in known:
                    proposals.tell(known[candidate.id])
                elif candidate.id not in taken:
                    taken.add(candidate.id)
                    yield candidate

        room = None if limits.trials is None else max(0, limits.trials - len(trials))
        left_s = None if limits.seconds is None else max(0.0, limits.seconds - (time.monotonic() - began))
        try:
            with _after(left_s, proposals.close):
                for judged in bench.judge(problem, islice(unjudged(), room), tuple(trials)):
                    trial = replace(judged, round=number)
                    journal.record(trial)
                    trials.append(trial)
                    # In this order: who proposes it from now on is told at once, who did so before is told here.
                    known[trial.candidate.id] = trial
                    proposals.tell(trial)
                    watch(trial)
                    if stop := reached(trials):
                        return stop, len(taken)
        finally:
            proposals.close()
        return reached(trials), len((fresh | taken) - old)

    if problem.start is not None:
        start = Given([Candidate(problem.start, origin="start")])
        stop = None if journal.trials() else judge(0, start)[0]
        if journal.trials() and not isinstance(journal.trials()[0].verdict, Correct):
            return Stop.START
        if stop:
            return stop
    number = max((trial.round for trial in journal.trials()), default=0) or 1
    while True:
        if stop := reached(journal.trials()):
            return stop
        if limits.rounds is not None and number > limits.rounds:
            return Stop.ROUNDS
        complete = [trial for trial in journal.trials() if trial.round < number]
        if limits.patience is not None and _idle(complete, number) >= limits.patience:
            return Stop.PATIENCE
        proposals = proposer.propose(problem, complete, number)
        stop, fresh = judge(number, proposals)
        if stop:
            return stop
        if proposals.end and (proposals.end is not Stop.EXHAUSTED or not fresh):
            return proposals.end
        number += 1


def _idle(complete: Sequence[Trial], number: int) -> int:
    """How many rounds have gone by, before this one, since the fastest was found."""
    fastest = best(complete)
    return number - 1 - (fastest.round if fastest else 0)


@contextmanager
def _after(seconds: float | None, deed: Callable[[], None]) -> Iterator[None]:
    """Do the deed, in another thread, if the block is not left by then."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, deed)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
