"""The parts of a captured graph that one kernel each could compute, and a problem for each of them.

A part's trailing views stay PyTorch's, where they cost nothing: a kernel's results must have memory of their own. Views
that it reads are its own, where what they look at lies in order: a kernel that looks there itself needs no copy.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import Node
from torch.fx.node import map_arg

from tilesmith.core.graph import Graph, Op, Tensor
from tilesmith.core.graph_check import BYTES, kernel_ops
from tilesmith.core.graph_hash import canonical
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import Dtype, Problem, Settings
from tilesmith.splice.capture import Captured
from tilesmith.splice.words import dims
from tilesmith.superopt.partition import Part, partition

NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True, slots=True)
class Form:
    """How a tensor lies in memory."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def dense(self) -> bool:
        """Whether its elements lie in the order of their indices."""
        return _dense(self.dims) == self.strides

    def __str__(self) -> str:
        return f"{self.dtype} {dims(self.dims)}" + ("" if self.dense else f" with strides {dims(self.strides)}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part that a call of a kernel could stand for."""

    sources: tuple[Node, ...]
    results: tuple[Node, ...]
    calls: tuple[str, ...]
    code: str
    """`forward` of a module that makes the part's calls."""
    forms: tuple[Form, ...]
    """Of the sources."""
    graph: Graph
    places: tuple[int, ...]
    """For each source its canonical number: equal parts agree on these."""
    fault: str = ""
    """Why no kernel may stand for it."""

    @property
    def rows(self) -> dict[str, str]:
        """What decides whether two parts are one: the canonical graph, and how its inputs lie in memory."""
        ordered = sorted(zip(self.places, self.forms, strict=True), key=lambda pair: pair[0])
        return {
            "graph": repr(canonical(self.graph).graph),
            "inputs": "; ".join(f"{place}: {form.dtype} {form.dims} {form.strides}" for place, form in ordered),
        }

    @property
    def inputs(self) -> str:
        return ", ".join(map(str, self.forms))

    @property
    def bytes(self) -> int:
        """Read and written once, at the least: large parts are searched first."""
        made = [_form(node) for node in self.results]
        return sum(_count(form.dims) * BYTES[_dtype(form)] for form in (*self.forms, *made))

    def problem(self, name: str, spreads: Sequence[tuple[float, float]], *, tf32: bool, target: str | None) -> Problem:
        """The part as a problem of its own, whose inputs have the means and standard deviations given."""
        drawn = ",\n        ".join(
            f"drawn({form.dims}, {form.strides}, {_DTYPES[form.dtype]}, {mean!r}, {spread!r})"
            for form, (mean, spread) in zip(self.forms, spreads, strict=True)
        )
        source = _SOURCE.format(code=textwrap.indent(self.code, "    "), drawn=drawn)
        return Problem(name, source, Settings(tf32=tf32, target=target))


_DTYPES = {"fp64": "torch.float64", "fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}

_SOURCE = '''\
"""A part of a module, as PyTorch computes it."""

from math import inf, nan

import torch
from torch import nn


class Model(nn.Module):
{code}

def drawn(dims, strides, dtype, mean, spread):
    """As the module met it: mean and standard deviation are those of a call of the whole."""
    made = torch.empty_strided(dims, strides, dtype=dtype)
    return made.copy_(torch.randn(dims) * spread + mean)


def get_inputs():
    return [
        {drawn},
    ]


def get_init_inputs():
    return []
'''


def pieces(captured: Captured, largest: int) -> tuple[Piece, ...]:
    """In the order of the graph. What no kernel could stand for is not among them."""
    cut = partition(captured.traced, largest, whole=True)
    return tuple(piece for part in cut.parts if (piece := _piece(captured, part)) is not None)


def _piece(captured: Captured, part: Part) -> Piece | None:
    makers, whole = _makers(captured), _views(captured)

    def viewed(value: int) -> int | None:
        """What a value is a view of, where its call is one; None for any other."""
        place = makers.get(value)
        node = None if place is None else captured.traced.nodes[place]
        return node.operands[0] if isinstance(node, Op) and captured.traced.calls[place or 0] in whole else None

    results: dict[int, None] = {}
    inside = {value for value, place in makers.items() if place in part.nodes}
    for value in part.results:
        seen: int | None = value
        while seen in inside and (base := viewed(seen)) is not None:
            seen = base
        if seen in inside:
            results[seen] = None
    if not results:
        return None
    behind: dict[int, None] = {}
    for value in part.sources:
        while not _form(captured.nodes[value]).dense and (base := viewed(value)) in captured.nodes:
            assert base is not None
            value = base  # noqa: PLW2901  the same source, further back
        behind[value] = None
    graph, sources = _graph(captured, makers, list(behind), list(results))
    if not kernel_ops(graph):
        return None
    nodes = tuple(captured.nodes[value] for value in sources)
    made = tuple(captured.nodes[value] for value in results)
    needed = _between(made, nodes)
    forms = tuple(map(_form, nodes))
    fault = "an input has gaps or overlaps in memory" if any(_overlaps(form) for form in forms) else ""
    if len({node.meta["val"].device for node in nodes}) > 1:
        fault = "its inputs are on several devices"
    places = tuple(map(canonical(graph).order.index, range(len(sources))))
    calls = tuple(str(node.target) for node in needed if node.target is not getitem)
    return Piece(nodes, made, calls, _code(nodes, made, needed), forms, graph, places, fault)


def _makers(captured: Captured) -> dict[int, int]:
    """For each value the node that makes it, by its place."""
    made: dict[int, int] = {}
    value = len(captured.traced.inputs)
    for place, node in enumerate(captured.traced.nodes):
        for _ in range(1 if isinstance(node, Op) else len(node.results)):
            made[value] = place
            value += 1
    return made


def _views(captured: Captured) -> set[int]:
    """The calls that are views and nothing else."""
    views: dict[int, bool] = {}
    for call, node in zip(captured.traced.calls, captured.traced.nodes, strict=True):
        viewing = isinstance(node, Op) and OPERATORS[node.operator].kind == "view"
        views[call] = views.get(call, True) and viewing
    return {call for call, viewing in views.items() if viewing}


def _graph(
    captured: Captured, makers: dict[int, int], sources: Sequence[int], results: Sequence[int]
) -> tuple[Graph, list[int]]:
    """The operators between these values, and which of the sources they need."""
    stops, met = set(sources), set()
    needed: dict[int, int] = {}
    stack = list(results)
    while stack:
        value = stack.pop()
        if value in stops:
            met.add(value)
        elif value not in needed:
            needed[value] = makers[value]
            stack += captured.traced.nodes[makers[value]].operands
    used = [value for value in sources if value in met]
    number = {value: place for place, value in enumerate(used)}
    made: list[Op] = []
    for value in sorted(needed):
        node = captured.traced.nodes[needed[value]]
        assert isinstance(node, Op), "a part has no other nodes"
        number[value] = len(used) + len(made)
        made.append(replace(node, operands=tuple(number[operand] for operand in node.operands)))
    forms = [_form(captured.nodes[value]) for value in used]
    tensors = tuple(Tensor(form.dims, _dtype(form), f"x{place}") for place, form in enumerate(forms))
    return Graph(tensors, tuple(made), tuple(number[value] for value in results)), used


def _between(results: Sequence[Node], sources: Sequence[Node]) -> list[Node]:
    """The nodes that lead to the results from the sources, in the order of the graph."""
    needed: set[Node] = set()
    stack = list(results)
    while stack:
        node = stack.pop()
        if node not in sources and node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    return [node for node in results[0].graph.nodes if node in needed]


def _code(sources: Sequence[Node], results: Sequence[Node], needed: Sequence[Node]) -> str:
    """`forward` of these nodes. Names say what is computed and not where, so that equal parts read the same."""
    graph = FxGraph()
    known: dict[Node, Node] = {}
    for place, node in enumerate(sources):
        known[node] = graph.placeholder(f"x{place}")
    for node in needed:
        # On whatever device the inputs are.
        given = {name: value for name, value in node.kwargs.items() if name != "device"}
        arguments = map_arg((node.args, given), lambda used: known[used])
        known[node] = graph.create_node(node.op, node.target, *arguments)
    outputs = tuple(known[node] for node in results)
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    return str(graph.python_code("self").src).strip() + "\n"


def _form(node: Node) -> Form:
    return form_of(node.meta["val"])


def form_of(tensor: Any) -> Form:
    """Two forms are one where the tensors lie alike: strides along extents of 1 say nothing."""
    extents = tuple(tensor.shape)
    rows = zip(extents, tensor.stride(), _dense(extents), strict=True)
    strides = tuple(dense if extent == 1 else stride for extent, stride, dense in rows)
    return Form(extents, strides, NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")))


def _dtype(form: Form) -> Dtype:
    return next(known for known in BYTES if known == form.dtype)


def _dense(extents: tuple[int, ...]) -> tuple[int, ...]:
    made, stride = [], 1
    for extent in reversed(extents):
        made.append(stride)
        stride *= max(1, extent)
    return tuple(reversed(made))


def _overlaps(form: Form) -> bool:
    """Whether it has gaps or elements that share memory: a tensor of its own cannot lie like that."""
    rows = sorted((stride, extent) for stride, extent in zip(form.strides, form.dims, strict=True) if extent > 1)
    expected = 1
    for stride, extent in rows:
        if stride != expected:
            return True
        expected *= extent
    return not _count(form.dims)


def _count(extents: tuple[int, ...]) -> int:
    total = 1
    for extent in extents:
        total *= extent
    return total
