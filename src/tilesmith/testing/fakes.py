"""The three seams in memory: a bench that looks verdicts up, a journal and a proposer that are lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from tilesmith.core.facts import Fact
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.seams import F, Given
from tilesmith.core.trial import Candidate, Correct, Cost, Duplicate, Estimate, Trial, Unchecked, Verdict


def correct(time_us: float) -> Correct:
    """A verdict like an offline bench's."""
    return Correct(Estimate(time_us), 0.5)


class TableBench:
    """Judges by a function, a dictionary's `__getitem__` for one. Candidates with one fingerprint are duplicates."""

    def __init__(
        self,
        verdict: Callable[[Candidate], Verdict],
        fingerprint: Callable[[Candidate], str | None] = lambda candidate: candidate.id,
        cost: Cost = Cost(),  # noqa: B008, a frozen value
    ) -> None:
        self.asked: list[str] = []
        """The ids of the candidates that the function was called for, in order."""
        self._verdict = verdict
        self._fingerprint = fingerprint
        self._cost = cost

    def judge(
        self,
        problem: Problem,  # noqa: ARG002, the seam's
        candidates: Iterable[Candidate],
        trials: Sequence[Trial],
    ) -> Iterator[Trial]:
        """See `tilesmith.core.seams.Bench`; what the function raises passes through."""
        first: dict[str, str] = {}
        for trial in trials:
            if trial.fingerprint is not None and isinstance(trial.verdict, Correct | Unchecked):
                first.setdefault(trial.fingerprint, trial.candidate.id)
        for candidate in candidates:
            fingerprint = self._fingerprint(candidate)
            if fingerprint is not None and fingerprint in first:
                verdict: Verdict = Duplicate(first[fingerprint])
            else:
                self.asked.append(candidate.id)
                verdict = self._verdict(candidate)
                if fingerprint is not None and isinstance(verdict, Correct | Unchecked):
                    first[fingerprint] = candidate.id
            yield Trial(candidate, verdict, fingerprint, cost=self._cost)

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """The trial's own, or one without kernels."""
        del problem
        return trial.profile or Profile("estimate", "table", ())

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """Asks the function once more."""
        del problem, baseline
        self.asked.append(finalist.candidate.id)
        return replace(finalist, verdict=self._verdict(finalist.candidate))


class ListJournal:
    """Remembers in memory only."""

    def __init__(
        self, trials: Iterable[Trial] = (), confirmations: Iterable[Trial] = (), facts: Iterable[Fact] = ()
    ) -> None:
        self._trials = list(trials)
        self._confirmed = list(confirmations)
        self._facts = list(facts)

    def confirmed(self, trial: Trial) -> None:
        self._confirmed.append(trial)

    def confirmations(self) -> Sequence[Trial]:
        return tuple(self._confirmed)

    def record(self, trial: Trial) -> None:
        self._trials.append(trial)

    def note(self, fact: Fact) -> None:
        self._facts.append(fact)

    def facts(self, kind: type[F]) -> Sequence[F]:
        return tuple(fact for fact in self._facts if isinstance(fact, kind))

    def recall(self, kind: type[F], key: str) -> F | None:
        return next((fact for fact in reversed(self.facts(kind)) if fact.key == key), None)

    def trials(self) -> Sequence[Trial]:
        return tuple(self._trials)


class ListProposer:
    """Proposes what is new in the first of its lists that holds anything new."""

    def __init__(self, *rounds: Sequence[Candidate]) -> None:
        self._rounds = rounds

    def propose(
        self,
        problem: Problem,  # noqa: ARG002, the seam's
        trials: Sequence[Trial],
        number: int,  # noqa: ARG002, the seam's
    ) -> Given:
        """See `tilesmith.core.seams.Proposer`."""
        known = {trial.candidate.id for trial in trials}
        for candidates in self._rounds:
            if fresh := {c.id: c for c in candidates if c.id not in known}:
                return Given(fresh.values())
        return Given()
