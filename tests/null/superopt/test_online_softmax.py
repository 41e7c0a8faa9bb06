"""Softmax that stands any scores: the sums of exponentials that a search finds, shifted, lowered, run on large ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from interpreted import Array, Interpreter

from tilesmith.core.gpu import target
from tilesmith.core.graph import Accumulate, Graph, Kernel, Op
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Lowering, lower
from tilesmith.superopt.lower.choose import ways
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.program import Launch, program
from tilesmith.superopt.lower.source import file
from tilesmith.superopt.online import overflows, shifted
from tilesmith.superopt.verify import Verified, verify
from tilesmith.superopt.whole import Best

H200 = target("h200")


def attention(heads: int, queries: int, keys: int, dim: int) -> Graph:
    b = Program()
    q, k, v = b.input("Q", (heads, queries, dim)), b.input("K", (heads, keys, dim)), b.input("V", (heads, keys, dim))
    b.output(b.softmax((q @ b.transpose(k)) / 8, 2) @ v)
    return b.graph()


def shown(scores: Array, values: Array) -> Array:
    """softmax(scores) @ values in float64."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    made: Array = e / e.sum(-1, keepdims=True) @ values
    return made


def large(graph: Graph, seed: int) -> list[Array]:
    """Numbers whose scores are in the thousands: exp of one is infinite in any format."""
    rng = np.random.default_rng(seed)
    return [(30 * rng.standard_normal(tensor.dims)).astype(np.float16) for tensor in graph.inputs]


def best(graph: Graph) -> tuple[Graph, ...]:
    return Best(H200, 10.0, 0, lambda _: "", lambda _: None).of(graph)


def online(graph: Graph) -> bool:
    (kernel,) = (node for node in graph.nodes if isinstance(node, Kernel))
    return any(isinstance(step, Accumulate) and step.how == "rescale" for step in kernel.body)


@pytest.mark.parametrize("dims", [(2, 17, 19, 16), (1, 128, 160, 16), (2, 256, 256, 32)])
def test_what_is_found_for_attention_stands_large_scores(
    interpreter: Interpreter, dims: tuple[int, int, int, int]
) -> None:
    graph = attention(*dims)
    found = best(graph)
    assert online(found[0])
    for made in found:
        assert not overflows(made)
        assert isinstance(verify(made, graph, seed=3), Verified)
    q, k, v = inputs = large(graph, 5)
    expected = shown(q.astype(float) @ k.astype(float).swapaxes(-1, -2) / 8, v.astype(float))
    for made in found[:2]:
        (got,) = interpreter.run(lower(made, H200, Lowering(most=1))[0].source, inputs)
        assert float(np.abs(got - expected).max()) <= 1e-2 * float(expected.std())


def masked(turned: bool) -> Graph:
    """Attention with a mask that is added, as the search would find it; `turned`: with queries along the columns."""
    b = Program()
    q, k, v, m = b.input("Q", (64, 16)), b.input("K", (128, 16)), b.input("V", (128, 32)), b.input("M", (64, 128))
    block = b.kernel((2,), 4)
    rows, keys, values = block.load(q, (0,)), block.load(k, (None,), 0), block.load(v, (None,), 0)
    mask = block.load(m, (0,), 1)
    if turned:
        e = block.exp(keys @ block.transpose(rows) + block.transpose(mask))
        top = block.accumulate(block.transpose(values) @ e)
        b.output(b.transpose(*block.store((top / block.accumulate(e, 0), (1,)))))
    else:
        e = block.exp(rows @ block.transpose(keys) + mask)
        b.output(*block.store((block.accumulate(e @ values) / block.accumulate(e, 1), (0,))))
    graph = b.graph()
    return replace(graph, inputs=tuple(replace(tensor, dtype="fp32") for tensor in graph.inputs))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("split", [1, 2])
def test_tiles_of_nothing_but_minus_infinity_weigh_nothing(interpreter: Interpreter, turned: bool, split: int) -> None:
    made = shifted(masked(turned), seed=1)
    assert made is not None
    assert not overflows(made)
    (launch,) = (s for s in program(prepared(made, False), True).steps if isinstance(s, Launch))
    plan = launch.plan
    choice = next(iter(ways(plan, H200)))
    step = plan.axes.step
    assert step is not None
    blocks = tuple(16 if axis == step else block for axis, block in enumerate(choice.blocks))
    choice = replace(choice, blocks=blocks, split=split, together=False, prefetch=False, programs=0, group=0)
    source = file(made, program(prepared(made, False), True), [choice], (), True)
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal(dims).astype(np.float32) for dims in ((50, 16), (90, 16), (90, 32)))
    mask = np.where(np.arange(90) < 5, 3e4, 0.0) * np.ones((50, 1))
    mask[:20, :70] = -np.inf
    mask[20:30, 40:] = -np.inf
    mask[30, 1:] = -np.inf
    mask = mask.astype(np.float32)
    (got,) = interpreter.run(source, [q, k, v, mask])
    expected = shown(q.astype(float) @ k.T.astype(float) + mask, v.astype(float))
    assert np.isfinite(expected).all()
    assert float(np.abs(got - expected).max()) <= 1e-2


def test_rows_that_a_block_holds_are_less_their_own_maximum(interpreter: Interpreter) -> None:
    b = Program()
    x = b.input("X", (24, 40))
    k = b.kernel((3,))
    e = k.exp(k.load(x, (0,)))
    b.output(*k.store((e / k.sum(e, 1), (0,))))
    made = shifted(b.graph(), seed=1)
    assert made is not None
    assert not overflows(made)
    assert overflows(b.graph())
    (inputs,) = large(b.graph(), 3)
    (got,) = interpreter.run(lower(made, H200)[0].source, [inputs])
    assert np.allclose(got, shown(inputs.astype(float), np.eye(40)), atol=1e-3)


def test_sums_of_the_same_scores_share_their_maximum() -> None:
    made = shifted(masked(turned=True), seed=1)
    assert made is not None
    (kernel,) = (node for node in made.nodes if isinstance(node, Kernel))
    over = [step.operands[0] for step in kernel.body if isinstance(step, Accumulate)]
    assert len(over) == 2
    assert len(set(over)) == 1


def test_a_program_that_takes_its_exponentials_itself_keeps_both() -> None:
    b = Program()
    q, k = b.input("Q", (32, 16)), b.input("K", (16, 64))
    e = b.exp(q @ k)
    b.output(e / b.sum(e, 1))
    found = best(b.graph())
    assert {overflows(graph) for graph in found} == {False, True}
    assert overflows(found[0])


def test_what_cannot_be_shifted_is_cut_into_parts() -> None:
    """A softmax alone is one operator, which is lowered shifted; no µGraph that overflows takes its place."""
    b = Program()
    x, y = b.input("X", (8, 64)), b.input("Y", (8, 64))
    b.output(b.softmax(x, 1) * y, b.softmax(x + y, 1))
    for made in best(b.graph()):
        assert not overflows(made)
        assert any(isinstance(node, Kernel) or (isinstance(node, Op) and node.operator == "softmax")
                   for node in made.nodes)  # fmt: skip
