"""What is learnt on the way, beside trials: each is recorded once, found again by its key, and never changed.

A run's own replies make it resumable. Analyses, profiles and classifications are about compiled code, so that every
later run in the same journal finds them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilesmith.core.profile import Limiter, Profile
from tilesmith.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One thing that holds a kernel back, and what to do about it."""

    limiter: Limiter
    cause: str
    """One sentence, with the numbers that show it."""
    advice: str
    """One sentence."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A kernel's bottlenecks, the worst first."""

    key: str
    """The fingerprint, the GPU, and who looked at what."""
    analyst: str
    """ "rules", or the model's name."""
    bottlenecks: tuple[Bottleneck, ...]


@dataclass(frozen=True, slots=True)
class Profiled:
    """What the hardware counters said of one fingerprint on one GPU."""

    key: str
    profile: Profile | None
    message: str | None = None
    """Why there is no profile."""


@dataclass(frozen=True, slots=True)
class TechniqueVector:
    """The techniques that a kernel uses, by name."""

    key: str
    """The fingerprint, the taxonomy's content and the classifier: an edit of any asks again."""
    classifier: str
    """ "compiled", or the model's name."""
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ending:
    """How one direction of a round ended."""

    key: str
    """The direction's."""
    outcome: Literal["judged", "no code", "no reply", "known", "late", "unpaid"]
    """judged: its last candidate has a verdict; no code: no reply held one code block; no reply: the model failed;
    known: it wrote what was judged before; late: the round's deadline passed; unpaid: a budget was spent."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Derivation:
    """The µGraph that a candidate was made from."""

    key: str
    """The candidate's id."""
    graph: str
    """The µGraph as a line of JSON, in the form of docs/ugraph.schema.json."""
    graph_hash: str
    note: str
    """How its kernels are tiled and launched, in a line."""
    estimate_us: float
    """The lowering's own, by which it ranked what it made of one graph; never a time."""


Fact = Reply | Analysis | Profiled | TechniqueVector | Ending | Derivation
