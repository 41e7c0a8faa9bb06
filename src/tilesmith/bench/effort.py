"""How far judging goes: deadlines, input sets, memory. One value for both benches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Every deadline ends the one candidate that misses it."""

    capture_s: float = 120.0
    """Import, one call with fake tensors, and compilation of every kernel and configuration."""
    open_s: float = 60.0
    """Import on a GPU."""
    check_s: float = 120.0
    """All input sets: at the small shapes through the interpreter, or on a GPU."""
    full_s: float = 60.0
    """All input sets at the full shapes through the interpreter."""
    sanitize_s: float = 120.0
    """Each tool of compute-sanitizer, under which a finalist takes ten to a thousand times as long; 0 leaves it out."""
    time_s: float = 60.0
    """One block of timed launches."""
    sets: int = 6
    """Input sets at most."""
    full_bytes: int = 1 << 30
    """Without a GPU, inputs and outputs larger than this are not made."""
    gpu_share: float = 0.3
    """Of a GPU's free memory, for inputs and expected outputs."""
    candidate_share: float = 0.2
    """Of a GPU's memory, for what one candidate allocates there."""
    memory_bytes: int = 16 << 30
    """Address space of a candidate's process without a GPU."""
