"""Operands that are copied by coordinates, and warps with different work: text, numbers, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hopper import Given, Made, compiled
from interpreted import Interpreter
from right_graphs import RIGHT

from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph
from tilesmith.superopt import programs
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Choice, Lowering, lower
from tilesmith.superopt.lower.choose import choices, ways
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.options import grid_order
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.program import Launch, program
from tilesmith.superopt.lower.source import file
from tilesmith.superopt.lower.specialize import extents, fits_groups, may_specialize, ring_bytes
from tilesmith.superopt.lower.tma import fits, may_copy
from tilesmith.superopt.numeric import evaluate

H200 = target("h200")


def gate_up() -> Graph:
    return RIGHT["fused_gate_up_in_one_kernel"]()[0]


def batched(turned: bool) -> Graph:
    """Products of a batch, with a vector of each dimension and a whole tensor in what follows them."""
    b = Program()
    x, w = b.input("X", (4, 256, 512), "bf16"), b.input("W", (4, 640, 512) if turned else (4, 512, 640), "bf16")
    bias, scale = b.input("bias", (640,), "bf16"), b.input("scale", (256, 1))
    rest = b.input("rest", (4, 256, 640), "bf16")
    k = b.kernel((4, 2, 5), 8)
    tile = k.load(x, (0, 1, None), 2)
    weights = k.load(w, (0, None, 1), 2) if turned else k.load(w, (0, None, 2), 1)
    weights = k.transpose(weights) if turned else weights
    own = [k.load(bias, (None, None, 0)), k.load(scale, (None, 0, None)), k.load(rest, (0, 1, 2))]
    made = k.accumulate(tile @ weights)
    b.output(*k.store((k.silu(made * own[1] + own[0]) + own[2], (0, 1, 2))))
    return b.graph()


def turned_left() -> Graph:
    b = Program()
    x, w = b.input("X", (512, 256), "fp16"), b.input("W", (512, 640), "fp16")
    k = b.kernel((2, 5), 8)
    tile, weights = k.load(x, (1, None), 0), k.load(w, (None, 1), 0)
    b.output(*k.store((k.relu(k.accumulate(k.transpose(tile) @ weights)), (0, 1))))
    return b.graph()


def only(graph: Graph) -> Plan:
    (launch,) = (s for s in program(prepared(graph, False), True).steps if isinstance(s, Launch))
    return launch.plan


def special(plan: Plan, consumers: int, stages: int) -> Choice:
    found = extents(plan)
    assert found is not None
    sizes = dict(zip(found, (128, 128, 64), strict=True))
    blocks = tuple(sizes.get(axis, 1) for axis in range(len(plan.names)))
    order = tuple(grid_order(plan))
    return Choice(blocks, 8, stages, order=order, programs=132, descriptors=True, consumers=consumers)


def text(graph: Graph, choice: Choice) -> str:
    return file(graph, program(prepared(graph, False), True), [choice], (), False)


def test_sources_are_as_reviewed(golden: Callable[[str, str], None]) -> None:
    plan = only(gate_up())
    choice = replace(special(plan, 2, 4), group=8)
    golden("lowered/fused_gate_up_specialized.py", text(gate_up(), choice))
    golden("lowered/fused_gate_up_copied.py", text(gate_up(), replace(choice, consumers=0)))


# Numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("programs_", [0, 3])
@pytest.mark.parametrize("extents_", [(144, 200, 328), (128, 64, 128), (40, 72, 264)])
def test_what_is_copied_is_right_at_ragged_extents(
    interpreter: Interpreter, programs_: int, extents_: tuple[int, int, int]
) -> None:
    plan = only(gate_up())
    choice = replace(special(plan, 0, 4), programs=programs_, group=2)
    rows, inner, columns = extents_
    small = programs.fused_gate_up(rows, inner, columns)
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(tensor.dims).astype(np.float16) for tensor in small.inputs]
    (found,) = interpreter.run(text(gate_up(), choice).replace("bfloat16", "float16"), inputs)
    (exact,) = evaluate(small, {tensor.name: array for tensor, array in zip(small.inputs, inputs, strict=True)})
    assert float(np.max(np.abs(found - exact))) <= 2e-2 * float(np.std(exact))


def test_batches_are_copied(interpreter: Interpreter) -> None:
    for turned in (False, True):
        graph = batched(turned)
        graph = replace(graph, inputs=tuple(replace(tensor, dtype="fp16") for tensor in graph.inputs))
        rng = np.random.default_rng(3)
        inputs = [rng.standard_normal(tensor.dims).astype(np.float16) for tensor in graph.inputs]
        (found,) = interpreter.run(text(graph, replace(special(only(graph), 0, 3), programs=2)), inputs)
        (exact,) = evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)})
        assert float(np.max(np.abs(found - exact))) <= 2e-2 * float(np.std(exact))


# Compiled ------------------------------------------------------------------------------------------------------------


def given(graph: Graph) -> list[Given]:
    names = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    return [(tensor.dims, names[tensor.dtype]) for tensor in graph.inputs]


def cases() -> dict[str, tuple[Graph, Choice]]:
    plan = only(gate_up())
    pair = special(plan, 2, 4)
    return {
        "copied": (gate_up(), replace(pair, consumers=0)),
        "one group": (gate_up(), special(plan, 1, 4)),
        "two groups": (gate_up(), pair),
        "strips": (gate_up(), replace(pair, group=8)),
        "wide": (gate_up(), replace(pair, wide=True)),
        "wide of one": (gate_up(), replace(special(plan, 1, 4), wide=True)),
        "batches": (batched(False), special(only(batched(False)), 2, 3)),
        "turned batches": (batched(True), special(only(batched(True)), 1, 3)),
        "turned left": (turned_left(), special(only(turned_left()), 1, 3)),
    }


@pytest.fixture(scope="module")
def kernels() -> dict[str, Made]:
    made = compiled([(text(graph, choice), given(graph)) for graph, choice in cases().values()])
    return dict(zip(cases(), made, strict=True))


@pytest.mark.parametrize("name", cases())
def test_products_run_from_shared_memory_and_nothing_spills(kernels: dict[str, Made], name: str) -> None:
    made, (graph, choice) = kernels[name], cases()[name]
    plan = only(graph)
    assert made.count(r"wgmma\.mma_async\.sync\.aligned") > 0
    assert made.count(r"cp\.async\.bulk\.tensor\.\dd\.shared::cluster\.global") >= 2
    assert made.count(r"mbarrier\.try_wait") > 0
    assert made.count(r"ld\.global|cp\.async\.c[ag]") == 0 or len(plan.kernel.loads) > 3
    assert made.spilled_bytes == 0
    assert made.registers <= 255
    assert "wgmma" not in made.remarks
    # What is estimated is what is taken, but for what Triton aligns.
    assert choice.consumers == 0 or abs(made.shared_bytes - ring_bytes(plan, choice)) <= 1024


@pytest.mark.parametrize("name", ["one group", "two groups", "wide", "wide of one"])
def test_warps_have_different_work(kernels: dict[str, Made], name: str) -> None:
    made, choice = kernels[name], cases()[name][1]
    assert made.grid == (132, 1, 1)
    # Of 12 warps 8 multiply with more registers than they start with, and the group that copies has few.
    assert made.registers == 168
    assert made.count(r"setmaxnreg\.inc\.sync\.aligned\.u32\s+240") > 0
    assert made.count(r"setmaxnreg\.dec\.sync\.aligned\.u32\s+24\b") > 0
    # Tiles are stored from shared memory.
    assert made.count(r"cp\.async\.bulk\.tensor\.2d\.global\.shared::cta") == choice.consumers
    assert made.count(r"st\.global") == 0
    # One group's products of an iteration run on while the next are started.
    running = 0 if choice.consumers > 1 else 1 if choice.wide else 2
    assert made.count(rf"wgmma\.wait_group\.sync\.aligned {running}") == choice.consumers
    assert made.count("m64n256k16" if choice.wide else "m64n128k16") > 0


# Choices -------------------------------------------------------------------------------------------------------------


def test_both_are_proposed_where_products_have_many_tiles() -> None:
    picked = [lowered.choices[0] for lowered in lower(gate_up(), H200, Lowering(most=6))]
    assert any(choice.consumers for choice in picked)
    assert any(choice.descriptors and not choice.consumers for choice in picked)
    assert any(not choice.descriptors for choice in picked)
    plan = only(gate_up())
    for choice in ways(plan, H200):
        assert not choice.consumers or (choice.descriptors and choice.programs and fits_groups(plan, choice))
    for choice, _ in choices(plan, H200, 100):
        assert not choice.consumers or ring_bytes(plan, choice) <= H200.block_shared_bytes


@pytest.mark.parametrize(
    "name",
    ["rmsnorm_linear_divides_after_the_loop", "gated_mlp_in_one_kernel", "lora_in_one_kernel", "qknorm_fused_in"],
)
def test_neither_where_a_kernel_waits_for_memory(name: str) -> None:
    assert not any(choice.descriptors for choice in ways(only(RIGHT[name]()[0]), H200))


def test_neither_on_other_gpus() -> None:
    assert not any(choice.descriptors for choice in ways(only(gate_up()), target("a100-80")))


def test_preconditions() -> None:
    plan = only(gate_up())
    assert may_copy(plan)
    assert may_specialize(plan)
    wide = replace(
        special(plan, 2, 4), blocks=tuple(512 if size == 128 else size for size in special(plan, 2, 4).blocks)
    )
    assert not fits(plan, wide)
    assert not fits_groups(plan, replace(special(plan, 2, 4), blocks=(64, 64, 64)))
    # Rows of 200 bytes are no multiples of 16.
    assert not may_copy(only(programs_of(100)))
    assert may_copy(only(programs_of(104)))
    # A sum of squares beside the product: nothing but products may be in the loop.
    norm = only(RIGHT["rmsnorm_linear_divides_after_the_loop"]()[0])
    assert may_copy(norm)
    assert not may_specialize(norm)
    left = only(turned_left())
    assert may_specialize(left)
    assert fits_groups(left, special(left, 1, 3))
    assert not fits_groups(left, special(left, 2, 3))


def programs_of(inner: int) -> Graph:
    b = Program()
    x, w = b.input("X", (256, inner), "bf16"), b.input("W", (256, inner), "bf16")
    k = b.kernel((2, 2), 2)
    tile, weights = k.load(x, (0, None), 1), k.load(w, (None, 0), 1)
    b.output(*k.store((k.accumulate(tile @ k.transpose(weights)), (0, 1))))
    return b.graph()


# The other way round -------------------------------------------------------------------------------------------------


def stored_turned(rows: int, inner: int, columns: int) -> Graph:
    """Both products with their operands in the other order, as a search finds them: columns by rows, then turned."""
    b = Program()
    x = b.input("x", (rows, inner), "bf16")
    gate, up = b.input("Wg", (columns, inner), "bf16"), b.input("Wu", (columns, inner), "bf16")
    k = b.kernel((2, 4), 8)
    tile, left, right = k.load(x, (0, None), 1), k.load(gate, (None, 0), 1), k.load(up, (None, 0), 1)
    made = k.gelu(k.accumulate(left @ k.transpose(tile))) * k.accumulate(right @ k.transpose(tile))
    b.output(b.permute(*k.store((made, (1, 0))), 1, 0))
    return b.graph()


def test_a_result_that_is_stored_turned_is_computed_the_other_way_round(interpreter: Interpreter) -> None:
    turned = lower(stored_turned(512, 3072, 24576), H200)
    plain = lower(gate_up(), H200)
    code = [[each.source.split('"""', 2)[2] for each in made] for made in (turned, plain)]
    assert code[0] == code[1]
    graph = stored_turned(128, 64, 256)
    graph = replace(graph, inputs=tuple(replace(tensor, dtype="fp16") for tensor in graph.inputs))
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(tensor.dims).astype(np.float16) for tensor in graph.inputs]
    (exact,) = evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)})
    (found,) = interpreter.run(lower(graph, H200, Lowering(most=1))[0].source, inputs)
    assert float(np.max(np.abs(found - exact))) <= 2e-2 * float(np.std(exact))


def test_short_sides_keep_their_order() -> None:
    source = lower(stored_turned(64, 128, 256), H200, Lowering(most=1))[0].source
    assert "tl.zeros((BLOCK_COLUMNS, BLOCK_ROWS)" in source
