"""How well does the search use many threads and ranks?

Expected: efficiency of at least 0.9 at 16 threads or ranks of one thread and of at least 0.8 at 64 threads, against as
many independent serial runs at once; imbalance (the most busy worker over the mean) of at most 1.05 at 16; at most 2 %
more states than one worker's; at one worker at most 3 % over the serial search; and the same µGraphs. What has more
workers than the machine has cores tells of states and balance only. The serial search is one thread, depth-first, with
work shared: nothing is split, dealt or asked for.

Seconds are the search's own, without Python's start, the table and the ranking; the least of `--repeats`. A cell that
would not end within `--budget-seconds` is left out, which `left_out` says: the numbers of workers that goals are about
(16, 64) come first. `--out FILE` has all that is known after every cell, whatever ends the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.answer import answer, machine, parser, say
from lib.command import TILESMITH
from lib.workloads import LONG, Workload, workload
from tilesmith.superopt.ranks import launcher
from tilesmith.superopt.schema import to_json

EFFICIENCY = {16: 0.9, 64: 0.8}
IMBALANCE, EXTRA, OVERHEAD = 1.05, 0.02, 0.03
START_S = 3.0
"""Python's start, the table, the ranking and the launcher's: an estimate."""


@dataclass(frozen=True, slots=True)
class Cell:
    workload: str
    schedule: str
    """serial, copies (as many serial searches at once), static, openmp, mpi."""
    workers: int
    order: str = "dfs"
    pull: str = "tickets"

    def command(self, program: Path, limits: Workload) -> list[str]:
        search = [*TILESMITH, "superoptimize", str(program), "--json", "--keep", "1", *limits.options]
        if self.schedule in ("serial", "copies"):
            return search
        if self.schedule == "mpi":
            return [launcher(), "-n", str(self.workers), *search, "--schedule", "mpi", "--pull", self.pull]
        return [*search, "--schedule", self.schedule, "--order", self.order, "--threads", str(self.workers)]


def cells(
    names: list[str], threads: list[int], ranks: list[int], orders: list[str], pulls: list[str]
) -> Iterator[Cell]:
    """The most telling first: two programs at the goals' numbers of workers, the curve of one, then the others."""
    counts = sorted({*threads, *ranks})
    told = [count for count in counts if count in EFFICIENCY]
    rest = [count for count in counts if count not in EFFICIENCY]

    def at(name: str, counts: list[int]) -> Iterator[Cell]:
        for count in counts:
            for schedule in ("openmp", "static") if count in threads else ():
                for order in orders:
                    yield Cell(name, schedule, count, order)
            for pull in pulls if count in ranks else ():
                yield Cell(name, "mpi", count, pull=pull)

    def copies(name: str, counts: list[int]) -> Iterator[Cell]:
        return (Cell(name, "copies", count) for count in counts if count > 1)

    for first, curve in ((names[:2], names[:1]), (names[2:], names[1:])):
        for name in first:
            yield Cell(name, "serial", 1)
            yield from copies(name, told)
            yield from at(name, told)
        for name in curve:
            yield from at(name, rest)
            yield from copies(name, rest)


class OutOfTime(Exception):
    pass


def told(out: str, errors: str) -> dict[str, Any]:
    """The document on standard output; ends the benchmark with the last line of the errors where there is none."""
    try:
        document: dict[str, Any] = json.loads(out)
    except ValueError:
        sys.exit(f"a search printed no result: {(errors.strip().splitlines() or ['and nothing else'])[-1]}")
    return document


def ran(commands: list[list[str]], within_s: float) -> list[dict[str, Any]]:
    """All at once. Raises OutOfTime, with all of them ended."""
    ends_s = time.monotonic() + within_s
    jobs = [
        subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for each in commands
    ]
    try:
        return [told(*job.communicate(timeout=max(0.01, ends_s - time.monotonic()))) for job in jobs]
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    finally:
        # A launcher that is asked to ends its ranks; one that is killed leaves them.
        for ended, wait_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, None)):
            left = [job for job in jobs if job.poll() is None]
            for job in left:
                os.killpg(job.pid, ended)
            for job in left:
                with suppress(subprocess.TimeoutExpired):
                    job.communicate(timeout=wait_s)


def seconds(document: dict[str, Any]) -> float:
    return float(document["seconds"] - document["table_seconds"])


def row(cell: Cell, found: list[dict[str, Any]]) -> dict[str, Any]:
    first, workers = found[0], [worker for each in found for worker in each["workers"]]
    busy = [worker["busy_seconds"] for worker in workers]
    return {
        "workload": cell.workload,
        "schedule": f"mpi {cell.pull}" if cell.schedule == "mpi" else cell.schedule,
        "order": cell.order,
        "workers": cell.workers,
        "stop": first["stop"],
        "seconds": sum(map(seconds, found)) / len(found),
        "states": first["states"],
        "graphs": first["candidates"],
        "nodes": sum(worker["nodes"] for worker in first["workers"]),
        "items": sum(worker["items"] for worker in first["workers"]),
        "busy_seconds": sum(busy),
        "wait_seconds": sum(worker["wait_seconds"] for worker in workers),
        "steal_seconds": sum(worker["steal_seconds"] for worker in workers),
        "imbalance": max(busy) * len(busy) / sum(busy),
    }


