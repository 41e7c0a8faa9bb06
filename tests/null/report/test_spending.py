"""What models cost and brought: sums that agree with each other, however a run came about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.trial import Candidate, Correct, Direction, Duplicate, Estimate, Timing, Trial, Wrong
from tilesmith.report.spending import (
    line_replies,
    model_words,
    money,
    rounds_of,
    spending,
    spending_words,
    tokens_of,
    told_tokens,
    usd_of,
)

MODELS = ("openai:a", "gate:b/c", "command:my agent --deep/er")


def way(number: int, model: str = "openai:a", sample: int = 1) -> Direction:
    return Direction(number, 1, 1, model, sample)


def reply(key: str, model: str = "openai:a", usd: float | None = 0.5, **more: object) -> Reply:
    return replace(Reply(key, model, "", Usage(100, 10, 5, 1), usd, 2.0), **more)  # type: ignore[arg-type]


def trial(source: str, time_us: float | None, by: Direction | None = None, parent: str | None = None) -> Trial:
    verdict = Wrong("off") if time_us is None else Correct(Estimate(time_us), 0.1)
    return Trial(Candidate(source, by.model if by else "start", parent, by), verdict, round=by.round if by else 0)


START = trial("start", 100.0)

WAYS = st.builds(
    Direction, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.sampled_from(MODELS), st.integers(1, 5)
)
REPLIES = st.lists(
    st.builds(
        Reply,
        st.one_of(
            WAYS.map(lambda found: f"{found.key}/0/abc"), st.sampled_from(["analysis/f/abc", "techniques/source:9/abc"])
        ),
        st.sampled_from(MODELS),
        st.just(""),
        st.builds(Usage, *[st.integers(0, 9999)] * 4),
        st.none() | st.floats(0, 10),
        st.floats(0, 600),
        st.integers(0, 3),
        st.none() | st.just("refused"),
    ),
    max_size=30,
)
ENDINGS = st.lists(
    st.builds(Ending, WAYS.map(lambda found: found.key), st.sampled_from(["judged", "no code", "no reply", "late"]))
)


@given(REPLIES, ENDINGS)
def test_models_and_rounds_both_sum_to_the_run(replies: list[Reply], endings: list[Ending]) -> None:
    found = spending([START], replies, endings)
    assert found.tokens == sum(each.usage.tokens for each in found.models) == sum(each.tokens for each in found.rounds)
    assert found.usd == pytest.approx(sum(each.usd for each in found.rounds))
    assert found.tokens == sum(reply.usage.tokens for reply in replies)
    if not found.unpriced:
        assert found.usd == pytest.approx(sum(each.usd or 0.0 for each in found.models))
    assert set(found.unpriced) == {reply.model for reply in replies if reply.usd is None}
    assert sum(each.ended for each in found.rounds) == len({ending.key for ending in endings})
    assert [each.number for each in found.rounds] == sorted({each.number for each in found.rounds})


@given(REPLIES, ENDINGS, st.integers(0, 30))
def test_a_run_that_was_cut_reads_like_the_beginning_of_one_that_was_not(
    replies: list[Reply], endings: list[Ending], cut: int
) -> None:
    """Nothing is counted twice when a resumed round tells its endings again."""
    assert spending([START], replies, endings) == spending([START], replies, [*endings[:cut], *endings])
    assert spending([START], replies[:cut], endings).tokens <= spending([START], replies, endings).tokens


def test_of_two_endings_the_later_counts() -> None:
    key = way(1).key
    found = spending([], [], [Ending(key, "unpaid"), Ending(key, "judged")])
    assert found.rounds[0].outcomes == (("judged", 1),)


def test_who_ranks_and_classifies_belongs_to_the_round_that_follows() -> None:
    first, second = f"{way(1).key}/0/p", f"{way(2).key}/0/p"
    keys = ["analysis/a/p", first, first, "techniques/b/p", "analysis/b/p", second, "techniques/c/p"]
    assert rounds_of([reply(key) for key in keys]) == (1, 1, 1, 2, 2, 2, 3)
    assert rounds_of([reply("analysis/a/p")]) == (1,)
    assert rounds_of([]) == ()


def test_a_model_is_credited_with_its_own() -> None:
    mine, theirs = way(1), way(1, "gate:b/c")
    faster = trial("faster", 50.0, mine, START.candidate.id)
    trials = [
        START,
        faster,
        trial("slower", 200.0, replace(mine, sample=2), START.candidate.id),
        trial("wrong", None, replace(mine, sample=3), START.candidate.id),
        trial("even faster", 40.0, theirs, faster.candidate.id),
        trial("not as fast as its parent", 60.0, replace(theirs, sample=2), faster.candidate.id),
        replace(trial("again", None, replace(mine, sample=4)), verdict=Duplicate(START.candidate.id)),
    ]
    replies = [
        reply(f"{mine.key}/0/p", fault="refused"),
        reply(f"{mine.key}/0/q", attempts=0, fault="set aside", usage=Usage(), usd=0.0),
        reply(f"{theirs.key}/0/p", "gate:b/c", None),
    ]
    a, b = spending(trials, replies, []).models
    assert (a.model, a.calls, a.faults, a.proposals, a.correct, a.improved) == ("openai:a", 1, 1, 4, 2, 1)
    assert (a.usd, a.usage, a.seconds, a.best) == (0.5, Usage(100, 10, 5, 1), 4.0, faster)
    assert (b.model, b.usd, b.proposals, b.correct, b.improved) == ("gate:b/c", None, 2, 2, 1)


def test_an_estimate_is_no_gain_over_a_measurement() -> None:
    measured = replace(START, verdict=Correct(Timing(100.0, 99.0, 101.0, 50), 0.1))
    child = trial("child", 50.0, way(1), START.candidate.id)
    assert spending([measured, child], [], []).models[0].improved == 0
    assert spending([START, child], [], []).models[0].improved == 1
    assert spending([START, trial("x", 50.0, way(1), "gone")], [], []).models[0].improved == 0


def test_a_line_costs_what_its_directions_cost() -> None:
    first, second = way(1, "gate:b/c", 1), way(2, "openai:a", 11)
    parent = trial("parent", 50.0, first, START.candidate.id)
    child = trial("child", 40.0, second, parent.candidate.id)
    replies = [
        reply(f"{first.key}/0/p", "gate:b/c"),
        reply(f"{first.key}/1/q", "gate:b/c", fault="cut"),
        reply(f"{replace(first, sample=11).key}/0/p", "gate:b/c"),
        reply(f"{second.key}/0/p"),
        reply("analysis/f/p"),
    ]
    assert line_replies(child, [START, parent, child], replies) == (replies[0], replies[1], replies[3])
    assert line_replies(START, [START, parent, child], replies) == ()


def test_words() -> None:
    assert [money(usd) for usd in (0.0, 0.00001, 0.0042, 0.5, 1.0, 1234.5)] == [
        "0 USD", "less than 0.0001 USD", "0.0042 USD", "0.5000 USD", "1.00 USD", "1,234.50 USD",
    ]  # fmt: skip
    assert (told_tokens(1), told_tokens(1234567)) == ("1 token", "1,234,567 tokens")
    found = spending([START], [reply("1/1/1/m/1/0/p"), reply("1/1/1/m/2/0/p", "x:y", None, fault="no")], [])
    assert spending_words(found) == (
        "at least 0.5000 USD, 232 tokens, 2 calls, 1 without a usable reply; the price of x:y is not known"
    )
    assert model_words(found.models[0]) == "0.5000 USD, 116 tokens, 1 call"
    mine = trial("k", 50.0, way(1), START.candidate.id)
    assert model_words(spending([START, mine], [], []).models[0]) == (
        "0 USD, 0 tokens, 0 calls: 1 kernel, 1 correct, 1 faster than the parent, the fastest 50 µs estimated"
    )


def test_sums_do_not_depend_on_order() -> None:
    replies = [reply("1/1/1/m/1/0/p", usd=usd) for usd in (1e9, 0.1, 0.2, -0.0, 1e-9)]
    assert usd_of(replies) == usd_of(replies[::-1])
    assert tokens_of(replies) == 5 * 116
