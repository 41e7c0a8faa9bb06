"""Models behind HTTP, through the official SDKs, against a server that behaves as providers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.reply import Prompt, Reply, Usage
from tilesmith.propose.chat import Call, Chat, Models, Retry, open_models
from tilesmith.propose.chat.book import ModelBook, Price, Provider, Rates
from tilesmith.propose.chat.completions import _Broken, _piece
from tilesmith.propose.chat.hosted import HostedChat
from tilesmith.propose.chat.http import stream_fault
from tilesmith.propose.chat.lane import Lane
from tilesmith.propose.chat.wire import Fault, Piece
from tilesmith.testing.provider import Behaviour, ProviderServer, Script
from tilesmith.testing.provider_conformance import CALL, PROMPT, WaitingChatConformance
from tilesmith.testing.provider_replies import BROKEN, LIMITED, Latency, Shares, prose, seeded

KEY = "sk-test-0123456789abcdef"
PRICE = Price(Rates(input=2.0, output=10.0, cache_read=0.2, cache_write=2.5))
QUICK = Retry(attempts=4, base_s=0.001, cap_s=0.002)
BOTH = pytest.mark.parametrize("name", ["anthropic:m", "openai:m"])


def book(server: ProviderServer, **more: object) -> ModelBook:
    providers = (
        Provider("anthropic", "anthropic", server.url, "A_KEY"),
        Provider("openai", "openai", server.openai_url, "O_KEY", output_limit="max_completion_tokens"),
    )
    changed = {each.name: replace(each, **more) for each in providers}  # type: ignore[arg-type]
    return ModelBook(changed, {"anthropic:m": PRICE, "openai:m": PRICE})


def opened(server: ProviderServer, *names: str, retry: Retry = QUICK, **more: object) -> Models:
    return open_models(names, book(server, **more), {"A_KEY": KEY, "O_KEY": KEY}, retry=retry)


def asked(
    script: Script, name: str, call: Call = CALL, prompt: Prompt = PROMPT, retry: Retry = QUICK, **more: object
) -> tuple[Reply, ProviderServer]:
    """One reply, and the server that gave it."""
    with ProviderServer(script) as server:

        async def run() -> Reply:
            models = opened(server, name, retry=retry, **more)
            try:
                return await models[name].ask(prompt, call)
            finally:
                await models.close()

        return asyncio.run(run()), server


@contextmanager
def chat_of(script: Script, name: str, **more: object) -> Iterator[Chat]:
    with ProviderServer(script) as server:
        yield opened(server, name, **more)[name]


class TestAnthropicConforms(WaitingChatConformance):
    NAME = "anthropic:m"

    @pytest.fixture
    def chat(self) -> Iterator[Chat]:
        with chat_of(lambda _: Behaviour("an answer", latency_s=0.01), self.NAME) as chat:
            yield chat

    @pytest.fixture
    def failing(self) -> Iterator[Chat]:
        with chat_of(lambda _: BROKEN, self.NAME) as chat:
            yield chat

    @pytest.fixture
    def hanging(self) -> Iterator[Chat]:
        with chat_of(lambda _: Behaviour("an answer", failure="stall"), self.NAME, concurrent=1) as chat:
            yield chat


class TestOpenAIConforms(TestAnthropicConforms):
    NAME = "openai:m"


@BOTH
def test_an_answer_comes_with_its_usage_and_its_cost(name: str) -> None:
    usage = Usage(input_tokens=1000, output_tokens=500, cache_read_tokens=300, cache_write_tokens=200)
    reply, server = asked(lambda _: Behaviour(prose("x = 1"), usage=usage), name)
    assert reply.text == prose("x = 1")
    assert reply.usage == usage
    assert reply.usd == pytest.approx((1000 * 2 + 500 * 10 + 300 * 0.2 + 200 * 2.5) / 1e6)
    (request,) = server.asked
    assert request.prompt == PROMPT
    assert request.max_output_tokens == CALL.max_output_tokens
    assert request.stream
    assert request.key == KEY


@BOTH
def test_a_conversation_arrives_as_one(name: str) -> None:
    prompt = PROMPT.answered("```python\nx\n```", "It fails: é\N{MATHEMATICAL BOLD SMALL X}.")
    _, server = asked(lambda _: Behaviour("good"), name, prompt=prompt)
    assert server.asked[0].prompt == prompt


@BOTH
def test_an_endpoint_that_counts_nothing_is_counted_by_length(name: str) -> None:
    reply, _ = asked(lambda _: Behaviour("x" * 300, reports=False), name)
    assert reply.fault is None
    assert reply.usage.output_tokens == 100
    assert reply.usage.input_tokens > 0


@BOTH
def test_what_passes_is_tried_again(name: str) -> None:
    fates = [LIMITED, BROKEN, Behaviour(failure="drop"), Behaviour("good")]
    reply, server = asked(lambda asked: fates[asked.number], name)
    assert (reply.fault, reply.text, reply.attempts) == (None, "good", 4)
    assert len(server.asked) == 4


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_does_not_pass_is_not(name: str, status: int) -> None:
    reply, server = asked(lambda _: Behaviour(status=status, kind="some_error", message="it is\nwrong"), name)
    assert reply.fault == f"the provider answered {status}: it is wrong"
    assert (reply.attempts, reply.usd, reply.usage, reply.text) == (1, 0.0, Usage(), "")
    assert len(server.asked) == 1


def test_an_unpaid_bill_is_not_asked_again() -> None:
    reply, server = asked(lambda _: Behaviour(status=429, kind="insufficient_quota", message="pay"), "openai:m")
    assert reply.fault
    assert len(server.asked) == 1


@BOTH
def test_attempts_end(name: str) -> None:
    reply, server = asked(lambda _: BROKEN, name)
    assert reply.fault == "the provider answered 503: overloaded, 4 times"
    assert reply.attempts == len(server.asked) == 4
    assert reply.usd == 0.0


@BOTH
def test_limits_are_waited_out_until_the_deadline(name: str) -> None:
    reply, _ = asked(lambda asked: LIMITED if asked.number < 12 else Behaviour("good"), name)
    assert (reply.fault, reply.attempts) == (None, 13)
    reply, server = asked(lambda _: LIMITED, name, replace(CALL, deadline_s=0.4))
    assert reply.fault is not None
    assert len(server.asked) > QUICK.attempts


@BOTH
def test_a_provider_that_says_when_is_waited_for(name: str) -> None:
    fates = [replace(LIMITED, retry_after_s=0.15), Behaviour("good")]
    reply, _ = asked(lambda asked: fates[asked.number], name)
    assert reply.fault is None
    assert reply.seconds >= 0.15


@BOTH
def test_no_wait_beyond_the_deadline(name: str) -> None:
    began = time.monotonic()
    reply, server = asked(lambda _: replace(LIMITED, retry_after_s=60.0), name, replace(CALL, deadline_s=5.0))
    assert reply.fault is not None
    assert "5 s leaves no time" in reply.fault
    assert len(server.asked) == 1
    assert time.monotonic() - began < 4.0


@BOTH
@pytest.mark.parametrize(
    ("failure", "says"),
    [("cut", "cut"), ("finish", "ended before"), ("rubbish", "not of its protocol"), ("error", "no capacity")],
)
def test_a_stream_that_breaks_is_a_fault_that_was_paid_for(name: str, failure: str, says: str) -> None:
    broken = Behaviour("y" * 3000, failure=failure, message="no capacity")  # type: ignore[arg-type]
    reply, server = asked(lambda _: broken, name)
    assert reply.fault is not None
    assert says in reply.fault
    # It is not asked again: what was sent is paid for once.
    assert len(server.asked) == 1
    assert 0 < reply.usage.output_tokens < 1000
    assert reply.usage.input_tokens > 0
    assert reply.usd == pytest.approx(PRICE.usd(reply.usage))


@BOTH
def test_a_stream_that_stalls_is_given_up_before_the_deadline(name: str) -> None:
    reply, server = asked(lambda _: Behaviour("y" * 300, failure="stall"), name, idle_s=0.1)
    assert reply.fault == "the provider's stream stalled beyond the idle limit"
    assert reply.seconds < 5.0
    assert len(server.asked) == 1


@BOTH
def test_what_was_spent_before_the_deadline_counts(name: str) -> None:
    reply, _ = asked(lambda _: Behaviour("y" * 300, failure="stall"), name, replace(CALL, deadline_s=0.2))
    assert reply.fault == "there was no answer within 0.2 s"
    assert reply.usage.output_tokens > 0
    assert reply.usd == pytest.approx(PRICE.usd(reply.usage))


@BOTH
def test_a_server_that_speaks_no_http_is_a_fault(name: str) -> None:
    reply, _ = asked(lambda _: Behaviour(failure="noise"), name)
    assert reply.fault is not None
    assert "no connection to the provider" in reply.fault


@BOTH
def test_nobody_there_is_a_fault(name: str) -> None:
    with ProviderServer(lambda _: BROKEN) as server:
        gone = book(server)

    async def run() -> Reply:
        models = open_models([name], gone, {"A_KEY": KEY, "O_KEY": KEY}, retry=QUICK)
        reply = await models[name].ask(PROMPT, CALL)
        await models.close()
        return reply

    reply = asyncio.run(run())
    assert reply.fault is not None
    assert "no connection" in reply.fault
    assert reply.attempts == 4


@BOTH
@pytest.mark.parametrize(
    ("how", "says"),
    [
        (Behaviour("", end="refusal"), "refused"),
        (Behaviour("half of", end="length"), "cut off at 1000 tokens"),
        (Behaviour(" \n"), "empty"),
    ],
)
def test_an_end_without_a_reply_is_a_fault(name: str, how: Behaviour, says: str) -> None:
    reply, server = asked(lambda _: how, name)
    assert reply.fault is not None
    assert says in reply.fault
    assert reply.usage.input_tokens > 0
    assert len(server.asked) == 1


@BOTH
def test_calls_in_flight_are_limited_over_all_models_of_a_provider(name: str) -> None:
    other = name + "2"
    with ProviderServer(lambda _: Behaviour("good", latency_s=0.02)) as server:

        async def run() -> list[Reply]:
            models = opened(server, name, other, concurrent=3)
            replies = await asyncio.gather(*(models[each].ask(PROMPT, CALL) for each in (name, other) * 6))
            await models.close()
            return list(replies)

        assert all(reply.fault is None for reply in asyncio.run(run()))
        assert server.peak == 3


@BOTH
def test_the_queue_counts_for_the_deadline_and_not_against_the_model(name: str) -> None:
    with ProviderServer(lambda _: Behaviour("good", latency_s=0.6)) as server:

        async def run() -> list[Reply]:
            models = open_models(
                [name], book(server, concurrent=1), {"A_KEY": KEY, "O_KEY": KEY}, retry=QUICK, failures=1
            )
            calls = [models[name].ask(PROMPT, replace(CALL, deadline_s=wait)) for wait in (5.0, 0.1)]
            replies = await asyncio.gather(*calls)
            assert not models[name].set_aside
            await models.close()
            return list(replies)

        first, second = asyncio.run(run())
        assert first.fault is None
        assert second.fault is not None
        assert "in the queue" in second.fault
        assert (second.attempts, second.seconds, second.usd) == (0, 0.0, 0.0)


@BOTH
def test_tokens_per_minute_hold_back_and_are_given_back(name: str) -> None:
    # Each call is estimated at more than half of the bucket, and takes next to nothing of it.
    call = replace(CALL, max_output_tokens=3500)
    usage = Usage(10, 10)
    with ProviderServer(lambda _: Behaviour("good", latency_s=0.03, usage=usage)) as server:

        async def run() -> None:
            models = opened(server, name, tokens_per_minute=6000)
            replies = await asyncio.gather(*(models[name].ask(PROMPT, call) for _ in range(4)))
            assert all(reply.fault is None for reply in replies)
            await models.close()

        asyncio.run(run())
        assert server.peak == 1


def test_both_protocols_at_full_width() -> None:
    """225 streams at once, with everything going wrong that providers do."""
    shares = Shares(limited=0.1, broken=0.05, cut=0.02, rubbish=0.02, refused=0.05, no_code=0.1, three_blocks=0.1)
    script = seeded(7, ["x = 1", "x = 2"], Latency(0.05, 0.5), shares)
    with ProviderServer(script) as server:

        async def run() -> list[Reply]:
            models = opened(server, "anthropic:m", "openai:m", concurrent=225)
            replies = await asyncio.gather(
                *(models[name].ask(PROMPT, replace(CALL, key=str(at))) for at in range(113) for name in models.names)
            )
            await models.close()
            return list(replies)

        replies = asyncio.run(run())
        assert len(replies) == 226
        assert server.in_flight == 0
    good = [reply for reply in replies if reply.fault is None]
    assert len(good) > 150
    assert all("```" in reply.text or "profile" in reply.text for reply in good)
    assert all(reply.usage.tokens > 0 and reply.usd for reply in good)


@given(
    st.integers(1, 40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.001, 10),
    st.floats(0.001, 100),
    st.none() | st.floats(0, 1000),
)
def test_waits_are_bounded(failed: int, draw: float, base_s: float, cap_s: float, after_s: float | None) -> None:
    wait_s = Retry(8, base_s, cap_s).wait_s(failed, Fault("no", True, after_s), draw)
    assert (after_s or 0.0) <= wait_s <= (after_s or 0.0) + min(cap_s, base_s * 2.0 ** (failed - 1))


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})


def some(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Objects that have some of these fields, and now and then something else in their place."""
    return st.fixed_dictionaries({}, optional={name: LEAF | field for name, field in fields.items()}) | LEAF


