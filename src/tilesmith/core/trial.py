"""The answers: a candidate, the verdict on it, and the trial that joins them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tilesmith.core.problem import content_id
from tilesmith.core.profile import Launch, Profile

Stage = Literal["admit", "import", "capture", "compile", "launch", "check", "time", "timeout", "crash", "memory"]


@dataclass(frozen=True, slots=True)
class Direction:
    """One way of a round: which parent is to be improved, in what respect, by whom."""

    round: int
    place: int
    """The parent's place in the pool, from 1. Copies of one parent hold several places."""
    rank: int
    """Of the bottleneck that is to be answered: 1 is the worst."""
    model: str
    """ "provider:name"."""
    sample: int
    """Which of the draws from the same prompt, from 1."""

    @property
    def key(self) -> str:
        return f"{self.round}/{self.place}/{self.rank}/{self.model}/{self.sample}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kernel source that claims to solve a problem. Two with the same source are the same candidate."""

    source: str
    origin: str = field(default="user", compare=False)
    """Who proposed it: "start", "rewrite:split_reduction", ..."""
    parent: str | None = field(default=None, compare=False)
    """The id of the candidate that it was made from."""
    direction: Direction | None = field(default=None, compare=False)
    """The way that led to it, where a model wrote it."""
    attempt: int = field(default=0, compare=False)
    """0 for the first candidate of its direction, n for its n-th repair."""

    @property
    def id(self) -> str:
        return content_id(self.source)


@dataclass(frozen=True, slots=True)
class Timing:
    """A measurement on a GPU: the median over samples with a cold cache, and its 95 % interval."""

    time_us: float
    low_us: float
    high_us: float
    samples: int
    rival: str | None = None
    """The candidate that was timed in alternation with this one."""
    rival_us: float | None = None
    """The rival's median in that same run: the ratio of the two is the comparison to trust."""
    rival_low_us: float | None = None
    rival_high_us: float | None = None
    sm_mhz: tuple[int, int] | None = None
    """The lowest and highest clock of the multiprocessors between blocks; None where the driver does not tell."""
    throttled: tuple[str, ...] = ()
    """Why the clock was held down meanwhile."""
    repeats: int = 0
    """How often the measurement was made anew because its interval was too wide."""

    @property
    def gain(self) -> tuple[float, float, float] | None:
        """How many times as fast as the rival: by the medians, and the least and most that the intervals allow."""
        if self.rival_us is None or self.rival_low_us is None or self.rival_high_us is None:
            return None
        return self.rival_us / self.time_us, self.rival_low_us / self.high_us, self.rival_high_us / self.low_us


@dataclass(frozen=True, slots=True)
class Estimate:
    """A model's word, never a measurement."""

    estimate_us: float


@dataclass(frozen=True, slots=True)
class Correct:
    """Its numbers were checked. `error` is scaled: 1 is the limit."""

    time: Timing | Estimate
    error: float
    """The largest of all comparisons."""
    checks: int = 1
    """How many answers were compared, each to other inputs or of another launch."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """It ran, and its numbers, shapes or dtypes are not the reference's. `error` None where it is no number."""

    message: str
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It breaks the contract of a candidate."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not get as far as numbers."""

    stage: Stage
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It compiles to what another candidate compiles to, which was judged before."""

    of: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """It compiled, but nothing on this machine can check its numbers."""

    message: str
    time: Estimate | None = None


Verdict = Correct | Wrong | Rejected | Failed | Duplicate | Unchecked


@dataclass(frozen=True, slots=True)
class Cost:
    """What judging took, in seconds."""

    wall_s: float = 0.0
    gpu_s: float = 0.0
    """Under an exclusive lease of a GPU."""
    measured_s: float = 0.0
    """The part of `gpu_s` in which timed launches ran."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A GPU that was held for one candidate. Times are seconds since 1970, UTC, by the clock of its host."""

    device: str
    """Which one, of those that the run used: "0", or "node-3/0" where there are several hosts."""
    began_s: float
    ended_s: float
    exclusive: bool
    """Alone, for timing; else shared with other candidates, for checks."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a verdict was reached."""

    bench: str
    target: str
    gpu: str | None
    driver: str | None
    torch: str
    triton: str
    python: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate and its verdict, with the evidence. Never changes once recorded."""

    candidate: Candidate
    verdict: Verdict
    fingerprint: str | None = None
    launches: tuple[Launch, ...] = ()
    profile: Profile | None = None
    cost: Cost = field(default_factory=Cost)
    environment: Environment | None = None
    protection: str = "none"
    """The walls that stood around the candidate while it ran."""
    round: int = 0
    confirmed: bool = False
    """Whether this is a finalist's second, harder judgement."""
    evidence: tuple[str, ...] = ()
    """What else was tried or found beside the numbers, in words: a sanitizer's answer, kernels of a library."""
    leases: tuple[Lease, ...] = ()
    """Of GPUs, while it was judged, in order."""

    @property
    def time_us(self) -> float | None:
        """Measured or estimated, as the verdict says; None for what is not correct."""
        if not isinstance(self.verdict, Correct):
            return None
        time = self.verdict.time
        return time.time_us if isinstance(time, Timing) else time.estimate_us
