"""Graphs and kernels without what nobody reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tilesmith.core.graph import Graph, Kernel, Node, Op


def needed(graph: Graph) -> Graph:
    """Without the nodes and stores that no output needs."""
    makers = list(_makers(graph))
    wanted = set(graph.outputs)
    for value in range(len(makers) - 1, len(graph.inputs) - 1, -1):
        # A kernel stands where its last store is: what it loads comes before its first.
        node = graph.nodes[makers[value][0]]
        if value in wanted:
            wanted |= set(node.operands if isinstance(node, Op) else _sources(node, makers, value, wanted))
    number: dict[int, int] = {}
    for value in range(len(makers)):
        if value < len(graph.inputs) or value in wanted:
            number[value] = len(number)
    nodes: list[Node] = []
    for place, node in enumerate(graph.nodes):
        made = [value for value in range(len(graph.inputs), len(makers)) if makers[value][0] == place]
        kept = [value for value in made if value in wanted]
        if kept and isinstance(node, Op):
            nodes.append(replace(node, operands=tuple(number[o] for o in node.operands)))
        elif kept and isinstance(node, Kernel):
            used = pruned(replace(node, stores=tuple(node.stores[makers[value][1]] for value in kept)))
            nodes.append(replace(used, loads=tuple(replace(load, source=number[load.source]) for load in used.loads)))
    return Graph(graph.inputs, tuple(nodes), tuple(number[output] for output in graph.outputs))


def _makers(graph: Graph) -> Iterator[tuple[int, int]]:
    """For every value its node, and which of the node's results it is; inputs have none."""
    yield from ((-1, place) for place in range(len(graph.inputs)))
    for place, node in enumerate(graph.nodes):
        yield from ((place, result) for result in range(1 if isinstance(node, Op) else len(node.stores)))


def _sources(kernel: Kernel, makers: Sequence[tuple[int, int]], value: int, wanted: set[int]) -> set[int]:
    """What a kernel loads for those of its stores that are wanted."""
    place = makers[value][0]
    kept = [result for other, (node, result) in enumerate(makers) if node == place and other in wanted]
    used = pruned(replace(kernel, stores=tuple(kernel.stores[result] for result in kept)))
    return {load.source for load in used.loads}


def pruned(kernel: Kernel) -> Kernel:
    """Without the loads and steps that no store needs."""
    first = len(kernel.loads)
    wanted = {store.source for store in kernel.stores}
    for value in range(first + len(kernel.body) - 1, first - 1, -1):
        if value in wanted:
            wanted |= set(kernel.body[value - first].operands)
    number = {value: place for place, value in enumerate(sorted(wanted))}
    return Kernel(
        kernel.grid,
        kernel.loop,
        tuple(load for value, load in enumerate(kernel.loads) if value in wanted),
        tuple(
            replace(step, operands=tuple(number[o] for o in step.operands))
            for value, step in enumerate(kernel.body, first)
            if value in wanted
        ),
        tuple(replace(store, source=number[store.source]) for store in kernel.stores),
    )
