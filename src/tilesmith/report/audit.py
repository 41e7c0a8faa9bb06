"""What an audit found, case by case, and what it comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One case and the verdict that it got."""

    file: str
    kind: str
    honest: bool
    verdict: str
    defence: str
    """The verdict with its stage: what stopped it."""
    message: str | None
    told: bool
    """Whether this machine can tell at all; some tricks show only on a GPU, others only without."""
    right: bool
    protection: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The findings, counted."""

    findings: tuple[Finding, ...]

    @property
    def cheats(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.told and not finding.honest)

    @property
    def honest(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.told and finding.honest)

    @property
    def accepted(self) -> tuple[Finding, ...]:
        """Cheats that got a verdict other than they must."""
        return tuple(finding for finding in self.cheats if not finding.right)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Honest kernels that were."""
        return tuple(finding for finding in self.honest if not finding.right)

    @property
    def untold(self) -> tuple[Finding, ...]:
        """What only another kind of bench can tell."""
        return tuple(finding for finding in self.findings if not finding.told)

    @property
    def defences(self) -> Counter[str]:
        """How many cheats each kind of verdict stopped."""
        return Counter(finding.defence for finding in self.cheats if finding.right)

    @property
    def classes(self) -> int:
        return len({finding.kind for finding in self.cheats})

    @property
    def walls(self) -> tuple[str, ...]:
        """What stood around candidates, every combination that was seen."""
        return tuple(sorted({finding.protection for finding in self.findings if finding.protection != "none"}))
