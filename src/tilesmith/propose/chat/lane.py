"""The way to one provider: how many calls at once, and how many tokens a minute, over all of its models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket at one moment. It holds a minute's worth at most, so no minute gets more than two.

    Pure: who holds it passes the time, in seconds of any clock that never goes back.
    """

    per_minute: float
    level: float
    """Negative where calls took more than was estimated."""
    at_s: float

    def by(self, now_s: float) -> Bucket:
        """The bucket later on."""
        gained = max(0.0, now_s - self.at_s) * self.per_minute / 60.0
        return replace(self, level=min(self.per_minute, self.level + gained), at_s=max(now_s, self.at_s))

    def wait_s(self, tokens: float) -> float:
        """How long until so many can be taken. What is more than a full bucket waits for a full one."""
        short = min(tokens, self.per_minute) - self.level
        return max(0.0, short * 60.0 / self.per_minute)

    def less(self, tokens: float) -> Bucket:
        """After so many were taken, or with a negative number given back."""
        return replace(self, level=min(self.per_minute, self.level - tokens))


class Lane:
    """Queues calls to one provider, the first come first. Belongs to one event loop."""

    def __init__(self, concurrent: int, tokens_per_minute: int | None = None) -> None:
        self._slots = asyncio.Semaphore(concurrent)
        self._turn = asyncio.Lock()
        self._refund = asyncio.Event()
        start = None if tokens_per_minute is None else float(tokens_per_minute)
        self._bucket = None if start is None else Bucket(start, start, time.monotonic())

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """A place among the calls in flight, with an estimate of its tokens already taken."""
        async with self._slots:
            await self._take(tokens)
            yield

    def settle(self, estimated: int, used: int) -> None:
        """What a call really took, after its slot was granted with an estimate."""
        if self._bucket is not None:
            self._bucket = self._bucket.by(time.monotonic()).less(used - estimated)
            self._refund.set()

    async def _take(self, tokens: int) -> None:
        if self._bucket is None:
            return
        async with self._turn:
            while wait_s := (bucket := self._bucket.by(time.monotonic())).wait_s(tokens):
                self._refund.clear()
                try:
                    # Rounding can leave a wait too short for the clock to notice.
                    await asyncio.wait_for(self._refund.wait(), max(wait_s, 0.001))
                except TimeoutError:
                    continue
            self._bucket = bucket.less(tokens)
