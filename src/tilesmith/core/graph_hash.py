"""One form, and one hash, for all µGraphs that differ only in names or in the order of what is independent.

Every value gets a colour from what it is made of, then inputs get one from how they are used, and with these the values
are coloured again. The canonical order is the order in which a walk from the outputs finishes values, where operands of
a commutative operator are visited by colour. Values of one colour are symmetric but for graphs made to deceive; there
two forms of one graph may stay apart. Two different graphs never become one: the hash is that of the whole form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Node, Op, Step, Store, Thread
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import content_id

Colour = str


@dataclass(frozen=True, slots=True)
class Canonical:
    """A graph in its canonical form. Input i is the original's input `order[i]`; outputs keep their places."""

    graph: Graph
    order: tuple[int, ...]

    @property
    def hash(self) -> str:
        return content_id(repr(self.graph))


def graph_hash(graph: Graph) -> str:
    """16 hexadecimal digits. The graph must be well formed; what no output needs does not count."""
    return canonical(graph).hash


def canonical(graph: Graph) -> Canonical:
    """The canonical form: inputs renamed and ordered by first use, nodes ordered, what no output needs left out."""
    first = [_colour("input", tensor.dims, tensor.dtype) for tensor in graph.inputs]
    colours, _ = _forward(graph, first)
    used = _backward(graph, colours)
    colours, inner = _forward(graph, [_colour(c, sorted(u)) for c, u in zip(first, used, strict=False)])
    makers = _makers(graph)
    kernels = {
        place: _canonical_kernel(node, inner[place])
        for place, node in enumerate(graph.nodes)
        if isinstance(node, Kernel)
    }

    def before(key: int) -> Sequence[int]:
        """Inputs are walked as themselves, nodes as their number after the inputs."""
        place = key - len(graph.inputs)
        if place < 0:
            return ()
        node = kernels[place][0] if place in kernels else graph.nodes[place]
        return [makers[value] for value in _sources(node, colours)]

    walk = _finished([makers[value] for value in graph.outputs], before)
    reached = [key for key in walk if key < len(graph.inputs)]
    spare = [key for key in range(len(graph.inputs)) if key not in reached]
    order = (*reached, *sorted(spare, key=lambda key: (graph.inputs[key].dims, graph.inputs[key].dtype, key)))
    number = {value: place for place, value in enumerate(order)}
    nodes: list[Node] = []
    made = _first_values(graph)
    for key in walk:
        place = key - len(graph.inputs)
        if place < 0:
            continue
        node = graph.nodes[place]
        start = len(number)
        if isinstance(node, Op):
            number[made[place]] = start
            nodes.append(_renumbered(node, number))
        else:
            kernel, stores = kernels[place]
            for new, old in enumerate(stores):
                number[made[place] + old] = start + new
            nodes.append(replace(kernel, loads=tuple(replace(ld, source=number[ld.source]) for ld in kernel.loads)))
    inputs = tuple(replace(graph.inputs[key], name=str(place)) for place, key in enumerate(order))
    return Canonical(Graph(inputs, tuple(nodes), tuple(number[value] for value in graph.outputs)), order)


def _colour(*parts: object) -> Colour:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _commutes(step: Step) -> bool:
    return isinstance(step, Op) and OPERATORS[step.operator].commutes


def _bare(step: Step) -> Step:
    """What a step is, whatever it is applied to."""
    return replace(step, operands=(), ops=()) if isinstance(step, Thread) else replace(step, operands=())


def _step_colour(step: Step, colours: Sequence[Colour]) -> Colour:
    operands = [colours[value] for value in step.operands]
    if isinstance(step, Thread):
        for op in step.ops:
            operands.append(_step_colour(op, operands))
        return _colour("thread", operands[-1])
    return _colour(_bare(step), sorted(operands) if _commutes(step) else operands)


def _forward(graph: Graph, inputs: Sequence[Colour]) -> tuple[list[Colour], dict[int, list[Colour]]]:
    """A colour for every value, and by its place for every value inside a kernel."""
    colours, inner = list(inputs), {}
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Op):
            colours.append(_step_colour(node, colours))
            continue
        within = [_colour(node.grid, node.loop, load.imap, load.fmap, colours[load.source]) for load in node.loads]
        for step in node.body:
            within.append(_step_colour(step, within))
        inner[place] = within
        colours += [_colour("store", store.omap, within[store.source]) for store in node.stores]
    return colours, inner


