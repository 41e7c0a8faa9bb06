"""Programs of several outputs, taken apart and put side by side: the same values, and what can be shared is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Store, Tensor
from tilesmith.core.graph_check import check
from tilesmith.superopt.beside import alone, beside
from tilesmith.superopt.build import Expression, Program
from tilesmith.superopt.numeric import evaluate


def values(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(evaluate(graph, {tensor.name: rng.standard_normal(tensor.dims) for tensor in graph.inputs}))


def product(source: int = 0, weight: int = 1) -> Kernel:
    """A block of rows times a weight, four iterations along what is summed."""
    loads = (Load(source, imap=(0,), fmap=1), Load(weight, imap=(None,), fmap=0))
    body = (Op("matmul", (0, 1)), Accumulate("sum", (2,)))
    return Kernel((2,), 4, loads, body, (Store(3, omap=(0,)),))


def inputs(*names: str) -> Graph:
    return Graph(tuple(Tensor((8, 8), "fp16", name) for name in names), (), ())


def of(outer: Graph, *sources: int, nodes: tuple[Kernel | Op, ...], output: int) -> tuple[Graph, tuple[int, ...]]:
    return Graph(tuple(outer.inputs[value] for value in sources), nodes, (output,)), sources


def test_products_of_the_same_rows_are_one_kernel() -> None:
    program = inputs("x", "a", "b", "c")
    parts = [of(program, 0, weight, nodes=(product(),), output=2) for weight in (1, 2, 3)]
    made = beside(program, parts)
    assert not check(made)
    (kernel,) = made.nodes
    assert isinstance(kernel, Kernel)
    assert [load.source for load in kernel.loads] == [0, 1, 2, 3]
    assert len(kernel.stores) == 3
    rng = np.random.default_rng(1)
    x, *weights = (rng.standard_normal((8, 8)) for _ in range(4))
    for got, weight in zip(values(made), weights, strict=True):
        assert np.allclose(got, x @ weight)


def test_what_both_need_is_computed_once() -> None:
    program = inputs("x", "a", "b")
    first = of(program, 0, 1, nodes=(product(),), output=2)
    chain = of(program, 0, 1, 2, nodes=(product(), product(3, 2)), output=4)
    made = beside(program, [first, chain])
    assert not check(made)
    assert len(made.nodes) == 2
    assert made.outputs == (3, 4)


def test_what_shares_nothing_or_is_cut_otherwise_stays_apart() -> None:
    program = inputs("x", "y", "a", "b")
    apart = beside(
        program, [of(program, 0, 2, nodes=(product(),), output=2), of(program, 1, 3, nodes=(product(),), output=2)]
    )
    assert len(apart.nodes) == 2
    whole = Kernel((1,), 1, (Load(0, (None,)), Load(1, (None,))), (Op("matmul", (0, 1)),), (Store(2, (None,)),))
    other = beside(
        program, [of(program, 0, 2, nodes=(product(),), output=2), of(program, 0, 3, nodes=(whole,), output=2)]
    )
    assert len(other.nodes) == 2


@st.composite
def several(draw: st.DrawFn) -> Graph:
    """Programs of squares, sums and products over four inputs, with two outputs to four."""
    b = Program()
    made: list[Expression] = [b.input(name, (4, 4)) for name in "abcd"]
    for _ in range(draw(st.integers(1, 6))):
        one, two = (draw(st.sampled_from(made)) for _ in range(2))
        made.append(draw(st.sampled_from([one @ two, one * two, one + two])))
    for expression in draw(st.lists(st.sampled_from(made[4:]), min_size=2, max_size=4)):
        b.output(expression)
    return b.graph()


@settings(max_examples=60, deadline=None)
@given(several())
def test_apart_and_together_again_is_the_same_program(program: Graph) -> None:
    parts = [alone(program, output) for output in range(len(program.outputs))]
    for part, sources in parts:
        assert not check(part)
        assert [tensor.name for tensor in part.inputs] == [program.inputs[source].name for source in sources]
    made = beside(program, parts)
    assert not check(made)
    # Equal operators of equal operands are one.
    assert len(made.nodes) <= len(program.nodes)
    for got, want in zip(values(made), values(program), strict=True):
        assert np.allclose(got, want)
