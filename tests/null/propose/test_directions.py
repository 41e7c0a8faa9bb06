"""A round's directions: always the full width, every parent, every rank, no draw twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.trial import Candidate, Correct, Estimate, Trial
from tilesmith.propose.directions import Width, directions, parent_of

PLACES = st.integers(1, 5)
WIDTHS = st.builds(
    Width,
    PLACES,
    st.integers(1, 4),
    st.lists(st.sampled_from(["a:1", "a:2", "b:1", "c:x"]), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(1, 5),
)


def pool_of(count: int) -> tuple[Trial, ...]:
    return tuple(Trial(Candidate(f"kernel {i}"), Correct(Estimate(1.0 + i), 0.1), f"f{i}") for i in range(count))


@given(WIDTHS, st.integers(0, 5), st.integers(1, 9))
def test_a_round_has_its_full_width(width: Width, members: int, number: int) -> None:
    pool = pool_of(min(members, width.candidate_pool_size))
    found = directions(pool, number, width)
    product = width.candidate_pool_size * width.num_bottlenecks * len(width.models) * width.samples_per_prompt
    assert len(found) == width.directions == product
    assert len({direction.key for direction in found}) == product
    assert {direction.round for direction in found} == {number}
    for attribute, wanted in (
        ("place", range(1, width.candidate_pool_size + 1)),
        ("rank", range(1, width.num_bottlenecks + 1)),
        ("model", width.models),
    ):
        counted = Counter(getattr(direction, attribute) for direction in found)
        assert set(counted) == set(wanted)
        assert len(set(counted.values())) == 1


@given(WIDTHS, st.integers(0, 5))
def test_no_draw_from_a_prompt_is_made_twice(width: Width, members: int) -> None:
    pool = pool_of(min(members, width.candidate_pool_size))
    drawn: dict[tuple[object, ...], list[int]] = {}
    for direction in directions(pool, 1, width):
        parent = parent_of(direction, pool)
        prompt = (parent.candidate.id, direction.rank) if parent else ()
        drawn.setdefault((*prompt, direction.model), []).append(direction.sample)
    assert all(samples == list(range(1, len(samples) + 1)) for samples in drawn.values())


@given(WIDTHS, st.integers(1, 5))
def test_every_member_of_the_pool_is_expanded(width: Width, members: int) -> None:
    pool = pool_of(min(members, width.candidate_pool_size))
    parents = [parent_of(direction, pool) for direction in directions(pool, 2, width)]
    counted = Counter(parent.candidate.id for parent in parents if parent)
    assert set(counted) == {trial.candidate.id for trial in pool}
    assert max(counted.values()) - min(counted.values()) <= width.directions // width.candidate_pool_size


def test_the_first_round_is_copies_of_the_start_kernel() -> None:
    """The preset of 225: five places, one kernel, fifteen draws of each model for each bottleneck."""
    pool = pool_of(1)
    found = directions(pool, 1, Width(5, 3, ("a:1", "b:1", "c:1"), 5))
    assert len(found) == 225
    assert {parent_of(direction, pool) for direction in found} == set(pool)
    assert {d.sample for d in found if d.rank == 2 and d.model == "b:1"} == set(range(1, 26))


def test_an_interrupted_round_has_asked_every_model_about_every_parent() -> None:
    width = Width(3, 1, ("a:1", "b:1"), 4)
    found = directions(pool_of(3), 1, width)[:6]
    assert {(direction.place, direction.model) for direction in found} == {
        (p, m) for p in (1, 2, 3) for m in width.models
    }


def test_a_pool_larger_than_its_size_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 parents"):
        directions(pool_of(3), 1, Width(2, 1, ("a:1",), 1))


@pytest.mark.parametrize(
    ("width", "said"),
    [
        ((0, 1, ("a:1",), 1), "candidate_pool_size is 0"),
        ((1, -1, ("a:1",), 1), "num_bottlenecks is -1"),
        ((1, 9, ("a:1",), 1), "num_bottlenecks is 9"),
        ((1, 1, (), 1), "models is empty"),
        ((1, 1, ("a:1", "b:1", "a:1"), 1), "models names a:1 twice"),
        ((1, 1, ("a:1",), 0), "samples_per_prompt is 0"),
    ],
)
def test_a_round_of_nothing_is_refused(width: tuple[int, int, tuple[str, ...], int], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Width(*width)
