"""A run as its report needs it: everything that the journal holds of it, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilesmith.core.facts import Analysis, Profiled
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Trial
from tilesmith.report.record import RunRecord


@dataclass(frozen=True, slots=True)
class Drawing:
    """A µGraph of the run."""

    name: str
    svg: str
    """A picture that stands alone."""
    words: str
    """The same as text, for who cannot see it."""
    trial: int | None = None
    """The number of the trial whose kernels were written from it."""


@dataclass(frozen=True, slots=True)
class Chronicle:
    """Times are seconds since 1970, UTC."""

    record: RunRecord
    problem: Problem
    began_s: float
    live: bool
    """Whether a process is writing it now."""
    revision: int
    """Grows with everything that is recorded of the run."""
    version: str
    """Of the Tilesmith that tells of it."""
    journal: str
    """The file's name."""
    trial_times_s: Sequence[float] = ()
    """When each trial was recorded."""
    reply_times_s: Sequence[float] = ()
    """When each reply came."""
    numbers: Sequence[int] = ()
    """Of the trials in `record`, ascending, where those are not all: the run had too many to tell of."""
    whole: int = 0
    """How many the run had, where that is more."""
    settings: Sequence[tuple[str, str]] = ()
    """What the run was started with, name and value."""
    again: Sequence[tuple[str, str]] = ()
    """Commands that come to the same, and what each does."""
    confirmations: Sequence[Trial] = ()
    analyses: Sequence[Analysis] = ()
    profiled: Sequence[Profiled] = ()
    techniques: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By candidate, of correct trials."""
    drawings: Sequence[Drawing] = ()

    @property
    def trials(self) -> Sequence[Trial]:
        return self.record.trials

    @property
    def ended_s(self) -> float:
        """When the last thing of it was recorded, as far as it has a time."""
        return max([self.began_s, *self.trial_times_s, *self.reply_times_s, *_leased(self)])

    def numbered(self) -> list[tuple[int, Trial]]:
        """The trials with their numbers, which count from 1 in the order of recording."""
        return list(zip(self.numbers or range(1, len(self.trials) + 1), self.trials, strict=True))

    def profiles(self) -> Mapping[int, Profile]:
        """By trial, where there is one: by hardware counters where they were asked, else the estimate."""
        counted = {fact.key.partition("/")[0]: fact.profile for fact in self.profiled if fact.profile}
        found = {}
        for number, trial in self.numbered():
            if profile := counted.get(trial.fingerprint or "") or trial.profile:
                found[number] = profile
        return found


def _leased(chronicle: Chronicle) -> list[float]:
    return [lease.ended_s for trial in (*chronicle.trials, *chronicle.confirmations) for lease in trial.leases]
