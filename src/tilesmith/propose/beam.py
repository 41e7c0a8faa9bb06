"""Selection: which trials a round expands. Pure functions of the trials."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from tilesmith.core.trial import Trial


def distinct(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The correct trials, one a fingerprint (the fastest; of equals the first), the fastest first."""
    timed = sorted((trial for trial in trials if trial.time_us is not None), key=_time)
    first: dict[Hashable, Trial] = {}
    for trial in timed:
        first.setdefault(trial.fingerprint or ("unknown", trial.candidate.id), trial)
    return tuple(first.values())


def select(
    trials: Sequence[Trial], width: int, clusters: Callable[[Trial], Hashable] | None = None
) -> tuple[Trial, ...]:
    """The pool: at most `width` trials to expand next, in the order of their selection.

    Duplicates are merged by fingerprint. Without `clusters` the fastest are taken. With it, a pass takes the fastest
    of every cluster, the next pass the second of every cluster, and so on until the pool is full, the fastest first
    within a pass: so the fastest of all is always kept, and a slow kernel that works in another way can be, too.
    """
    fastest = distinct(trials)
    if clusters is None:
        return fastest[:width]
    depth: dict[Hashable, int] = {}
    passes: list[tuple[int, Trial]] = []
    for trial in fastest:
        cluster = clusters(trial)
        depth[cluster] = depth.get(cluster, -1) + 1
        passes.append((depth[cluster], trial))
    return tuple(trial for _, trial in sorted(passes, key=lambda entry: entry[0]))[:width]


def _time(trial: Trial) -> float:
    return trial.time_us if trial.time_us is not None else float("inf")
