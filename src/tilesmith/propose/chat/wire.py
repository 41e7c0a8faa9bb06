"""One attempt at one provider, in the words of its protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tilesmith.core.reply import Prompt, Usage

End = Literal["done", "length", "refusal"]
"""Why a stream ended: the model had said all, it was cut at the most output tokens, it would not answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream brings."""

    text: str = ""
    thought: str = ""
    """What the model thinks aloud: paid for, and no part of the reply."""
    usage: Usage | None = None
    """Of the whole call so far, as the provider counts."""
    end: End | None = None
    refusal: str = ""
    """Why the model will not answer, in its own words or the provider's."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed."""

    message: str
    """One clause, to stand after the model's name."""
    passing: bool = False
    """Whether the same may work a little later."""
    after_s: float | None = None
    """How long the provider asks to wait."""
    status: int = 0
    """Of HTTP; 0 where there was no answer, or a good one at first."""


class Wire(Protocol):
    """A connection to one provider, shared by its models."""

    def stream(self, model: str, prompt: Prompt, max_output_tokens: int) -> AsyncGenerator[Piece, None]:
        """One attempt. Raises what `fault` understands."""
        ...

    def fault(self, error: Exception, begun: bool) -> Fault:
        """What went wrong, from whatever `stream` or `offers` raised; `begun`: whether any piece had come."""
        ...

    async def offers(self, model: str) -> Sequence[str] | None:
        """None where the provider has the model or cannot tell; the names of those it has where it lacks this one."""
        ...

    async def close(self) -> None: ...
