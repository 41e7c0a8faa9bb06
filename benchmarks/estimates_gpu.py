"""How far are the roofline model's estimates from what a GPU measured?

Takes the journal of a run that was judged on a GPU (`--journal FILE`, and `--run ID` where it holds several). Every
correct trial has a measured time and, from the same compiled code, an estimate. What the search needs of an estimate is
the order: rank correlation. Expected: 0.9 or more over a run, with a median ratio of estimate to measurement between
0.8 and 1.25. Needs no GPU itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from lib.answer import answer, parser, say
from tilesmith.core.errors import TilesmithError
from tilesmith.core.trial import Correct, Timing, Trial
from tilesmith.journal import open_store


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; equals share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for place in order[at : end + 1]:
            found[place] = (at + end) / 2 + 1
        at = end + 1
    return found


def correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Pearson's; None where one side does not vary."""
    mean_left, mean_right = sum(left) / len(left), sum(right) / len(right)
    product = sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True))
    squares = sum((a - mean_left) ** 2 for a in left) * sum((b - mean_right) ** 2 for b in right)
    return product / squares**0.5 if squares else None


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks."""
    return correlation(ranks(left), ranks(right))


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def measured(trials: Sequence[Trial]) -> list[tuple[Trial, float, float]]:
    """Trials with both times: the trial, microseconds measured, microseconds estimated."""
    return [
        (trial, trial.verdict.time.time_us, trial.profile.time_us)
        for trial in trials
        if isinstance(trial.verdict, Correct)
        and isinstance(trial.verdict.time, Timing)
        and trial.profile is not None
        and trial.profile.source == "estimate"
    ]


def read(journal: Path, run: str | None) -> tuple[str, Sequence[Trial]]:
    """The run of this id, or the latest that has anything to compare."""
    with open_store(journal, must_exist=True) as store:
        names = [run] if run else [summary.id for summary in reversed(store.runs())]
        for name in names:
            found = store.run(name)
            if run or measured(found.trials()):
                return found.id, found.trials()
    return "none", ()


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--journal", type=Path, required=True, metavar="FILE")
    options.add_argument("--run", metavar="ID", help="a run's id or its beginning; the latest with measurements")
    options.add_argument("--worst", type=int, default=6, metavar="N", help="how many of the worst to show")
    given = options.parse_args()
    try:
        name, trials = read(given.journal, given.run)
    except TilesmithError as error:
        say(str(error))
        return 2
    rows = measured(trials)
    if len(rows) < 2:
        say(f"{given.journal} has fewer than two trials that were measured on a GPU; run `tilesmith optimize` on one")
        return 2
    ratios = [estimate / time for _, time, estimate in rows]
    # Twice too long is as bad as half as long.
    worst = sorted(rows, key=lambda row: -max(row[1] / row[2], row[2] / row[1]))[: given.worst]
    number = {trial.candidate.id: at for at, trial in enumerate(trials, start=1)}
    document = {
        "run": name,
        "gpu": next((trial.environment.gpu for trial, _, _ in rows if trial.environment), None),
        "compared": len(rows),
        "rank_correlation": spearman([time for _, time, _ in rows], [estimate for _, _, estimate in rows]),
        "median_ratio": median(ratios),
        "ratio_10_percent": quantile(ratios, 0.1),
        "ratio_90_percent": quantile(ratios, 0.9),
        "within_25_percent": sum(0.8 <= ratio <= 1.25 for ratio in ratios) / len(ratios),
        "worst": [
            {
                "trial": number[trial.candidate.id],
                "origin": trial.candidate.origin,
                "measured_us": time,
                "estimated_us": estimate,
                "ratio": estimate / time,
                "limiters": "/".join(trial.profile.ranked()) if trial.profile else "none",
                "grid": "; ".join(f"{each.grid} x {each.warps} warps" for each in trial.launches),
            }
            for trial, time, estimate in worst
        ],
    }
    answer(document, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
