"""How well does the symbolic search use several threads and ranks?

Expected on 16 cores: efficiency of at least 0.9 for threads and for ranks of one thread, against as many independent
serial runs at once; imbalance (the most busy worker over the mean) of at most 1.05; at most 2 % more states than one
worker's; at one worker at most 3 % over the serial search; 5 million states a second and thread. Here the numbers of
threads and ranks are those of `--threads` and `--ranks`; what has more workers than the machine has cores tells nothing
about speed, only about states and balance. The serial search is one thread, depth-first, with work shared: nothing is
split, dealt or asked for. Seconds are the search's own; each is the least of `--repeats`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.answer import answer, parser
from lib.workloads import WORKLOADS
from tilesmith.superopt.ranks import launcher
from tilesmith.superopt.schema import to_json

EFFICIENCY, IMBALANCE, EXTRA, OVERHEAD, STATES_PER_S = 0.9, 1.05, 0.02, 0.03, 5e6


def command(program: Path, kernels: int, *flags: str) -> list[str]:
    tool = str(Path(sys.executable).parent / "tilesmith")
    limits = ["--graph-defined-kernels", str(kernels), "--keep", "1"]
    return [tool, "superoptimize", str(program), "--json", *limits, *flags]


def runs(commands: list[list[str]]) -> list[dict[str, Any]]:
    """All at once."""
    jobs = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for each in commands]
    return [json.loads(job.communicate()[0]) for job in jobs]


def seconds(document: dict[str, Any]) -> float:
    return float(document["seconds"] - document["table_seconds"])


def row(found: dict[str, Any], **named: object) -> dict[str, Any]:
    busy = [worker["busy_seconds"] for worker in found["workers"]]
    return {
        **named,
        "seconds": seconds(found),
        "states": found["states"],
        "graphs": found["candidates"],
        "busy_seconds": sum(busy),
        "wait_seconds": sum(worker["wait_seconds"] for worker in found["workers"]),
        "steal_seconds": sum(worker["steal_seconds"] for worker in found["workers"]),
        "items": sum(worker["items"] for worker in found["workers"]),
        "nodes": sum(worker["nodes"] for worker in found["workers"]),
        "imbalance": max(busy) * len(busy) / sum(busy),
    }


def measure(program: Path, name: str, kernels: int, threads: list[int], ranks: list[int], repeats: int) -> list[Any]:
    def least(*flags: str, front: tuple[str, ...] = ()) -> dict[str, Any]:
        made = [runs([[*front, *command(program, kernels, *flags)]])[0] for _ in range(repeats)]
        return min(made, key=seconds)

    serial = least()
    ceilings = {
        count: sum(seconds(run) for run in runs([command(program, kernels)] * count)) / count
        for count in sorted({*threads, *ranks})
    }
    rows = [row(serial, program=name, kernels=kernels, schedule="serial", order="dfs", workers=1)]
    for schedule in ("static", "openmp"):
        for order in ("dfs", "bfs"):
            for count in threads:
                found = least("--schedule", schedule, "--order", order, "--threads", str(count))
                rows.append(row(found, program=name, kernels=kernels, schedule=schedule, order=order, workers=count))
    for pull in ("tickets", "requests"):
        for count in ranks:
            found = least("--schedule", "mpi", "--pull", pull, front=(launcher(), "-n", str(count)))
            rows.append(row(found, program=name, kernels=kernels, schedule=f"mpi {pull}", order="dfs", workers=count))
    for each in rows:
        each["speed_up"] = rows[0]["seconds"] / each["seconds"]
        each["efficiency"] = ceilings.get(each["workers"], rows[0]["seconds"]) / (each["workers"] * each["seconds"])
        each["extra_states"] = each["states"] / rows[0]["states"] - 1
        each["states_per_s_and_thread"] = each["states"] / each["busy_seconds"]
        each["same_graphs"] = each["graphs"] == rows[0]["graphs"]
    return rows


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--programs", default=",".join(WORKLOADS))
    options.add_argument("--kernels", type=int, default=4)
    options.add_argument("--threads", default="1,2")
    options.add_argument("--ranks", default="1,2")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    threads, ranks = ([int(n) for n in text.split(",")] for text in (given.threads, given.ranks))
    rows: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.programs.split(","):
            program = Path(folder) / f"{name}.json"
            program.write_text(to_json(WORKLOADS[name]()), "utf-8")
            rows += measure(program, name, given.kernels, threads, ranks, given.repeats)
    shared = [each for each in rows if each["schedule"] == "openmp"]
    goals = {
        "same_graphs": all(each["same_graphs"] for each in rows),
        "efficiency": all(each["efficiency"] >= EFFICIENCY for each in shared),
        "imbalance": all(each["imbalance"] <= IMBALANCE for each in shared),
        "extra_states": all(each["extra_states"] <= EXTRA for each in rows),
        "overhead": all(each["speed_up"] >= 1 / (1 + OVERHEAD) for each in shared if each["workers"] == 1),
        "states_per_s": all(each["states_per_s_and_thread"] >= STATES_PER_S for each in rows[:1]),
    }
    document = {"holds": all(goals.values()), "goals": goals, "runs": rows}
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
