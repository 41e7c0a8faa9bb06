"""The published search as a baseline: its counts, its structures, and that order, threads and oracle change nothing."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from typing import Any, Literal

import pytest

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Graph, Kernel, Limits, Op
from tilesmith.core.graph_check import check
from tilesmith.superopt.build import Program
from tilesmith.superopt.concrete import Choices, Explored, explore, search, space, structures
from tilesmith.superopt.concrete_lower import lower
from tilesmith.superopt.concrete_program import described, prime_factors
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.numeric import difference
from tilesmith.superopt.programs import gated_mlp, gqa, norm_transformer, rmsnorm_linear
from tilesmith.superopt.verify import Verified, verify

CODED = Plan(space="concrete")
PAPER = Plan(space="concrete", rules="paper")
SMALL = Choices(bounded=False, tiles=(16,), loops=(4,), least_blocks=2)


def published(inputs: int, block_ops: int = 9) -> Limits:
    """Its limits: 9 operators of a block, 5 of the graph with inputs, one graph-defined kernel, 96 KiB."""
    return Limits(kernel_ops=5 - inputs, block_ops=block_ops, inputs=3, shared_bytes=96 << 10)


def product(m: int = 8, k: int = 1024, n: int = 1024) -> Graph:
    b = Program()
    x, w = b.input("X", (m, k)), b.input("W", (k, n))
    b.output(x @ w)
    return b.graph()


def small_norm() -> Graph:
    b = Program()
    x, w = b.input("X", (4, 64)), b.input("W", (64, 32))
    b.output(b.rms_norm(x) @ w)
    return b.graph()


def small_gate() -> Graph:
    b = Program()
    x, left, right = b.input("X", (8, 64)), b.input("A", (64, 32)), b.input("B", (64, 32))
    b.output(b.silu(x @ left) * (x @ right))
    return b.graph()


def states(explored: Explored) -> int:
    return sum(counts.states for counts in explored.counts)


def as_tasks(explored: Explored) -> int:
    """The published code counts a state that becomes a task, at the first five levels, once more."""
    return states(explored) + sum(sum(counts.depths[1:6]) for counts in explored.counts)


@pytest.mark.parametrize(
    ("program", "inputs", "roots", "counted", "valid"),
    [
        # Measured: 56,356 states and 26 valid graphs; a valid one at the first levels is counted once, which 22 are.
        (rmsnorm_linear(), 2, 3304, 56_356 + 22, 26),
        # Measured: 24,206 states and 23 valid graphs, all at the first levels.
        (product(), 2, None, 24_206 + 23, 23),
    ],
    ids=["rmsnorm_linear", "product"],
)
def test_state_by_state_the_published_search(
    program: Graph, inputs: int, roots: int | None, counted: int, valid: int
) -> None:
    explored = explore(program, published(inputs), CODED)
    assert explored.stop == "exhausted"
    assert roots is None or explored.roots + explored.unfit_roots == roots
    assert as_tasks(explored) == counted
    assert sum(len(s.members) for s in structures(explored, 0) if s.verified) == valid


def test_as_many_graphs_of_the_gated_mlp_are_tested_as_published() -> None:
    explored = explore(gated_mlp(), published(3), CODED)
    assert sum(counts.tested for counts in explored.counts) == 1104
    # Measured: 212,452.
    assert abs(as_tasks(explored) / 212_452 - 1) < 0.001


def kernels_of(explored: Explored) -> list[Kernel]:
    good = [lower(explored.program, s.members[0]) for s in structures(explored, 0) if s.verified]
    return [node for graph in good for node in graph.nodes if isinstance(node, Kernel)]


def operators(kernel: Kernel) -> list[str]:
    return [step.operator for step in kernel.body if isinstance(step, Op)]


def accumulators(kernel: Kernel) -> int:
    return sum(isinstance(step, Accumulate) for step in kernel.body)


@pytest.mark.parametrize(
    ("program", "plan", "choices"),
    [(rmsnorm_linear(), CODED, Choices()), (small_norm(), PAPER, SMALL)],
    ids=["as coded", "as in the paper"],
)
def test_the_norm_is_divided_out_after_the_loop(program: Graph, plan: Plan, choices: Choices) -> None:
    limits = Limits(kernel_ops=1, block_ops=7, inputs=2, shared_bytes=96 << 10)
    kernels = kernels_of(explore(program, limits, plan, choices))
    assert any(accumulators(k) == 2 and operators(k)[-1] == "div" and "rms_norm" not in operators(k) for k in kernels)


def test_the_gated_mlp_has_two_accumulators() -> None:
    kernels = kernels_of(explore(gated_mlp(), replace(published(3), kernel_ops=1), CODED))
    assert any(accumulators(k) == 2 and operators(k)[-2:] == ["silu", "mul"] for k in kernels)


def test_the_norms_of_a_transformer_share_a_kernel() -> None:
    limits = replace(published(3), kernel_ops=1)
    kernels = kernels_of(explore(norm_transformer(width=1024), limits, CODED))
    assert any(len(k.loads) == 3 and operators(k).count("rms_norm") == 2 for k in kernels)


def test_attention_is_one_kernel() -> None:
    """Both products in one loop, the quotient after it."""
    limits = Limits(kernel_ops=1, block_ops=9, inputs=3)
    b = Program()
    q, k, v = b.input("Q", (16, 32)), b.input("K", (32, 64)), b.input("V", (64, 32))
    e = b.exp(q @ k)
    b.output((e / b.sum(e, 1)) @ v)
    made = explore(b.graph(), limits, CODED, Choices(tiles=(8,), loops=(4,), least_blocks=2))
    kernels = kernels_of(made)
    assert any(
        operators(k).count("matmul") == 2 and accumulators(k) == 2 and operators(k)[-1] == "div" for k in kernels
    )


def test_what_is_returned_is_well_formed_and_computes_the_program() -> None:
    program = small_norm()
    limits = Limits(kernel_ops=2, block_ops=5, inputs=2)
    results = search(program, limits, replace(PAPER, keep=6), SMALL)
    assert results.stop == "exhausted"
    assert len(results.graphs) == results.verified > 2
    assert [found.estimate_us for found in results.graphs] == sorted(found.estimate_us for found in results.graphs)
    assert results.error_bound < 1e-50
    for found in results.graphs:
        assert check(found.graph) == ()
        assert isinstance(verify(found.graph, program, 1), Verified)
        assert difference(found.graph, program, seed=1) < 1e-9


def test_a_graph_of_predefined_kernels_alone_is_found() -> None:
    results = search(product(16, 64, 32), Limits(kernel_ops=1, block_ops=4, inputs=2), PAPER, SMALL)
    assert any(not any(isinstance(node, Kernel) for node in found.graph.nodes) for found in results.graphs)


def test_two_kernels_of_their_own() -> None:
    """What one kernel leaves in parts, the second one joins."""
    b = Program()
    x = b.input("x", (16, 256))
    b.output(b.exp(x) / b.sum(b.exp(x), 1))
    limits = Limits(kernel_ops=2, block_ops=4, graph_defined_kernels=2, inputs=2)
    explored = explore(b.graph(), limits, PAPER, Choices(bounded=False, tiles=(8,), loops=(2,), least_blocks=2))
    good = [lower(explored.program, s.members[0]) for s in structures(explored, 0) if s.verified]
    assert any(sum(isinstance(node, Kernel) for node in graph.nodes) == 2 for graph in good)


@pytest.mark.parametrize("frontier_bytes", [64 << 20, 20_000])
def test_breadth_first_finds_the_same(frontier_bytes: int) -> None:
    limits = Limits(kernel_ops=2, block_ops=5, inputs=2)
    breadth = replace(PAPER, order="bfs", frontier_bytes=frontier_bytes)
    deep, wide = (explore(small_norm(), limits, plan, SMALL) for plan in (PAPER, breadth))
    assert sorted(map(repr, deep.found)) == sorted(map(repr, wide.found))
    assert states(deep) == states(wide)
    assert sum(counts.frontier for counts in wide.counts) > 0


SCHEDULES = [
    {"schedule": schedule, "threads": threads, "order": order}
    for schedule, threads in (("static", 1), ("static", 3), ("openmp", 1), ("openmp", 2), ("openmp", 5))
    for order in ("dfs", "bfs")
]


@pytest.mark.parametrize("chosen", SCHEDULES, ids=str)
def test_schedules_orders_and_threads_change_nothing(chosen: dict[str, Any]) -> None:
    limits = Limits(kernel_ops=2, block_ops=6, inputs=2)
    alone = explore(small_norm(), limits, PAPER, SMALL)
    shared = explore(small_norm(), limits, replace(PAPER, **chosen), SMALL)
    assert alone.found == shared.found
    assert states(alone) == states(shared)
    assert len(shared.workers) == chosen["threads"]
    assert sum(worker.roots for worker in shared.workers) == shared.roots
    assert all(worker.busy_seconds + worker.wait_seconds > 0 for worker in shared.workers)


@pytest.mark.parametrize("order", ["dfs", "bfs"])
def test_work_under_one_root_is_taken_by_idle_threads(order: Literal["dfs", "bfs"]) -> None:
    limits = Limits(kernel_ops=1, block_ops=8, inputs=2)
    one = Choices(tiles=(32,), loops=(64,), least_blocks=2)
    b = Program()
    x, w = b.input("X", (3, 64)), b.input("W", (64, 64))
    b.output(b.rms_norm(x) @ w)
    plan = replace(PAPER, order=order)
    alone, many = (explore(b.graph(), limits, replace(plan, threads=threads), one) for threads in (1, 4))
    assert alone.roots < 40
    assert sum(worker.taken for worker in many.workers) > 0
    assert sum(worker.taken for worker in alone.workers) == 0
    assert (states(alone), alone.found) == (states(many), many.found)


def test_what_another_thread_goes_on_with_it_asks_alike() -> None:
    """Expressions are numbered by each thread for itself."""
    limits = Limits(kernel_ops=1, block_ops=5, inputs=2)
    b = Program()
    x, w = b.input("X", (16, 64)), b.input("W", (64, 32))
    b.output(x @ w)
    plan = replace(PAPER, oracle="z3", oracle_effort=6_000, seconds=60)
    choices = Choices(tiles=(8,), loops=(64,), least_blocks=8)
    alone, many = (explore(b.graph(), limits, replace(plan, threads=threads), choices) for threads in (1, 3))
    assert alone.stop == many.stop == "exhausted"
    assert sum(worker.taken for worker in many.workers) > 0
    assert (states(alone), alone.found) == (states(many), many.found)


def test_threads_that_share_answers_ask_nothing_twice() -> None:
    limits = Limits(kernel_ops=1, block_ops=4, inputs=2)
    plan = replace(PAPER, oracle="z3", oracle_cache="shared", oracle_effort=20_000, seconds=60)
    choices = Choices(tiles=(8,), loops=(64,), least_blocks=8)
    alone, many = (explore(product(16, 64, 32), limits, replace(plan, threads=n), choices) for n in (1, 4))
    assert alone.stop == many.stop == "exhausted"
    asked, hits = ([sum(getattr(w, name) for w in e.workers) for e in (alone, many)] for name in ("calls", "hits"))
    assert asked[0] == asked[1] > 0
    assert hits[0] == hits[1]
    assert alone.found == many.found


def test_roots_are_independent() -> None:
    limits = Limits(kernel_ops=2, block_ops=5, inputs=2)
    whole = explore(small_norm(), limits, PAPER, SMALL)
    made = space(small_norm(), limits, PAPER, SMALL)
    found = list(made.made.predefined)
    for index in reversed(range(made.roots)):
        graphs, counts = made.search_root(index)
        found += graphs
        assert counts.roots == 1
    assert sorted(map(repr, found)) == sorted(map(repr, whole.found))
    with pytest.raises(IndexError):
        made.search_root(made.roots)


@pytest.mark.parametrize("program", [small_norm(), small_gate()], ids=["norm", "gate"])
def test_the_bound_loses_nothing(program: Graph) -> None:
    limits = Limits(kernel_ops=1, block_ops=6 if len(program.inputs) == 2 else 7, inputs=3)
    free, bounded = (explore(program, limits, PAPER, replace(SMALL, bounded=bounded)) for bounded in (False, True))
    assert sorted(map(repr, free.found)) == sorted(map(repr, bounded.found))
    assert free.found or len(program.inputs) == 3
    assert states(bounded) < states(free)
    assert sum(counts.bound for counts in bounded.counts) > 0


def test_asking_more_seldom_finds_the_same_in_more_states() -> None:
    limits = Limits(kernel_ops=1, block_ops=5, inputs=2)
    often, seldom = (explore(small_norm(), limits, replace(PAPER, oracle_every=n), SMALL) for n in (1, 3))
    assert sorted(map(repr, often.found)) == sorted(map(repr, seldom.found))
    assert states(seldom) > states(often)


@pytest.mark.parametrize("cache", ["none", "thread", "shared"])
@pytest.mark.parametrize("plan", [PAPER, CODED], ids=["paper", "code"])
def test_what_z3_lets_pass_the_table_lets_pass(cache: Literal["none", "thread", "shared"], plan: Plan) -> None:
    b = Program()
    x, w = b.input("X", (8, 64)), b.input("W", (64, 32))
    b.output(x @ w)
    limits = Limits(kernel_ops=1, block_ops=4 if cache != "none" else 3, inputs=2)
    choices = replace(SMALL, loops=(64,), tiles=(8,) if cache == "none" else (16,))
    table = explore(b.graph(), limits, plan, choices)
    asking = replace(plan, oracle="z3", oracle_cache=cache, oracle_effort=10_000, seconds=60)
    z3 = explore(b.graph(), limits, replace(asking, threads=2 if cache == "shared" else 1), choices)
    assert z3.stop == "exhausted"
    counts = z3.workers
    assert sum(c.only_oracle for c in counts) == 0
    assert sum(c.calls for c in counts) > 0
    assert sum(c.oracle_seconds for c in counts) > 0
    assert set(map(repr, z3.found)) <= set(map(repr, table.found))
    assert (sum(c.hits for c in counts) > 0) == (cache != "none")
    # What z3 does not decide within its effort it prunes, and so loses what the table finds.
    assert len(z3.found) == len(table.found) or sum(c.only_table for c in counts) > 0


def test_time_ends_a_search() -> None:
    explored = explore(gqa(), Limits(kernel_ops=2, graph_defined_kernels=2, inputs=3), replace(CODED, seconds=0.2))
    assert explored.stop == "seconds"
    assert explored.seconds < 5


@pytest.mark.parametrize("after_s", [0.3, 1.5])
def test_ctrl_c_ends_a_search_and_keeps_what_it_has(after_s: float) -> None:
    """While roots are listed, or while they are searched: both would take hours."""
    limits = Limits(kernel_ops=2, graph_defined_kernels=2, inputs=3, block_ops=11)
    # Whoever runs the tests in the background may have had it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        explored = explore(gqa(), limits, replace(PAPER, threads=2, seconds=60))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert explored.stop == "interrupted"
    assert explored.seconds < 30
    assert states(explored) > 0


def test_a_budget_of_graphs_ends_a_search() -> None:
    limits = Limits(kernel_ops=2, block_ops=5, inputs=2)
    explored = explore(small_norm(), limits, replace(PAPER, max_graphs=3), SMALL)
    assert explored.stop == "graphs"
    assert 3 <= len(explored.found) < len(explore(small_norm(), limits, PAPER, SMALL).found)


def test_tensors_of_lower_rank_are_lifted() -> None:
    b = Program()
    x, bias = b.input("x", (32, 64)), b.input("bias", (64,))
    b.output(b.relu(x + bias))
    program = b.graph()
    results = search(program, Limits(kernel_ops=1, block_ops=5, inputs=2), replace(PAPER, keep=3), SMALL)
    assert results.graphs
    for found in results.graphs:
        assert difference(found.graph, program, seed=2) < 1e-9


def test_numbers_are_operators() -> None:
    b = Program()
    x = b.input("x", (32, 64))
    b.output(2 / (b.sigmoid(x) - 3) + b.clamp(1 - x, 0, 1))
    program = b.graph()
    results = search(program, Limits(kernel_ops=1, block_ops=11, inputs=1, outputs=1), replace(PAPER, keep=2), SMALL)
    assert results.graphs
    assert difference(results.graphs[0].graph, program, seed=2) < 1e-9


def test_degrees_are_products_of_primes() -> None:
    assert prime_factors(11008) == [2] * 8 + [43]
    assert described(product(8, 11008, 64)).degrees.primes == (2, 43)


def test_what_the_space_does_not_know_is_named() -> None:
    b = Program()
    b.output(b.exp(b.reshape(b.input("x", (16, 32)), 32, 16)))
    with pytest.raises(OptionError, match=r"node 0 \(reshape\)"):
        described(b.graph())


@pytest.mark.parametrize(
    "write",
    [
        lambda b, x: b.max(x, x),
        lambda b, x: b.concat(x, x, axis=0),
        lambda _, x: x / 0,
        lambda b, x: x * (b.constant(1) + b.constant(2)),
    ],
)
def test_a_program_that_it_cannot_take_is_an_error(write) -> None:  # type: ignore[no-untyped-def]
    b = Program()
    x = b.input("x", (16, 32))
    b.output(write(b, x))
    with pytest.raises(OptionError, match=r"node \d"):
        described(b.graph())


@pytest.mark.parametrize(
    ("limits", "choices"),
    [
        (Limits(block_ops=0), Choices()),
        (Limits(block_ops=30), Choices()),
        (Limits(inputs=9), Choices()),
        (Limits(graph_defined_kernels=4), Choices()),
        (Limits(), Choices(tiles=())),
        (Limits(), Choices(loops=(0,))),
    ],
)
def test_limits_without_room_are_refused(limits: Limits, choices: Choices) -> None:
    with pytest.raises(OptionError):
        space(small_norm(), limits, CODED, choices)
