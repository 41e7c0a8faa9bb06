"""µGraphs as values: what is well formed, what is said of the rest, one hash for one program, JSON there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import data, disguised, programs
from right_graphs import RIGHT

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Graph, Kernel, Limits, Load, Op, Store, Tensor, Thread, Window
from tilesmith.core.graph_check import block, block_ops, check, kernel_ops, shared_bytes, tensors
from tilesmith.core.graph_hash import canonical, graph_hash
from tilesmith.superopt.build import Program
from tilesmith.superopt.macros import expand
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.programs import PROGRAMS, rmsnorm_linear
from tilesmith.superopt.schema import from_json, schema, to_json

DOCS = Path(__file__).parents[3] / "docs"
X = Tensor((8, 12), "fp16", "X")
TILE = Load(0, (0,), 1)
GOOD = Kernel((4,), 3, (TILE,), (Accumulate("sum", (0,), (1,)),), (Store(1, (0,)),))


def graph(*nodes: Op | Kernel, output: int | None = None) -> Graph:
    return Graph((X,), nodes, (len(nodes) if output is None else output,))


def test_a_good_kernel_has_no_faults() -> None:
    assert check(graph(GOOD)) == ()
    assert tensors(graph(GOOD))[1] == Tensor((8, 1), "fp16")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (graph(Op("matmul", (0, 0))), "node 0 (matmul): inner extents 12 and 8 of [8, 12] and [8, 12] differ"),
        (graph(Op("blur", (0,))), "node 0 (blur): there is no operator 'blur'"),
        (graph(Op("exp", (1,))), "node 0 (exp): value 1 is not made before it"),
        (graph(Op("add", (0,))), "node 0 (add): it takes 2 operands, not 1"),
        (graph(Op("sum", (0,))), "node 0 (sum): it needs axes"),
        (graph(Op("sum", (0,), axes=(2,))), "node 0 (sum): axes [2] are not distinct dimensions of [8, 12]"),
        (graph(Op("exp", (0,), axes=(1,))), "node 0 (exp): it takes no axes"),
        (graph(Op("reshape", (0,), dims=(9, 9))), "node 0 (reshape): [8, 12] cannot be seen as [9, 9]"),
        (graph(Op("permute", (0,), axes=(0, 0))), "node 0 (permute): axes [0, 0] are no order of the 2 dimensions"),
        (graph(Op("cast", (0,))), "node 0 (cast): it needs a dtype"),
        (graph(Op("exp", (0,)), output=7), "output 7 is not among its 2 values"),
        (Graph((X, X), (), (0,)), "inputs 0 and 1 are both named 'X'"),
        (Graph((X,), (), ()), "it has no outputs"),
        (graph(replace(GOOD, grid=(5,))),
         "node 0 (kernel): load 0: 5 parts of dimension 0, 8 long, would not be equal"),
        (graph(replace(GOOD, loop=5)), "node 0 (kernel): load 0: 5 parts of dimension 1, 12 long, would not be equal"),
        (graph(replace(GOOD, loads=(Load(0, (2,), 1),))),
         "node 0 (kernel): load 0: there is no dimension 2 in a tensor of 2"),
        (graph(replace(GOOD, loads=(Load(0, (), 1),))),
         "node 0 (kernel): load 0: imap has 0 entries for a grid of 1 axes"),
        (graph(replace(GOOD, loads=(Load(0, (0,)),))),
         "node 0 (kernel): value 1 (accumulate sum): it gathers what does not vary over the loop"),
        (graph(replace(GOOD, body=(*GOOD.body, Op("add", (0, 1))))),
         "node 0 (kernel): value 2 (add): it joins a value of one iteration with one that exists only after the loop"),
        (graph(replace(GOOD, stores=(Store(0, (0,)),))),
         "node 0 (kernel): store 0: value 0 is that of one iteration; accumulate it first"),
        (graph(replace(GOOD, stores=(Store(1, (None,)),))),
         "node 0 (kernel): store 0: the 4 blocks along axis 0 of the grid write the same cells"),
        (graph(replace(GOOD, stores=())), "node 0 (kernel): it stores nothing"),
        (graph(replace(GOOD, grid=(0,))), "node 0 (kernel): its grid or its loop has an extent below 1"),
        (graph(replace(GOOD, body=(Thread((0,), (Op("sum", (0,), axes=(0,)),)),))),
         "node 0 (kernel): value 1 (thread sum): sum is not element-wise"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(bad: Graph, message: str) -> None:
    assert message in check(bad)
    with pytest.raises(OptionError):
        tensors(bad)


def test_several_faults_are_all_said() -> None:
    assert len(check(graph(Op("matmul", (0, 0)), Op("sum", (0,)), Op("exp", (0,))))) == 2


def test_limits_are_checked_with_what_exceeds_them() -> None:
    tight = Limits(0, 1, 0, 0, 0, 8, 3)
    found = " ".join(check(graph(GOOD), tight))
    for what in (
        "defines 1 kernels",
        "1 kernels, more",
        "2 operators",
        "1 inputs",
        "1 outputs",
        "4 blocks",
        "24 bytes",
    ):
        assert what in found
    assert check(graph(GOOD), Limits()) == ()


def test_operators_and_shared_memory_are_counted() -> None:
    candidate, _ = RIGHT["rmsnorm_linear_divides_after_the_loop"]()
    kernel = candidate.nodes[0]
    assert isinstance(kernel, Kernel)
    # Two loads, matmul, square, two accumulators, a division by 4096, an addition, a root, a division.
    assert block_ops(kernel) == 10
    assert kernel_ops(candidate) == 1
    made = block(kernel, tensors(candidate))
    assert [tile.dims for tile in made.tiles[:3]] == [(2, 64), (64, 64), (2, 64)]
    # In the loop: both tiles, a product, and both accumulators in float32.
    assert shared_bytes(kernel, tensors(candidate)) == 2 * (2 * 64 + 64 * 64 + 2 * 64) + 4 * (2 * 64 + 2)


@pytest.mark.parametrize("name", RIGHT)
def test_macros_are_spelled_out_without_a_change(name: str) -> None:
    graph_of, _ = RIGHT[name]()
    assert tensors(expand(graph_of))[expand(graph_of).outputs[0]] == tensors(graph_of)[graph_of.outputs[0]]


@settings(deadline=None)
@given(programs())
def test_json_there_and_back(graph_of: Graph) -> None:
    assert from_json(to_json(graph_of)) == graph_of


@pytest.mark.parametrize("name", RIGHT)
def test_json_of_kernels_there_and_back(name: str) -> None:
    for graph_of in RIGHT[name]():
        assert from_json(to_json(graph_of)) == graph_of


@settings(deadline=None)
@given(data)
def test_any_data_is_checked_and_never_crashes(graph_of: Graph) -> None:
    faults = check(graph_of, Limits())
    if not check(graph_of):
        assert graph_hash(canonical(graph_of).graph) == graph_hash(graph_of)
    assert all(fault and "\n" not in fault for fault in faults)


KEYS = """inputs nodes outputs name dims dtype op operands axes kernel grid loop loads body stores source imap fmap omap
    values x"""


def json_values() -> st.SearchStrategy[object]:
    words = st.sampled_from(("exp", "matmul", "fp16", "1/4096", "1/0", "-3", "", "ß"))
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 1 << 70), st.floats(), words)
    keys = st.sampled_from(KEYS.split())
    return st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4))
    )


def read(text: str) -> str:
    """What is said of a file; empty for a good one."""
    try:
        graph_of = from_json(text, "g.json")
    except OptionError as error:
        return str(error)
    assert check(graph_of) == ()
    return ""


@settings(deadline=None)
@given(json_values())
def test_any_json_is_a_graph_or_a_clear_error(value: object) -> None:
    said = read(json.dumps(value))
    assert not said or said.startswith("In g.json")


@settings(deadline=None)
@given(programs(), st.data())
def test_a_graph_file_with_one_change_is_a_graph_or_a_clear_error(graph_of: Graph, draws: st.DataObject) -> None:
    tree = json.loads(to_json(graph_of))
    place = tree
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = draws.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or draws.draw(st.integers(0, 4)) == 0:
            place[key] = draws.draw(json_values())
            break
        place = place[key]
    assert "\n" not in read(json.dumps(tree))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_clear_error(text: bytes) -> None:
    with pytest.raises(OptionError, match="In the graph, at"):
        from_json(text)


def test_numbers_are_exact() -> None:
    text = to_json(rmsnorm_linear())
    assert '"values": ["1/100000"]' in text
    assert from_json(text.replace('"1/100000"', "1e-05")) == rmsnorm_linear()


def test_the_published_schema_is_the_reader_s() -> None:
    assert (DOCS / "ugraph.schema.json").read_text(encoding="utf-8") == schema()


@settings(deadline=None)
@given(programs(), st.data())
def test_one_hash_for_one_graph_in_any_order_and_under_any_names(graph_of: Graph, draws: st.DataObject) -> None:
    other = draws.draw(disguised(graph_of))
    assert graph_hash(other) == graph_hash(graph_of)
    form = canonical(other)
    assert form.graph == canonical(graph_of).graph
    assert canonical(form.graph).graph == form.graph
    assert [other.inputs[i].dims for i in form.order] == [tensor.dims for tensor in form.graph.inputs]


@settings(deadline=None)
@given(programs(), st.integers(0, 2**32 - 1))
def test_the_canonical_form_computes_the_same(graph_of: Graph, seed: int) -> None:
    form = canonical(graph_of)
    rng = np.random.default_rng(seed)
    drawn = [np.abs(rng.standard_normal(tensor.dims)) + 0.5 for tensor in graph_of.inputs]
    expected = evaluate(graph_of, {tensor.name: array for tensor, array in zip(graph_of.inputs, drawn, strict=True)})
    renamed = {tensor.name: drawn[old] for tensor, old in zip(form.graph.inputs, form.order, strict=True)}
    for left, right in zip(expected, evaluate(form.graph, renamed), strict=True):
        assert np.allclose(left, right, equal_nan=True)


def test_other_programs_have_other_hashes() -> None:
    graphs = [build() for build in PROGRAMS.values()]
    graphs += [graph_of for build in RIGHT.values() for graph_of in build()]
    forms = {canonical(graph_of).graph for graph_of in graphs}
    assert len({graph_hash(graph_of) for graph_of in graphs}) == len(forms)
    assert len(forms) > 30


def test_roles_of_inputs_count_and_names_do_not() -> None:
    def gated(swap: bool, names: str) -> Graph:
        b = Program()
        x, left, right = (b.input(name, (6, 6)) for name in names)
        one, two = (right, left) if swap else (left, right)
        b.output(b.silu(x @ one) * (x @ two))
        return b.graph()

    assert graph_hash(gated(False, "XAB")) == graph_hash(gated(True, "QRS"))
    exchanged = {0: 0, 1: 2, 2: 1}
    assert canonical(gated(True, "XAB")).order == tuple(exchanged[i] for i in canonical(gated(False, "XAB")).order)
    b = Program()
    x, left, right = (b.input(name, (6, 6)) for name in "XAB")
    b.output(b.silu(left @ x) * (right @ x))
    assert graph_hash(b.graph()) != graph_hash(gated(False, "XAB"))


def test_long_programs_are_no_deep_ones() -> None:
    b = Program()
    x = b.input("x", (2, 3))
    for _ in range(3000):
        x = b.exp(x)
    b.output(x)
    assert len(graph_hash(b.graph())) == 16


def test_a_builder_refuses_what_does_not_fit() -> None:
    b, other = Program(), Program()
    x = b.input("x", (2, 3))
    with pytest.raises(OptionError, match="matmul cannot be applied: inner extents 3 and 2"):
        x @ x
    with pytest.raises(OptionError, match="in another"):
        other.exp(x)
    with pytest.raises(OptionError, match="finite"):
        x * float("inf")
    b.exp(x)
    with pytest.raises(OptionError, match="name all inputs first"):
        b.input("y", (2, 3))
    with pytest.raises(OptionError, match="no outputs"):
        b.graph()
    assert Program().constant(0.1).program.apply("constant", values=(Fraction(1, 10),)).value == 1


def test_an_unfolded_dimension_has_the_windows_places() -> None:
    assert [Window(3, 2, 1).places(e) for e in (1, 5, 6)] == [1, 3, 3]
    b = Program()
    x = b.input("x", (1, 6))
    b.output(b.unfold(x, Window(3, stride=2, padding=1, dilation=2)))
    (made,) = evaluate(b.graph(), {"x": np.arange(6.0).reshape(1, 6)})
    assert made.tolist() == [[[0, 1, 3], [1, 3, 5]]]
