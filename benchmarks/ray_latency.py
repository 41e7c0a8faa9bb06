"""What does Ray add to the judging of one candidate, without a GPU?

The same candidates one at a time on the offline bench and on a cluster of this machine with one worker, in turns. Two
kinds: empty ones, whose verdict takes the bench no time at all, so that what is left is the way there and back; and
kernels that are compiled and checked. Expected: a few milliseconds a call, two calls a candidate, which is nothing
beside the hundreds that a candidate takes.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median

from lib.answer import answer, parser, say
from lib.variants import problem, variants
from tilesmith.bench.offline import OfflineBench
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench
from tilesmith.core.trial import Candidate, Correct, Trial


def one_at_a_time(bench: Bench, asked: Problem, sources: Sequence[str]) -> tuple[list[float], list[Trial]]:
    """Seconds from giving each candidate to having its trial, the next being given only then."""
    spent: list[float] = []
    trials: list[Trial] = []
    for source in sources:
        began = time.perf_counter()
        trials += bench.judge(asked, [Candidate(source)], ())
        spent.append(time.perf_counter() - began)
    return spent, trials


def empty(count: int) -> Iterator[str]:
    """Different sources with nothing in them."""
    return (" " * number for number in range(1, count + 1))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--empty", type=int, default=200)
    options.add_argument("--candidates", type=int, default=8)
    options.add_argument("--turns", type=int, default=3)
    given = options.parse_args()
    if importlib.util.find_spec("ray") is None:
        say("this benchmark needs Ray: pip install 'tilesmith[cluster]'")
        return 2
    import ray

    from tilesmith.bench.ray import RayBench

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    asked = problem()
    sources = [variant.source for variant in variants(given.candidates)]
    times: dict[str, list[float]] = {"offline": [], "ray": [], "offline_empty": [], "ray_empty": []}
    right = 0
    with OfflineBench(target("h200"), jobs=1) as offline, RayBench("local", "h200", say=say) as cluster:
        benches: dict[str, Bench] = {"offline": offline, "ray": cluster}
        for bench in benches.values():
            list(bench.judge(asked, [Candidate(asked.start or "")], ()))
        for turn in range(given.turns):
            say(f"turn {turn + 1} of {given.turns}")
            for name, bench in benches.items():
                spent, trials = one_at_a_time(bench, asked, sources)
                times[name] += spent
                right += sum(isinstance(trial.verdict, Correct) for trial in trials)
                times[f"{name}_empty"] += one_at_a_time(bench, asked, list(empty(given.empty)))[0]
    ray.shutdown()
    middle = {name: 1000 * median(each) for name, each in times.items()}
    added_ms = middle["ray_empty"] - middle["offline_empty"]
    document = {
        "candidates": given.candidates,
        "turns": given.turns,
        "offline_ms": middle["offline"],
        "ray_ms": middle["ray"],
        "empty_offline_ms": middle["offline_empty"],
        "empty_ray_ms": middle["ray_empty"],
        "added_by_an_empty_candidate_ms": added_ms,
        "added_by_a_kernel_ms": middle["ray"] - middle["offline"],
        "added_share": middle["ray"] / middle["offline"] - 1,
    }
    answer(document, given.json)
    return 0 if right == 2 * given.turns * len(sources) else 1


if __name__ == "__main__":
    sys.exit(main())
