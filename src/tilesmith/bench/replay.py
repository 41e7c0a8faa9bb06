"""A bench that answers from an earlier journal: experiments with proposers, with no GPU and no waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tilesmith.core.errors import MachineError
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Candidate, Correct, Duplicate, Failed, Trial, Unchecked


class ReplayBench:
    """Implements `tilesmith.core.seams.Bench` over the trials of an earlier run.

    A candidate is known by its source. Which of several equal candidates is the duplicate depends on the order in
    which they are judged, so it is decided anew: one that the journal calls a duplicate of a candidate which this
    run has not judged gets that candidate's verdict. Costs are the recorded ones, so that a budget in GPU seconds
    means what it meant.
    """

    def __init__(self, recorded: Sequence[Trial]) -> None:
        self._recorded: dict[str, Trial] = {}
        for trial in recorded:
            known = self._recorded.get(trial.candidate.id)
            if known is None or isinstance(known.verdict, Duplicate):
                self._recorded[trial.candidate.id] = trial

    def judge(
        self,
        problem: Problem,  # noqa: ARG002, the seam's: sources tell all that a replay needs
        candidates: Iterable[Candidate],
        trials: Sequence[Trial],
    ) -> Iterator[Trial]:
        """One trial a candidate, in the order given; `Failed` at stage "admit" for one that the journal never saw."""
        judged = {trial.candidate.id for trial in trials}
        first: dict[str, str] = {}
        for trial in trials:
            if trial.fingerprint is not None and isinstance(trial.verdict, Correct | Unchecked):
                first.setdefault(trial.fingerprint, trial.candidate.id)
        for candidate in candidates:
            answer = self._answer(candidate, judged, first)
            judged.add(candidate.id)
            if answer.fingerprint is not None and isinstance(answer.verdict, Correct | Unchecked):
                first.setdefault(answer.fingerprint, candidate.id)
            yield answer

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """The recorded one. Raises `MachineError` where none was recorded."""
        del problem
        found = self._recorded.get(trial.candidate.id, trial)
        if found.profile is None:
            raise MachineError("the replayed journal has no profile of this candidate")
        return found.profile

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """What the journal says of it stands; nothing can be run again."""
        del problem, baseline
        return replace(self._recorded.get(finalist.candidate.id, finalist), candidate=finalist.candidate)

    def _answer(self, candidate: Candidate, judged: set[str], first: dict[str, str]) -> Trial:
        unknown = Trial(candidate, Failed("admit", "the replayed journal has no verdict on this candidate"))
        found = self._recorded.get(candidate.id)
        if found is None:
            return unknown
        own = replace(found, candidate=candidate, round=0)
        if found.fingerprint in first:
            return replace(own, verdict=Duplicate(first[found.fingerprint or ""]))
        passed = {candidate.id}
        while isinstance(found.verdict, Duplicate):
            if found.verdict.of in judged:
                return replace(own, verdict=found.verdict)
            original = self._recorded.get(found.verdict.of)
            if original is None or original.candidate.id in passed:
                return unknown
            passed.add(original.candidate.id)
            found = original
        return replace(own, verdict=found.verdict, profile=found.profile, cost=found.cost)
