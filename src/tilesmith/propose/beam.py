"""Selection: which trials a round expands. Pure functions of the trials.

The order in which trials come plays no part. Of equal times the one of the earlier round goes first, so that a change
which gains nothing does not displace what it was made from; within a round the lower candidate id.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from tilesmith.core.trial import Trial


def kernel_id(trial: Trial) -> str:
    """What a trial's kernel is known by: the fingerprint, or the candidate where there is none."""
    return trial.fingerprint or f"source:{trial.candidate.id}"


def distinct(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The correct trials, the fastest first, one a fingerprint and one a source: of each the fastest.

    A parent that came back unchanged, with a fingerprint or without, is one with itself.
    """
    kernels: set[str] = set()
    sources: set[str] = set()
    found: list[Trial] = []
    for trial in sorted((trial for trial in trials if trial.time_us is not None), key=_order):
        kernel, source = kernel_id(trial), trial.candidate.id
        if kernel not in kernels and source not in sources:
            found.append(trial)
        kernels.add(kernel)
        sources.add(source)
    return tuple(found)


def select(
    trials: Sequence[Trial], width: int, clusters: Callable[[Trial], Hashable] | None = None
) -> tuple[Trial, ...]:
    """The pool: at most `width` trials to expand next, in the order of their selection.

    Duplicates are merged by fingerprint. Without `clusters` the fastest are taken. With it, a pass takes the fastest
    of every cluster, the next pass the second of every cluster, and so on until the pool is full, the fastest first
    within a pass: so the fastest of all is always kept, and a slow kernel that works in another way can be, too.

    `clusters` is asked in the order of time, and about nothing behind the `width`-th cluster's first member.
    """
    fastest = distinct(trials)
    if clusters is None:
        return fastest[:width]
    depth: dict[Hashable, int] = {}
    passes: list[tuple[int, Trial]] = []
    for trial in fastest:
        if len(depth) >= width:
            break
        cluster = clusters(trial)
        depth[cluster] = depth.get(cluster, -1) + 1
        passes.append((depth[cluster], trial))
    return tuple(trial for _, trial in sorted(passes, key=lambda entry: entry[0]))[:width]


def _order(trial: Trial) -> tuple[float, int, str, str]:
    time_us = trial.time_us if trial.time_us is not None else float("inf")
    return time_us, trial.round, trial.candidate.id, trial.fingerprint or ""