def _backward(graph: Graph, colours: Sequence[Colour]) -> list[list[Colour]]:
    """For every value what it is used for, in terms without any order. What no output needs uses nothing."""
    uses: list[list[Colour]] = [[] for _ in colours]
    for place, value in enumerate(graph.outputs):
        uses[value].append(_colour("output", place))
    end = len(colours)
    for node in reversed(graph.nodes):
        end -= 1 if isinstance(node, Op) else len(node.stores)
        if isinstance(node, Op):
            _spread(node, colours[end], uses[end], uses)
        elif any(uses[end : end + len(node.stores)]):
            inner: list[list[Colour]] = [[] for _ in range(len(node.loads) + len(node.body))]
            for made, store in enumerate(node.stores, end):
                inner[store.source].append(_colour(store.omap, colours[made], sorted(uses[made])))
            for value in reversed(range(len(node.loads), len(inner))):
                _spread(node.body[value - len(node.loads)], "", inner[value], inner)
            for load, used in zip(node.loads, inner, strict=False):
                if used:
                    uses[load.source].append(_colour(node.grid, node.loop, load.imap, load.fmap, sorted(used)))
    return uses


def _spread(step: Step, colour: Colour, used: Sequence[Colour], uses: list[list[Colour]]) -> None:
    if not used:
        return
    inner = tuple(_bare(op) for op in step.ops) if isinstance(step, Thread) else ()
    made = _colour(_bare(step), inner, colour, sorted(used))
    for position, value in enumerate(step.operands):
        uses[value].append(_colour(-1 if _commutes(step) else position, made))


def _makers(graph: Graph) -> list[int]:
    """For every value the key of what makes it: an input's number, or a node's after the inputs."""
    makers = list(range(len(graph.inputs)))
    for place, node in enumerate(graph.nodes, len(graph.inputs)):
        makers += [place] * (1 if isinstance(node, Op) else len(node.stores))
    return makers


def _first_values(graph: Graph) -> list[int]:
    first, made = len(graph.inputs), []
    for node in graph.nodes:
        made.append(first)
        first += 1 if isinstance(node, Op) else len(node.stores)
    return made


def _sources(node: Node, colours: Sequence[Colour]) -> Sequence[int]:
    """What a node is made of, in canonical order."""
    if isinstance(node, Kernel):
        return [load.source for load in node.loads]
    return sorted(node.operands, key=lambda value: colours[value]) if _commutes(node) else node.operands


def _finished(roots: Sequence[int], before: Callable[[int], Sequence[int]]) -> list[int]:
    """What the roots need, and they, each after all that it needs. Not recursive: programs are long."""
    done: dict[int, None] = {}
    for root in roots:
        stack = [(root, iter(before(root)))]
        while stack:
            key, rest = stack[-1]
            step = next((other for other in rest if other not in done), None)
            if step is None:
                done[key] = None
                stack.pop()
            else:
                stack.append((step, iter(before(step))))
    return list(done)


def _renumbered(op: Op, number: dict[int, int]) -> Op:
    operands = [number[value] for value in op.operands]
    return replace(op, operands=tuple(sorted(operands) if _commutes(op) else operands))


def _canonical_kernel(kernel: Kernel, within: Sequence[Colour]) -> tuple[Kernel, list[int]]:
    """The kernel with its parts in canonical order but sources as they were, and its stores' old places."""
    first = len(kernel.loads)

    def rank(place: int) -> tuple[str, Colour]:
        return repr(kernel.stores[place].omap), within[kernel.stores[place].source]

    stores = sorted(range(len(kernel.stores)), key=rank)

    def before(value: int) -> Sequence[int]:
        if value < first:
            return ()
        step = kernel.body[value - first]
        return sorted(step.operands, key=lambda v: within[v]) if _commutes(step) else step.operands

    walk = _finished([kernel.stores[place].source for place in stores], before)
    loads = [value for value in walk if value < first]
    number = {value: place for place, value in enumerate(loads)}
    body: list[Step] = []
    for value in walk:
        if value < first:
            continue
        step = kernel.body[value - first]
        if isinstance(step, Thread):
            body.append(_canonical_thread(step, within, number))
        elif isinstance(step, Accumulate):
            body.append(replace(step, operands=tuple(number[operand] for operand in step.operands)))
        else:
            body.append(_renumbered(step, number))
        number[value] = len(number)
    made: tuple[Store, ...] = tuple(
        replace(kernel.stores[place], source=number[kernel.stores[place].source]) for place in stores
    )
    ordered: tuple[Load, ...] = tuple(kernel.loads[value] for value in loads)
    return Kernel(kernel.grid, kernel.loop, ordered, tuple(body), made), stores


def _canonical_thread(thread: Thread, within: Sequence[Colour], outer: dict[int, int]) -> Thread:
    first = len(thread.operands)
    colours = [within[value] for value in thread.operands]
    for op in thread.ops:
        colours.append(_step_colour(op, colours))

    def before(value: int) -> Sequence[int]:
        if value < first:
            return ()
        op = thread.ops[value - first]
        return sorted(op.operands, key=lambda v: colours[v]) if _commutes(op) else op.operands

    walk = _finished([len(colours) - 1], before)
    operands = [value for value in walk if value < first]
    number = {value: place for place, value in enumerate(operands)}
    ops = []
    for value in walk:
        if value >= first:
            ops.append(_renumbered(thread.ops[value - first], number))
            number[value] = len(number)
    return Thread(tuple(outer[thread.operands[value]] for value in operands), tuple(ops))
