"""What is fused in registers computes the same, and is all that can be."""

from __future__ import annotations

import pytest
from right_graphs import RIGHT

from tilesmith.core.graph import Graph, Kernel, Limits, Op, Thread
from tilesmith.core.graph_check import block_ops, check
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.draw import svg
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.programs import PROGRAMS
from tilesmith.superopt.search import search
from tilesmith.superopt.threads import fused
from tilesmith.superopt.verify import Verified, verify


def kernels(graph: Graph) -> list[Kernel]:
    return [node for node in graph.nodes if isinstance(node, Kernel)]


def threads(graph: Graph) -> list[tuple[str, ...]]:
    steps = [step for kernel in kernels(graph) for step in kernel.body]
    return [tuple(op.operator for op in step.ops) for step in steps if isinstance(step, Thread)]


def unread(kernel: Kernel) -> int:
    """Pairs of element-wise steps of which one is read by the other alone."""
    first = len(kernel.loads)
    uses = [o for step in kernel.body for o in set(step.operands)] + [store.source for store in kernel.stores]
    simple = {
        value
        for value, step in enumerate(kernel.body, first)
        if isinstance(step, Op) and OPERATORS[step.operator].kind == "element-wise"
    }
    return sum(
        operand in simple and uses.count(operand) == 1
        for value, step in enumerate(kernel.body, first)
        if value in simple
        for operand in set(step.operands)
    )


@pytest.mark.parametrize("name", RIGHT)
def test_it_is_the_same_program(name: str) -> None:
    graph, reference = RIGHT[name]()
    made = fused(graph)
    check(made)
    assert isinstance(verify(made, reference, 1), Verified)
    assert fused(made) == made
    assert [block_ops(kernel) for kernel in kernels(made)] == [block_ops(kernel) for kernel in kernels(graph)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gated_mlp", ("silu", "mul")), ("norm_transformer", ("mul", "mul", "add", "add")), ("lora", None)],
)
def test_what_the_search_finds_has_three_levels(name: str, expected: tuple[str, ...] | None) -> None:
    found = search(PROGRAMS[name](), Limits(), Plan(keep=1)).graphs[0].graph
    made = fused(found)
    assert threads(made) == ([expected] if expected else [])
    assert sum(unread(kernel) for kernel in kernels(made)) == 0
    for operator in expected or ():
        assert f">{operator}" in svg(made)
