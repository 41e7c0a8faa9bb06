"""A replay passes the suite of benches, and decides anew which of two equal candidates is the duplicate."""

from __future__ import annotations

import pytest

from tilesmith.bench.replay import ReplayBench
from tilesmith.core.seams import Bench
from tilesmith.core.trial import Candidate, Correct, Cost, Duplicate, Failed, Trial
from tilesmith.testing.bench import BenchConformance
from tilesmith.testing.fakes import TableBench, correct
from tilesmith.testing.samples import FAULTS, PROBLEM, SAMPLES

VERDICTS = {SAMPLES.correct: correct(10.0), SAMPLES.other: correct(9.0), **FAULTS}
SAME = (SAMPLES.renamed, SAMPLES.correct, SAMPLES.commented)


def fingerprint(candidate: Candidate) -> str:
    return "one" if candidate.source in SAME else candidate.id


def recorded(*first: str) -> list[Trial]:
    """A journal of all samples, judged in this order and then in any."""
    table = TableBench(lambda candidate: VERDICTS.get(candidate.source, correct(10.0)), fingerprint)
    sources = dict.fromkeys((*first, *VERDICTS, *SAME))
    return list(table.judge(PROBLEM, [Candidate(source) for source in sources], ()))


class TestReplay(BenchConformance):
    @pytest.fixture(params=[SAME[0], SAME[1]], ids=["the copy first", "the original first"])
    def bench(self, request: pytest.FixtureRequest) -> Bench:
        return ReplayBench(recorded(request.param))


def test_a_candidate_that_the_journal_never_saw() -> None:
    (trial,) = ReplayBench(recorded()).judge(PROBLEM, [Candidate("new")], ())
    assert trial.verdict == Failed("admit", "the replayed journal has no verdict on this candidate")


def test_origin_and_cost() -> None:
    old = Trial(Candidate("a", "old", "x"), correct(1.0), "f", cost=Cost(3.0, 2.0, 1.0), round=7)
    (new,) = ReplayBench([old]).judge(PROBLEM, [Candidate("a", "new", "y")], ())
    assert (new.candidate.origin, new.candidate.parent) == ("new", "y")
    assert (new.verdict, new.cost, new.fingerprint) == (old.verdict, old.cost, "f")


def test_a_duplicate_of_what_this_run_has_not_judged_has_its_verdict() -> None:
    a, b, c = Candidate("a"), Candidate("b"), Candidate("c")
    # Without fingerprints, as in a journal that did not keep them.
    bench = ReplayBench([Trial(a, correct(1.0)), Trial(b, Duplicate(a.id)), Trial(c, Duplicate(b.id))])
    (alone,) = bench.judge(PROBLEM, [c], ())
    assert alone.verdict == correct(1.0)
    first, second = bench.judge(PROBLEM, [b, c], ())
    assert isinstance(first.verdict, Correct)
    assert second.verdict == Duplicate(b.id)


def test_a_duplicate_of_what_nobody_judged() -> None:
    a, b = Candidate("a"), Candidate("b")
    for trials in ([Trial(a, Duplicate("gone"))], [Trial(a, Duplicate(b.id)), Trial(b, Duplicate(a.id))]):
        (trial,) = ReplayBench(trials).judge(PROBLEM, [a], ())
        assert isinstance(trial.verdict, Failed)


def test_the_first_real_verdict_counts() -> None:
    a = Candidate("a")
    bench = ReplayBench([Trial(a, Duplicate("x")), Trial(a, correct(2.0)), Trial(a, correct(1.0))])
    (trial,) = bench.judge(PROBLEM, [a], ())
    assert trial.verdict == correct(2.0)
