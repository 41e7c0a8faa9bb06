"""A whole program's best µGraphs: it is searched as one, and where that finds nothing cut in two until it does.

What no search improves stays what it is, operators between kernels, which the lowering writes as kernels of their own.
So every program of operators has a µGraph.

A softmax stands any scores, sums of exponentials do not. Of what computes a program's softmax only what stands them too
is of use; where a program takes its exponentials itself, both are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph, Limits, Node, Op
from tilesmith.core.graph_check import check, kernel_ops, tensors
from tilesmith.superopt.beside import alone, beside
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.online import overflows, shifted
from tilesmith.superopt.partition import Part, partition
from tilesmith.superopt.search import Found, search
from tilesmith.superopt.traced import Traced, Value
from tilesmith.superopt.verify import Verified, verify


@dataclass(frozen=True, slots=True)
class Space:
    """One search of a program, or of a part of it."""

    kernels: int
    block_ops: int
    keep: int
    inputs: int = 4


ALIKE = 2
SPACES = (Space(1, 14, 12), Space(2, 11, 8))
"""Attention that normalises its operands takes 13 operators in one kernel; two kernels split a sum over the blocks."""
FEW = 3
"""What a block can hold whole is the cheapest by the search's estimate, which may leave nothing that spreads well."""
WIDER = (Space(1, 18, 24, 6), Space(2, 18, 24, 6), Space(3, 18, 24, 6))
"""Where those have few: a norm before two products and what gates them takes 17 operators with its loop."""


