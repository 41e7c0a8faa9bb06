"""What does the timeline of the search cost?

Expected: at most 2 % of the workers' processor time, in both spaces, both orders, with 1, 2 and 8 threads. Runs with
and without it differ by less than a machine's noise, so it is counted instead: how often workers changed what they do
(each change is one look at the clock and one span), times what one change costs, measured in a tight loop, the dearest
of ten. `margin` is how many times as much a change could cost before it reached 2 %: room for what a cold cache adds.
Without `--timeline` the clock is read as often, for the sums, and nothing is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from lib.answer import answer, parser, say
from tilesmith import _core
from tilesmith.core.gpu import target
from tilesmith.core.graph import Limits
from tilesmith.superopt import concrete
from tilesmith.superopt import engine as engines
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.table import named
from tilesmith.superopt.workloads import WORKLOADS

MOST = 0.02
TURNS = 1_000_000
CONCRETE = Plan(space="concrete", rules="paper", timeline=True)
SYMBOLIC = Plan(timeline=True)


def searched(name: str, ops: int, kernels: int, plan: Plan) -> tuple[Sequence[int], float]:
    """The changes of each worker, and the seconds of processor time of the search."""
    graph = WORKLOADS[name].graph()
    limits = Limits(kernel_ops=kernels, graph_defined_kernels=kernels, block_ops=ops)
    if plan.space == "concrete":
        began = time.process_time()
        workers = concrete.explore(graph, limits, plan).workers
        return [len(worker.spans) for worker in workers], time.process_time() - began
    made = engines.engine(named(graph, limits), limits, plan, target(plan.target))
    began = time.process_time()
    result = engines.run(made)
    return [len(worker.times.spans) for worker in result.workers], time.process_time() - began


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=10.0, help="the most that a search with z3 may take")
    given = arguments.parse_args()
    shared = replace(CONCRETE, oracle="z3", oracle_cache="shared", seconds=given.seconds)
    cost_ns = max(_core.turn_ns(TURNS, True) for _ in range(10))
    rows: list[dict[str, object]] = []
    shares: list[float] = []
    for name, ops, kernels, plan in (
        ("concrete/rmsnorm_linear", 7, 1, CONCRETE),
        ("concrete/gated_mlp", 9, 1, CONCRETE),
        ("oracle/small_product", 4, 1, shared),
        ("symbolic/norm_lora", 11, 4, SYMBOLIC),
    ):
        for order in ("dfs", "bfs"):
            for threads in (1, 2, 8):
                say(f"{name} {order} {threads}")
                changes, cpu_s = searched(name, ops, kernels, replace(plan, order=order, threads=threads))  # type: ignore[arg-type]
                share = 1e-9 * cost_ns * sum(changes) / cpu_s
                shares.append(share)
                rows.append(
                    {
                        "program": name,
                        "order": order,
                        "threads": threads,
                        "changes": sum(changes),
                        "cpu_s": cpu_s,
                        "share": share,
                        "margin": MOST / share,
                    }
                )
    holds = max(shares) <= MOST
    document = {
        "holds": holds,
        "change_ns": cost_ns,
        "change_ns_without": min(_core.turn_ns(TURNS, False) for _ in range(10)),
        "most": max(shares),
        "runs": rows,
    }
    answer(document, given.json)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
