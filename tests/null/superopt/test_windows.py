"""Windows: what they see is what PyTorch's pooling sees, as numbers, over fields, and in every way it is lowered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from interpreted import Array, Interpreter

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Window
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Lowering, lower
from tilesmith.superopt.lower.choose import choices, ways
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.program import Launch, Steps, program
from tilesmith.superopt.lower.source import file
from tilesmith.superopt.lower.windows import delays
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.schema import from_json, to_json
from tilesmith.superopt.verify import Refuted, Verified, verify

H200 = target("h200")
quick = settings(deadline=None, suppress_health_check=list(HealthCheck))
extents = st.integers(1, 13)
OURS = Window(3, stride=2, padding=1, dilation=3)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """As PyTorch takes them: padding of half a window at most."""
    size = draw(st.integers(1, 5))
    padding = draw(st.integers(0, size // 2))
    return Window(size, draw(st.integers(1, 4)), padding, draw(st.integers(1, 3)))


def pooled(kind: str, dims: tuple[int, ...], *seen: Window) -> Graph:
    b = Program()
    x = b.input("x", dims, "fp32")
    b.output(b.apply(kind, x, windows=seen))
    return b.graph()


@st.composite
def poolings(draw: st.DrawFn) -> tuple[str, Graph, tuple[Window, ...]]:
    kind = draw(st.sampled_from(("max_pool", "max_pool", "mean_pool")))
    seen = tuple(draw(st.lists(windows(), min_size=1, max_size=3)))
    if kind == "mean_pool":
        # PyTorch's has no dilation.
        seen = tuple(Window(w.size, w.stride, w.padding) for w in seen)
    lead = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    try:
        graph = pooled(kind, (*lead, *(draw(extents) for _ in seen)), *seen)
    except OptionError:
        assume(False)
    return kind, graph, seen


def torch_source(kind: str, seen: tuple[Window, ...]) -> str:
    name = {"max_pool": "max_pool", "mean_pool": "avg_pool"}[kind]
    arguments = [[w.size for w in seen], [w.stride for w in seen], [w.padding for w in seen]]
    arguments += [[w.dilation for w in seen]] if kind == "max_pool" else []
    call = f"torch.nn.functional.{name}{len(seen)}d(x, {', '.join(map(str, arguments))})"
    return f"import torch\n\n\ndef kernel_function(x):\n    return {call}\n"


def only(steps: Steps) -> Plan:
    (launch,) = (step for step in steps.steps if isinstance(step, Launch))
    return launch.plan


def drawn(dims: tuple[int, ...], seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-5, equal_nan=True)


# What they are -------------------------------------------------------------------------------------------------------


@settings(quick, max_examples=40)
@given(poolings())
def test_windows_see_what_pytorch_s_see(interpreter: Interpreter, case: tuple[str, Graph, tuple[Window, ...]]) -> None:
    kind, graph, seen = case
    dims = graph.inputs[0].dims
    # PyTorch's means in three dimensions take no window that is longer than the dimension.
    assume(kind == "max_pool" or all(w.size <= extent for w, extent in zip(seen, dims[-len(seen) :], strict=True)))
    x = drawn(dims)
    (expected,) = interpreter.run(torch_source(kind, seen), [x])
    same(evaluate(graph, {"x": x})[0], expected)


@given(windows(), st.integers(0, 40))
def test_a_tap_sees_what_another_saw_places_before(window: Window, place: int) -> None:
    again = delays(window)
    for delay in again:
        then, now = (p * window.stride + t * window.dilation for p, t in
                     ((place, delay.of), (place + delay.places, delay.tap)))  # fmt: skip
        assert then == now
    # What is not seen again is not for nothing: no tap sees it earlier at another place.
    others = set(range(window.size)) - {delay.tap for delay in again}
    for tap in others:
        later = [t for t in range(tap + 1, window.size) if (t - tap) * window.dilation % window.stride == 0]
        assert not later


def test_windows_that_may_see_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match="may see nothing of a dimension of 1 but padding"):
        pooled("max_pool", (2, 1), Window(2, padding=1, dilation=2))
    with pytest.raises(OptionError, match="does not fit"):
        pooled("max_pool", (2, 4), Window(3, dilation=2))
    assert pooled("sum_pool", (2, 1), Window(2, padding=1, dilation=2)).outputs


def test_as_json() -> None:
    graph = pooled("max_pool", (2, 3, 11, 9, 7), OURS, OURS, Window(2))
    assert from_json(to_json(graph), "test") == graph


# Over fields ---------------------------------------------------------------------------------------------------------


def large(*steps: tuple[Window, ...]) -> Graph:
    b = Program()
    x = b.input("x", (16, 32, 128, 128, 128), "bf16")
    for seen in steps:
        x = b.max_pool(x, *seen)
    b.output(x)
    return b.graph()


WHOLE = large((OURS, OURS, OURS))
ONE = Window(1)


def test_windows_may_be_taken_one_dimension_after_another() -> None:
    assert isinstance(verify(large((ONE, ONE, OURS), (ONE, OURS, ONE), (OURS, ONE, ONE)), WHOLE, seed=1), Verified)


@pytest.mark.parametrize(
    "other",
    [
        large((OURS, OURS, Window(2, stride=2, padding=1, dilation=6))),
        large((OURS, OURS, Window(3, stride=2, padding=2, dilation=4))),
        large((OURS, ONE, OURS), (ONE, OURS, ONE), (ONE, ONE, ONE), (Window(2, padding=1), ONE, ONE)),
        large((OURS, OURS, Window(4, stride=2, padding=2, dilation=3))),
    ],
)
def test_other_windows_are_other_programs(other: Graph) -> None:
    assert isinstance(verify(other, WHOLE, seed=1), Refuted)


# Lowered -------------------------------------------------------------------------------------------------------------


@settings(quick, max_examples=30)
@given(st.data())
def test_every_choice_computes_the_same(interpreter: Interpreter, data: st.DataObject) -> None:
    _, graph, _ = data.draw(poolings())
    x = drawn(graph.inputs[0].dims)
    (expected,) = evaluate(graph, {"x": x})
    steps = program(prepared(graph, False), data.draw(st.booleans()))
    choice = data.draw(st.sampled_from(list(ways(only(steps), H200))))
    (found,) = interpreter.run(file(graph, steps, [choice], (), False), [x])
    same(found, expected)


@settings(quick, max_examples=12)
@given(st.data())
def test_a_source_holds_for_other_extents(interpreter: Interpreter, data: st.DataObject) -> None:
    kind, graph, seen = data.draw(poolings())
    assume(all(extent > 1 for extent in graph.inputs[0].dims))
    other = tuple(extent + data.draw(st.integers(0, 9)) for extent in graph.inputs[0].dims)
    assume(all(w.places(extent) > 1 for w, extent in zip(seen, graph.inputs[0].dims[-len(seen) :], strict=True)))
    x = drawn(other)
    (expected,) = evaluate(pooled(kind, other, *seen), {"x": x})
    lowered = data.draw(st.sampled_from(lower(graph, H200)))
    assert "for inputs of any extents" in lowered.source
    (found,) = interpreter.run(lowered.source, [x])
    same(found, expected)


@pytest.mark.parametrize("kind", ["max_pool", "mean_pool"])
@pytest.mark.parametrize("size", [1, 5, 9])
def test_many_taps_are_loops(interpreter: Interpreter, kind: str, size: int) -> None:
    graph = pooled(kind, (2, 9, 11, 10), Window(size, 1, size // 2), Window(7, 2, 3), Window(5, 3, 1))
    x = drawn(graph.inputs[0].dims)
    (expected,) = evaluate(graph, {"x": x})
    steps = program(prepared(graph, False), True)
    plan = only(steps)
    found = {(choice.walk, choice.gather, choice.prefetch): choice for choice in ways(plan, H200)}
    for choice in found.values():
        same(interpreter.run(file(graph, steps, [choice], (), False), [x])[0], expected)


def ours() -> tuple[Graph, Steps, Choice]:
    """The problem of the examples at a small size, walked in two shares with loads ahead."""
    graph = pooled("max_pool", (2, 3, 21, 14, 37), OURS, OURS, OURS)
    steps = program(prepared(graph, False), True)
    plan = only(steps)
    blocks = {"rows": 1, "depth": 1, "height": 1, "width": 64, "out_depth": 4, "out_height": 4, "out_width": 16}
    return graph, steps, Choice(tuple(blocks[n] for n in plan.names), 4, 1, prefetch=True, walk=True, gather=True)


def test_what_is_no_number_or_infinite(interpreter: Interpreter) -> None:
    graph, steps, choice = ours()
    x = drawn(graph.inputs[0].dims)
    x.reshape(-1)[::97] = np.nan
    x.reshape(-1)[::7] = -np.inf
    x[0] = -np.inf
    for way in [choice, *dict.fromkeys(c for c, _ in choices(only(steps), H200, 6))]:
        (found,) = interpreter.run(file(graph, steps, [way], (), False), [x])
        (expected,) = interpreter.run(torch_source("max_pool", (OURS,) * 3), [x])
        assert np.array_equal(found, expected, equal_nan=True)


def test_half_precision_is_exact(interpreter: Interpreter) -> None:
    b = Program()
    b.output(b.max_pool(b.input("x", (2, 3, 21, 14, 37), "fp16"), OURS, OURS, OURS))
    x = drawn((2, 3, 21, 14, 37)).astype(np.float16)
    (expected,) = evaluate(b.graph(), {"x": x})
    for lowered in lower(b.graph(), H200, Lowering(most=3)):
        assert np.array_equal(interpreter.run(lowered.source, [x])[0], expected)


def test_the_walk_is_as_reviewed(golden: Callable[[str, str], None]) -> None:
    graph, steps, choice = ours()
    golden("lowered/max_pool_walked.py", file(graph, steps, [choice], (), False))


def test_means_in_two_dimensions_are_as_reviewed(golden: Callable[[str, str], None]) -> None:
    golden("lowered/mean_pool.py", lower(pooled("mean_pool", (8, 64, 56, 56), *[Window(3, 2, 1)] * 2), H200)[0].source)


def test_a_kernel_of_the_graph(interpreter: Interpreter) -> None:
    """Windows over what a block holds whole: the lowering spreads their places over the grid."""
    b = Program()
    x, bias = b.input("x", (4, 12, 21, 19), "fp32"), b.input("bias", (12, 1, 1), "fp32")
    k = b.kernel((4, 12))
    made = k.relu(k.max_pool(k.load(x, (0, 1)), OURS, Window(3, 2, 1)) + k.load(bias, (None, 0)))
    b.output(*k.store((made, (0, 1))))
    graph = b.graph()
    inputs = [drawn(tensor.dims) for tensor in graph.inputs]
    expected = evaluate(graph, {"x": inputs[0], "bias": inputs[1]})
    for lowered in lower(graph, H200, Lowering(most=4)):
        same(interpreter.run(lowered.source, inputs)[0], expected[0])


def test_windows_over_what_a_block_computes_are_refused() -> None:
    b = Program()
    k = b.kernel((4,))
    made = k.max_pool(k.exp(k.load(b.input("x", (4, 20), "fp32"), (0,))), OURS)
    b.output(*k.store((made, (0,))))
    with pytest.raises(OptionError, match="max_pool looks at what a block has computed"):
        lower(b.graph(), H200)


@pytest.mark.parametrize("dims", [(64, 32, 128, 128, 128), (2048, 2048, 1024)])
def test_large_tensors_have_long_offsets(interpreter: Interpreter, dims: tuple[int, ...]) -> None:
    source = lower(pooled("max_pool", dims, OURS, OURS, OURS), H200)[0].source
    assert ".to(tl.int64)" in source
    assert ".to(tl.int64)" not in lower(pooled("max_pool", (2, 64, 64), OURS, OURS), H200)[0].source
    small = (*(2 for _ in dims[3:]), 13, 14, 37)
    x = drawn(small)
    same(interpreter.run(source, [x])[0], evaluate(pooled("max_pool", small, OURS, OURS, OURS), {"x": x})[0])
