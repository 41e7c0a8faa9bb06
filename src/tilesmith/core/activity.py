"""What goes on at this moment: where each candidate is on its way through a bench. For who watches; nothing is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["capturing", "queued", "judging", "done"]
"""capturing: its source runs once, and compiles; queued: for a place, or a GPU; judging: checked and timed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate has come to a state."""

    candidate: str
    """Its id."""
    state: State
    origin: str = ""
    """Who proposed it."""
    device: str = ""
    """The GPU that it has a lease of, as `tilesmith.core.trial.Lease` names it."""
    exclusive: bool = False
    """Alone on that GPU, for timing."""


Notice = Callable[[Step], None]
"""Who is told. Any thread may call it; it returns at once and raises nothing."""


def unnoticed(step: Step) -> None:
    """Tells nobody."""
    del step


class Board:
    """A `Notice` that remembers where everyone is. News may come late: who is done is back only when it is captured."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._steps: dict[str, Step] = {}

    def __call__(self, step: Step) -> None:
        with self._turn:
            known = self._steps.pop(step.candidate, None)
            if step.state == "capturing" or (known and step.state != "done"):
                self._steps[step.candidate] = step

    @property
    def steps(self) -> tuple[Step, ...]:
        """Everyone who is under way, in the order of their latest steps."""
        with self._turn:
            return tuple(self._steps.values())
