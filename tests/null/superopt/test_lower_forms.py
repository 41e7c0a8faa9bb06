"""Forms that tile better compute the same, and apply where they should only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from interpreted import Interpreter
from right_graphs import RIGHT
from test_lower import H200, SMALL, compared, normal, only, written

from tilesmith.core.graph import Accumulate, Graph, Kernel, Op
from tilesmith.core.graph_check import block, tensors
from tilesmith.superopt import programs
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Lowering, lower
from tilesmith.superopt.lower.choose import choices, ways
from tilesmith.superopt.lower.forms import factored, laned, spread, walked
from tilesmith.superopt.lower.options import slices


def kernel_of(graph: Graph) -> Kernel:
    (kernel,) = (node for node in graph.nodes if isinstance(node, Kernel))
    return kernel


def operators(kernel: Kernel) -> list[str]:
    return [step.operator for step in kernel.body if isinstance(step, Op)]


def scaled_before_the_sum(columns: int = 96, inner: int = 256) -> Graph:
    b = Program()
    x, w = b.input("X", (8, inner)), b.input("W", (inner, columns))
    k = b.kernel((columns // 16,), 4)
    tile, weights = k.load(x, (None,), 1), k.load(w, (1,), 0)
    squares = k.accumulate(k.square(tile) * Fraction(1, inner), 1)
    b.output(*k.store((k.accumulate(tile @ weights) / k.sqrt(squares + 1), (1,))))
    return b.graph()


def test_factors_go_behind_sums_and_become_the_n_of_a_mean(interpreter: Interpreter) -> None:
    graph = scaled_before_the_sum()
    kernel = factored(kernel_of(graph), tensors(graph))
    assert [phase.name for phase, step in zip(block(kernel, graph.inputs).phases[2:], kernel.body, strict=True)
            if isinstance(step, Op) and step.operator == "mul"] == ["AFTER"]  # fmt: skip
    (lowered,) = lower(graph, H200, Lowering(most=1))
    assert "/ INNER" in lowered.source
    other = scaled_before_the_sum(48, 72)
    compared(interpreter, other, lowered.source, normal(other, np.float16), limit=2e-2)


def test_a_factor_that_something_else_reads_stays() -> None:
    b = Program()
    k = b.kernel((4,))
    tile = k.load(b.input("X", (8, 16)), (0,)) * Fraction(1, 3)
    b.output(*k.store((k.sum(tile, 1) + tile, (0,))))
    graph = b.graph()
    assert operators(factored(kernel_of(graph), tensors(graph))) == operators(kernel_of(graph))


def whole_product(rows: int = 16, inner: int = 4096, columns: int = 64) -> Graph:
    b = Program()
    x, w = b.input("X", (rows, inner)), b.input("W", (inner, columns))
    k = b.kernel((2,))
    b.output(*k.store((k.relu(k.load(x, (None,)) @ k.load(w, (1,))), (1,))))
    return b.graph()


def test_what_a_block_would_hold_whole_is_walked_along(interpreter: Interpreter) -> None:
    graph = whole_product()
    kernel = walked(kernel_of(graph), tensors(graph))
    assert [load.fmap for load in kernel.loads] == [1, 0]
    assert any(isinstance(step, Accumulate) for step in kernel.body)
    small = whole_product(5, 72, 38)
    (lowered,) = lower(graph, H200, Lowering(most=1))
    compared(interpreter, small, lowered.source, normal(small, np.float16), limit=2e-2)


def test_what_is_read_again_after_its_sum_is_not_walked_along() -> None:
    b = Program()
    k = b.kernel((8,))
    b.output(*k.store((k.softmax(k.load(b.input("X", (8, 1 << 14)), (0,))), (0,))))
    graph = b.graph()
    kernel = kernel_of(graph)
    assert walked(kernel, tensors(graph)) == kernel


def pixels(batch: int = 4, channels: int = 64, width: int = 512) -> Graph:
    """A norm over channels, as the search makes it: one pixel a block."""
    b = Program()
    x = b.input("x", (batch, channels, width))
    k = b.kernel((2, width))
    tile = k.load(x, (0, 2))
    flat = k.reshape(tile, batch // 2, channels)
    made = flat / k.sqrt(k.sum(k.square(flat), 1) / channels + 1e-5)
    b.output(*k.store((k.reshape(made, batch // 2, channels, 1), (0, 2))))
    return b.graph()


def test_neighbours_in_memory_are_in_one_tile(interpreter: Interpreter) -> None:
    graph = pixels()
    assert laned(kernel_of(graph), tensors(graph)).kernel.grid == (2, 1)
    (lowered,) = lower(graph, H200, Lowering(most=1))
    assert lowered.choices[0].blocks[0] >= 64
    small = pixels(2, 24, 37)
    compared(interpreter, small, lowered.source, normal(small, np.float16), limit=2e-2)


def test_lanes_inside_a_walk_are_left_alone() -> None:
    b = Program()
    k = b.kernel((2,), 2)
    tile = k.load(b.input("X", (1, 4)), (1,), 1)
    b.output(*k.store((k.accumulate(tile), (1,))))
    graph = b.graph()
    kernel = kernel_of(graph)
    assert laned(kernel, tensors(graph)).kernel == kernel


def test_a_batch_of_products_is_spread_over_the_grid() -> None:
    b = Program()
    x, w = b.input("X", (6, 32, 64)), b.input("W", (6, 64, 32))
    k = b.kernel()
    b.output(*k.store((k.load(x) @ k.load(w), ())))
    graph = b.graph()
    assert spread(kernel_of(graph), tensors(graph)).grid == (6,)
    assert "tl.reshape" not in lower(graph, H200)[0].source


def test_a_permutation_after_a_kernel_is_an_address_of_its_store(interpreter: Interpreter) -> None:
    b = Program()
    x, w = b.input("X", (32, 64)), b.input("W", (64, 96))
    k = b.kernel((6,), 2)
    (made,) = k.store((k.accumulate(k.load(x, (None,), 1) @ k.load(w, (1,), 0)), (1,)))
    b.output(b.permute(made, 1, 0))
    graph = b.graph()
    (lowered,) = lower(graph, H200, Lowering(most=1))
    assert "permute" not in lowered.source.split('"""')[2]
    assert "tl.trans" not in lowered.source
    compared(interpreter, graph, lowered.source, normal(graph, np.float16), limit=2e-2)


