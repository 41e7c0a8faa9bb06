"""How much a run may spend, and why it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tilesmith.core.trial import Trial


class Stop(Enum):
    """Why a search ended."""

    EXHAUSTED = "no proposer had a new candidate"
    ROUNDS = "the limit on rounds was reached"
    TRIALS = "the limit on trials was reached"
    SECONDS = "the limit on seconds was reached"
    GPU_SECONDS = "the limit on GPU seconds was reached"
    START = "the start kernel is not correct"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Limits:
    """None means no limit. Seconds count from the start of this process's part of the run."""

    rounds: int | None = None
    trials: int | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None

    def reached(self, trials: Sequence[Trial], seconds: float) -> Stop | None:
        """The limit that these trials, or this many seconds, have reached."""
        if self.trials is not None and len(trials) >= self.trials:
            return Stop.TRIALS
        if self.seconds is not None and seconds >= self.seconds:
            return Stop.SECONDS
        if self.gpu_seconds is not None and sum(t.cost.gpu_s for t in trials) >= self.gpu_seconds:
            return Stop.GPU_SECONDS
        return None
