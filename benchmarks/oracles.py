"""What does a pruning query cost, by oracle, and does the table ever prune what an oracle accepts?

Expected: at most 3 ns a probe of the table; microseconds of a saturated e-graph, asked bottom-up; milliseconds of z3,
most of them where it does not decide. `lost` counts expressions that an oracle accepts, or that axioms make of the
target, and the table does not: none. `beyond` counts what the table accepts and the e-graph does not. By degree the
table lets a denominator's degree stand apart, and knows roots of quotients; by label it renames the index of a sum
where another of its name is free. z3 is asked a share of the expressions, since each query takes long.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from statistics import median

from lib.answer import answer, parser, say
from tilesmith.superopt.oracle_pairs import degree_target, label_target, pairs
from tilesmith.superopt.oracles import Saturated, Solver, Table, Target, total, value

WIDTHS = (3072, 4096, 6144, 11008, 14336)


def agreement(
    name: str, write: Callable[[random.Random], Target], targets: int, each: int, z3_each: int, effort: int
) -> dict[str, object]:
    """Random expressions of random targets."""
    asked = lost = beyond = accepted = proved = refuted = undecided = unsaturated = 0
    table_s: list[float] = []
    graph_us: list[float] = []
    z3_ms: list[float] = []
    proved_ms: list[float] = []
    for seed in range(targets):
        rng = random.Random(seed)
        target = write(rng)
        began = time.perf_counter()
        table = Table(target)
        table_s.append(time.perf_counter() - began)
        if table.incomplete:
            say(f"{name} {seed}: {table.incomplete}")
            continue
        graph = Saturated(target, rounds=12, nodes=5000)
        unsaturated += not graph.saturated
        solver = Solver(target, effort) if z3_each else None
        for number, pair in enumerate(pairs(target, rng, each)):
            asked += 1
            mine = table.accepts(pair.expression)
            began = time.perf_counter()
            theirs = graph.accepts(pair.expression)
            graph_us.append(1e6 * (time.perf_counter() - began))
            accepted += mine
            beyond += mine and theirs is False
            known = pair.part or theirs is True
            if solver is not None and number < z3_each:
                began = time.perf_counter()
                said = solver.accepts(pair.expression)
                z3_ms.append(1e3 * (time.perf_counter() - began))
                if said:
                    proved_ms.append(z3_ms[-1])
                known |= said is True
                proved += said is True
                refuted += said is False
                undecided += said is None
            if known and not mine:
                lost += 1
                say(f"LOST {name} {seed}: {pair.expression} is part of {target.expression}")
    return {
        "sums": name,
        "targets": targets,
        "expressions": asked,
        "accepted": accepted,
        "lost": lost,
        "beyond": beyond,
        "unsaturated": unsaturated,
        "z3_proved": proved,
        "z3_refuted": refuted,
        "z3_undecided": undecided,
        "table_ms": 1e3 * median(table_s),
        "e_graph_us": median(graph_us),
        "z3_ms": median(z3_ms) if z3_ms else None,
        "z3_proved_ms": median(proved_ms) if proved_ms else None,
    }


def widths(effort: int) -> list[dict[str, object]]:
    """X·W of common widths, and what each oracle takes for the sum that a loop of 64 leaves, and for one of 5."""
    rows: list[dict[str, object]] = []
    for width in WIDTHS:
        say(f"width {width}")
        product = value(0) * value(1)
        target = Target(total(width, product), 2)
        yes, no = total(64, total(width // 64, product)), total(5, product)
        began = time.perf_counter()
        table = Table(target)
        table_ms = 1e3 * (time.perf_counter() - began)
        began = time.perf_counter()
        graph = Saturated(target)
        graph_ms = 1e3 * (time.perf_counter() - began)
        solver = Solver(target, effort)
        spent: list[float] = []
        for x in (yes, no, product + product):
            began = time.perf_counter()
            solver.accepts(x)
            spent.append(1e3 * (time.perf_counter() - began))
        rows.append(
            {
                "width": width,
                "table": table.accepts(yes) and not table.accepts(no),
                "e_graph": graph.accepts(yes) and not graph.accepts(no),
                "z3": solver.accepts(yes),
                "classes": table.classes,
                "nodes": graph.nodes,
                "table_ms": table_ms,
                "e_graph_ms": graph_ms,
                "z3_yes_ms": spent[0],
                "z3_no_ms": spent[2],
                "probe_ns": table.probe_ns(10_000_000),
            }
        )
    return rows


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--targets", type=int, default=200, help="random targets of either kind")
    arguments.add_argument("--each", type=int, default=20, help="expressions of each")
    arguments.add_argument("--z3-each", type=int, default=5, help="of those asked of z3, by degree")
    arguments.add_argument("--effort", type=int, default=80_000, help="z3's resource limit, as published")
    given = arguments.parse_args()
    document = {
        "widths": widths(given.effort),
        "random": [
            agreement("degrees", degree_target, given.targets, given.each, given.z3_each, given.effort),
            agreement("labels", label_target, given.targets, given.each, 0, given.effort),
        ],
    }
    answer(document, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
