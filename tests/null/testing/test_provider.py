"""The provider for tests, driven through the official SDKs as they come, with nothing of ours in between."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import replace

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.reply import Prompt, Usage
from tilesmith.testing.provider import Asked, Behaviour, ProviderServer, Script
from tilesmith.testing.provider_replies import (
    BROKEN,
    LIMITED,
    Latency,
    Shares,
    no_code,
    plain,
    prose,
    seeded,
    three_blocks,
)

USAGE = Usage(input_tokens=11, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3)
TEXT = "An ünusual answer.\n" * 20


def claude(server: ProviderServer, key: str = "any") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=5.0)


def gpt(server: ProviderServer, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.openai_url, api_key=key, max_retries=0, timeout=5.0)


def test_the_anthropic_protocol_streamed_and_whole() -> None:
    with ProviderServer(lambda _: Behaviour(TEXT, usage=USAGE)) as server, claude(server, "the-key") as client:
        turns: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello."}]
        with client.messages.stream(model="m", max_tokens=99, system="Be brief.", messages=turns) as stream:
            streamed = stream.get_final_message()
        whole = client.messages.create(model="m", max_tokens=99, system="Be brief.", messages=turns)
        for message in (streamed, whole):
            assert message.content[0].type == "text"
            assert message.content[0].text == TEXT
            assert message.stop_reason == "end_turn"
            assert message.usage.input_tokens == 11
            assert message.usage.output_tokens == 7
            assert message.usage.cache_read_input_tokens == 5
            assert message.usage.cache_creation_input_tokens == 3
        first, second = server.asked
        assert (first.protocol, first.model, first.key, first.max_output_tokens) == ("anthropic", "m", "the-key", 99)
        assert (first.stream, second.stream) == (True, False)
        assert first.prompt == second.prompt == Prompt("Be brief.", ("Hello.",))
        assert [(asked.number, asked.repeat, asked.in_flight) for asked in server.asked] == [(0, 0, 1), (1, 1, 1)]
        assert dict(first.headers)["anthropic-version"]


def test_the_openai_protocol_streamed_and_whole() -> None:
    with ProviderServer(lambda _: Behaviour(TEXT, usage=USAGE)) as server, gpt(server, "the-key") as client:
        turns: list[openai.types.chat.ChatCompletionMessageParam] = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
        ]
        chunks = list(
            client.chat.completions.create(
                model="m", messages=turns, max_tokens=99, stream=True, stream_options={"include_usage": True}
            )
        )
        whole = client.chat.completions.create(model="m", messages=turns, max_completion_tokens=99)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
        assert whole.choices[0].message.content == TEXT
        assert whole.choices[0].finish_reason == "stop"
        for usage in (chunks[-1].usage, whole.usage):
            assert usage is not None
            assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (19, 7, 26)
            assert usage.prompt_tokens_details is not None
            assert usage.prompt_tokens_details.cached_tokens == 5
        assert [asked.prompt for asked in server.asked] == [Prompt("Be brief.", ("Hello.",))] * 2
        assert [asked.max_output_tokens for asked in server.asked] == [99, 99]
        assert server.asked[0].key == "the-key"


def ask_claude(server: ProviderServer, stream: bool = True, timeout_s: float = 5.0) -> object:
    with claude(server).with_options(timeout=timeout_s) as client:
        turns: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello."}]
        if not stream:
            return client.messages.create(model="m", max_tokens=9, messages=turns)
        return list(client.messages.create(model="m", max_tokens=9, messages=turns, stream=True))


def ask_gpt(server: ProviderServer, stream: bool = True, timeout_s: float = 5.0) -> object:
    with gpt(server).with_options(timeout=timeout_s) as client:
        turns: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello."}]
        if not stream:
            return client.chat.completions.create(model="m", messages=turns)
        return list(client.chat.completions.create(model="m", messages=turns, stream=True))


ASKS = pytest.mark.parametrize(
    ("ask", "sdk"), [(ask_claude, anthropic), (ask_gpt, openai)], ids=["anthropic", "openai"]
)
STREAM = pytest.mark.parametrize("stream", [True, False])


@ASKS
@STREAM
def test_errors_are_the_sdks_own(ask, sdk, stream: bool) -> None:  # type: ignore[no-untyped-def]
    fates = [
        replace(LIMITED, retry_after_s=1.5),
        BROKEN,
        Behaviour(status=400, kind="invalid_request_error", message="no"),
    ]
    with ProviderServer(lambda asked: fates[asked.number]) as server:
        with pytest.raises(sdk.RateLimitError) as limited:
            ask(server, stream)
        assert limited.value.response.headers["retry-after"] == "1.5"
        with pytest.raises(sdk.InternalServerError):
            ask(server, stream)
        with pytest.raises(sdk.BadRequestError, match="no"):
            ask(server, stream)


@ASKS
@pytest.mark.parametrize("failure", ["drop", "noise", "cut", "rubbish", "error", "stall"])
def test_failures_are_felt(ask, sdk, failure) -> None:  # type: ignore[no-untyped-def]
    del sdk
    with ProviderServer(lambda _: Behaviour(TEXT, failure=failure)) as server:
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the SDK's affair
            ask(server, timeout_s=0.05 if failure == "stall" else 5.0)
        assert len(server.asked) == 1
        until = time.monotonic() + 5.0
        while server.in_flight and time.monotonic() < until:
            time.sleep(0.005)
        # Who hung up is no longer served.
        assert server.in_flight == 0


@ASKS
def test_a_stream_that_ends_too_early_has_no_end(ask, sdk) -> None:  # type: ignore[no-untyped-def]
    del sdk
    with ProviderServer(lambda _: Behaviour(TEXT, failure="finish")) as server:
        said = ask(server)
    assert said
    assert "end_turn" not in str(said)
    assert "finish_reason='stop'" not in str(said)


def test_refusals() -> None:
    with ProviderServer(lambda _: Behaviour("", end="refusal")) as server:
        assert "'refusal'" in str(ask_claude(server)) and "content_filter" in str(ask_gpt(server))  # noqa: PT018


def test_keys_and_models() -> None:
    with ProviderServer(lambda _: Behaviour("good"), models=["a", "b"], keys=["good-key"]) as server:
        with claude(server, "bad-key") as bad, pytest.raises(anthropic.AuthenticationError):
            bad.models.retrieve("a")
        with claude(server, "good-key") as client, gpt(server, "good-key") as other:
            assert [each.id for each in client.models.list()] == ["a", "b"]
            assert [each.id for each in other.models.list()] == ["a", "b"]
            assert client.models.retrieve("a").id == other.models.retrieve("a").id == "a"
            with pytest.raises(openai.NotFoundError):
                other.models.retrieve("c")
        assert not server.asked


@ASKS
def test_latency_is_the_whole_time_and_a_share_of_it_the_first_byte(ask, sdk) -> None:  # type: ignore[no-untyped-def]
    del sdk
    with ProviderServer(lambda _: Behaviour(TEXT, latency_s=0.2)) as server:
        for stream in (True, False):
            began = time.monotonic()
            ask(server, stream)
            assert 0.2 <= time.monotonic() - began < 5.0


def test_hundreds_of_streams_at_once() -> None:
    """225 of them, all open together."""
    width = 225
    with ProviderServer(lambda asked: Behaviour(TEXT, latency_s=1.0 if asked.number < width else 0.0)) as server:

        async def run() -> list[str]:
            async with anthropic.AsyncAnthropic(base_url=server.url, api_key="any", max_retries=0) as client:

                async def one() -> str:
                    turns: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello."}]
                    async with client.messages.stream(model="m", max_tokens=9, messages=turns) as stream:
                        return await stream.get_final_text()

                return await asyncio.gather(*(one() for _ in range(width)))

        assert asyncio.run(run()) == [TEXT] * width
        assert server.peak > width // 2


def test_it_ends_with_open_streams() -> None:
    with ProviderServer(lambda _: Behaviour(TEXT, failure="stall")) as server:
        client = claude(server)
        turns: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello."}]
        stream = client.messages.create(model="m", max_tokens=9, messages=turns, stream=True)
        next(iter(stream))
    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the SDK's affair
        list(stream)
    client.close()


def asked(words: str, repeat: int = 0, number: int = 0, model: str = "m") -> Asked:
    return Asked("openai", model, Prompt("", (words,)), 10, True, "", number, repeat, 1, ())


@given(st.integers(), st.text(), st.integers(0, 9), st.integers(0, 999), st.integers(0, 999))
def test_chance_is_the_same_in_whatever_order(seed: int, words: str, repeat: int, one: int, other: int) -> None:
    script = seeded(seed, ["a", "b", "c"], Latency(20.0, 0.6), Shares(limited=0.2, cut=0.2))
    assert script(asked(words, repeat, one)) == script(asked(words, repeat, other))


def test_shares_are_kept() -> None:
    shares = Shares(0.1, 0.05, 0.05, 0.1, 0.05, 0.1, 0.15, 0.2)
    script: Script = seeded(1, ["the_code = 1"], Latency(0.1), shares)
    answers = [script(asked("x", repeat)) for repeat in range(4000)]

    def share(found: list[bool]) -> float:
        return sum(found) / len(found)

    assert share([how.status == 429 for how in answers]) == pytest.approx(0.1, abs=0.02)
    assert share([how.status == 503 for how in answers]) == pytest.approx(0.05, abs=0.02)
    for failure, part in (("stall", 0.05), ("cut", 0.1), ("rubbish", 0.05)):
        assert share([how.failure == failure for how in answers]) == pytest.approx(part, abs=0.02)
    assert share([how.end == "refusal" for how in answers]) == pytest.approx(0.1, abs=0.02)
    assert share([how.text == no_code() for how in answers]) == pytest.approx(0.15, abs=0.02)
    assert share([how.text == three_blocks("the_code = 1") for how in answers]) == pytest.approx(0.2, abs=0.02)
    with pytest.raises(ValueError, match="shares"):
        seeded(1, ["x"], Latency(0.1), Shares(0.9, 0.9))


def test_latencies_have_their_mean() -> None:
    draws = random.Random(3)
    wide = [Latency(20.0, 0.6).draw_s(draws) for _ in range(20_000)]
    assert statistics.fmean(wide) == pytest.approx(20.0, rel=0.03)
    assert max(wide) > 60.0 > 5.0 > min(wide)
    assert {Latency(20.0).draw_s(draws) for _ in range(10)} == {20.0}


@pytest.mark.parametrize(
    ("words", "blocks"), [(plain("x = 1"), 1), (prose("x = 1"), 1), (three_blocks("x = 1"), 3), (no_code(), 0)]
)
def test_replies_have_the_blocks_that_they_say(words: str, blocks: int) -> None:
    assert words.count("```") == 2 * blocks
    assert ("x = 1" in words) == (blocks > 0)
