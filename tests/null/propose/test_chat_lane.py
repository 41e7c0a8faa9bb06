"""Limits of calls and tokens."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.reply import Prompt
from tilesmith.propose.chat import tokens
from tilesmith.propose.chat.lane import Bucket, Lane

LIMIT = st.integers(1, 10_000_000)
STEPS = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1_000_000)), max_size=30)


@given(LIMIT, STEPS)
def test_no_time_takes_more_than_a_full_bucket_and_what_ran_in(limit: int, steps: list[tuple[float, int]]) -> None:
    bucket, now_s, taken = Bucket(limit, limit, 0.0), 0.0, 0.0
    for later_s, amount in steps:
        now_s += later_s
        bucket = bucket.by(now_s)
        if bucket.wait_s(amount) == 0:
            bucket = bucket.less(amount)
            taken += min(amount, limit)
        assert taken <= limit * (1 + now_s / 60) * (1 + 1e-9)


@given(LIMIT, st.floats(-1e7, 1e7), st.integers(0, 1_000_000))
def test_after_the_wait_it_can_be_taken(limit: int, level: float, amount: int) -> None:
    bucket = Bucket(limit, min(level, limit), 5.0)
    after = bucket.by(5.0 + bucket.wait_s(amount))
    assert after.wait_s(amount) <= 1e-3


@given(LIMIT, st.integers(0, 1_000_000), st.floats(0, 1000))
def test_what_is_given_back_is_there_again(limit: int, amount: int, now_s: float) -> None:
    bucket = Bucket(limit, limit / 2, 0.0).by(now_s)
    assert bucket.less(amount).less(-amount).level == pytest.approx(bucket.level)
    # Never more than full, and time never runs back.
    assert bucket.less(-amount).level <= limit
    assert bucket.by(now_s - 1) == bucket


@given(st.text(), st.lists(st.text(), min_size=1, max_size=5).map(tuple))
def test_no_guess_is_above_the_bound(system: str, turns: tuple[str, ...]) -> None:
    prompt = Prompt(system, turns)
    assert 0 <= tokens.of_prompt(prompt) <= tokens.at_most(prompt)
    assert tokens.at_most(prompt) >= len(system) + sum(map(len, turns))


def test_the_first_come_is_the_first_served() -> None:
    async def run() -> list[int]:
        lane, order = Lane(1, 100_000_000), list[int]()

        async def one(number: int) -> None:
            async with lane.slot(10):
                await asyncio.sleep(0)
                order.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        return order

    assert asyncio.run(run()) == list(range(20))


def test_who_gives_up_in_the_queue_leaves_no_hole() -> None:
    async def run() -> None:
        lane = Lane(1, 1000)
        async with lane.slot(1000):
            # No token is left, and the next place is taken.
            waiting = [asyncio.ensure_future(enter(lane)) for _ in range(3)]
            await asyncio.sleep(0.01)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        lane.settle(1000, 0)
        await asyncio.wait_for(enter(lane), 5.0)

    async def enter(lane: Lane) -> None:
        async with lane.slot(10):
            pass

    asyncio.run(run())


def test_a_call_larger_than_the_bucket_waits_for_a_full_one() -> None:
    async def run() -> None:
        lane = Lane(4, 6000)
        async with asyncio.timeout(5.0), lane.slot(50_000):
            pass
        # It is in debt now, for many minutes.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), lane.slot(1):
                pass
        lane.settle(50_000, 10)
        async with asyncio.timeout(5.0), lane.slot(1000):
            pass

    asyncio.run(run())
