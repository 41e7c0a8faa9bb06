"""Kernels that share what they read, as one: what several products of the same rows launch, load and norm once.

A search lists kernels of two results at most. A program of more is searched once for each output, as if it had no
other, and the µGraphs that come of it are put side by side; kernels with the same grid and the same loop of which none
needs the other become one, which loads a tensor once and computes once what both do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tilesmith.core.graph import Graph, Kernel, Node, Op, Step, Store
from tilesmith.superopt.needed import needed

Made = tuple[int, int]
"""A value while numbers change: its node, or -1 for inputs, and which of the node's results it is."""


def alone(graph: Graph, output: int) -> tuple[Graph, tuple[int, ...]]:
    """The program of one of a program's outputs, and for each of its inputs the one of the whole."""
    own = needed(replace(graph, outputs=(graph.outputs[output],)))
    used = {value for node in own.nodes for value in _reads(node)} | set(own.outputs)
    sources = tuple(value for value in range(len(own.inputs)) if value in used)
    fewer = len(own.inputs) - len(sources)

    def number(value: int) -> int:
        return sources.index(value) if value < len(own.inputs) else value - fewer

    nodes = tuple(_renumbered(node, [number(value) for value in _reads(node)]) for node in own.nodes)
    inputs = tuple(own.inputs[value] for value in sources)
    return Graph(inputs, nodes, tuple(number(value) for value in own.outputs)), sources


def beside(program: Graph, made: Sequence[tuple[Graph, Sequence[int]]]) -> Graph:
    """One µGraph of one for each output of a program, with what can be one kernel as one.

    Each has one output, and comes with the program's input for each of its own.
    """
    nodes: list[Node] = []
    reads: list[list[Made]] = []
    outputs: list[Made] = []
    for graph, sources in made:
        values: list[Made] = [(-1, source) for source in sources]
        for node in graph.nodes:
            reads.append([values[value] for value in _reads(node)])
            nodes.append(node)
            values += [(len(nodes) - 1, result) for result in range(_results(node))]
        outputs.append(values[graph.outputs[0]])
    while True:
        joint = next(_joints(nodes, reads), None)
        if joint is None:
            return _ordered(program, nodes, reads, outputs)
        first, second, both, joint_reads, moved = joint
        nodes[first], reads[first] = both, list(joint_reads)
        del nodes[second], reads[second]

        def now(value: Made, gone: int = second, to: Sequence[Made] = moved) -> Made:
            node, result = to[value[1]] if value[0] == gone else value
            return (node - (node > gone), result)

        reads = [[now(value) for value in each] for each in reads]
        outputs = [now(value) for value in outputs]


Joint = tuple[int, int, Node, Sequence[Made], tuple[Made, ...]]
"""Two nodes, the node that is both, what it reads, and where the second's results are."""


def _joints(nodes: Sequence[Node], reads: Sequence[Sequence[Made]]) -> Iterator[Joint]:
    for second, two in enumerate(nodes):
        for first, one in enumerate(nodes[:second]):
            if isinstance(one, Kernel) and isinstance(two, Kernel):
                if _joinable(one, two) and _share(reads, first, second):
                    yield first, second, *_both(one, reads[first], two, reads[second], first)
            elif _alike(one, two) and reads[first] == reads[second]:
                yield first, second, one, reads[first], ((first, 0),)


def _joinable(one: Kernel, two: Kernel) -> bool:
    return (one.grid, one.loop) == (two.grid, two.loop)


def _share(reads: Sequence[Sequence[Made]], first: int, second: int) -> bool:
    """Whether two nodes read something both, and none needs the other."""
    common = not set(reads[first]).isdisjoint(reads[second])
    return common and not _needs(reads, first, second) and not _needs(reads, second, first)


def _alike(one: Node, two: Node) -> bool:
    return isinstance(one, Op) and isinstance(two, Op) and replace(one, operands=()) == replace(two, operands=())


def _needs(reads: Sequence[Sequence[Made]], node: int, other: int) -> bool:
    """Whether a node needs another, at however many removes."""
    waiting, seen = [node], {node}
    while waiting:
        fresh = {maker for maker, _ in reads[waiting.pop()] if maker >= 0} - seen
        seen |= fresh
        waiting += fresh
    return other in seen


def _both(
    one: Kernel, one_reads: Sequence[Made], two: Kernel, two_reads: Sequence[Made], place: int
) -> tuple[Kernel, tuple[Made, ...], tuple[Made, ...]]:
    """The kernel that stands in a place, what each of its loads reads, and where each of the second's results is."""
    rows = list(zip(one.loads, one_reads, strict=True))
    key = [(replace(load, source=0), read) for load, read in rows]
    places: list[int] = []
    for load, read in zip(two.loads, two_reads, strict=True):
        wanted = (replace(load, source=0), read)
        if wanted not in key:
            key.append(wanted)
            rows.append((load, read))
        places.append(key.index(wanted))
    shift = len(rows) - len(one.loads)
    body: list[Step] = []
    number: dict[int, int] = {value: value for value in range(len(one.loads))}

    def emit(step: Step) -> int:
        if step not in body:
            body.append(step)
        return len(rows) + body.index(step)

    for value, step in enumerate(one.body, len(one.loads)):
        body.append(replace(step, operands=tuple(number[operand] for operand in step.operands)))
        number[value] = value + shift
    stores: list[Store] = [replace(store, source=number[store.source]) for store in one.stores]
    number = dict(enumerate(places))
    for value, step in enumerate(two.body, len(two.loads)):
        number[value] = emit(replace(step, operands=tuple(number[operand] for operand in step.operands)))
    results = []
    for store in two.stores:
        moved = replace(store, source=number[store.source])
        if moved not in stores:
            stores.append(moved)
        results.append((place, stores.index(moved)))
    loads, reads = zip(*rows, strict=True)
    return Kernel(one.grid, one.loop, loads, tuple(body), tuple(stores)), reads, tuple(results)


def _ordered(program: Graph, nodes: Sequence[Node], reads: Sequence[Sequence[Made]], outputs: Sequence[Made]) -> Graph:
    """With numbers again; what is read comes first, whatever was joined with what."""
    number: dict[Made, int] = {(-1, value): value for value in range(len(program.inputs))}
    made: list[Node] = []
    waiting = list(range(len(nodes)))
    while waiting:
        place = next(place for place in waiting if all(read in number for read in reads[place]))
        waiting.remove(place)
        made.append(_renumbered(nodes[place], [number[read] for read in reads[place]]))
        for result in range(_results(nodes[place])):
            number[place, result] = len(number)
    return Graph(program.inputs, tuple(made), tuple(number[output] for output in outputs))


def _reads(node: Node) -> tuple[int, ...]:
    return node.operands if isinstance(node, Op) else tuple(load.source for load in node.loads)


def _results(node: Node) -> int:
    return 1 if isinstance(node, Op) else len(node.stores)


def _renumbered(node: Node, sources: Sequence[int]) -> Node:
    if isinstance(node, Op):
        return replace(node, operands=tuple(sources))
    loads = zip(node.loads, sources, strict=True)
    return replace(node, loads=tuple(replace(load, source=source) for load, source in loads))