@dataclass(frozen=True, slots=True)
class Best:
    """How programs are searched."""

    gpu: Gpu
    seconds: float
    """For each search."""
    seed: int
    fits: Callable[[Graph], str]
    """Why a µGraph is of no use; empty where it is."""
    say: Callable[[str], None]
    most: int = 8

    def of(self, graph: Graph) -> tuple[Graph, ...]:
        """Verified µGraphs of a graph of operators: the best of each space, the second of each, and so on.

        Where those are few, that of each output by itself, side by side, and those of wider spaces; where there are
        none either, one of its parts' best.
        """
        useful, why = self._useful(self._searched(graph, SPACES))
        if kernel_ops(graph) <= 1:
            return useful or (graph,)
        if len(useful) < FEW:
            together, _ = self._useful((self._by_outputs(graph), ""))
            wider, why = self._useful(self._searched(graph, WIDER))
            useful = tuple(dict.fromkeys((*useful, *together, *wider)))[: self.most]
        if useful:
            return useful
        parts = partition(_as_traced(graph), largest=(kernel_ops(graph) + 1) // 2).parts
        self.say(f"a part of {kernel_ops(graph)} operators is cut into {len(parts)}: {why}")
        return (assembled(graph, [(part, self.of(part.graph)[0]) for part in parts]),)

    def _useful(self, searched: tuple[Sequence[Graph], str]) -> tuple[tuple[Graph, ...], str]:
        """Those of what was found that are of use; and why the first is not, or why nothing was found."""
        made, why = searched
        useful: list[Graph] = []
        for found in made:
            fault = self.fits(found)
            if not fault:
                useful.append(found)
            elif found is made[0]:
                why = fault
            if len(useful) == self.most:
                break
        return tuple(useful), why

    def _by_outputs(self, graph: Graph) -> tuple[Graph, ...]:
        """Of a program of several outputs: the best µGraph of each as if there were no other, side by side."""
        if len(graph.outputs) == 1:
            return ()
        each = [alone(graph, output) for output in range(len(graph.outputs))]
        made = beside(graph, [(self.of(program)[0], sources) for program, sources in each])
        verdict = verify(made, graph, self.seed)
        kept = isinstance(verdict, Verified) and verdict.order == tuple(range(len(graph.outputs)))
        return (made,) if kept and not check(made) else ()

    def _searched(self, graph: Graph, spaces: Sequence[Space]) -> tuple[tuple[Graph, ...], str]:
        """What the spaces have, in turns; and why the last has nothing."""
        lists: list[list[Graph]] = []
        why = ""
        for space in spaces:
            limits = Limits(graph_defined_kernels=space.kernels, block_ops=space.block_ops, inputs=space.inputs)
            plan = Plan(seconds=self.seconds, keep=space.keep, seed=self.seed, target=self.gpu.name)
            try:
                results = search(graph, limits, plan)
            except OptionError as error:
                # An operator that the search does not know: its parts may do without.
                return (), str(error)
            # Two kernels at most may be one, which the first space has already.
            fresh = [found for found in results.graphs if len(found.kernels) == space.kernels or not any(lists)]
            stand = [made for found in fresh for made in self._standing(found, graph)]
            lists.append([found.graph for found in _unlike(stand)])
            why = "what was found overflows where scores are large" if fresh and not stand else results.closest
        longest = max(map(len, lists))
        return tuple(made[place] for place in range(longest) for made in lists if place < len(made)), why

    def _standing(self, found: Found, program: Graph) -> tuple[Found, ...]:
        """What was found, and the same with its exponentials shifted: what overflows only where the program does."""
        made = shifted(found.graph, self.seed)
        online = () if made is None else (replace(found, graph=made),)
        if not any(isinstance(node, Op) and node.operator == "softmax" for node in program.nodes):
            return (found, *online)
        if overflows(program):
            return (*online, found)
        return tuple(one for one in online or (found,) if not overflows(one.graph))


def _unlike(found: Sequence[Found]) -> list[Found]:
    """At most two of those that are scheduled alike and cost the same: they differ in the order of arithmetic."""
    counts: Counter[object] = Counter()
    kept = []
    for each in {each.graph: each for each in found}.values():
        schedule = tuple((kernel.grid, kernel.loop) for kernel in each.kernels)
        key = (round(each.estimate_us, 3), schedule, overflows(each.graph))
        counts[key] += 1
        if counts[key] <= ALIKE:
            kept.append(each)
    return kept


def _as_traced(graph: Graph) -> Traced:
    inputs = tuple(Value(tensor.dims, tensor.dtype, tensor.name) for tensor in graph.inputs)
    nodes = tuple(node for node in graph.nodes if isinstance(node, Op))
    return Traced(inputs, nodes, graph.outputs, ("",) * len(nodes))


def assembled(program: Graph, chosen: Sequence[tuple[Part, Graph]]) -> Graph:
    """A program of operators with a µGraph in the place of each part that was cut from it."""
    inside = {place for part, _ in chosen for place in part.nodes}
    first = len(program.inputs)
    number = {value: value for value in range(first)}
    made: list[Node] = []
    count = first

    def add(graph: Graph, sources: Sequence[int], results: Sequence[int]) -> None:
        nonlocal count
        local = {value: number[source] for value, source in enumerate(sources)}
        for node in graph.nodes:
            if isinstance(node, Op):
                made.append(replace(node, operands=tuple(local[value] for value in node.operands)))
            else:
                made.append(replace(node, loads=tuple(replace(load, source=local[load.source]) for load in node.loads)))
            for _ in range(1 if isinstance(node, Op) else len(node.stores)):
                local[len(local)] = count
                count += 1
        for result, output in zip(results, graph.outputs, strict=True):
            number[result] = local[output]

    def alone(place: int) -> tuple[Graph, tuple[int, ...], tuple[int, ...]]:
        node = program.nodes[place]
        assert isinstance(node, Op), "the program has no kernels of its own"
        sources = tuple(dict.fromkeys(node.operands))
        local = replace(node, operands=tuple(sources.index(value) for value in node.operands))
        return Graph((), (local,), (len(sources),)), sources, (first + place,)

    waiting = [(graph, part.sources, part.results) for part, graph in chosen]
    waiting += [alone(place) for place in range(len(program.nodes)) if place not in inside]
    while waiting:
        # Parts are convex: one of those that wait has all it needs.
        ready = next(piece for piece in waiting if all(source in number for source in piece[1]))
        waiting.remove(ready)
        add(*ready)
    whole = Graph(program.inputs, tuple(made), tuple(number[value] for value in program.outputs))
    tensors(whole)
    return whole
