"""What a language model looks like to everyone who asks one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tilesmith.core.reply import Prompt, Reply


@dataclass(frozen=True, slots=True)
class Call:
    """One question, and how far its answer may go."""

    key: str
    """Of the reply: a resumed run finds it by this."""
    ordinal: int
    """The number of the direction in the run, from 0: recorded replies are chosen by it."""
    attempt: int
    """0 asks for the first reply of the direction, n for its n-th repair."""
    deadline_s: float
    """For everything: the queue, every attempt, the waiting in between."""
    max_output_tokens: int


class Chat(Protocol):
    """One model. Belongs to the event loop in which it is first asked."""

    @property
    def name(self) -> str:
        """ "provider:model"."""
        ...

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        """The model's answer. Never raises for what a provider does: a refusal, a deadline, a cut stream or an
        error is a `Reply` with `fault` and what was spent. Only cancellation passes through."""
        ...

    async def close(self) -> None:
        """Gives up connections. Nothing is asked afterwards; closing twice is closing once."""
        ...
