"""The captured graph with calls of kernels where they were found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from tilesmith.splice.capture import Captured
from tilesmith.splice.pieces import Piece

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def assemble(captured: Captured, replaced: Sequence[tuple[Piece, nn.Module]]) -> GraphModule:
    """A module of the captured inputs that returns a tuple, as the captured graph does.

    Each replaced part is one call, and stands where the last of its inputs is there. Results have the strides that
    they had.
    """
    old, graph = captured.module.graph, Graph()
    by = {node: place for place, (piece, _) in enumerate(replaced) for node in piece.results}
    known: dict[Node, Any] = {}
    placeholders = [node for node in old.nodes if node.op == "placeholder"]
    fixed = len(captured.lifted)
    root = nn.Module()
    for node in placeholders[fixed:]:
        known[node] = graph.placeholder(node.name)
    for place, (node, value) in enumerate(zip(placeholders, captured.lifted, strict=False)):
        root.register_buffer(f"lifted{place}", value, persistent=False)
        known[node] = graph.get_attr(f"lifted{place}")
    for place, (_, module) in enumerate(replaced):
        root.add_module(f"kernel{place}", module)

    def called(place: int) -> None:
        piece, _ = replaced[place]
        made = graph.call_module(f"kernel{place}", tuple(known[node] for node in piece.sources))
        for number, node in enumerate(piece.results):
            known[node] = made if len(piece.results) == 1 else graph.call_function(getitem, (made, number))

    def copied(node: Node) -> None:
        # What made a view possible was how the part laid out its results, and a kernel's lie otherwise.
        target = torch.ops.aten.reshape.default if node.target in _VIEWS else node.target
        arguments = map_arg((node.args, node.kwargs), lambda used: known[used])
        known[node] = graph.create_node(node.op, target, *arguments, name=node.name)

    def before(node: Node) -> Sequence[Node]:
        return replaced[by[node]][0].sources if node in by else node.all_input_nodes

    output = next(node for node in old.nodes if node.op == "output")
    live = _live(output.all_input_nodes, before)
    for wanted in old.nodes:
        # In the old order, which is that of random numbers and of memory; not recursive, since programs are long.
        stack = [wanted] if wanted in live else []
        while stack:
            node = stack[-1]
            missing = [used for used in before(node) if used not in known]
            if node in known or not missing:
                stack.pop()
                if node not in known:
                    called(by[node]) if node in by else copied(node)
            else:
                stack += reversed(missing)
    graph.output(tuple(_laid_out(graph, known, node) for node in output.args[0]))
    graph.lint()
    return GraphModule(root, graph, "Spliced")


def _live(roots: Sequence[Node], before: Callable[[Node], Sequence[Node]]) -> set[Node]:
    live: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in live:
            live.add(node)
            stack += before(node)
    return live


def _laid_out(graph: Graph, known: dict[Node, Any], node: Any) -> Any:
    if not isinstance(node, Node) or node.op == "placeholder":
        return known.get(node, node)
    return graph.call_function(laid_out, (known[node], tuple(node.meta["val"].stride())))


def laid_out(tensor: Any, strides: tuple[int, ...]) -> Any:
    """The tensor with these strides: itself, where it has them."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
