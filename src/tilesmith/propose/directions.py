"""The ways of a round: which parent is to be improved, in what respect, by whom, how often. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from tilesmith.core.errors import OptionError
from tilesmith.core.profile import Limiter
from tilesmith.core.trial import Direction, Trial

LIMITERS: tuple[Limiter, ...] = get_args(Limiter)


@dataclass(frozen=True, slots=True)
class Width:
    """How many directions a round has. Raises `OptionError` for what gives none, or the same one twice."""

    candidate_pool_size: int
    """Parents that a round expands."""
    num_bottlenecks: int
    """Bottlenecks of each parent that are answered."""
    models: tuple[str, ...]
    """ "provider:name", each once."""
    samples_per_prompt: int = 1

    def __post_init__(self) -> None:
        for name in ("candidate_pool_size", "num_bottlenecks", "samples_per_prompt"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.num_bottlenecks > len(LIMITERS):
            raise OptionError(f"num_bottlenecks is {self.num_bottlenecks}, but there are only {len(LIMITERS)} kinds")
        if not self.models:
            raise OptionError("models is empty; name at least one, as provider:name")
        if twice := [name for name, count in Counter(self.models).items() if count > 1]:
            raise OptionError(f"models names {twice[0]} twice; raise samples_per_prompt for more of one model")

    @property
    def directions(self) -> int:
        """Of one round."""
        return self.candidate_pool_size * self.num_bottlenecks * len(self.models) * self.samples_per_prompt


def parent_of(direction: Direction, pool: Sequence[Trial]) -> Trial | None:
    """The pool's member at a direction's place; a smaller pool's members come again. None where there is no pool."""
    return pool[(direction.place - 1) % len(pool)] if pool else None


def directions(pool: Sequence[Trial], number: int, width: Width) -> tuple[Direction, ...]:
    """Round `number`'s directions: always `width.directions`, with different keys.

    Every place of the pool is expanded; a pool with fewer members than places fills them again from the first. Copies
    of one parent ask the same, so their samples are numbered on from each other's: no two directions draw the same
    sample from the same prompt. Without a pool there is one prompt for all, to write a kernel from the reference.

    In the order of draws, so that a round that is cut short has still asked every model about every parent.
    Raises ValueError for a pool that is larger than its size.
    """
    if len(pool) > width.candidate_pool_size:
        raise ValueError(f"{len(pool)} parents do not fit {width.candidate_pool_size} places")
    asked: Counter[tuple[int, int, str]] = Counter()
    found: list[Direction] = []
    for _ in range(width.samples_per_prompt):
        for rank in range(1, width.num_bottlenecks + 1):
            for place in range(1, width.candidate_pool_size + 1):
                for model in width.models:
                    prompt = ((place - 1) % len(pool), rank, model) if pool else (0, 0, model)
                    asked[prompt] += 1
                    found.append(Direction(number, place, rank, model, asked[prompt]))
    return tuple(found)
