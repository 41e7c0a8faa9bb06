"""Tilesmith: the fastest GPU kernel for a tensor program that can be shown to be correct."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilesmith.splice.explanation import Explanation
    from tilesmith.splice.module import Compiled

__version__ = "0.1.0"


def compile(  # noqa: A001  the name that torch has for it
    model: Callable[..., Any],
    *,
    budget_seconds: float = 120.0,
    largest: int = 6,
    estimates: bool = False,
    target: str | None = None,
    rest: str = "eager",
    seed: int = 0,
    cache: str | Path | None = None,
) -> Compiled:
    """The module with the parts replaced for which kernels were found that are faster and correct; docs/compile.md.

    Captured, searched and assembled in its first call, under `torch.no_grad()`. `explain()` of the result says what was
    replaced, by what, with what evidence. The options are `tilesmith.splice.options.Options`. Raises `OptionError` for
    one that cannot be used, and `MachineError` for a cache folder that others can write to.
    """
    from tilesmith.splice.module import Compiled
    from tilesmith.splice.options import Options

    folder = None if cache is None else Path(cache)
    return Compiled(model, Options(budget_seconds, largest, estimates, target, rest, seed, folder))


def explain() -> Explanation:
    """What became of all that `torch.compile(..., backend="tilesmith")` compiled in this process."""
    from tilesmith.splice.backend import explained

    return explained()
