"""A program as it was traced: operators of µGraphs, and between them what stays PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass

from tilesmith.core.errors import ProblemError
from tilesmith.core.graph import Graph, Op, Tensor
from tilesmith.core.graph_check import BYTES, tensors


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a traced value. Its dtype may be one that µGraphs do not have, such as "int64"."""

    dims: tuple[int, ...]
    dtype: str
    name: str = ""
    origin: str = ""
    """Of an input: "input 0", "parameter query", "buffer mask" or "constant"."""

    @property
    def tensor(self) -> Tensor | None:
        return Tensor(self.dims, self.dtype, self.name) if self.dtype in BYTES else None


@dataclass(frozen=True, slots=True)
class Opaque:
    """An operator that stays PyTorch's."""

    target: str
    """Such as "aten.max_pool3d.default"."""
    operands: tuple[int, ...]
    results: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced program. Values are numbered as in a `Graph`; an `Opaque` makes one for each of its results."""

    inputs: tuple[Value, ...]
    nodes: tuple[Op | Opaque, ...]
    outputs: tuple[int, ...]
    places: tuple[str, ...]
    """For each node the line of the problem."""
    calls: tuple[int, ...] = ()
    """For each node the number of the call that it is of: one call of PyTorch may take several operators."""
    made: tuple[int | tuple[int, ...], ...] = ()
    """For each call the value that it makes, or values where it makes a list. Several may make one: a copy is none."""

    @property
    def opaque(self) -> tuple[str, ...]:
        """What stays PyTorch's, each with its place."""
        nodes = zip(self.nodes, self.places, strict=True)
        return tuple(f"{node.target} ({place})" for node, place in nodes if isinstance(node, Opaque))

    @staticmethod
    def of(graph: Graph) -> Traced:
        """A graph of operators as if it had been traced; its nodes are its places."""
        nodes = tuple(node for node in graph.nodes if isinstance(node, Op))
        inputs = tuple(Value(tensor.dims, tensor.dtype, tensor.name) for tensor in graph.inputs)
        return Traced(inputs, nodes, graph.outputs, tuple(f"node {place}" for place in range(len(nodes))))

    def graph(self) -> Graph:
        """The whole program as one graph. Raises `ProblemError` that names what stays PyTorch's."""
        if self.opaque:
            raise ProblemError(f"The superoptimizer has no operator for {self.opaque[0]}; it stays PyTorch's.")
        inputs = []
        for value in self.inputs:
            if value.tensor is None:
                raise ProblemError(f"The input {value.name!r} is {value.dtype}; µGraphs compute with floating point.")
            inputs.append(value.tensor)
        graph = Graph(tuple(inputs), tuple(node for node in self.nodes if isinstance(node, Op)), self.outputs)
        tensors(graph)
        return graph
