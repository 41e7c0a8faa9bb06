"""The OpenAI Chat Completions protocol, through the official SDK: the service itself and all that are compatible."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.completion_usage import CompletionUsage

from tilesmith.core.reply import Prompt, Usage
from tilesmith.propose.chat.book import OutputLimit
from tilesmith.propose.chat.http import connection_fault, status_fault, stream_fault
from tilesmith.propose.chat.wire import End, Fault, Piece

ENDS: dict[str, End] = {"length": "length", "content_filter": "refusal"}


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
        chunks = await self._client.chat.completions.create(
            model=model,
            messages=turns,
            max_completion_tokens=max_output_tokens if longer else openai.omit,
            max_tokens=openai.omit if longer else max_output_tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        refusal = ""
        async with chunks:
            async for chunk in chunks:
                if chunk.usage is not None:
                    yield Piece(usage=_usage(chunk.usage))
                for choice in chunk.choices or ():
                    refusal += choice.delta.refusal or ""
                    # Servers that show what a model thinks do so under a name that the SDK does not know.
                    thought = getattr(choice.delta, "reasoning_content", None) or ""
                    end = ENDS.get(choice.finish_reason, "done") if choice.finish_reason else None
                    yield Piece(
                        choice.delta.content or "",
                        str(thought),
                        end="refusal" if end and refusal else end,
                        words=refusal,
                    )

    def fault(self, error: Exception, begun: bool) -> Fault:
        if isinstance(error, openai.APIStatusError):
            kind = error.code or error.type or ""
            return status_fault(error.status_code, kind, _message(error), error.response.headers)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return stream_fault(cause) if begun else connection_fault(cause)
        if isinstance(error, openai.APIError):
            # The provider's own words inside of a stream that began well.
            return status_fault(200, error.code or error.type or "", error.message, {})
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


def _usage(said: CompletionUsage) -> Usage:
    """Theirs counts cached tokens among those of the prompt, and some leave thinking out of the completion."""
    details = said.prompt_tokens_details
    read = (details.cached_tokens or 0) if details is not None else 0
    written = (getattr(details, "cache_write_tokens", None) or 0) if details is not None else 0
    prompt, completion, total = said.prompt_tokens or 0, said.completion_tokens or 0, said.total_tokens or 0
    read = min(read, prompt)
    written = min(written, prompt - read)
    return Usage(prompt - read - written, max(completion, total - prompt), read, written)
