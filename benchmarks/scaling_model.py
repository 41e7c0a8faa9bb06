"""How would the concrete search go on more workers than this machine has?

A model of list scheduling, fed by the measured number of states under every root and by what a state and a message cost
here. `static` deals roots out interleaved, as published; `pulled` pulls them from one counter, a ticket each; `split`
also takes half of what the busiest worker still has, until that is less than a grain; `split_by_64` pulls 64 roots with
a ticket, a node for all its workers. Expected: static as the real search deals, to the state; split within 15 % of it,
up to 8 workers. Beyond that it is a prediction, not a measurement, and the latencies of a network are assumed:
2 us for a ticket, 10 us for work.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lib.answer import ROOT, answer, parser, say
from tilesmith.core.graph import Limits
from tilesmith.superopt.concrete import explore, space
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.programs import PROGRAMS

PLAN = Plan(space="concrete", rules="paper")
WORKLOADS = {"rmsnorm_linear": 7, "gated_mlp": 9}
"""Operators of a block."""
CORES = 64
"""Of a node."""
GRAIN = 5_000
"""States below three open operators, at the most."""
ROOTS_EACH = 30
"""Of a worker. The space of rms_norm(X)·W at the limits of the paper has 1,678,539 roots, 26 for each of 64,000."""
TICKET_S, WORK_S = 2e-6, 10e-6
"""Of a network between nodes, assumed: a one-sided atomic, and a message that asks for work and its answer."""


def limits(name: str) -> Limits:
    return Limits(kernel_ops=1, block_ops=WORKLOADS[name], inputs=3, shared_bytes=96 << 10)


def static(sizes: Sequence[int], workers: int) -> float:
    """The largest share, in states."""
    return float(max(sum(sizes[worker::workers]) for worker in range(min(workers, len(sizes)))))


def pulled(sizes: Sequence[int], workers: int, ticket: float, grain: float, work: float) -> float:
    """When the last worker ends, in states. `ticket`, `work`: what taking a root, or another's work, costs, in states.

    The counter answers one after another. Without a grain nobody takes from others.
    """
    ends = [0.0] * workers
    heapq.heapify(ends)
    free = 0.0
    for size in sizes:
        free = max(free, ends[0]) + ticket
        heapq.heapreplace(ends, free + size)
    if not grain:
        return max(ends)
    # Those who end last, busiest first; the others take half of what is left.
    idle = sorted(ends)
    busy = [-end for end in ends]
    heapq.heapify(busy)
    last = 0.0
    for now in _times(idle):
        end = -busy[0]
        left = end - now
        if left <= grain:
            return max(last, end)
        half = now + left / 2
        heapq.heapreplace(busy, -half)
        heapq.heappush(busy, -(half + work))
        last = max(last, now)
    return -busy[0]


def _times(idle: Sequence[float]) -> Iterator[float]:
    """When each worker first has nothing; then all together again, a grain later."""
    yield from idle
    while True:
        yield from [idle[-1]] * len(idle)


def messages() -> dict[str, float] | None:
    """Between two ranks on this machine; None without MPI."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        return None
    command = [str(mpiexec), "-n", "2", sys.executable, "-m", "lib.messages"]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, timeout=120, check=False)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--budget-seconds", type=float, default=60.0, help="the most that one search may take")
    given = arguments.parse_args()
    checked: list[dict[str, object]] = []
    predicted: list[dict[str, object]] = []
    for name in WORKLOADS:
        say(f"{name}: roots")
        made = space(PROGRAMS[name](), limits(name), replace(PLAN, seconds=given.budget_seconds))
        sizes = [made.search_root(index)[1].states for index in range(made.roots)]
        total = sum(sizes)
        alone = explore(PROGRAMS[name](), limits(name), replace(PLAN, seconds=given.budget_seconds)).workers[0]
        state_s = alone.cpu_seconds / alone.states
        for workers in (2, 4, 8):
            say(f"{name}: {workers} workers")
            for schedule in ("static", "openmp"):
                plan = replace(PLAN, schedule=schedule, threads=workers, seconds=given.budget_seconds)
                ran = explore(PROGRAMS[name](), limits(name), plan).workers
                share = max(worker.states for worker in ran) / total
                cpu = max(worker.cpu_seconds for worker in ran) / sum(worker.cpu_seconds for worker in ran)
                model = static(sizes, workers) if schedule == "static" else pulled(sizes, workers, 0, GRAIN, 0)
                checked.append(
                    {
                        "program": name,
                        "schedule": schedule,
                        "workers": workers,
                        "model": total / model,
                        "by_states": 1 / share,
                        "by_cpu": 1 / cpu,
                        "taken": sum(worker.taken for worker in ran),
                    }
                )
        ticket, work = TICKET_S / state_s, WORK_S / state_s
        for nodes in (1, 10, 100, 1000):
            workers = nodes * CORES
            # A space that is worth so many: roots of the measured sizes, over and over.
            roots = (sizes * -(-ROOTS_EACH * workers // len(sizes)))[: ROOTS_EACH * workers]
            ends = {
                "static": static(roots, workers),
                "pulled": pulled(roots, workers, ticket, 0, 0),
                "split": pulled(roots, workers, ticket, GRAIN, work),
                "split_by_64": pulled(roots, workers, ticket / CORES, GRAIN, work),
            }
            row: dict[str, object] = {"program": name, "nodes": nodes, "workers": workers, "roots": len(roots)}
            row["serial_s"] = sum(roots) * state_s
            predicted.append(row | {way: sum(roots) / end / workers for way, end in ends.items()})
        checked[-1]["state_ns"] = 1e9 * state_s
    document = {"messages_here": messages(), "checked": checked, "predicted_efficiency": predicted}
    answer(document, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
