"""Why candidates were turned down, grouped: the same sentence with other figures in it is the same cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.trial import Failed, Trial
from tilesmith.report.words import VERDICTS, VerdictName, clipped, verdict_message, verdict_name

WIDTH = 120
_FIGURE = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{12,}\b|(?<![A-Za-z_])[-+]?\d[\d.,]*(?:e[-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Cause:
    """One verdict for one reason."""

    verdict: VerdictName
    stage: str
    """Where it failed; empty for other verdicts."""
    words: str
    """The reason as it stood first."""
    trials: tuple[int, ...]
    """Their numbers."""


def causes(numbered: Sequence[tuple[int, Trial]]) -> tuple[Cause, ...]:
    """By verdict in their usual order, then the most frequent first."""
    found: dict[tuple[VerdictName, str, str], list[int]] = {}
    words: dict[tuple[VerdictName, str, str], str] = {}
    for number, trial in numbered:
        name = verdict_name(trial.verdict)
        stage = trial.verdict.stage if isinstance(trial.verdict, Failed) else ""
        # Whose duplicate it is tells apart what is one cause.
        told = "" if name == "duplicate" else clipped(verdict_message(trial.verdict) or "", WIDTH)
        key = (name, stage, _FIGURE.sub("#", told))
        words.setdefault(key, "compiles to what was judged before" if name == "duplicate" else told)
        found.setdefault(key, []).append(number)
    ranked = sorted(found.items(), key=lambda item: (VERDICTS.index(item[0][0]), -len(item[1]), item[1][0]))
    return tuple(Cause(key[0], key[1], words[key], tuple(numbers)) for key, numbers in ranked)
