"""How many candidates a minute on 1, 2 and 4 GPUs of one machine, through Ray and without?

48 variants of the gated MLP for each GPU, compilation included, each number of GPUs with its share of the machine's
cores, each way in a process of its own, in turns. Expected: through Ray at least 0.95 of what the local bench does with
as many GPUs, and at least 0.95 of four times one GPU with four.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from statistics import median

from lib.answer import answer, parser, say
from lib.gpu import described, first_gpu
from lib.variants import problem, variants
from tilesmith.bench.gpus import find
from tilesmith.bench.local import LocalBench
from tilesmith.core.seams import Bench
from tilesmith.core.trial import Candidate, Correct

LEAST = 0.95


def rate(way: str, gpus: int, each: int, workers: int) -> dict[str, float]:
    """Candidates a minute with the first so many GPUs, after one that opens the problem on all of them."""
    devices = find()[:gpus]
    cores = max(1, len(os.sched_getaffinity(0)) * gpus // len(find()))
    bench: AbstractContextManager[Bench]
    if way == "ray":
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in devices)
        import ray

        ray.init(
            address="local", num_cpus=cores, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
        from tilesmith.bench.ray import RayBench

        bench = RayBench("local", workers_per_gpu=workers, say=say)
    else:
        bench = LocalBench(devices, workers, cores)
    asked = problem()
    made = [variant.source for variant in variants(each * gpus + gpus, warps=(2, 4, 8, 16), stages=(1, 2, 3, 4, 5, 6))]
    warm, sources = made[:gpus], made[gpus:]
    with bench as judging:
        began = time.perf_counter()
        first = list(judging.judge(asked, [Candidate(source) for source in (asked.start or "", *warm)], ()))
        opened_s = time.perf_counter() - began
        began = time.perf_counter()
        trials = list(judging.judge(asked, [Candidate(source) for source in sources], first))
        spent_s = time.perf_counter() - began
    right = [trial for trial in trials if isinstance(trial.verdict, Correct)]
    leased_s = sum(trial.cost.gpu_s for trial in trials)
    return {
        "a_minute": 60 * len(trials) / spent_s,
        "correct": len(right),
        "candidates": len(trials),
        "open_s": opened_s,
        "gpu_busy_share": leased_s / (gpus * spent_s),
        "measured_share_of_lease": sum(trial.cost.measured_s for trial in trials) / leased_s if leased_s else 0.0,
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--gpus", default="1,2,4", help="how many, between commas")
    options.add_argument("--each", type=int, default=48, help="candidates a GPU")
    options.add_argument("--workers-per-gpu", type=int, default=3)
    options.add_argument("--turns", type=int, default=2)
    options.add_argument("--one", nargs=2, metavar=("WAY", "GPUS"), help="measure only this, and print it as JSON")
    given = options.parse_args()
    device = first_gpu()
    if given.one:
        print(json.dumps(rate(given.one[0], int(given.one[1]), given.each, given.workers_per_gpu)))
        return 0
    counts = [count for count in map(int, given.gpus.split(",")) if count <= len(find())]
    rows = []
    for count in counts:
        found: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
        for turn in range(given.turns):
            for way in found:
                say(f"{way}, {count} GPUs, turn {turn + 1}")
                words = ["--one", way, str(count), "--each", str(given.each)]
                command = [sys.executable, __file__, *words, "--workers-per-gpu", str(given.workers_per_gpu)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
                say(f"  {found[way][-1]['a_minute']:.1f} a minute")
        for way, each in found.items():
            rows.append({"way": way, "gpus": count} | {name: median([one[name] for one in each]) for name in each[0]})
    speed = {(row["way"], row["gpus"]): float(row["a_minute"]) for row in rows}
    for row in rows:
        way, count = row["way"], row["gpus"]
        row["of_linear"] = speed[way, count] / (count * speed[way, min(counts)] / min(counts))
        row["of_local"] = speed[way, count] / speed["local", count]
    last = [row for row in rows if row["way"] == "ray" and row["gpus"] == max(counts)]
    holds = all(row["of_local"] >= LEAST and row["of_linear"] >= LEAST for row in last)
    answer({"gpu": described(device), "turns": given.turns, "rows": rows, "holds": holds}, given.json)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
