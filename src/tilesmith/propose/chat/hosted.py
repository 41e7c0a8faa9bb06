"""A model behind a provider's HTTP interface: the queue, the attempts, the deadline, the bill."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass, field

from tilesmith.core.reply import Prompt, Reply, Usage
from tilesmith.propose.chat import tokens
from tilesmith.propose.chat.book import Price
from tilesmith.propose.chat.lane import Lane
from tilesmith.propose.chat.seam import Call
from tilesmith.propose.chat.wire import End, Fault, Wire
from tilesmith.propose.chat.words import NONE, REAL_SECRET, Secrets, sentence

TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Retry:
    """How attempts follow each other: exponential back-off with full jitter (AWS Architecture Blog, "Exponential
    Backoff And Jitter", 2015)."""

    attempts: int = 8
    """Of which the last that fails is the end. Those that only met a limit of the provider do not count: waiting is
    what it asks for, and the deadline bounds that."""
    base_s: float = 0.5
    cap_s: float = 30.0

    def wait_s(self, failed: int, fault: Fault, draw: float) -> float:
        """How long to wait after so many failed attempts; `draw` is uniform on [0, 1).

        A provider that says how long is waited for that long, and the jitter comes on top: everyone was told the same.
        """
        jitter = draw * min(self.cap_s, self.base_s * 2.0 ** min(failed - 1, 32))
        return jitter if fault.after_s is None else fault.after_s + jitter


@dataclass(slots=True)
class _Record:
    """What is known of a call so far; it outlives cancellation by the deadline."""

    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    usage: Usage | None = None
    end: End | None = None
    refusals: list[str] = field(default_factory=list)
    attempts: int = 0
    began_s: float | None = None
    streaming: bool = False

    def spent(self, prompt: Prompt) -> Usage:
        """As the provider counted; where it did not get to the end of its counting, a guess at what it had sent."""
        if not self.streaming:
            return Usage()
        sent = tokens.about("".join(self.parts)) + tokens.about("".join(self.thoughts))
        if self.usage is None or not self.usage.tokens:
            return Usage(tokens.of_prompt(prompt), sent)
        if self.end is None and self.usage.output_tokens < sent:
            said = self.usage
            return Usage(said.input_tokens, sent, said.cache_read_tokens, said.cache_write_tokens)
        return self.usage


class HostedChat:
    """One model of a provider that is reached through a `Wire`."""

    def __init__(
        self,
        name: str,
        wire: Wire,
        lane: Lane,
        price: Price | None,
        retry: Retry,
        secrets: Secrets = NONE,
    ) -> None:
        self.name = name
        self._model = name.partition(":")[2]
        self._wire = wire
        self._lane = lane
        self._price = price
        self._retry = retry
        self._secrets = secrets
        self._draws = random.Random()

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        record = _Record()
        estimate = tokens.of_prompt(prompt) + call.max_output_tokens
        fault: str | None
        deadline = time.monotonic() + call.deadline_s
        try:
            async with asyncio.timeout(call.deadline_s) as limit, self._lane.slot(estimate):
                try:
                    fault = await self._attempts(prompt, call, record, deadline)
                finally:
                    self._lane.settle(estimate, record.spent(prompt).tokens)
        except TimeoutError:
            if not limit.expired():
                raise
            fault = f"there was no answer within {call.deadline_s:g} s" + (
                "" if record.attempts else ", all of them spent in the queue of calls to the provider"
            )
        return self._reply(prompt, call, record, fault)

    async def _attempts(self, prompt: Prompt, call: Call, record: _Record, deadline: float) -> str | None:
        record.began_s = time.monotonic()
        broken = 0
        while True:
            record.attempts += 1
            fault = await self._attempt(prompt, call, record)
            if fault is None:
                return None
            if record.streaming or not fault.passing:
                return fault.message
            wait_s = self._retry.wait_s(record.attempts, fault, self._draws.random())
            tried = f"{fault.message}, {record.attempts} times" if record.attempts > 1 else fault.message
            broken += fault.status != TOO_MANY
            if broken >= self._retry.attempts:
                return tried
            if time.monotonic() + wait_s >= deadline:
                return f"{tried}, and the deadline of {call.deadline_s:g} s leaves no time for another attempt"
            await asyncio.sleep(wait_s)

    async def _attempt(self, prompt: Prompt, call: Call, record: _Record) -> Fault | None:
        try:
            async with aclosing(self._wire.stream(self._model, prompt, call.max_output_tokens)) as pieces:
                async for piece in pieces:
                    record.streaming = True
                    record.parts.append(piece.text)
                    record.thoughts.append(piece.thought)
                    record.usage = piece.usage or record.usage
                    record.end = piece.end or record.end
                    record.refusals.append(piece.refusal)
        except Exception as error:
            # The border to another machine: whatever an SDK makes of what comes from there is the provider's fault,
            # and none any more once the reply was complete.
            if record.end is None:
                return self._wire.fault(error, record.streaming)
        if record.end is None:
            return Fault("the provider's stream ended before the reply did")
        refusal = "".join(record.refusals)
        if refusal or record.end == "refusal":
            return Fault(f"the model refused: {refusal}" if refusal else "the model refused to answer")
        if record.end == "length":
            return Fault(f"the reply was cut off at {call.max_output_tokens} tokens; allow more of them")
        if not "".join(record.parts).strip():
            return Fault("the reply was empty")
        return None

    def _reply(self, prompt: Prompt, call: Call, record: _Record, fault: str | None) -> Reply:
        usage = record.spent(prompt)
        usd = self._price.usd(usage) if self._price is not None else None if usage.tokens else 0.0
        return Reply(
            call.key,
            self.name,
            self._secrets.scrubbed("".join(record.parts), REAL_SECRET),
            usage,
            usd,
            0.0 if record.began_s is None else time.monotonic() - record.began_s,
            record.attempts,
            None if fault is None else sentence(self._secrets.scrubbed(fault)),
        )

    async def close(self) -> None:
        """Of all models of the provider: they share its connections."""
        await self._wire.close()
