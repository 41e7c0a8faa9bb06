"""What every `Chat` promises."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tilesmith.core.reply import Prompt
from tilesmith.propose.chat import Call, Chat

CALL = Call("a key", ordinal=0, attempt=0, deadline_s=20.0, max_output_tokens=1000)
PROMPT = Prompt("You write kernels.", ("Write one.",))


class ChatConformance:
    """Inherit, and give `chat`, which answers, and `failing`, whose provider does not. Each is made anew for a test,
    and asked in one event loop."""

    @pytest.fixture
    def chat(self) -> Chat:
        raise NotImplementedError

    @pytest.fixture
    def failing(self) -> Chat:
        raise NotImplementedError

    def test_it_answers(self, chat: Chat) -> None:
        async def run() -> None:
            reply = await chat.ask(PROMPT, CALL)
            assert reply.fault is None
            assert reply.text.strip()
            assert (reply.key, reply.model) == (CALL.key, chat.name)
            assert reply.attempts >= 1
            assert 0 <= reply.seconds < CALL.deadline_s
            assert reply.usd is None or reply.usd >= 0
            await chat.close()

        asyncio.run(run())

    def test_its_name_says_who_serves_it(self, chat: Chat) -> None:
        provider, colon, model = chat.name.partition(":")
        assert provider
        assert colon
        assert model

    def test_many_at_once_each_get_their_own(self, chat: Chat) -> None:
        async def run() -> None:
            calls = [replace(CALL, key=f"key {at}", ordinal=at) for at in range(6)]
            replies = await asyncio.gather(*(chat.ask(PROMPT, call) for call in calls))
            assert [reply.key for reply in replies] == [call.key for call in calls]
            assert all(reply.fault is None for reply in replies)
            await chat.close()

        asyncio.run(run())

    def test_a_failure_is_a_reply_and_one_sentence(self, failing: Chat) -> None:
        async def run() -> None:
            reply = await failing.ask(PROMPT, CALL)
            assert reply.fault
            assert "\n" not in reply.fault
            assert "Traceback" not in reply.fault
            assert (reply.key, reply.model) == (CALL.key, failing.name)
            await failing.close()

        asyncio.run(run())

    def test_closing_twice_is_closing_once(self, chat: Chat) -> None:
        async def run() -> None:
            await chat.ask(PROMPT, CALL)
            await chat.close()
            await chat.close()

        asyncio.run(run())


class WaitingChatConformance(ChatConformance):
    """For chats that wait for somebody: give `hanging`, too, whose provider never ends its answer."""

    @pytest.fixture
    def hanging(self) -> Chat:
        raise NotImplementedError

    def test_the_deadline_holds(self, hanging: Chat) -> None:
        async def run() -> None:
            began = time.monotonic()
            reply = await hanging.ask(PROMPT, replace(CALL, deadline_s=0.2))
            assert time.monotonic() - began < 5.0
            assert reply.fault
            assert "0.2 s" in reply.fault
            await hanging.close()

        asyncio.run(run())

    def test_cancellation_passes_through(self, hanging: Chat) -> None:
        async def run() -> None:
            task = asyncio.ensure_future(hanging.ask(PROMPT, CALL))
            await asyncio.sleep(0.1)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # What was cancelled holds no place: the next call is not kept waiting.
            reply = await hanging.ask(PROMPT, replace(CALL, deadline_s=0.2))
            assert reply.attempts == 1
            await hanging.close()

        asyncio.run(run())
