"""From µGraphs to Triton source: text as reviewed, right for the programs, clear about what cannot be lowered."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from interpreted import Array, Interpreter
from right_graphs import RIGHT

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph
from tilesmith.superopt import programs
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Choice, Lowering, lower
from tilesmith.superopt.lower.choose import ways
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.options import may_group, may_prefetch, may_split, may_stream
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.program import Launch, program
from tilesmith.superopt.lower.source import file
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.shrink import shrink

H200 = target("h200")
SHOWN = (
    "rmsnorm_linear_divides_after_the_loop",
    "gqa_with_online_softmax",
    "gqa_flash_decoding_online",
    "qknorm_fused_in",
    "lora_in_one_kernel",
    "norm_transformer_in_one_kernel",
    "fused_gate_up_in_one_kernel",
    "heads_cut_by_the_grid",
)


def only(graph: Graph, named: bool = True) -> Plan:
    (launch,) = (s for s in program(prepared(graph, False), named).steps if isinstance(s, Launch))
    return launch.plan


def written(graph: Graph, choice: Choice) -> str:
    return file(graph, program(prepared(graph, False), True), [choice], (), False)


@pytest.mark.parametrize("name", SHOWN)
def test_sources_are_as_reviewed(golden: Callable[[str, str], None], name: str) -> None:
    graph, _ = RIGHT[name]()
    golden(f"lowered/{name}.py", lower(graph, H200)[0].source)


def test_the_hand_written_winner_of_the_gated_mlp_is_a_choice(golden: Callable[[str, str], None]) -> None:
    """Columns 64, inner 64, split in 4, loads in registers an iteration early, read once."""
    graph, _ = RIGHT["gated_mlp_in_one_kernel"]()
    plan = only(graph)
    blocks = {"rows": 16, "inner": 64, "columns": 64}
    choice = Choice(tuple(blocks[name] for name in plan.names), 4, 1, prefetch=True, split=4, stream=True)
    golden("lowered/gated_mlp_split.py", written(graph, choice))


def test_a_persistent_kernel_in_strips(golden: Callable[[str, str], None]) -> None:
    graph, _ = RIGHT["fused_gate_up_in_one_kernel"]()
    choice = next(lowered.choices[0] for lowered in lower(graph, H200) if not lowered.choices[0].descriptors)
    golden("lowered/fused_gate_up_persistent.py", written(graph, replace(choice, group=8, programs=132)))


def test_predefined_operators_become_kernels(golden: Callable[[str, str], None]) -> None:
    golden("lowered/rmsnorm_linear.py", lower(programs.rmsnorm_linear(), H200)[0].source)


def test_products_are_the_frameworks_where_the_problem_allows(golden: Callable[[str, str], None]) -> None:
    source = lower(programs.rmsnorm_linear(), H200, Lowering(library=True))[0].source
    golden("lowered/rmsnorm_linear_library.py", source)


# Numbers -------------------------------------------------------------------------------------------------------------


def compared(interpreter: Interpreter, graph: Graph, source: str, inputs: list[Array], limit: float = 1e-4) -> None:
    expected = evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)})
    found = interpreter.run(source, inputs)
    assert [array.shape for array in found] == [array.shape for array in expected]
    for got, want in zip(found, expected, strict=True):
        assert float(np.max(np.abs(got - want))) <= limit * float(np.std(want) or 1.0)


def normal(graph: Graph, kind: type[np.floating[object]] = np.float32) -> list[Array]:
    rng = np.random.default_rng(7)
    inputs = [rng.standard_normal(tensor.dims).astype(kind) for tensor in graph.inputs]
    exact = evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)})
    return inputs if all(np.isfinite(array).all() for array in exact) else [np.abs(array) for array in inputs]


@pytest.mark.parametrize("name", RIGHT)
def test_right_graphs_and_their_references_at_odd_sizes(interpreter: Interpreter, name: str) -> None:
    for graph in RIGHT[name]():
        small, _ = shrink((graph, graph), random.Random(3))
        small = replace(small, inputs=tuple(replace(tensor, dtype="fp32") for tensor in small.inputs))
        compared(interpreter, small, lower(small, H200)[0].source, normal(small))


SMALL: dict[str, Callable[[], Graph]] = {
    "rmsnorm_linear_divides_after_the_loop": lambda: programs.rmsnorm_linear(1, 136, 100),
    "rmsnorm_linear_splits_the_sum": lambda: programs.rmsnorm_linear(1, 136, 100),
    "gated_mlp_in_one_kernel": lambda: programs.gated_mlp(1, 100, 90),
    "gqa_in_one_kernel": lambda: programs.gqa(1, 40, 112, 16),
    "gqa_flash_decoding_online": lambda: programs.gqa(1, 40, 112, 16),
    "qknorm_fused_in": lambda: programs.qknorm_gqa(1, 40, 112, 16),
    "lora_in_one_kernel": lambda: programs.lora(1, 80, 100),
    "norm_transformer_in_one_kernel": lambda: programs.norm_transformer(1, 300),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_is_lowered_at_full_size_is_right_at_others(interpreter: Interpreter, name: str) -> None:
    graph, _ = RIGHT[name]()
    small = SMALL[name]()
    lowered = lower(graph, H200, Lowering(most=2))
    assert all("for inputs of any extents" in source.source for source in lowered)
    for source in lowered:
        compared(interpreter, small, source.source, normal(small, np.float16), limit=2e-2)


def test_a_whole_layer_operator_by_operator(interpreter: Interpreter) -> None:
    graph = programs.transformer_layer(1, 12, 48, 2, 16, 88)
    (lowered,) = lower(graph, H200, Lowering(most=1))
    compared(interpreter, graph, lowered.source, normal(graph, np.float16), limit=5e-2)


# Choices -------------------------------------------------------------------------------------------------------------


def test_choices_are_few_ranked_and_different() -> None:
    for name in SHOWN:
        lowered = lower(RIGHT[name]()[0], H200)
        assert 1 <= len(lowered) <= 8
        estimates = [source.estimate_us for source in lowered]
        assert min(estimates) == estimates[0] > 0
        assert len({source.source for source in lowered}) == len(lowered)
        assert lowered == lower(RIGHT[name]()[0], H200)


def test_preconditions() -> None:
    product = only(RIGHT["rmsnorm_linear_divides_after_the_loop"]()[0])
    assert may_split(product)
    assert may_prefetch(product)
    assert not may_group(product)
    # Every block reads X; W is read once.
    assert [may_stream(product, load) for load in (0, 1)] == [False, True]
    assert may_group(only(RIGHT["fused_gate_up_in_one_kernel"]()[0]))
    joined = only(RIGHT["tiles_put_together_by_the_loop"]()[0])
    assert not may_split(joined)
    assert not may_prefetch(only(RIGHT["norm_transformer_in_one_kernel"]()[0]))


def test_on_hopper_a_pipelined_operand_is_loaded_again() -> None:
    graph, _ = RIGHT["rmsnorm_linear_divides_after_the_loop"]()
    plan = only(graph)
    for gpu, expected in (("h200", True), ("a100-80", False)):
        piped = next(choice for choice in ways(plan, target(gpu)) if choice.stages > 1)
        assert ("x_again = tl.load(" in written(graph, piped)) == expected
        # What waits in registers has no buffer that both could read.
        ahead = replace(piped, stages=1, prefetch=True)
        assert "x_again" not in written(graph, ahead)


def test_large_tensors_have_wide_offsets() -> None:
    b = Program()
    x = b.input("x", (1 << 16, 1 << 16))
    b.output(b.exp(x))
    assert ".to(tl.int64)" in lower(b.graph(), H200)[0].source
    b = Program()
    x = b.input("x", (1 << 15, 1 << 15))
    b.output(b.exp(x))
    assert "int64" not in lower(b.graph(), H200)[0].source


def test_sources_made_for_one_shape_have_masks_only_where_they_must_and_say_so(interpreter: Interpreter) -> None:
    graph = programs.rmsnorm_linear(8, 64, 128)
    even = lower(graph, H200, Lowering(named=False, most=1))[0].source
    assert "mask" not in even
    ragged = lower(programs.rmsnorm_linear(8, 64, 90), H200, Lowering(named=False, most=1))[0].source
    assert "mask" in ragged
    with pytest.raises(AssertionError, match="X must have the shape"):
        interpreter.run(even, [np.zeros((3, 64), np.float16), np.zeros((64, 128), np.float16)])


def test_parameters_are_keywords() -> None:
    graph = programs.rmsnorm_linear()
    renamed = replace(graph, inputs=(graph.inputs[0], replace(graph.inputs[1], name="layers.0.weight")))
    source = lower(renamed, H200, Lowering(parameters=("layers.0.weight",)))[0].source
    assert "def kernel_function(X, *, layers_0_weight):" in source
    ast.parse(source)


# What cannot be lowered ----------------------------------------------------------------------------------------------


def refused(graph: Graph, *words: str, options: Lowering | None = None) -> None:
    with pytest.raises(OptionError) as caught:
        lower(graph, H200, options)
    assert all(word in str(caught.value) for word in words)


def test_a_block_that_fits_at_no_tile() -> None:
    b = Program()
    x = b.input("X", (64, 1 << 17))
    k = b.kernel((64,))
    b.output(*k.store((k.softmax(k.load(x, (0,))), (0,))))
    refused(b.graph(), "Kernel 0 (amax_sub_div_kernel)", "registers", "h200 has 255")
    b = Program()
    x, w = b.input("X", (32, 4096)), b.input("W", (4096, 32))
    k = b.kernel()
    b.output(*k.store((k.softmax(k.load(x)) @ k.load(w), ())))
    refused(b.graph(), "Kernel 0 (amax_sub_matmul_kernel)", "bytes of shared memory", "smallest tiles")


def test_a_dtype_without_kernels() -> None:
    b = Program()
    b.output(b.exp(b.input("x", (4, 4), "fp64")))
    refused(b.graph(), "x is fp64", "cast it")


def test_an_operator_that_blocks_cannot_have() -> None:
    b = Program()
    x = b.input("X", (12, 8))
    k = b.kernel((3,))
    tile = k.load(x, (0,))
    b.output(*k.store((k.slice(k.exp(tile), 1, 0, 4), (0,))))
    refused(b.graph(), "kernel 0", "slice")


def test_a_malformed_graph_and_no_sources() -> None:
    graph = programs.rmsnorm_linear()
    refused(replace(graph, outputs=(9,)), "malformed")
    refused(graph, "at least 1", options=Lowering(most=0))
