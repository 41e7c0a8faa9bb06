"""Does it pay to keep the pool diverse by techniques? The same search with and without, many times, at equal budgets.

Expected: no large difference with rewrites, which reach most techniques from most parents. Whatever it is, it is shown
with its interval. Each seed searches twice, once with the fastest of every technique vector in the pool and once with
the fastest of all: from the same start kernel, with the same rewrites and the same number of trials. The rewrites'
order hardly depends on a seed, so each seed also withholds a random half of all rewritten sources, from both searches;
no model proposes everything either. The difference is the mean over seeds of the logarithm of the ratio of the two
best times, with a 95 % interval by a bootstrap over seeds.

Times are estimates of the offline bench: real compilation, numbers checked on one set of inputs, and a model of the
GPU's time. Every verdict is recorded, so that both searches see the same one for the same source; `--journal FILE`
keeps them from run to run.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from lib.answer import ROOT, answer, parser, say
from tilesmith.bench.effort import Effort
from tilesmith.bench.offline import OfflineBench
from tilesmith.bench.replay import ReplayBench
from tilesmith.config import load_problem
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem, content_id
from tilesmith.core.trial import Candidate, Trial
from tilesmith.journal import Run, RunOptions, Store, open_store
from tilesmith.propose import RewriteProposer
from tilesmith.propose.beam import distinct, select
from tilesmith.propose.techniques import vector

RESAMPLES = 10_000
PLENTY = 8
"""Times as many proposals are made as are taken, so that enough are left."""


KIND = RunOptions("benchmarks/clustering.py")


def verdicts(store: Store, problem: Problem) -> Run:
    """The run that holds this benchmark's verdicts on a problem; a new one where there is none."""
    for summary in store.runs():
        run = store.run(summary.id)
        if run.options == KIND and run.problem.id == problem.id:
            run.claim()
            return run
    return store.create(problem, KIND)


class RecordedBench:
    """The offline bench, which judges each source once and remembers it; see `ReplayBench` for what is a duplicate."""

    def __init__(self, bench: OfflineBench, problem: Problem, run: Run) -> None:
        self._bench, self._problem, self._run = bench, problem, run
        self._known = {trial.candidate.id for trial in run.trials()}

    @property
    def judged(self) -> int:
        return len(self._known)

    def judge(self, candidates: Sequence[Candidate], trials: Sequence[Trial]) -> list[Trial]:
        fresh = [candidate for candidate in candidates if candidate.id not in self._known]
        for trial in self._bench.judge(self._problem, fresh, self._run.trials()) if fresh else ():
            self._run.record(trial)
            self._known.add(trial.candidate.id)
        return list(ReplayBench(self._run.trials()).judge(self._problem, candidates, trials))


@dataclass(frozen=True, slots=True)
class Search:
    """One finished search."""

    trials: tuple[Trial, ...]
    clusters: tuple[int, ...]
    """Different technique vectors in the pool of each round."""

    def best_us(self, budget: int) -> float:
        return min(trial.time_us for trial in self.trials[:budget] if trial.time_us is not None)


def kept(candidate: Candidate, seed: int) -> bool:
    """Half of all sources, another half for another seed."""
    return int(content_id(f"{seed}:{candidate.source}"), 16) % 2 == 0