# Constants -----------------------------------------------------------------------------------------------------------


def test_a_constant_that_sizes_decide_makes_a_source_for_one_size() -> None:
    graph, _ = RIGHT["gqa_in_one_kernel"]()
    always = frozenset({Fraction(16)})
    assert "for inputs of any extents" in lower(graph, H200, Lowering(most=1, fixed=always))[0].source
    assert "for these extents only" in lower(graph, H200, Lowering(most=1, fixed=frozenset()))[0].source


# Programs that wait for one another ----------------------------------------------------------------------------------


def test_slices_of_a_split_loop(golden: Callable[[str, str], None]) -> None:
    """Columns 128, inner 64, split in 8, loads in registers, read once: the fastest that was written by hand."""
    graph, _ = RIGHT["rmsnorm_linear_divides_after_the_loop"]()
    plan = only(graph)
    blocks = {"rows": 16, "inner": 64, "columns": 128}
    choice = next(c for c in ways(plan, H200) if c.together and c.prefetch and c.split == 8
                  and dict(zip(plan.names, c.blocks, strict=True)) == blocks)  # fmt: skip
    golden("lowered/rmsnorm_linear_together.py", written(graph, choice))


@pytest.mark.parametrize("name", ["rmsnorm_linear_divides_after_the_loop", "gqa_in_one_kernel"])
def test_slices_add_up_in_every_call(interpreter: Interpreter, name: str) -> None:
    graph, _ = RIGHT[name]()
    small = SMALL[name]()
    choice = next(choice for choice, _ in choices(only(graph), H200, 1000) if choice.together)
    inputs = normal(small, np.float16)
    source = written(graph, choice)
    for calls in (1, 3):
        first, *_ = interpreter.run(source, inputs, calls=calls)
        again, *_ = interpreter.run(source.replace("LOOKS=LOOKS", "LOOKS=0"), inputs, calls=calls)
        assert np.array_equal(first, again)
    compared(interpreter, small, source, inputs, limit=2e-2)


def test_without_a_slice_nobody_waits() -> None:
    graph, _ = RIGHT["rmsnorm_linear_divides_after_the_loop"]()
    plan = only(graph)
    assert slices(plan, [16, 64, 128], 8) is not None
    assert slices(plan, [16, 64, 128], 3) is None
    assert slices(plan, [1, 64, 4], 8) is None
    joined = only(RIGHT["tiles_put_together_by_the_loop"]()[0])
    assert slices(joined, [64] * len(joined.axes.axes), 2) is None


def test_a_waiting_kernel_is_among_the_sources() -> None:
    for name in ("rmsnorm_linear_divides_after_the_loop", "gated_mlp_in_one_kernel"):
        lowered = lower(RIGHT[name]()[0], H200, Lowering(most=4))
        assert any(choice.together for source in lowered for choice in source.choices)


def test_small_programs_keep_their_dtypes(interpreter: Interpreter) -> None:
    graph = programs.lora(1, 80, 100)
    wide = replace(graph, inputs=tuple(replace(tensor, dtype="fp32") for tensor in graph.inputs))
    compared(interpreter, wide, lower(wide, H200, Lowering(most=1))[0].source, normal(wide))