CHUNK = some(
    choices=st.lists(
        some(delta=some(content=LEAF, reasoning=LEAF, refusal=LEAF), finish_reason=st.sampled_from(["stop", "length"]))
    ),
    usage=some(
        prompt_tokens=LEAF,
        completion_tokens=LEAF,
        total_tokens=LEAF,
        prompt_tokens_details=some(cached_tokens=LEAF, cache_write_tokens=LEAF),
    ),
    error=some(message=LEAF, code=LEAF, type=LEAF),
)


@given(st.lists(CHUNK, max_size=4))
def test_no_stream_of_json_is_more_than_a_fault(said: list[object]) -> None:
    class Odd:
        """Sends whatever it likes, as events of the protocol."""

        async def stream(self, model: str, prompt: Prompt, max_output_tokens: int) -> AsyncGenerator[Piece, None]:
            del model, prompt, max_output_tokens
            for each in said:
                yield _piece(each)  # type: ignore[arg-type]

        def fault(self, error: Exception, begun: bool) -> Fault:
            assert isinstance(error, _Broken) or "protocol" in stream_fault(error).message
            return Fault(str(error) or "odd", begun)

        async def offers(self, model: str) -> None:
            del model

        async def close(self) -> None:
            pass

    chat = HostedChat("a:b", Odd(), Lane(1), PRICE, QUICK)
    reply = asyncio.run(chat.ask(PROMPT, CALL))
    assert reply.fault or reply.text.strip()
    assert reply.usage.tokens >= 0
