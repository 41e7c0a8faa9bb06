"""What the defences cost an honest candidate: the same candidates judged with walls and without, in turns.

Expected: at most 25 % more time a candidate with every wall (namespaces, landlock, seccomp, a warden, the audit hook,
the driver's trace of launches, and bubblewrap where it is installed) than with plain forked processes. Both ways check
the same numbers, so what the numbers cost is in neither.
"""

from __future__ import annotations

import time
from statistics import median

from lib.answer import answer, parser, say
from lib.gpu import described, first_gpu
from lib.variants import problem, variants
from tilesmith.bench.gpus import Device
from tilesmith.bench.local import LocalBench
from tilesmith.core.trial import Candidate, Correct

MOST = 1.25


def seconds(device: Device, sources: list[str], workers: int, *, walled: bool) -> tuple[float, int]:
    """Seconds a candidate after the bench is warm, and how many were correct."""
    asked = problem()
    with LocalBench([device], workers_per_gpu=workers, walled=walled) as bench:
        first = list(bench.judge(asked, [Candidate(asked.start or "")], ()))
        began = time.perf_counter()
        trials = list(bench.judge(asked, [Candidate(source) for source in sources], first))
        spent_s = time.perf_counter() - began
    return spent_s / len(sources), sum(isinstance(trial.verdict, Correct) for trial in trials)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--candidates", type=int, default=24)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--turns", type=int, default=3)
    given = options.parse_args()
    device = first_gpu()
    chosen = [variant.source for variant in variants(given.candidates)]
    rows: dict[bool, list[float]] = {True: [], False: []}
    correct: dict[bool, int] = {True: 0, False: 0}
    for turn in range(given.turns):
        for walled in (turn % 2 == 0, turn % 2 != 0):
            spent_s, right = seconds(device, chosen, given.workers, walled=walled)
            say(f"{'with' if walled else 'without'} walls: {spent_s:.3f} s a candidate")
            rows[walled].append(spent_s)
            correct[walled] = right
    ratio = median([walled / bare for walled, bare in zip(rows[True], rows[False], strict=True)])
    document = {
        "gpu": described(device),
        "candidates": len(chosen),
        "walled_s": median(rows[True]),
        "bare_s": median(rows[False]),
        "walled_correct": correct[True],
        "bare_correct": correct[False],
        "ratio": ratio,
        "holds": ratio <= MOST,
    }
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
