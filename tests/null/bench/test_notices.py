"""A bench tells who watches where each candidate is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilesmith.bench.admission import Admitted
from tilesmith.bench.pipeline import judge
from tilesmith.core.activity import Board, Step
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate, Correct, Estimate, Rejected, Trial, Verdict

PROBLEM = Problem("p", "")


class Instant:
    """Steps that take no time; what begins with "no" is rejected when it is admitted."""

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        del problem
        verdict = Rejected("no") if candidate.source.startswith("no") else None
        return Admitted(candidate, Path(), verdict)

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        del problem, rival
        return self.settle(admitted, Correct(Estimate(1.0), 0.1))

    def settle(self, admitted: Admitted, verdict: Verdict) -> Trial:
        return Trial(admitted.candidate, verdict)


def told(sources: Sequence[str]) -> tuple[list[Trial], dict[str, list[str]]]:
    seen: dict[str, list[str]] = {}

    def notice(step: Step) -> None:
        seen.setdefault(step.candidate, []).append(step.state)

    candidates = [Candidate(source, "m") for source in sources]
    trials = list(judge(Instant(), PROBLEM, candidates, (), 2, 2, notice))
    return trials, {trial.candidate.source: seen[trial.candidate.id] for trial in trials}


def test_each_step_in_order() -> None:
    _, states = told(["yes", "no"])
    assert states["yes"][:4] == ["capturing", "queued", "judging", "done"]
    # What is known when it is admitted is never judged.
    assert states["no"][:3] == ["capturing", "queued", "done"]


def test_nobody_is_left_on_the_board_when_the_judging_is_given_up() -> None:
    board = Board()
    trials = judge(Instant(), PROBLEM, [Candidate(f"{n}") for n in range(9)], (), 2, 2, board)
    next(trials)
    trials.close()  # type: ignore[attr-defined]
    assert board.steps == ()
