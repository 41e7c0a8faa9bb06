"""Runs of a journal, as the report reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.budget import Stop
from tilesmith.core.trial import Trial


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All of one run: `stops` holds one reason for each time that it ended, in order."""

    run: str
    problem: str
    trials: Sequence[Trial]
    stops: Sequence[Stop]


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
