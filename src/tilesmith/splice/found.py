"""What was found for a part: a kernel with its evidence, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilesmith.core.problem import content_id
from tilesmith.core.trial import Timing
from tilesmith.splice.words import micros


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a kernel may stand in for a part."""

    error: float
    """Of the second judgement: scaled, 1 is the limit; the largest of `checks` comparisons."""
    checks: int
    protection: str
    """The walls around it while it was judged."""
    graph: str
    """The hash of the µGraph that its root was lowered from, which the run holds; empty where there is none."""
    bound: float | None
    """How probable it is at most that a wrong µGraph passes verification; None where it was not verified as a whole."""
    lineage: tuple[str, ...]
    """Who proposed its ancestors and itself, from the root."""
    run: str
    """In the journal of the cache folder."""
    machine: str
    estimate_us: float | None = None
    """A roofline model's word, where nothing was measured."""
    measured: Timing | None = None
    """In turns with the baseline."""
    baseline: str = ""
    """What it was timed against: "torch.compile" or "eager", whichever was faster; empty without a GPU."""

    def __str__(self) -> str:
        if self.measured is not None and (gain := self.measured.gain) is not None:
            took, theirs = micros(self.measured.time_us), micros(self.measured.rival_us or 0.0)
            time = (
                f"{gain[0]:.2f} times as fast as {self.baseline} of the same part ({gain[1]:.2f} to {gain[2]:.2f}), "
                f"{took} to {theirs} measured in turns, cold cache"
            )
        else:
            time = f"{micros(self.estimate_us or 0.0)} estimated, not measured, and compared with nothing"
        proved = f"its µGraph {self.graph} is not verified as a whole" if self.graph else "no µGraph behind it"
        if self.bound is not None:
            proved = f"its µGraph {self.graph} verified, a wrong one passes with probability {self.bound:.0e} at most"
        right = f"correct: error {self.error:.3g} where 1 is the limit, largest of {self.checks} comparisons; {proved}"
        return f"{time}\n{right}\nfrom {' > '.join(self.lineage)}, run {self.run}, {self.machine}"


@dataclass(frozen=True, slots=True)
class Found:
    """The answer for one part, as the cache keeps it. Without a source the part stays as it is."""

    reason: str = ""
    """Why there is no kernel."""
    source: str | None = None
    evidence: Evidence | None = None
    order: tuple[int, ...] = ()
    """For each argument of the kernel the canonical number of the part's input."""
    seconds: float = 0.0
    """That the search was given."""
    cached: bool = False
    """Whether it comes from the cache."""

    @property
    def id(self) -> str:
        """Of the kernel."""
        return content_id(self.source or "")

    def from_cache(self) -> Found:
        return replace(self, cached=True)