def searched(problem: Problem, bench: RecordedBench, proposer: RewriteProposer, budget: int) -> Search:
    """The product's loop without its journal: rounds until the budget of trials is spent."""
    trials = bench.judge([Candidate(problem.start or "", origin="start")], ())
    plenty = replace(proposer, proposals=PLENTY * proposer.proposals)
    clusters: list[int] = []
    number = 1
    while len(trials) < budget:
        pool = select(trials, proposer.candidate_pool_size, vector if proposer.clustered else None)
        clusters.append(len({vector(trial) for trial in pool}))
        offered = [candidate for candidate in plenty.propose(problem, trials, number) if kept(candidate, proposer.seed)]
        if not offered:
            break
        chosen = offered[: min(proposer.proposals, budget - len(trials))]
        trials += [replace(trial, round=number) for trial in bench.judge(chosen, trials)]
        number += 1
    return Search(tuple(trials), tuple(clusters))


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by a percentile bootstrap over the pairs; the same at every call."""
    draw = random.Random(0)
    means = sorted(sum(draw.choices(differences, k=len(differences))) / len(differences) for _ in range(RESAMPLES))
    mean = sum(differences) / len(differences)
    return mean, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def percent(logarithm: float) -> float:
    return 100 * math.expm1(logarithm)


def rows(name: str, pairs: Sequence[tuple[Search, Search]], budgets: Sequence[int]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for budget in budgets:
        on, off = [one.best_us(budget) for one, _ in pairs], [other.best_us(budget) for _, other in pairs]
        differences = [math.log(a / b) for a, b in zip(on, off, strict=True)]
        mean, low, high = interval(differences)
        found.append(
            {
                "problem": name,
                "trials": budget,
                "seeds": len(pairs),
                "on_us": median(on),
                "off_us": median(off),
                "difference_percent": percent(mean),
                "low_percent": percent(low),
                "high_percent": percent(high),
                "on_faster": sum(d < -1e-9 for d in differences),
                "equal": sum(abs(d) <= 1e-9 for d in differences),
                "on_slower": sum(d > 1e-9 for d in differences),
            }
        )
    return found


def diversity(searches: Sequence[Search]) -> float:
    """Different technique vectors in the pool, the mean over rounds after the first, whose pool is the start kernel."""
    later = [count for search in searches for count in search.clusters[1:]]
    return sum(later) / len(later) if later else 1.0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--problems", nargs="+", default=["gated_mlp", "rmsnorm_linear"])
    options.add_argument("--seeds", type=int, default=12)
    options.add_argument("--trials", type=int, default=30, help="of one search, its start kernel included")
    options.add_argument("--proposals", type=int, default=6, help="of a round")
    options.add_argument("--candidate-pool-size", type=int, default=3)
    options.add_argument("--seconds", type=float, default=math.inf, help="start no seed after so many, for a problem")
    options.add_argument("--jobs", type=int, default=None, help="candidates judged at a time")
    options.add_argument("--journal", type=Path, default=None, help="where verdicts are kept from run to run")
    given = options.parse_args()
    budgets = sorted({max(2, given.trials // 4), max(2, given.trials // 2), given.trials})
    table: list[dict[str, object]] = []
    pools: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="tilesmith-clustering-") as folder:
        for name in given.problems:
            problem = load_problem(ROOT / "examples" / name)
            began = time.monotonic()
            with (
                open_store(given.journal or Path(folder, "verdicts.db")) as store,
                OfflineBench(target(), given.jobs, Effort(sets=1)) as offline,
            ):
                bench = RecordedBench(offline, problem, verdicts(store, problem))
                pairs: list[tuple[Search, Search]] = []
                for seed in range(1, given.seeds + 1):
                    if time.monotonic() - began > given.seconds:
                        say(f"{name}: the time is up after {len(pairs)} seeds")
                        break
                    on, off = (
                        searched(
                            problem,
                            bench,
                            RewriteProposer(given.candidate_pool_size, 2, given.proposals, clustered, seed),
                            given.trials,
                        )
                        for clustered in (True, False)
                    )
                    pairs.append((on, off))
                    spent = time.monotonic() - began
                    say(
                        f"{name}, seed {seed}: {on.best_us(given.trials):.5g} us with clusters, "
                        f"{off.best_us(given.trials):.5g} without; {bench.judged} sources judged in {spent:.0f} s"
                    )
            table += rows(name, pairs, budgets)
            pools.append(
                {
                    "problem": name,
                    "vectors_in_pool_on": diversity([on for on, _ in pairs]),
                    "vectors_in_pool_off": diversity([off for _, off in pairs]),
                    "vectors_met": len({vector(t) for pair in pairs for s in pair for t in distinct(s.trials)}),
                    "sources_judged": bench.judged,
                }
            )
    answer({"times": "estimates, not measurements", "differences": table, "pools": pools}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
