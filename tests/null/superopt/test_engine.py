"""From a program to verified µGraphs. What the engine counts is guarded by its own tests, in C++ (csrc/test)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tilesmith import _core
from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Accumulate, Graph, Kernel, Limits, Op
from tilesmith.core.graph_check import check
from tilesmith.superopt import engine as engines
from tilesmith.superopt.build import Expression, Program
from tilesmith.superopt.engine_lower import lower
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.numeric import difference
from tilesmith.superopt.programs import PROGRAMS, attention_block, gqa, qknorm_gqa
from tilesmith.superopt.search import search
from tilesmith.superopt.table import named
from tilesmith.superopt.verify import Verified, verify

ONE = Limits(kernel_ops=1, graph_defined_kernels=1)
TWO = Limits(kernel_ops=2, graph_defined_kernels=2)


def operators(kernel: Kernel) -> list[str]:
    return [step.operator for step in kernel.body if isinstance(step, Op)]


def accumulators(kernel: Kernel) -> int:
    return sum(isinstance(step, Accumulate) for step in kernel.body)


def only(graph: Graph) -> Kernel:
    kernels = [node for node in graph.nodes if isinstance(node, Kernel)]
    assert len(kernels) == 1
    return kernels[0]


@pytest.mark.parametrize("name", ["rmsnorm_linear", "gated_mlp", "gqa", "lora", "norm_transformer", "fused_gate_up"])
def test_published_programs_are_exhausted_in_one_kernel(name: str) -> None:
    program = PROGRAMS[name]()
    results = search(program, ONE, Plan(keep=2))
    assert results.stop == "exhausted"
    assert results.graphs
    assert results.verified == len(results.graphs)
    assert results.error_bound < 1e-100
    for found in results.graphs:
        assert check(found.graph, ONE) == ()
        assert difference(found.graph, program, seed=1) < 1e-9


def test_the_norm_is_divided_out_after_the_loop() -> None:
    found = search(PROGRAMS["rmsnorm_linear"](), ONE, Plan(keep=40)).graphs
    kernels = [only(f.graph) for f in found]
    assert any(
        accumulators(kernel) == 2 and operators(kernel)[-1] == "div" and "rms_norm" not in operators(kernel)
        for kernel in kernels
    )


def test_gated_mlp_has_two_accumulators() -> None:
    assert any(accumulators(only(f.graph)) == 2 for f in search(PROGRAMS["gated_mlp"](), ONE, Plan(keep=40)).graphs)


def test_lora_is_one_kernel_with_both_products() -> None:
    kernels = [only(f.graph) for f in search(PROGRAMS["lora"](), ONE, Plan(keep=40)).graphs]
    assert any(operators(kernel).count("matmul") == 3 for kernel in kernels)


def lowered(program: Graph, limits: Limits, keep: int) -> Iterator[Graph]:
    """What the engine finds, not yet verified."""
    plan = Plan(keep=keep)
    names = named(program, limits)
    made = engines.engine(names, limits, plan, target())
    engines.run(made)
    return (lower(names, made, kernels) for kernels in made.graphs())


def test_flash_decoding_is_found_with_two_kernels() -> None:
    """Sums that are split over the grid, and a kernel that joins the parts."""
    program = gqa(rows=16)
    for graph in lowered(program, TWO, keep=3000):
        first, *rest = (node for node in graph.nodes if isinstance(node, Kernel))
        if len(rest) == 1 and len(first.stores) == 2 and accumulators(first) == 2 and operators(rest[0])[-1] == "div":
            assert isinstance(verify(graph, program, seed=0), Verified)
            return
    raise AssertionError("no graph splits the keys and joins the parts")


def test_norms_are_fused_into_attention() -> None:
    limits = Limits(kernel_ops=1, graph_defined_kernels=1, block_ops=12)
    kernels = [only(f.graph) for f in search(qknorm_gqa(), limits, Plan(keep=40)).graphs]
    assert any(operators(kernel).count("rms_norm") == 2 and accumulators(kernel) == 2 for kernel in kernels)


def test_what_is_found_does_not_depend_on_when() -> None:
    first, second = (search(PROGRAMS["lora"](), TWO, Plan(keep=20)) for _ in range(2))
    assert [f.hash for f in first.graphs] == [f.hash for f in second.graphs]
    assert [f.graph for f in first.graphs] == [f.graph for f in second.graphs]


def test_a_budget_of_graphs_ends_the_search() -> None:
    results = search(PROGRAMS["lora"](), TWO, Plan(max_graphs=3, keep=5))
    assert results.stop == "graphs"
    assert 3 <= results.candidates < search(PROGRAMS["lora"](), TWO, Plan(keep=5)).candidates


def test_a_program_of_one_input_and_several_outputs() -> None:
    b = Program()
    x = b.input("x", (64, 256))
    b.output(b.exp(x), b.sum(x, 1))
    results = search(b.graph(), ONE, Plan(keep=5))
    assert results.graphs
    assert difference(results.graphs[0].graph, b.graph(), seed=3) < 1e-9


def test_self_attention_meets_itself_under_two_names() -> None:
    b = Program()
    x, w = b.input("x", (128, 64)), b.input("w", (64, 64))
    q = x @ w
    e = b.exp(q @ b.transpose(x))
    b.output((e / b.sum(e, 1)) @ x)
    results = search(b.graph(), Limits(kernel_ops=2, graph_defined_kernels=2), Plan(keep=5))
    assert results.graphs


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda b, x: b.concat(x, x, axis=0), "node 0 (concat)"),
        (lambda b, x: b.max(x, x), "node 0 (max)"),
        (lambda b, x: b.amax(x, 1), "node 0 (amax)"),
    ],
)
def test_what_the_space_does_not_know_is_named(write, says) -> None:  # type: ignore[no-untyped-def]
    b = Program()
    x = b.input("x", (16, 32))
    b.output(write(b, x))
    with pytest.raises(OptionError, match=says.replace("(", r"\(").replace(")", r"\)")):
        search(b.graph(), ONE, Plan())


@pytest.mark.parametrize("limits", [Limits(block_ops=0), Limits(inputs=0), Limits(graph_defined_kernels=0)])
def test_limits_of_nothing_are_refused(limits: Limits) -> None:
    with pytest.raises(OptionError, match=r"takes 1|takes 2"):
        search(PROGRAMS["lora"](), limits, Plan())


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(kernel_ops=1, block_ops=6), "at least 1 more operator in a block"),
        (Limits(kernel_ops=1, inputs=2), "reads 3 tensors"),
        (Limits(kernel_ops=1, shared_bytes=64), "64 bytes of shared memory"),
    ],
)
def test_when_nothing_is_found_the_limit_is_named(limits: Limits, says: str) -> None:
    results = search(PROGRAMS["gated_mlp"](), limits, Plan())
    assert results.graphs == ()
    assert says in results.closest


def test_interrupted_it_keeps_what_it_has() -> None:
    names = named(PROGRAMS["qknorm_gqa"](), Limits(graph_defined_kernels=5))
    made = engines.engine(names, Limits(graph_defined_kernels=5), Plan(keep=1), target())
    timer = threading.Timer(0.2, made.interrupt)
    timer.start()
    result = engines.run(made)
    timer.join()
    assert result.stop == "interrupted"
    # How much it has by then is the machine's affair.
    assert sum(worker.counters.states for worker in result.workers) > 0


def test_a_budget_of_seconds_ends_the_search() -> None:
    results = search(PROGRAMS["qknorm_gqa"](), Limits(graph_defined_kernels=5), Plan(keep=1, seconds=0.1))
    assert results.stop == "seconds"
    assert results.seconds < 5


def test_a_sum_of_what_lacks_the_dimension_is_refused() -> None:
    b = Program()
    x, y = b.input("x", (64, 128)), b.input("y", (64, 1))
    b.output(b.sum(x + y, 1))
    with pytest.raises(OptionError, match="a term of its operand lacks"):
        search(b.graph(), ONE, Plan())


def test_a_whole_attention_block_by_closure() -> None:
    """Any number of kernels; never dearer than the cheapest program of three."""
    program = attention_block()
    closed = search(program, Limits(), Plan(keep=1, kernels="closure", threads=2))
    listed = search(program, Limits(graph_defined_kernels=3), Plan(keep=1))
    assert closed.stop == listed.stop == "exhausted"
    assert closed.graphs[0].estimate_us <= listed.graphs[0].estimate_us * (1 + 1e-9)


def axes(kernels: list[_core.Kernel]) -> tuple[float, ...]:
    """What ranking looks at beside the estimate."""
    return (
        sum(kernel.bytes for kernel in kernels),
        float(len(kernels)),
        sum(kernel.flops for kernel in kernels),
        sum(kernel.traffic for kernel in kernels),
    )


def ranked(program: Graph, limits: Limits, keep: int) -> list[tuple[float, tuple[float, ...]]]:
    made = engines.engine(named(program, limits), limits, Plan(keep=keep), target())
    engines.run(made)
    return [(sum(kernel.seconds for kernel in kernels), axes(kernels)) for kernels in made.graphs()]


def no_worse(a: tuple[float, ...], b: tuple[float, ...], times: float = 1.0) -> bool:
    return all(x <= y * (times + 1e-9) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["rmsnorm_linear", "gqa", "qknorm_gqa"])
def test_the_front_is_kept_beside_the_best_estimates(name: str) -> None:
    everything = ranked(PROGRAMS[name](), TWO, keep=100_000)
    kept = ranked(PROGRAMS[name](), TWO, keep=24)
    assert [seconds for seconds, _ in kept] == sorted(seconds for seconds, _ in kept)
    assert [seconds for seconds, _ in kept[:8]] == [seconds for seconds, _ in everything[:8]]
    front = [
        point
        for _, point in everything
        if not any(no_worse(o, point) and not no_worse(point, o) for _, o in everything)
    ]
    assert all(any(no_worse(other, point) for _, other in kept) for point in front)
    near = [one for one in everything if any(no_worse(one[1], point, 1.1) for point in front)]
    assert all(any(no_worse(one[1], point, 1.1) for point in front) for one in kept[8:]) or len(near) < 24


def chain_of_products(_: Program, x: Expression, weights: Sequence[Expression]) -> Expression:
    for w in weights:
        x = x @ w
    return x


def residual_layers(b: Program, x: Expression, weights: Sequence[Expression]) -> Expression:
    for w in weights:
        x = x + b.silu(b.rms_norm(x) @ w)
    return x


@pytest.mark.parametrize("write", [chain_of_products, residual_layers])
def test_what_has_too_many_sub_values_is_known_before_all_are_made(write) -> None:  # type: ignore[no-untyped-def]
    # Both took minutes where all ways to cut one sum, or the whole of what shares an argument, were gone through first.
    b = Program()
    x = b.input("x", (64, 512))
    b.output(write(b, x, [b.input(f"w{place}", (512, 512)) for place in range(11)]))
    results = search(b.graph(), TWO, Plan())
    assert results.stop == "incomplete"
    assert "20000 sub-values" in results.reason
