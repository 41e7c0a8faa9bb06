"""What every proposer promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest

from tilesmith.core.problem import Problem
from tilesmith.core.seams import Proposals, Proposer
from tilesmith.core.trial import Trial
from tilesmith.testing.fakes import correct


class ProposerConformance:
    """Inherit, and give `proposer`, `problem` and `trials`: complete rounds after which it has something to propose."""

    @pytest.fixture
    def proposer(self) -> Proposer:
        raise NotImplementedError

    @pytest.fixture
    def problem(self) -> Problem:
        raise NotImplementedError

    @pytest.fixture
    def trials(self) -> Sequence[Trial]:
        raise NotImplementedError

    def test_it_proposes(self, proposer: Proposer, problem: Problem, trials: Sequence[Trial]) -> None:
        candidates = list(offered(proposer, problem, trials))
        assert candidates
        assert all(candidate.origin and candidate.source for candidate in candidates)

    def test_asked_again_it_says_the_same(self, proposer: Proposer, problem: Problem, trials: Sequence[Trial]) -> None:
        first = list(offered(proposer, problem, trials))
        # Another question in between, and one that nobody heard to the end, change nothing.
        list(offered(proposer, problem, trials[:1]))
        list(islice(offered(proposer, problem, trials), 1))
        again = list(offered(proposer, problem, list(trials)))
        assert again == first
        assert [(c.origin, c.parent) for c in again] == [(c.origin, c.parent) for c in first]

    def test_it_never_repeats_a_known_candidate(
        self, proposer: Proposer, problem: Problem, trials: Sequence[Trial]
    ) -> None:
        for number in range(3):
            ids = [candidate.id for candidate in offered(proposer, problem, trials)]
            assert len(set(ids)) == len(ids)
            assert not set(ids) & {trial.candidate.id for trial in trials}
            trials = extended(proposer, problem, trials, number)

    def test_parents_are_known(self, proposer: Proposer, problem: Problem, trials: Sequence[Trial]) -> None:
        for number in range(2):
            known = {trial.candidate.id for trial in trials}
            for candidate in offered(proposer, problem, trials):
                assert candidate.parent is None or candidate.parent in known
                assert candidate.parent != candidate.id
            trials = extended(proposer, problem, trials, number)

    def test_the_trials_are_left_alone(self, proposer: Proposer, problem: Problem, trials: Sequence[Trial]) -> None:
        before = tuple(trials)
        given = list(trials)
        list(offered(proposer, problem, given))
        assert tuple(given) == before


def extended(proposer: Proposer, problem: Problem, trials: Sequence[Trial], number: int) -> list[Trial]:
    """The trials after one more round, in which the first four proposals are judged correct, each a little faster."""
    last = max((trial.round for trial in trials), default=0)
    fastest = min((trial.time_us for trial in trials if trial.time_us is not None), default=100.0)
    like = next((trial for trial in trials if trial.launches), None)
    fresh = []
    for at, candidate in enumerate(islice(offered(proposer, problem, trials), 4)):
        # Launches and profile of a known trial, so that proposers which read them have something to read.
        model = like or Trial(candidate, correct(fastest))
        verdict = correct(fastest * 0.9 - 0.001 * at)
        fresh.append(
            replace(
                model, candidate=candidate, verdict=verdict, fingerprint=f"round {number}, number {at}", round=last + 1
            )
        )
    return [*trials, *fresh]


def offered(proposer: Proposer, problem: Problem, trials: Sequence[Trial]) -> Proposals:
    """What it proposes for the round after these."""
    return proposer.propose(problem, trials, 1 + max((trial.round for trial in trials), default=0))
