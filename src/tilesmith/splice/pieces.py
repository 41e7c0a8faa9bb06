"""The parts of a captured graph that one kernel each could compute, and a problem for each of them.

A part's trailing views stay PyTorch's, where they cost nothing: a kernel's results must have memory of their own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import Node
from torch.fx.node import map_arg

from tilesmith.core.graph import Graph, Op
from tilesmith.core.graph_check import kernel_ops
from tilesmith.core.graph_hash import canonical
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import Problem, Settings
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

    def __str__(self) -> str:
        dense = _dense(self.dims) == self.strides
        return f"{self.dtype} {dims(self.dims)}" + ("" if dense else f" with strides {dims(self.strides)}")


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
        return sum(_count(form.dims) * (8 if form.dtype == "fp64" else 4) for form in (*self.forms, *made))

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
    graph, results = _without_views(captured, part)
    if not results:
        return None
    stops = {captured.nodes[value]: value for value in part.sources}
    needed, met = _between([captured.nodes[value] for value in results], stops)
    sources = [value for value in part.sources if captured.nodes[value] in met]
    graph = _pruned(graph, [part.sources.index(value) for value in sources])
    if not kernel_ops(graph):
        return None
    forms = tuple(_form(captured.nodes[value]) for value in sources)
    fault = "an input has gaps or overlaps in memory" if any(_overlaps(form) for form in forms) else ""
    order = canonical(graph).order
    nodes = tuple(captured.nodes[value] for value in sources)
    made = tuple(captured.nodes[value] for value in results)
    calls = tuple(str(node.target) for node in needed if "getitem" not in str(node.target))
    code = _code(nodes, made, needed)
    return Piece(nodes, made, calls, code, forms, graph, tuple(map(order.index, range(len(sources)))), fault)


def _without_views(captured: Captured, part: Part) -> tuple[Graph, tuple[int, ...]]:
    """The part's graph and its results, with what stands before trailing views in their place."""
    traced, graph = captured.traced, part.graph
    fixed = len(graph.inputs) + len(graph.nodes) - len(part.nodes)
    number = {value: place for place, value in enumerate(part.sources)}
    first = _first_values(captured)
    number |= {first[node]: fixed + place for place, node in enumerate(part.nodes)}
    makers = {first[node]: node for node in part.nodes}
    whole: dict[int, bool] = {}
    for place, node in enumerate(traced.nodes):
        viewing = isinstance(node, Op) and OPERATORS[node.operator].kind == "view"
        call = traced.calls[place]
        whole[call] = whole.get(call, True) and viewing
    results: dict[int, None] = {}
    for value in part.results:
        seen = value
        while seen in makers and whole[traced.calls[makers[seen]]]:
            seen = traced.nodes[makers[seen]].operands[0]
        if seen in makers:
            results[seen] = None
    kept = tuple(results)
    return replace(graph, outputs=tuple(number[value] for value in kept)), kept


def _pruned(graph: Graph, inputs: Sequence[int]) -> Graph:
    """With these inputs alone, and the nodes that its outputs need."""
    first = len(graph.inputs)
    needed: set[int] = set(graph.outputs)
    for place in reversed(range(len(graph.nodes))):
        node = graph.nodes[place]
        if first + place in needed and isinstance(node, Op):
            needed |= set(node.operands)
    number = {value: place for place, value in enumerate(inputs)}
    made: list[Op] = []
    for place, node in enumerate(graph.nodes):
        if first + place in needed and isinstance(node, Op):
            number[first + place] = len(inputs) + len(made)
            made.append(replace(node, operands=tuple(number[value] for value in node.operands)))
    return Graph(
        tuple(graph.inputs[place] for place in inputs), tuple(made), tuple(number[value] for value in graph.outputs)
    )


def _first_values(captured: Captured) -> list[int]:
    made, value = [], len(captured.traced.inputs)
    for node in captured.traced.nodes:
        made.append(value)
        value += 1 if isinstance(node, Op) else len(node.results)
    return made


def _between(results: Sequence[Node], stops: dict[Node, int]) -> tuple[list[Node], set[Node]]:
    """The nodes that lead to the results from where it stops, in the order of the graph, and which stops were met."""
    needed: set[Node] = set()
    met: set[Node] = set()
    stack = list(results)
    while stack:
        node = stack.pop()
        if node in stops:
            met.add(node)
        elif node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    return [node for node in results[0].graph.nodes if node in needed], met


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
    value = node.meta["val"]
    return Form(tuple(value.shape), tuple(value.stride()), NAMES[value.dtype])


def form_of(tensor: Any) -> Form:
    return Form(tuple(tensor.shape), tuple(tensor.stride()), NAMES.get(tensor.dtype, str(tensor.dtype)))


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
