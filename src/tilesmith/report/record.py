"""Runs of a journal, as the report reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.budget import Stop
from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply
from tilesmith.core.trial import Trial
from tilesmith.report.spending import Spending, spending


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All of one run: `stops` holds one reason for each time that it ended, in order."""

    run: str
    problem: str
    trials: Sequence[Trial]
    stops: Sequence[Stop]
    replies: Sequence[Reply] = ()
    endings: Sequence[Ending] = ()

    @property
    def stop(self) -> Stop | None:
        """Why it ended last; None where it never did."""
        return self.stops[-1] if self.stops else None

    @property
    def spending(self) -> Spending:
        """What models cost."""
        return spending(self.trials, self.replies, self.endings)


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run among others."""

    run: str
    problem: str
    trials: int
    best: Trial | None
    stop: Stop | None
    """None while it goes on, and where it was killed."""
    live: bool
    """Whether a process is writing it now."""
    usd: float = 0.0
    """For models, as far as prices are known."""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Agreed:
    """How often two classifiers said the same of one technique: a model, and the one that reads compiled code."""

    technique: str
    both: int
    """Kernels in which both see it."""
    neither: int
    only_compiled: int
    only_model: int

    @property
    def kernels(self) -> int:
        return self.both + self.neither + self.only_compiled + self.only_model

    @property
    def share(self) -> float | None:
        """Of the kernels on which they agree, 0 to 1; None where there is none."""
        return (self.both + self.neither) / self.kernels if self.kernels else None
