"""What is told of what was tried: the line of the parent, and its children, failures included."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_scenes import CHILDREN, SPLIT, START, TRIALS, techniques

from tilesmith.core.trial import Candidate, Correct, Duplicate, Estimate, Failed, Rejected, Timing, Trial, Verdict
from tilesmith.propose.history import history


def child(name: str, parent: Trial | None, verdict: Verdict) -> Trial:
    above = parent.candidate.id if parent else None
    return Trial(Candidate(name, f"m:{name}", above), verdict, name, round=1)


def timed(time_us: float) -> Correct:
    return Correct(Timing(time_us, time_us, time_us, 100), 0.1)


def test_the_line_ends_with_the_parent() -> None:
    told = history(SPLIT, TRIALS, techniques)
    assert [each.relation for each in told[:2]] == ["ancestor", "parent"]
    assert [each.origin for each in told[:2]] == ["start", "anthropic:one"]
    assert told[1].techniques == ("partial_sums", "wide_sums")
    assert all(each.relation == "sibling" for each in told[2:])


def test_a_gain_comes_from_the_run_in_which_both_were_timed() -> None:
    """The start kernel is an estimate in the journal: only the rival's time of the same run can be compared."""
    gains = [each.gain for each in history(SPLIT, TRIALS, techniques)]
    assert gains[0] is None
    assert gains[1] == pytest.approx(12790.0 / 988.0)


def test_estimates_and_measurements_are_not_compared() -> None:
    parent = child("p", None, Correct(Estimate(10.0), 0.1))
    told = history(parent, (parent, child("c", parent, timed(5.0))), lambda _: ())
    assert told[-1].gain is None
    alike = history(parent, (parent, child("c", parent, Correct(Estimate(5.0), 0.1))), lambda _: ())
    assert alike[-1].gain == 2.0


def test_slower_children_and_failures_are_told() -> None:
    told = history(SPLIT, TRIALS, techniques)[2:]
    assert told[0].time_us == 1101.0
    assert told[0].gain == pytest.approx(988.0 / 1101.0)
    assert [each.count for each in told[1:]] == [2, 1, 1]
    assert told[1].message == "failed (compile): at 12:8: out of resource: shared memory"
    assert {each.message for each in told[2:]} == {
        "compiles to what its parent compiles to: nothing changed",
        "wrong: output 0 differs in 3 of 2048 elements (scaled error 37.2, the limit is 1)",
    }


def test_children_of_others_are_not_told() -> None:
    stranger = child("stranger", CHILDREN[0], timed(1.0))
    assert history(SPLIT, (*TRIALS, stranger), techniques) == history(SPLIT, TRIALS, techniques)


def test_a_duplicate_of_another_tells_its_time() -> None:
    other = child("other", START, timed(1234.0))
    copy = child("copy", SPLIT, Duplicate(other.candidate.id))
    told = history(SPLIT, (START, SPLIT, other, copy), techniques)
    assert told[-1].message == "compiles to what was judged before (1.234 ms)"


def test_without_a_parent_what_was_written_from_the_reference() -> None:
    root = child("root", None, Failed("import", "no"))
    assert [each.origin for each in history(None, (root, child("leaf", root, timed(1.0))), lambda _: ())] == ["m:root"]


def test_half_the_places_are_for_failures_and_none_is_wasted() -> None:
    good = [child(f"g{n}", START, timed(10.0 + n)) for n in range(20)]
    bad = [child(f"b{n}", START, Rejected("ab"[n % 2] * (n + 1))) for n in range(20)]

    def told(*trials: Trial) -> tuple[int, int]:
        siblings = history(START, (START, *trials), lambda _: (), siblings=8)[1:]
        return sum(each.message is None for each in siblings), sum(each.message is not None for each in siblings)

    assert told(*good, *bad) == (4, 4)
    assert told(*good, *bad[:1]) == (7, 1)
    assert told(*good[:1], *bad) == (1, 7)
    assert told(*good) == (8, 0)
    fastest = history(START, (START, *good, *bad), lambda _: (), siblings=8)[1:5]
    assert [each.time_us for each in fastest] == [10.0, 11.0, 12.0, 13.0]


@given(st.permutations(TRIALS))
def test_the_order_of_judging_does_not_count(trials: list[Trial]) -> None:
    assert history(SPLIT, trials, techniques) == history(SPLIT, TRIALS, techniques)


@given(st.text())
def test_a_message_is_one_line(message: str) -> None:
    told = history(START, (START, child("c", START, Failed("crash", message * 50))), techniques)
    said = told[-1].message
    assert said is not None
    assert "\n" not in said
    assert len(said) <= 300


def test_a_parent_is_found_by_its_id() -> None:
    """A trial that comes from elsewhere, equal but not the same, is still the parent."""
    assert history(replace(SPLIT), TRIALS, techniques)[1].relation == "parent"
