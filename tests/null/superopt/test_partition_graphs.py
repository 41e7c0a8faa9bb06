"""Parts of traced programs: disjoint, convex together, with one exponential on a way, maximal, and right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesmith.core.graph import Op
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.partition import Partition, partition
from tilesmith.superopt.programs import transformer_layer
from tilesmith.superopt.traced import Opaque, Traced, Value

Array = NDArray[np.float64]
DIMS = (2, 3)


@st.composite
def traces(draw: st.DrawFn) -> Traced:
    """Element-wise operators, exponentials and opaque ones, each of any values before it."""
    inputs = tuple(Value(DIMS, "fp32", name) for name in "ab")
    nodes: list[Op | Opaque] = []
    count = len(inputs)
    for _ in range(draw(st.integers(1, 14))):
        values = st.integers(0, count - 1)
        kind = draw(st.sampled_from(("add", "add", "relu", "exp", "softmax", "opaque", "constant", "split")))
        match kind:
            case "add":
                nodes.append(Op("add", (draw(values), draw(values))))
            case "constant":
                nodes.append(Op("constant", values=(draw(st.fractions(0, 2, max_denominator=4)),)))
            case "softmax":
                nodes.append(Op("mul", (draw(values), draw(values))))
            case "opaque":
                nodes.append(Opaque("aten.opaque", (draw(values),), (Value(DIMS, "fp32"),)))
            case "split":
                nodes.append(Opaque("aten.split", (draw(values),), (Value(DIMS, "fp32"), Value(DIMS, "fp32"))))
            case _:
                nodes.append(Op(kind, (draw(values),)))
        count += len(node.results) if isinstance(node := nodes[-1], Opaque) else 1
    outputs = tuple(draw(st.lists(st.integers(len(inputs), count - 1), min_size=1, max_size=3)))
    return Traced(inputs, tuple(nodes), outputs, ("problem.py",) * len(nodes))


def executed(traced: Traced, cut: Partition, drawn: list[Array]) -> list[Array]:
    """The outputs, part by part, in an order in which each has what it needs: there is none if parts are cyclic."""
    known = dict(enumerate(drawn))
    firsts, first = [], len(drawn)
    for node in traced.nodes:
        firsts.append(first)
        first += len(node.results) if isinstance(node, Opaque) else 1
    for place, node in enumerate(traced.nodes):
        if isinstance(node, Op) and node.operator == "constant":
            known[firsts[place]] = np.array(float(node.values[0]))
    left: list[object] = [*cut.parts, *cut.rest]
    while left:
        ready = next(item for item in left if needs(traced, item) <= known.keys())
        left.remove(ready)
        if isinstance(ready, int):
            node = traced.nodes[ready]
            assert isinstance(node, Opaque)
            for offset in range(len(node.results)):
                known[firsts[ready] + offset] = np.broadcast_to(np.sin(known[node.operands[0]] + offset), DIMS)
        else:
            names = {t.name: known[v] for t, v in zip(ready.graph.inputs, ready.sources, strict=True)}  # type: ignore[attr-defined]
            known |= dict(zip(ready.results, evaluate(ready.graph, names), strict=True))  # type: ignore[attr-defined]
    return [known[value] for value in traced.outputs]


def needs(traced: Traced, item: object) -> set[int]:
    if isinstance(item, int):
        return set(traced.nodes[item].operands)
    return set(item.sources)  # type: ignore[attr-defined]


def directly(traced: Traced, drawn: list[Array]) -> list[Array]:
    known = list(drawn)
    for node in traced.nodes:
        used = [known[value] for value in node.operands]
        if isinstance(node, Opaque):
            known += [np.broadcast_to(np.sin(used[0] + offset), DIMS) for offset in range(len(node.results))]
        elif node.operator == "constant":
            known.append(np.array(float(node.values[0])))
        else:
            known.append({"add": np.add, "mul": np.multiply, "exp": np.exp, "relu": lambda x: np.maximum(x, 0)}[
                node.operator](*used))  # fmt: skip
    return [known[value] for value in traced.outputs]


@settings(deadline=None)
@given(traces(), st.sampled_from((None, 1, 3)))
def test_parts_compute_the_program(traced: Traced, largest: int | None) -> None:
    cut = partition(traced, largest)
    places = [place for part in cut.parts for place in part.nodes] + list(cut.rest)
    constants = {p for p, node in enumerate(traced.nodes) if isinstance(node, Op) and node.operator == "constant"}
    assert sorted(places) == sorted(live(traced) - constants)
    drawn = [np.full(DIMS, 0.3), np.arange(6.0).reshape(DIMS) / 10]
    # Exponentials of exponentials overflow in both alike.
    with np.errstate(all="ignore"):
        for left, right in zip(directly(traced, drawn), executed(traced, cut, drawn), strict=True):
            assert np.allclose(left, right, equal_nan=True)
    for part in cut.parts:
        assert exponentials(part.graph.nodes, len(part.graph.inputs)) <= 1
        assert (
            largest is None or sum(isinstance(n, Op) and n.operator != "constant" for n in part.graph.nodes) <= largest
        )


def live(traced: Traced) -> set[int]:
    """What an output needs."""
    values, made = set(traced.outputs), set()
    for place in reversed(range(len(traced.nodes))):
        if results_of(traced, place) & values:
            made.add(place)
            values |= set(traced.nodes[place].operands)
    return made


def exponentials(nodes: tuple[object, ...], inputs: int) -> int:
    counts = [0] * inputs
    for node in nodes:
        assert isinstance(node, Op)
        counts.append((node.operator == "exp") + max((counts[value] for value in node.operands), default=0))
    return max(counts)


@settings(deadline=None)
@given(traces())
def test_no_two_parts_can_be_joined(traced: Traced) -> None:
    """Of parts that touch each pair has two exponentials on a way, or a way around."""
    cut = partition(traced)
    owner = {value: i for i, part in enumerate(cut.parts) for value in part.results}
    for i, part in enumerate(cut.parts):
        for first in {owner[value] for value in part.sources if value in owner}:
            joined = cut.parts[first].nodes + part.nodes
            assert two_exponentials(traced, joined) or way_around(traced, cut, first, i)


def two_exponentials(traced: Traced, nodes: tuple[int, ...]) -> bool:
    counts: dict[int, int] = {}
    value = len(traced.inputs)
    for place, node in enumerate(traced.nodes):
        if place in nodes and isinstance(node, Op):
            counts[value] = (node.operator == "exp") + max((counts.get(v, 0) for v in node.operands), default=0)
        value += len(node.results) if isinstance(node, Opaque) else 1
    return max(counts.values()) > 1


def way_around(traced: Traced, cut: Partition, one: int, two: int) -> bool:
    """Whether something needs a result of one part, and the other part needs it, through what is in neither."""
    made: set[int] = set(cut.parts[one].results)
    items: list[object] = [part for i, part in enumerate(cut.parts) if i not in (one, two)]
    items += cut.rest
    through: set[int] = set()
    changed = True
    while changed:
        changed = False
        for item in items:
            results = set(item.results) if not isinstance(item, int) else results_of(traced, item)  # type: ignore[attr-defined]
            if needs(traced, item) & (made | through) and not results <= through:
                through |= results
                changed = True
    return bool(through & set(cut.parts[two].sources))


def results_of(traced: Traced, place: int) -> set[int]:
    first = len(traced.inputs)
    for node in traced.nodes[:place]:
        first += len(node.results) if isinstance(node, Opaque) else 1
    node = traced.nodes[place]
    return set(range(first, first + (len(node.results) if isinstance(node, Opaque) else 1)))


def as_traced(layers: int) -> Traced:
    """Layers one after another, with something opaque between them."""
    layer = transformer_layer()
    weights = [Value(t.dims, t.dtype, f"{t.name}{i}") for i in range(layers) for t in layer.inputs[1:]]
    inputs = (Value(layer.inputs[0].dims, "fp16", "x"), *weights)
    nodes: list[Op | Opaque] = []
    x, total, each = 0, len(inputs), len(layer.inputs) - 1
    for i in range(layers):
        number = {0: x, **{1 + k: 1 + i * each + k for k in range(each)}}
        for offset, node in enumerate(layer.nodes):
            assert isinstance(node, Op)
            nodes.append(replace(node, operands=tuple(number[value] for value in node.operands)))
            number[len(layer.inputs) + offset] = total
            total += 1
        nodes.append(Opaque("aten.cumsum.default", (total - 1,), (inputs[0],)))
        x, total = total, total + 1
    return Traced(inputs, tuple(nodes), (x,), ("problem.py, line 1",) * len(nodes))


def test_repeated_layers_are_one_program() -> None:
    cut = partition(as_traced(3))
    assert len(cut.parts) == 3
    assert [len(parts) for parts in cut.distinct.values()] == [3]
    assert len(cut.rest) == 3
    first = cut.parts[0]
    assert len(first.graph.nodes) == len(transformer_layer().nodes)


def test_over_large_parts_are_cut() -> None:
    cut = partition(as_traced(2), largest=6)
    assert len(cut.parts) > 4
    # The second layer is cut as the first.
    assert all(len(parts) == 2 for parts in cut.distinct.values())
