"""The order of judging that all running benches share: admission ahead, duplicates settled in order, checks behind."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from tilesmith.bench.admission import Admitted
from tilesmith.core.activity import Notice, Step, unnoticed
from tilesmith.core.problem import Problem
from tilesmith.core.search import best
from tilesmith.core.trial import Candidate, Correct, Duplicate, Trial, Unchecked, Verdict

WAITERS = 64
"""Candidates at most that wait for the verdict on what they compile to."""
PATIENCE_S = 10.0
"""So long the first in line may keep others waiting that are done."""

T = TypeVar("T")


class Line(Generic[T]):
    """Work that leaves in the order in which it came, unless the first makes others wait too long."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: deque[Future[T]] = deque()
        self._late: list[Future[T]] = []
        self._since_s: float | None = None
        """When the first began to keep others waiting."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._late)

    def append(self, work: Future[T]) -> None:
        self._waiting.append(work)

    def leaving(self) -> Iterator[T]:
        """The results that may go now. Raises what the work raised."""
        for work in [work for work in self._late if work.done()]:
            self._late.remove(work)
            yield work.result()
        while self._waiting:
            if self._waiting[0].done():
                self._since_s = None
                yield self._waiting.popleft().result()
                continue
            if not any(work.done() for work in self._waiting):
                self._since_s = None
                return
            self._since_s = self._since_s or time.monotonic()
            if time.monotonic() - self._since_s < self._patience_s:
                return
            self._late.append(self._waiting.popleft())
            self._since_s = None

    @property
    def blocked(self) -> bool:
        return self._since_s is not None

    def cancel(self) -> None:
        for work in (*self._waiting, *self._late):
            work.cancel()


class Steps(Protocol):
    """The steps of judging one candidate, as a bench takes them. Threads may take several at once."""

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        """Capture and compile; with a verdict where that is enough to know it."""
        ...

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        """Check the numbers, and time it beside the rival where there is a clock. The last step for a candidate."""
        ...

    def settle(self, admitted: Admitted, verdict: Verdict) -> Trial:
        """The trial of a candidate that needs no check. The last step for it, too."""
        ...


def judge(
    steps: Steps,
    problem: Problem,
    candidates: Iterable[Candidate],
    trials: Sequence[Trial],
    cores: int,
    slots: int,
    notice: Notice = unnoticed,
) -> Iterator[Trial]:
    """Take these steps for each candidate, `cores` admissions and `slots` checks at a time: see `judge_in_order`.

    The fastest so far, of the trials too, is the rival of the next ones. A trial's cost counts from its admission.
    `notice` is told of each step.
    """
    champion = [best(trials)]
    clock: dict[str, float] = {}

    def since(trial: Trial) -> Trial:
        spent = replace(trial.cost, wall_s=time.monotonic() - clock[trial.candidate.id])
        return replace(trial, cost=spent)

    def admit(candidate: Candidate) -> Admitted:
        clock[candidate.id] = time.monotonic()
        notice(Step(candidate.id, "capturing", candidate.origin))
        admitted = steps.admit(problem, candidate)
        notice(Step(candidate.id, "queued", candidate.origin))
        return admitted

    def check(admitted: Admitted) -> Trial:
        notice(Step(admitted.candidate.id, "judging", admitted.candidate.origin))
        trial = since(steps.check(problem, admitted, champion[0].candidate if champion[0] else None))
        if best([one for one in (champion[0], trial) if one]) is trial:
            champion[0] = trial
        return trial

    def settle(admitted: Admitted, verdict: Verdict) -> Trial:
        return since(steps.settle(admitted, verdict))

    try:
        for trial in judge_in_order(candidates, trials, admit, check, settle, cores, slots):
            notice(Step(trial.candidate.id, "done"))
            yield trial
    finally:
        # What was given up is on its way no more.
        for candidate in clock:
            notice(Step(candidate, "done"))


def judge_in_order(
    candidates: Iterable[Candidate],
    trials: Sequence[Trial],
    admit: Callable[[Candidate], Admitted],
    check: Callable[[Admitted], Trial],
    settle: Callable[[Admitted, Verdict], Trial],
    cores: int,
    slots: int,
    patience_s: float = PATIENCE_S,
) -> Iterator[Trial]:
    """One trial a candidate: `cores` admissions and `slots` checks at a time, whoever is ready first.

    What compiles to the same as a candidate that stands is its duplicate, and is not judged. What compiles to the same
    as one that fell is judged, too: the code of its kernels may be right, and what its host does with them wrong.

    Which of two equal candidates counts as the duplicate depends on their order, not on which was faster to compile,
    and trials come in that order too: a resumed run answers as one that was never cut. But nobody waits longer than
    `patience_s` for one that hangs.

    A thread of its own takes the candidates, who may come late, and takes no more ahead than there are places.
    """
    known = {trial.fingerprint: _original(trial) for trial in reversed(trials) if stands(trial)}
    first: dict[str, Future[Trial]] = {}
    """By fingerprint, the judging of the first that has it; the next ones wait for its verdict."""
    news: SimpleQueue[Candidate | BaseException | None] = SimpleQueue()
    """A candidate, or what went wrong with finding one; None wakes who waits."""
    places = threading.Semaphore(cores + 2 * slots)
    closed = threading.Event()

    def feed() -> None:
        try:
            coming = iter(candidates)
            while True:
                places.acquire()
                if closed.is_set():
                    return
                news.put(next(coming))
        except BaseException as error:  # it belongs to who asked for trials, in whose thread it is raised again
            news.put(error)

    def wake(_: object) -> None:
        news.put(None)

    admissions: Line[Admitted] = Line(patience_s)
    checks: Line[Trial] = Line(patience_s)
    threading.Thread(target=feed, name="candidates", daemon=True).start()
    more = True
    with (
        ThreadPoolExecutor(cores) as admitters,
        ThreadPoolExecutor(slots) as judges,
        ThreadPoolExecutor(WAITERS) as waiters,
    ):

        def follow(before: Future[Trial], admitted: Admitted) -> Trial:
            judged = before.result()
            if stands(judged):
                return settle(admitted, Duplicate(_original(judged)))
            return judges.submit(check, admitted).result()

        def judging(admitted: Admitted) -> Future[Trial]:
            if admitted.verdict is not None:
                return judges.submit(settle, admitted, admitted.verdict)
            fingerprint = admitted.fingerprint or admitted.candidate.id
            if of := known.get(fingerprint):
                return judges.submit(settle, admitted, Duplicate(of))
            before = first.get(fingerprint)
            first[fingerprint] = waiters.submit(follow, before, admitted) if before else judges.submit(check, admitted)
            return first[fingerprint]

        try:
            while more or admissions or checks:
                try:
                    match news.get(timeout=0.2 if admissions.blocked or checks.blocked else None):
                        case Candidate() as candidate:
                            admission = admitters.submit(admit, candidate)
                            admission.add_done_callback(wake)
                            admissions.append(admission)
                        case StopIteration():
                            more = False
                        case BaseException() as error:
                            raise error
                except Empty:
                    pass
                for admitted in admissions.leaving():
                    work = judging(admitted)
                    work.add_done_callback(wake)
                    checks.append(work)
                for trial in checks.leaving():
                    places.release()
                    yield trial
        finally:
            closed.set()
            places.release()
            admissions.cancel()
            checks.cancel()


def stands(trial: Trial) -> bool:
    """Whether others that compile to the same need no judging."""
    return trial.fingerprint is not None and isinstance(trial.verdict, Correct | Unchecked | Duplicate)


def _original(trial: Trial) -> str:
    return trial.verdict.of if isinstance(trial.verdict, Duplicate) else trial.candidate.id
