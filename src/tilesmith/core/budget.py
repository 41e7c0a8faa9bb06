"""How much a run may spend, and why it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tilesmith.core.reply import Reply
from tilesmith.core.trial import Trial


class Stop(Enum):
    """Why a search ended."""

    EXHAUSTED = "no proposer had a new candidate"
    ROUNDS = "the limit on rounds was reached"
    TRIALS = "the limit on trials was reached"
    SECONDS = "the limit on seconds was reached"
    GPU_SECONDS = "the limit on GPU seconds was reached"
    USD = "the limit on money was reached"
    TOKENS = "the limit on tokens was reached"
    PATIENCE = "too many rounds brought nothing faster"
    START = "the start kernel is not correct"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Limits:
    """None means no limit. Seconds count from the start of this process's part of the run."""

    rounds: int | None = None
    trials: int | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    usd: float | None = None
    tokens: int | None = None
    patience: int | None = None
    """Rounds in a row that may bring nothing faster."""

    def reached(self, trials: Sequence[Trial], seconds: float, replies: Sequence[Reply] = ()) -> Stop | None:
        """The limit that these trials, replies, or this many seconds, have reached."""
        if self.trials is not None and len(trials) >= self.trials:
            return Stop.TRIALS
        if self.seconds is not None and seconds >= self.seconds:
            return Stop.SECONDS
        if self.gpu_seconds is not None and sum(t.cost.gpu_s for t in trials) >= self.gpu_seconds:
            return Stop.GPU_SECONDS
        if self.usd is not None and sum(reply.usd or 0.0 for reply in replies) >= self.usd:
            return Stop.USD
        if self.tokens is not None and sum(reply.usage.tokens for reply in replies) >= self.tokens:
            return Stop.TOKENS
        return None
