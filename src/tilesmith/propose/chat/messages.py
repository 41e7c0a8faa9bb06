"""The Anthropic Messages protocol, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import anthropic
from anthropic.types import MessageParam

from tilesmith.core.reply import Prompt, Usage
from tilesmith.propose.chat.http import connection_fault, status_fault, stream_fault
from tilesmith.propose.chat.wire import End, Fault, Piece

ENDS: dict[str, End] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class Messages:
    """A wire to a server of this protocol."""

    def __init__(self, base_url: str, key: str | None, idle_s: float) -> None:
        # One number bounds connecting and every silence between two bytes, keep-alive events included. Retries are
        # ours: the SDK's know no total deadline.
        self._client = anthropic.AsyncAnthropic(base_url=base_url, api_key=key or "none", timeout=idle_s, max_retries=0)

    async def stream(self, model: str, prompt: Prompt, max_output_tokens: int) -> AsyncGenerator[Piece, None]:
        turns: list[MessageParam] = [
            {"role": "assistant", "content": turn} if place % 2 else {"role": "user", "content": turn}
            for place, turn in enumerate(prompt.turns)
        ]
        usage = Usage()
        events = await self._client.messages.create(
            model=model,
            max_tokens=max_output_tokens,
            messages=turns,
            system=prompt.system or anthropic.omit,
            stream=True,
        )
        async with events:
            async for event in events:
                if event.type == "message_start":
                    said = event.message.usage
                    usage = Usage(
                        said.input_tokens or 0,
                        said.output_tokens or 0,
                        said.cache_read_input_tokens or 0,
                        said.cache_creation_input_tokens or 0,
                    )
                    yield Piece(usage=usage)
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield Piece(event.delta.text)
                elif event.type == "content_block_delta" and event.delta.type == "thinking_delta":
                    yield Piece(thought=event.delta.thinking)
                elif event.type == "message_delta":
                    sums = event.usage
                    usage = Usage(
                        usage.input_tokens if sums.input_tokens is None else sums.input_tokens,
                        sums.output_tokens or 0,
                        usage.cache_read_tokens
                        if sums.cache_read_input_tokens is None
                        else sums.cache_read_input_tokens,
                        usage.cache_write_tokens
                        if sums.cache_creation_input_tokens is None
                        else sums.cache_creation_input_tokens,
                    )
                    reason = event.delta.stop_reason
                    details = event.delta.stop_details
                    refusal = (details.explanation or "") if details is not None else ""
                    yield Piece(usage=usage, end=ENDS.get(reason, "done") if reason else None, refusal=refusal)

    def fault(self, error: Exception, begun: bool) -> Fault:
        if isinstance(error, anthropic.APIStatusError):
            return status_fault(
                error.status_code, str(error.type or ""), error.api_message or error.message, error.response.headers
            )
        if isinstance(error, anthropic.APIConnectionError):
            cause = error.__cause__ or error
            return stream_fault(cause) if begun else connection_fault(cause)
        return stream_fault(error)

    async def offers(self, model: str) -> Sequence[str] | None:
        try:
            await self._client.models.retrieve(model)
        except anthropic.NotFoundError:
            pass
        else:
            return None
        try:
            offered = [each.id async for each in self._client.models.list()]
        except (anthropic.NotFoundError, anthropic.APIStatusError):
            return None
        return offered if offered and model not in offered else None

    async def close(self) -> None:
        await self._client.close()