def compared(measured: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row beside the serial run and the copies of its workload."""
    rows = []
    for cell, each in measured.items():
        serial = measured[Cell(cell.workload, "serial", 1)]
        ceiling = serial if cell.workers == 1 else measured.get(Cell(cell.workload, "copies", cell.workers))
        alone = cell.schedule in ("serial", "copies")
        rows.append(
            {
                **each,
                "efficiency": ceiling["seconds"] / (cell.workers * each["seconds"]) if ceiling and not alone else None,
                "plain_efficiency": serial["seconds"] / ((1 if alone else cell.workers) * each["seconds"]),
                "overhead": each["seconds"] / serial["seconds"] - 1 if cell.workers == 1 and not alone else None,
                "extra_states": each["states"] / serial["states"] - 1,
                "states_per_s_and_thread": each["states"] / each["busy_seconds"] * (cell.workers if alone else 1),
                "same_graphs": each["graphs"] == serial["graphs"] and each["stop"] == serial["stop"],
            }
        )
    return rows


def goals(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    """None where nothing was measured that tells."""
    cores = len(os.sched_getaffinity(0))

    def all_of(told: list[bool]) -> bool | None:
        return all(told) if told else None

    shared = [each for each in rows if each["order"] == "dfs" and each["schedule"] in ("openmp", "mpi tickets")]
    at = {count: [each for each in shared if each["workers"] == count] for count in (1, *EFFICIENCY)}
    told: dict[str, bool | None] = {
        "same_graphs": all_of([each["same_graphs"] for each in rows]),
        "extra_states": all_of([each["extra_states"] <= EXTRA for each in rows]),
        "imbalance_at_16": all_of([each["imbalance"] <= IMBALANCE for each in at[16]]),
        "overhead_at_1": all_of([each["plain_efficiency"] >= 1 / (1 + OVERHEAD) for each in at[1]]),
    }
    for count, least in EFFICIENCY.items():
        known = [each["efficiency"] for each in at[count] if each["efficiency"] is not None and cores >= count]
        told[f"efficiency_at_{count}"] = all_of([each >= least for each in known])
    return told


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workloads", default=",".join(LONG), help="PROGRAM/KERNELS/OPERATORS or concrete/OPERATORS")
    options.add_argument("--threads", default="1,2")
    options.add_argument("--ranks", default="1,2")
    options.add_argument("--orders", default="dfs", help="dfs, bfs or both")
    options.add_argument("--pulls", default="tickets", help="tickets, requests or both")
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--budget-seconds", type=float, default=240.0, help="of the whole benchmark")
    options.add_argument("--out", type=Path, help="a JSON file, written after every cell")
    given = options.parse_args()
    names = given.workloads.split(",")
    workloads = {name: workload(name) for name in names}
    ends_s = time.monotonic() + given.budget_seconds
    measured: dict[Cell, dict[str, Any]] = {}
    left_out: list[str] = []

    def document() -> dict[str, Any]:
        rows = compared(measured)
        told = goals(rows)
        holds = all(each is not False for each in told.values())
        return {"holds": holds, "goals": told, "left_out": left_out, "runs": rows}

    with tempfile.TemporaryDirectory() as folder:
        programs = {name: Path(folder) / f"{at}.json" for at, name in enumerate(names)}
        for name, path in programs.items():
            path.write_text(to_json(workloads[name].graph()), "utf-8")
        for cell in cells(
            names, numbers(given.threads), numbers(given.ranks), given.orders.split(","), given.pulls.split(",")
        ):
            serial = measured.get(Cell(cell.workload, "serial", 1))
            left_s = ends_s - time.monotonic()
            alone = cell.schedule in ("serial", "copies")
            least_s = serial["seconds"] / (1 if alone else cell.workers) + START_S if serial else START_S
            told = f"{cell.workload} {cell.schedule} {cell.order} {cell.workers}"
            if least_s > left_s or (cell.schedule != "serial" and not serial):
                left_out.append(told)
                continue
            commands = [cell.command(programs[cell.workload], workloads[cell.workload])]
            commands *= cell.workers if cell.schedule == "copies" else 1
            try:
                for _ in range(given.repeats):
                    found = row(cell, ran(commands, ends_s - time.monotonic()))
                    if cell not in measured or found["seconds"] < measured[cell]["seconds"]:
                        measured[cell] = found
            except OutOfTime:
                if cell not in measured:
                    left_out.append(told)
            if cell in measured:
                say(f"{told}: {measured[cell]['seconds']:.3f} s, {ends_s - time.monotonic():.0f} s left")
            if given.out:
                beside = given.out.with_name(given.out.name + ".part")
                beside.write_text(json.dumps({**document(), "machine": machine()}, indent=1) + "\n", "utf-8")
                beside.replace(given.out)
    answer(document(), given.json)
    return 0 if document()["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
