"""The pool: merged by fingerprint, the fastest kept, diverse where asked."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.trial import Candidate, Correct, Duplicate, Estimate, Trial, Wrong
from tilesmith.propose.beam import distinct, kernel_id, select


def trial(number: int, time_us: float | None, fingerprint: str | None, round_: int = 0) -> Trial:
    verdict = Wrong("off") if time_us is None else Correct(Estimate(time_us), 0.1)
    return Trial(Candidate(f"# {number}"), verdict, fingerprint, round=round_)


def families(trial: Trial) -> str:
    return kernel_id(trial)[0]


def alone(trial: Trial) -> str:
    return kernel_id(trial)


numbers = st.integers(0, 20)
times = st.none() | st.sampled_from([1.0, 2.0, 3.0, 5.0])
fingerprints = st.none() | st.sampled_from(["a1", "a2", "b1", "b2", "c1", "d1", "d2"])
histories = st.lists(st.builds(trial, numbers, times, fingerprints, st.integers(0, 2)), max_size=14)
widths = st.integers(1, 8)


@given(histories, widths, st.sampled_from([None, families, alone]))
def test_the_pool_is_as_large_as_can_be_without_two_of_a_kind(trials: list[Trial], width: int, clusters) -> None:  # type: ignore[no-untyped-def]
    pool = select(trials, width, clusters)
    assert len(pool) == min(width, len(distinct(trials)))
    assert all(member in trials and isinstance(member.verdict, Correct) for member in pool)
    for marks in ([kernel_id(member) for member in pool], [member.candidate.id for member in pool]):
        assert len(marks) == len(set(marks))


@given(histories, widths, st.sampled_from([None, families, alone]))
def test_the_fastest_is_kept_and_first(trials: list[Trial], width: int, clusters) -> None:  # type: ignore[no-untyped-def]
    pool = select(trials, width, clusters)
    known = [t.time_us for t in trials if t.time_us is not None]
    assert [member.time_us for member in pool[:1]] == sorted(known)[:1]


@given(histories, widths, st.sampled_from([None, families, alone]), st.randoms(use_true_random=False))
def test_the_order_of_trials_plays_no_part(
    trials: list[Trial],
    width: int,
    clusters,  # type: ignore[no-untyped-def]
    shuffle: random.Random,
) -> None:
    other = list(trials)
    shuffle.shuffle(other)
    assert select(trials, width, clusters) == select(other, width, clusters)


@given(histories, widths)
def test_without_clusters_nothing_left_out_is_faster(trials: list[Trial], width: int) -> None:
    pool = select(trials, width)
    kept = [member.time_us or 0.0 for member in pool]
    assert kept == sorted(kept)
    left = [t.time_us or 0.0 for t in distinct(trials) if t not in pool]
    assert not left or max(kept) <= min(left)


@given(histories, widths)
def test_where_every_kernel_is_its_own_cluster_the_fastest_are_taken(trials: list[Trial], width: int) -> None:
    assert select(trials, width, alone) == select(trials, width)


@given(histories, widths)
def test_where_all_are_one_cluster_the_fastest_are_taken(trials: list[Trial], width: int) -> None:
    assert select(trials, width, lambda _: "one") == select(trials, width)


@given(histories, widths)
def test_a_fingerprint_is_kept_by_its_fastest(trials: list[Trial], width: int) -> None:
    for member in select(trials, width):
        if member.fingerprint:
            twins = [t.time_us for t in trials if t.fingerprint == member.fingerprint and t.time_us is not None]
            assert member.time_us == min(twins)


def by_the_book(trials: list[Trial], width: int) -> list[Trial]:
    """Pass d takes the d-th of every cluster, sorted by time; written as slowly as it is said."""
    members: dict[str, list[Trial]] = {}
    for member in distinct(trials):
        members.setdefault(families(member), []).append(member)
    order = {member.candidate.id: place for place, member in enumerate(distinct(trials))}
    found: list[Trial] = []
    for depth in range(len(trials)):
        slate = [cluster[depth] for cluster in members.values() if depth < len(cluster)]
        found += sorted(slate, key=lambda member: order[member.candidate.id])
    return found[:width]


@given(histories, widths)
def test_round_robin_goes_by_depth(trials: list[Trial], width: int) -> None:
    assert list(select(trials, width, families)) == by_the_book(trials, width)


@given(histories, widths)
def test_clusters_are_asked_about_no_more_than_the_pool_needs(trials: list[Trial], width: int) -> None:
    asked: list[Trial] = []

    def clusters(member: Trial) -> str:
        asked.append(member)
        return families(member)

    select(trials, width, clusters)
    assert asked == list(distinct(trials))[: len(asked)]
    if len(asked) < len(distinct(trials)):
        assert len({families(member) for member in asked}) == width
        assert len({families(member) for member in asked[:-1]}) == width - 1


def test_round_robin_by_depth() -> None:
    rows = [(1.0, "a1"), (2.0, "a2"), (3.0, "b1"), (4.0, "c1"), (5.0, "b2")]
    trials = [trial(number, *row) for number, row in enumerate(rows)]
    assert [t.fingerprint for t in select(trials, 5, families)] == ["a1", "b1", "c1", "a2", "b2"]
    assert [t.fingerprint for t in select(trials, 2)] == ["a1", "a2"]
    assert [t.fingerprint for t in select(trials, 2, families)] == ["a1", "b1"]


def test_a_child_that_is_slower_than_its_parent_competes() -> None:
    parent = trial(0, 1.0, "a1")
    child = Trial(Candidate("# child", parent=parent.candidate.id), Correct(Estimate(9.0), 0.1), "b1", round=1)
    twin = trial(2, 2.0, "a2", 1)
    assert select([parent, twin, child], 2, families) == (parent, child)


def test_unchanged_parents_collapse() -> None:
    parent = trial(0, 2.0, "a1")
    with_fingerprint = trial(0, 1.9, "a1", 1)
    without = trial(0, 1.8, None, 2)
    assert select([parent, with_fingerprint, without], 4) == (without,)
    assert select([parent, with_fingerprint, without], 4, families) == (without,)


def test_without_a_fingerprint_a_kernel_is_its_source() -> None:
    one, other = trial(1, 1.0, None), trial(2, 1.0, None)
    assert set(select([one, other], 4)) == {one, other}
    assert len(select([one, trial(1, 1.0, None, 1)], 4)) == 1


def test_what_gains_nothing_stands_behind_what_it_was_made_from() -> None:
    first = trial(0, 1.0, "a1")
    later = [trial(number, 1.0, f"a{number}", 1) for number in range(2, 9)]
    assert select([*later, first], 1) == (first,)


def test_duplicates_and_failures_are_no_parents() -> None:
    first = trial(0, 1.0, "a1")
    again = Trial(Candidate("# again"), Duplicate(first.candidate.id), "a1")
    assert select([again, first, trial(2, None, None)], 4) == (first,)
