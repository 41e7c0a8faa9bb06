"""What may still be spent on models: a call begins only when the most that it can cost is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tilesmith.core.budget import Stop
from tilesmith.core.reply import Reply

EPSILON_USD = 1e-9


class Unpaid(Exception):
    """A budget has no room for a call, and none will come back."""


@dataclass
class Purse:
    """Money and tokens of a run. Belongs to one event loop.

    What calls on their way may cost is held back, so that the limits are never passed; a call that does not fit waits
    for those to end, which as a rule cost less than they might.
    """

    usd: float | None
    tokens: int | None
    spent_usd: float = 0.0
    spent_tokens: int = 0
    empty: Stop | None = None
    """What there was not enough of, the last time."""
    _held_usd: float = 0.0
    _held_tokens: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def paid(self, reply: Reply) -> None:
        """Count a call that is over."""
        self.spent_usd += reply.usd or 0.0
        self.spent_tokens += reply.usage.tokens

    @asynccontextmanager
    async def hold(self, usd: float | None, tokens: int) -> AsyncIterator[None]:
        """Within, this much is held back for one call. Raises `Unpaid` where it can never fit."""
        most = usd or 0.0
        async with self._news:
            while not self._fits(self._held_usd + most, self._held_tokens + tokens):
                if not self._fits(most, tokens):
                    money = self.usd is not None and self.spent_usd + most > self.usd + EPSILON_USD
                    self.empty = Stop.USD if money else Stop.TOKENS
                    raise Unpaid
                await self._news.wait()
            self._held_usd += most
            self._held_tokens += tokens
        try:
            yield
        finally:
            self._held_usd -= most
            self._held_tokens -= tokens
            async with self._news:
                self._news.notify_all()

    def _fits(self, usd: float, tokens: int) -> bool:
        money = self.usd is None or self.spent_usd + usd <= self.usd + EPSILON_USD
        return money and (self.tokens is None or self.spent_tokens + tokens <= self.tokens)
