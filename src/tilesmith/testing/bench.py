"""What every bench promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tilesmith.core.errors import ProblemError
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench
from tilesmith.core.trial import Candidate, Correct, Duplicate, Failed, Rejected, Trial, Wrong
from tilesmith.testing.samples import PROBLEM, SAMPLES, Samples


class BenchConformance:
    """Inherit, and give `bench`. A bench that is slow to start may give it with scope "class".

    `problem` and `samples` have defaults, a kernel in Triton that takes nothing special. The time limit of `bench`
    should be short: one sample never returns.
    """

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def problem(self) -> Problem:
        return PROBLEM

    @pytest.fixture
    def samples(self) -> Samples:
        return SAMPLES

    def test_nothing_to_judge(self, bench: Bench, problem: Problem) -> None:
        assert judge(bench, problem, []) == []

    def test_correct(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        (trial,) = judge(bench, problem, [samples.correct])
        assert isinstance(trial.verdict, Correct)
        assert 0 <= trial.verdict.error <= 1
        assert trial.time_us is not None
        assert trial.time_us > 0
        assert trial.fingerprint

    def test_wrong(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        (trial,) = judge(bench, problem, [samples.wrong])
        assert isinstance(trial.verdict, Wrong)
        assert trial.verdict.error is None or trial.verdict.error > 1
        assert trial.verdict.message

    @pytest.mark.parametrize("fault", ["raising", "crashing", "malformed", "missing"])
    def test_a_bad_candidate_is_a_verdict(self, bench: Bench, problem: Problem, samples: Samples, fault: str) -> None:
        (trial,) = judge(bench, problem, [getattr(samples, fault)])
        assert isinstance(trial.verdict, Failed | Rejected)
        assert trial.time_us is None
        assert trial.verdict.reason if isinstance(trial.verdict, Rejected) else trial.verdict.message

    def test_a_candidate_that_never_returns(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        (trial,) = judge(bench, problem, [samples.hanging])
        assert isinstance(trial.verdict, Failed)
        assert trial.verdict.stage == "timeout"

    def test_one_trial_a_candidate_in_the_order_given(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        sources = [samples.malformed, samples.correct, samples.crashing, samples.wrong, samples.other]
        given = [Candidate(source, f"test:{at}", f"parent {at}") for at, source in enumerate(sources)]
        trials = list(bench.judge(problem, given, ()))
        assert [trial.candidate for trial in trials] == given
        assert [trial.candidate.origin for trial in trials] == [candidate.origin for candidate in given]
        assert [trial.candidate.parent for trial in trials] == [candidate.parent for candidate in given]
        kinds = [type(trial.verdict) for trial in trials]
        assert kinds[1] is Correct
        assert kinds[3] is Wrong
        assert kinds[4] is Correct, "a candidate must not suffer from the ones before it"
        assert trials[1].fingerprint != trials[4].fingerprint

    def test_a_duplicate_within_a_call(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        first, other, second = judge(bench, problem, [samples.correct, samples.other, samples.renamed])
        assert isinstance(other.verdict, Correct)
        assert second.verdict == Duplicate(first.candidate.id)
        assert second.fingerprint == first.fingerprint
        assert second.time_us is None

    def test_a_duplicate_of_an_earlier_trial(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        earlier = [replace(trial, round=1) for trial in judge(bench, problem, [samples.renamed, samples.wrong])]
        (trial,) = judge(bench, problem, [samples.correct], earlier)
        assert trial.verdict == Duplicate(earlier[0].candidate.id)

    def test_a_duplicate_of_a_duplicate_names_the_first(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        earlier = judge(bench, problem, [samples.correct, samples.renamed])
        assert isinstance(earlier[1].verdict, Duplicate)
        (trial,) = judge(bench, problem, [samples.commented], earlier[::-1])
        assert trial.verdict == Duplicate(earlier[0].candidate.id)

    def test_stopping_early_is_no_harm(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        answers = bench.judge(problem, [Candidate(samples.correct), Candidate(samples.other)], ())
        assert isinstance(next(answers).verdict, Correct)
        # A search that has reached its limit drops the rest.
        del answers
        (trial,) = judge(bench, problem, [samples.other])
        assert isinstance(trial.verdict, Correct)


class RunningBenchConformance(BenchConformance):
    """For benches that run the problem and its candidates themselves."""

    def test_what_compiles_to_a_wrong_one_is_judged(self, bench: Bench, problem: Problem, samples: Samples) -> None:
        first, second = judge(bench, problem, [samples.wrong, samples.wrong + "\n# again\n"])
        assert isinstance(first.verdict, Wrong)
        assert isinstance(second.verdict, Wrong)
        assert first.fingerprint == second.fingerprint

    @pytest.mark.parametrize(
        "fault",
        [
            "raise ValueError('at import')",
            "def get_inputs(): raise ValueError('no inputs')",
            "def get_inputs(): return []",
            "Model = 3",
        ],
    )
    def test_a_fault_of_the_problem_is_no_verdict(
        self, bench: Bench, problem: Problem, samples: Samples, fault: str
    ) -> None:
        broken = replace(problem, source=f"{problem.source}\n\n{fault}\n")
        with pytest.raises(ProblemError) as caught:
            judge(bench, broken, [samples.correct])
        assert str(caught.value)
        (trial,) = judge(bench, problem, [samples.correct])
        assert isinstance(trial.verdict, Correct), "the bench goes on with other problems"


def judge(bench: Bench, problem: Problem, sources: Sequence[str], trials: Sequence[Trial] = ()) -> list[Trial]:
    """The trials of these sources, in their order: one that hangs is stepped over by those behind it."""
    candidates = [Candidate(source, origin="test") for source in sources]
    places = {candidate.id: place for place, candidate in enumerate(candidates)}
    return sorted(bench.judge(problem, candidates, trials), key=lambda trial: places[trial.candidate.id])
