"""The three seams. Each is one verb, or two; everything else of the product stands behind one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate, Trial


class Proposer(Protocol):
    """Suggests candidates worth judging. An empty answer means that nothing is left to try."""

    def propose(self, problem: Problem, trials: Sequence[Trial]) -> Iterable[Candidate]:
        """The next round's candidates, the most promising first.

        `trials` holds every trial of the rounds that are complete, in order. The answer depends on nothing else
        but what the proposer was built with: asked again with the same trials it is the same, so that a run that
        was killed resumes in the middle of a round.
        """
        ...


class Bench(Protocol):
    """Judges candidates. A bad candidate is a verdict, never an exception."""

    def judge(self, problem: Problem, candidates: Sequence[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """One trial a candidate, in the order given, each as soon as it is known.

        A candidate whose fingerprint a trial in `trials` or an earlier candidate has is a `Duplicate` and is not
        timed. The fastest correct trial among `trials` is the rival against which new ones are timed.
        Raises `ProblemError` when the problem itself is at fault and `MachineError` when the machine is.
        """
        ...

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """Judge a finalist once more, harder: a wrong kernel can be right in one run of two.

        Its numbers are checked many times, and its time is taken in turns with the baseline's where there is a
        device. The trial that comes back is new; its verdict may be another.
        """
        ...


class Journal(Protocol):
    """Remembers every trial of one run, in order, append-only."""

    def record(self, trial: Trial) -> None:
        """Returns when the trial is safe on disk."""
        ...

    def trials(self) -> Sequence[Trial]:
        """Every trial recorded so far, in the order of recording."""
        ...

    def confirmed(self, trial: Trial) -> None:
        """Record a finalist's second judgement. It is no trial of the search: `trials` does not hold it."""
        ...

    def confirmations(self) -> Sequence[Trial]:
        """Every second judgement recorded so far, in order."""
        ...
