"""Who was busy when: GPUs by their leases, models by their calls, and how long each was idle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.report.chronicle import Chronicle


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds from the beginning of the run."""

    began_s: float
    ended_s: float
    kind: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One GPU, or one model, over the run."""

    name: str
    spans: tuple[Span, ...]
    whole_s: float
    """From the beginning of the run to its last event."""

    @property
    def busy_s(self) -> float:
        """In which at least one span was under way."""
        busy, end = 0.0, -math.inf
        for span in sorted(self.spans, key=lambda span: span.began_s):
            busy += max(0.0, span.ended_s - max(span.began_s, end))
            end = max(end, span.ended_s)
        return busy

    @property
    def idle_s(self) -> float:
        return max(0.0, self.whole_s - self.busy_s)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run."""

    gpus: tuple[Lane, ...]
    judging: Lane | None
    """Candidates under way, where the journal holds no leases."""
    models: tuple[Lane, ...]


def timeline(chronicle: Chronicle) -> Timeline:
    """From what the journal holds: leases, the times at which trials were recorded and replies came."""
    began, whole = chronicle.began_s, max(0.0, chronicle.ended_s - chronicle.began_s)
    gpus: dict[str, list[Span]] = {}
    for trial in (*chronicle.trials, *chronicle.confirmations):
        for lease in trial.leases:
            kind = "timed, alone" if lease.exclusive else "checked, shared"
            gpus.setdefault(f"GPU {lease.device}", []).append(_span(lease.began_s - began, lease.ended_s - began, kind))
    models: dict[str, list[Span]] = {}
    for reply, at_s in zip(chronicle.record.replies, chronicle.reply_times_s, strict=False):
        if reply.attempts:
            kind = "no usable reply" if reply.fault else "call"
            models.setdefault(reply.model, []).append(_span(at_s - reply.seconds - began, at_s - began, kind))
    judging = [
        _span(at_s - trial.cost.wall_s - began, at_s - began, "judging")
        for trial, at_s in zip(chronicle.trials, chronicle.trial_times_s, strict=False)
        if trial.cost.wall_s > 0
    ]
    return Timeline(
        tuple(Lane(name, tuple(spans), whole) for name, spans in sorted(gpus.items())),
        Lane("candidates under way", tuple(judging), whole) if judging and not gpus else None,
        tuple(Lane(name, tuple(spans), whole) for name, spans in models.items()),
    )


def merged(lane: Lane, apart_s: float) -> Sequence[Span]:
    """The spans with those of one kind joined that overlap or lie no further apart: as many as a picture can show."""
    joined: dict[str, list[Span]] = {}
    for span in sorted(lane.spans, key=lambda span: span.began_s):
        row = joined.setdefault(span.kind, [])
        if row and span.began_s - row[-1].ended_s <= apart_s:
            row[-1] = Span(row[-1].began_s, max(row[-1].ended_s, span.ended_s), span.kind)
        else:
            row.append(span)
    return [span for row in joined.values() for span in row]


def _span(began_s: float, ended_s: float, kind: str) -> Span:
    """What was recorded by clocks that differ still lies in the run."""
    return Span(max(0.0, began_s), max(0.0, began_s, ended_s), kind)
