"""The pool: merged by fingerprint, the fastest kept, diverse where asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.trial import Candidate, Correct, Duplicate, Estimate, Trial, Wrong
from tilesmith.propose.beam import distinct, select


def trial(number: int, time_us: float | None, fingerprint: str | None) -> Trial:
    verdict = Wrong("off") if time_us is None else Correct(Estimate(time_us), 0.1)
    return Trial(Candidate(f"# {number}"), verdict, fingerprint)


def families(trial: Trial) -> str:
    return (trial.fingerprint or "-")[0]


times = st.none() | st.sampled_from([1.0, 2.0, 3.0, 5.0])
fingerprints = st.none() | st.sampled_from(["a1", "a2", "b1", "b2", "c1"])
histories = st.lists(st.tuples(times, fingerprints), max_size=12).map(
    lambda rows: [trial(number, *row) for number, row in enumerate(rows)]
)
widths = st.integers(1, 8)


@given(histories, widths, st.booleans())
def test_the_pool_is_a_subset_without_two_of_one_fingerprint(trials: list[Trial], width: int, clustered: bool) -> None:
    pool = select(trials, width, families if clustered else None)
    assert len(pool) == min(width, len(distinct(trials)))
    assert all(member in trials for member in pool)
    assert all(isinstance(member.verdict, Correct) for member in pool)
    marks = [member.fingerprint for member in pool if member.fingerprint]
    assert len(marks) == len(set(marks))


@given(histories, widths, st.booleans())
def test_the_fastest_is_first_and_selection_is_deterministic(trials: list[Trial], width: int, clustered: bool) -> None:
    clusters = families if clustered else None
    pool = select(trials, width, clusters)
    assert pool == select(list(trials), width, clusters)
    if pool:
        assert pool[0].time_us == min(t.time_us for t in trials if t.time_us is not None)


@given(histories, widths)
def test_without_clusters_nothing_left_out_is_faster(trials: list[Trial], width: int) -> None:
    pool = select(trials, width)
    kept = [member.time_us or 0.0 for member in pool]
    assert kept == sorted(kept)
    left = [t.time_us or 0.0 for t in distinct(trials) if t not in pool]
    assert not left or max(kept) <= min(left)


@given(histories, widths)
def test_a_fingerprint_is_kept_by_its_fastest(trials: list[Trial], width: int) -> None:
    for member in select(trials, width):
        if member.fingerprint:
            twins = [t.time_us for t in trials if t.fingerprint == member.fingerprint and t.time_us is not None]
            assert member.time_us == min(twins)


@given(histories, widths)
def test_no_cluster_gets_a_second_member_before_each_has_one(trials: list[Trial], width: int) -> None:
    pool = select(trials, width, families)
    clusters = {families(t) for t in distinct(trials)}
    if len(pool) < len(clusters):
        assert len({families(t) for t in pool}) == len(pool)
    else:
        assert {families(t) for t in pool} == clusters


def test_round_robin_by_depth() -> None:
    rows = [(1.0, "a1"), (2.0, "a2"), (3.0, "b1"), (4.0, "c1"), (5.0, "b2")]
    trials = [trial(number, *row) for number, row in enumerate(rows)]
    assert [t.fingerprint for t in select(trials, 5, families)] == ["a1", "b1", "c1", "a2", "b2"]
    assert [t.fingerprint for t in select(trials, 2)] == ["a1", "a2"]


def test_duplicates_and_failures_are_no_parents() -> None:
    first = trial(0, 1.0, "a1")
    again = Trial(Candidate("# again"), Duplicate(first.candidate.id), "a1")
    assert select([again, first, trial(2, None, None)], 4) == (first,)
