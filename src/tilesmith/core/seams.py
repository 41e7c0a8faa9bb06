"""The three seams. Each is one verb, or two; everything else of the product stands behind one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from tilesmith.core.budget import Stop
from tilesmith.core.facts import Analysis, Derivation, Ending, Fact, Profiled, TechniqueVector
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Reply
from tilesmith.core.trial import Candidate, Trial

F = TypeVar("F", Reply, Analysis, Profiled, TechniqueVector, Ending, Derivation)


class Proposals(Protocol):
    """The proposals of one round, as they become ready.

    One thread iterates while another tells: a proposer that answers verdicts, as a model does with repairs, proposes
    more in the same round.
    """

    def __iter__(self) -> Iterator[Candidate]:
        """Waits for the next one; ends when no more will come, whatever it is told."""
        ...

    def tell(self, trial: Trial) -> None:
        """The verdict on one of them, at once; what was judged in an earlier round, too."""
        ...

    def close(self) -> None:
        """No more is wanted: the iteration ends, and what is on its way is given up. Any thread may call it."""
        ...

    @property
    def end(self) -> Stop | None:
        """Why another round would be in vain, once this one is over; None where it may bring something new.

        `EXHAUSTED` counts only where this round brought nothing, any other reason always.
        """
        ...


class Given(tuple[Candidate, ...]):
    """Proposals that are all known at once, and listen to nothing."""

    def tell(self, trial: Trial) -> None:
        del trial

    def close(self) -> None:
        pass

    @property
    def end(self) -> Stop:
        return Stop.EXHAUSTED


class Proposer(Protocol):
    """Suggests candidates worth judging. An empty round means that nothing is left to try."""

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Proposals:
        """The candidates of round `number`, from 1, the most promising first.

        `trials` holds every trial of the rounds that are complete, in order. The answer depends on nothing else but
        what the proposer was built with and what models reply: asked again with the same trials it is the same, so
        that a run that was killed resumes in the middle of a round.
        """
        ...


class Bench(Protocol):
    """Judges candidates. A bad candidate is a verdict, never an exception."""

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """One trial a candidate, each as soon as it is known, in the order given where that makes nobody wait long.

        Another thread takes the candidates, no more ahead than there are places to judge them.

        A candidate whose fingerprint a correct or unchecked one of `trials`, or of the candidates before it, has is
        its `Duplicate` and is not timed. One that compiles to what fell is judged: its host code may be the better.
        The fastest correct trial among `trials` is the rival against which new ones are timed. Raises `ProblemError`
        when the problem itself is at fault and `MachineError` when the machine is.
        """
        ...

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """Where the time of a correct trial goes, by hardware counters where this bench has them, else by estimate.

        Raises `MachineError` where it should have counters and cannot read them: the message says why.
        """
        ...

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """Judge a finalist once more, harder: a wrong kernel can be right in one run of two.

        Its numbers are checked many times, and its time is taken in turns with the baseline's where there is a
        device. The trial that comes back is new; its verdict may be another.
        """
        ...


class Journal(Protocol):
    """Remembers everything of one run, in order, append-only."""

    def record(self, trial: Trial) -> None:
        """Returns when no end of this process can lose the trial, and as a rule no loss of power either.

        Only of trials that come faster than a disk can confirm each, a loss of power may cost the last few, which are
        then judged again.
        """
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

    def note(self, fact: Fact) -> None:
        """Record what was learnt beside the trials. Returns when it is safe on disk; threads may call it."""
        ...

    def facts(self, kind: type[F]) -> Sequence[F]:
        """Every fact of one kind that this run recorded, in order."""
        ...

    def recall(self, kind: type[F], key: str) -> F | None:
        """The last fact of this kind with this key that any run in the same place recorded."""
        ...
