"""The OpenAI Chat Completions protocol, through the official SDK: the service itself and all that are compatible."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

from tilesmith.core.reply import Prompt, Usage
from tilesmith.propose.chat.book import OutputLimit
from tilesmith.propose.chat.http import connection_fault, status_fault, stream_fault
from tilesmith.propose.chat.wire import End, Fault, Piece

ENDS: dict[str, End] = {"length": "length", "content_filter": "refusal"}


class _Broken(Exception):
    """The provider's own words inside of a stream that began well."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Completions:
    """A wire to a server of this protocol."""

    def __init__(self, base_url: str, key: str | None, idle_s: float, output_limit: OutputLimit) -> None:
        # One number bounds connecting and every silence between two bytes, keep-alive comments included. Retries are
        # ours: the SDK's know no total deadline.
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=key or "none", timeout=idle_s, max_retries=0)
        # The SDK reads these of the environment; they are of one service and go to every server.
        if "api.openai.com" not in base_url:
            self._client.organization = None
            self._client.project = None
        self._output_limit = output_limit

    async def stream(self, model: str, prompt: Prompt, max_output_tokens: int) -> AsyncGenerator[Piece, None]:
        turns: list[ChatCompletionMessageParam] = []
        if prompt.system:
            turns.append({"role": "system", "content": prompt.system})
        for place, turn in enumerate(prompt.turns):
            turns.append({"role": "assistant", "content": turn} if place % 2 else {"role": "user", "content": turn})
        longer = self._output_limit == "max_completion_tokens"
        asking = self._client.chat.completions.with_streaming_response.create(
            model=model,
            messages=turns,
            max_completion_tokens=max_output_tokens if longer else openai.omit,
            max_tokens=openai.omit if longer else max_output_tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with asking as response:
            # Not read by the SDK, which takes 0.1 ms of this thread for every event, and an event is often one token.
            async for line in response.iter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    return
                if data:
                    yield _piece(json.loads(data))

    def fault(self, error: Exception, begun: bool) -> Fault:
        if isinstance(error, openai.APIStatusError):
            kind = error.code or error.type or ""
            return status_fault(error.status_code, kind, _message(error), error.response.headers)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return stream_fault(cause) if begun else connection_fault(cause)
        if isinstance(error, _Broken):
            return status_fault(200, error.kind, str(error), {})
        return stream_fault(error)

    async def offers(self, model: str) -> Sequence[str] | None:
        # Compatible servers often have the list only.
        try:
            await self._client.models.retrieve(model)
        except (openai.NotFoundError, openai.APIResponseValidationError):
            pass
        else:
            return None
        try:
            offered = [each.id async for each in self._client.models.list()]
        except openai.APIStatusError:
            return None
        return offered if offered and model not in offered else None

    async def close(self) -> None:
        await self._client.close()


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return said if isinstance(said, str) else error.message


def _piece(said: dict[str, Any]) -> Piece:
    """What one event brings."""
    if fault := said.get("error"):
        known = fault if isinstance(fault, dict) else {"message": fault}
        raise _Broken(str(known.get("code") or known.get("type") or ""), str(known.get("message") or fault))
    text, thought, refusal = "", "", ""
    end: End | None = None
    for choice in said.get("choices") or ():
        delta = choice.get("delta") or {}
        text += delta.get("content") or ""
        # Not of the protocol: servers that show what a model thinks call it one or the other.
        thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
        refusal += delta.get("refusal") or ""
        if finish := choice.get("finish_reason"):
            end = ENDS.get(finish, "done")
    usage = said.get("usage")
    return Piece(text, thought, _usage(usage) if usage else None, end, refusal)


def _usage(said: dict[str, Any]) -> Usage:
    """Theirs counts cached tokens among those of the prompt, and some leave thinking out of the completion."""

    def count(table: dict[str, Any], name: str) -> int:
        return max(0, int(table.get(name) or 0))

    details = said.get("prompt_tokens_details") or {}
    prompt, total = count(said, "prompt_tokens"), count(said, "total_tokens")
    read = min(count(details, "cached_tokens"), prompt)
    written = min(count(details, "cache_write_tokens"), prompt - read)
    return Usage(prompt - read - written, max(count(said, "completion_tokens"), total - prompt), read, written)
