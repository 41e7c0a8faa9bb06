"""What a user chose of how a module is compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.splice.cache import default_folder


@dataclass(frozen=True, slots=True)
class Options:
    """Raises `OptionError` for a value that cannot be used."""

    budget_seconds: float = 120.0
    """For the searches of one captured graph, all parts together; what the cache holds costs nothing of it."""
    largest: int = 6
    """Operators of a part at most, unless one call of PyTorch has more."""
    estimates: bool = False
    """Without a GPU: accept what is correct on an estimate of its time, and interpret it. For tests."""
    target: str | None = None
    """The GPU that estimates are for; None takes the H200."""
    rest: str = "eager"
    """The backend of torch.compile that gets the graph with the kernels in it."""
    seed: int = 0
    cache: Path | None = None
    """The folder of the cache; None takes `TILESMITH_CACHE`, or else the platform's."""

    def __post_init__(self) -> None:
        if not (_number(self.budget_seconds) and 0 < self.budget_seconds < math.inf):
            raise OptionError(f"budget_seconds is {self.budget_seconds!r}; it must be a number above 0.")
        if not isinstance(self.largest, int) or isinstance(self.largest, bool) or self.largest < 1:
            raise OptionError(f"largest is {self.largest!r}; it must be a whole number of at least 1.")
        if not isinstance(self.estimates, bool):
            raise OptionError(f"estimates is {self.estimates!r}; it must be True or False.")
        if not isinstance(self.rest, str) or not self.rest or self.rest == "tilesmith":
            raise OptionError(f"rest is {self.rest!r}; it must name another backend, such as eager or inductor.")
        if not isinstance(self.seed, int):
            raise OptionError(f"seed is {self.seed!r}; it must be a whole number.")
        target(self.target)

    @property
    def folder(self) -> Path:
        return self.cache if self.cache is not None else default_folder()


def options_of(given: dict[str, Any] | None) -> Options:
    """What `torch.compile(..., options={...})` says. Raises `OptionError` for an unknown name."""
    known = [each.name for each in fields(Options)]
    for name in given or {}:
        if name not in known:
            raise OptionError(f"the backend tilesmith has no option {name!r}; it has {', '.join(known)}.")
    rows = dict(given or {})
    if rows.get("cache") is not None:
        rows["cache"] = Path(rows["cache"])
    return Options(**rows)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
