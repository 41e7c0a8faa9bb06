"""Cut a traced program into its LAX parts: multi-linear operators, division, exponentials and element-wise functions.

A part is convex: no way leads out of it and back in, so that it can be replaced by one call. On no way through it are
two exponentials, since a pair of fields gives meaning to one. What windows see is a part by itself: no axiom joins it
with anything. Parts are maximal: no two of them that touch can be joined. Constants belong to every part that needs
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Graph, Op
from tilesmith.core.graph_check import apply, kernel_ops, tensors
from tilesmith.core.graph_hash import Canonical, canonical
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.traced import Opaque, Traced, Value

EXPONENTIALS = frozenset({"exp", "softmax"})
"""Whose algebra is used; that of silu and the like is not, and they count as functions."""


@dataclass(frozen=True, slots=True)
class Part:
    """One LAX part of a traced program."""

    graph: Graph
    sources: tuple[int, ...]
    """For each input of the graph the traced value."""
    results: tuple[int, ...]
    """For each output the traced value."""
    nodes: tuple[int, ...]
    """The traced nodes that it stands for, in order."""

    @property
    def lone(self) -> bool:
        """Whether it is an operator that no search finds in other terms."""
        return any(isinstance(node, Op) and _lone(node) for node in self.graph.nodes)

    @property
    def form(self) -> Canonical:
        """Parts of one canonical form are the same program: what is found for one serves all."""
        return canonical(self.graph)


@dataclass(frozen=True, slots=True)
class Partition:
    """A traced program as parts and what stays PyTorch's."""

    parts: tuple[Part, ...]
    rest: tuple[int, ...]
    """The traced nodes that are in no part: operators without a translation, and views alone. What no output needs is
    nowhere."""

    @property
    def distinct(self) -> dict[str, tuple[Part, ...]]:
        """Equal parts together, by their hash, in the order in which they appear."""
        made: dict[str, tuple[Part, ...]] = {}
        for part in self.parts:
            key = part.form.hash
            made[key] = (*made.get(key, ()), part)
        return made


def partition(traced: Traced, largest: int | None = None, *, whole: bool = False) -> Partition:
    """The maximal LAX parts; with `largest`, of so many operators at most, views and constants not counted.

    With `whole` no call of PyTorch is cut, however many operators it takes: a part then begins and ends with values
    that the program itself has.
    """
    makers = _makers(traced)
    live = _live(traced, makers)
    members = [place for place in sorted(live) if isinstance(traced.nodes[place], Op) and not _constant(traced, place)]
    groups = _Groups(traced, makers, members, largest)
    if whole:
        groups.keep(traced.calls)
    edges = list(_edges(traced, makers))
    while sum(groups.join(first, second) for first, second in edges):
        pass
    parts = [_part(traced, makers, live, nodes) for nodes in groups.sets()]
    # Views alone cost nothing; there is nothing to find.
    worthy = tuple(part for part in parts if kernel_ops(part.graph))
    inside = {place for part in worthy for place in part.nodes}
    rest = [place for place in sorted(live) if place not in inside and not _constant(traced, place)]
    return Partition(worthy, tuple(rest))


def _lone(op: Op) -> bool:
    return OPERATORS[op.operator].kind == "window" or op.operator == "mean_pool"


def _constant(traced: Traced, place: int) -> bool:
    node = traced.nodes[place]
    return isinstance(node, Op) and node.operator == "constant"


def _live(traced: Traced, makers: Sequence[int | None]) -> set[int]:
    """The nodes that an output needs."""
    live: set[int] = set()
    wanted = [makers[value] for value in traced.outputs]
    while wanted:
        place = wanted.pop()
        if place is not None and place not in live:
            live.add(place)
            wanted += [makers[value] for value in traced.nodes[place].operands]
    return live


def _makers(traced: Traced) -> list[int | None]:
    """For every value the node that makes it; None for inputs."""
    makers: list[int | None] = [None] * len(traced.inputs)
    for place, node in enumerate(traced.nodes):
        makers += [place] * (1 if isinstance(node, Op) else len(node.results))
    return makers


def _edges(traced: Traced, makers: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Pairs of nodes of which the second needs the first."""
    for place, node in enumerate(traced.nodes):
        for value in node.operands:
            maker = makers[value]
            if maker is not None:
                yield maker, place


class _Groups:
    """Sets of nodes that grow by joining. With each set as one node the program stays without cycles."""

    def __init__(
        self, traced: Traced, makers: Sequence[int | None], members: Sequence[int], largest: int | None
    ) -> None:
        self.traced = traced
        self.largest = largest
        self.before: list[list[int]] = [[] for _ in traced.nodes]
        self.after: list[list[int]] = [[] for _ in traced.nodes]
        for first, second in _edges(traced, makers):
            self.before[second].append(first)
            self.after[first].append(second)
        self.of = list(range(len(traced.nodes)))
        """The set of each node, by a number."""
        self.members = {place: [place] for place in members}

    def keep(self, calls: Sequence[int]) -> None:
        """Make one set of the nodes of each call: nothing leads out of a call and back in."""
        first: dict[int, int] = {}
        for place in sorted(self.members):
            into = first.setdefault(calls[place], place)
            if into != place:
                self.members[into] += self.members.pop(place)
                self.of[place] = into

    def sets(self) -> list[list[int]]:
        """The sets, in the order of their first nodes."""
        return sorted(self.members.values())

    def join(self, first: int, second: int) -> bool:
        """Join the sets of two nodes, of which the second needs the first, if what comes of it is a part."""
        one, two = self.of[first], self.of[second]
        if one == two or one not in self.members or two not in self.members:
            return False
        nodes = sorted(self.members[one] + self.members[two])
        if any(isinstance(node := self.traced.nodes[place], Op) and _lone(node) for place in nodes):
            return False
        if self._around(one, two) or self._exponentials(nodes) > 1 or not self._small(nodes):
            return False
        del self.members[two]
        self.members[one] = nodes
        for place in nodes:
            self.of[place] = one
        return True

    def _around(self, one: int, two: int) -> bool:
        """Whether a way leads from one set to the other through a third."""
        stack = [
            after for place in self.members[one] for after in self.after[place] if self.of[after] not in (one, two)
        ]
        seen: set[int] = set()
        while stack:
            here = self.of[stack.pop()]
            if here == two:
                return True
            if here not in seen:
                seen.add(here)
                stack += [after for place in self.members.get(here, [here]) for after in self.after[place]]
        return False

    def _exponentials(self, nodes: Sequence[int]) -> int:
        """The most on one way inside."""
        counts: dict[int, int] = {}
        for place in nodes:
            node = self.traced.nodes[place]
            own = isinstance(node, Op) and node.operator in EXPONENTIALS
            counts[place] = own + max((counts[first] for first in self.before[place] if first in counts), default=0)
        return max(counts.values())

    def _small(self, nodes: Sequence[int]) -> bool:
        ops = [node for place in nodes if isinstance(node := self.traced.nodes[place], Op)]
        return self.largest is None or kernel_ops(Graph((), tuple(ops), ())) <= self.largest


def _part(traced: Traced, makers: Sequence[int | None], live: set[int], nodes: Sequence[int]) -> Part:
    """The graph of a set of nodes, whose inputs are the values that come from elsewhere."""
    inside = set(nodes)
    values = _values(traced)
    constants = {place for place in range(len(traced.nodes)) if _constant(traced, place)}
    ops = [(place, node) for place in nodes if isinstance(node := traced.nodes[place], Op)]
    used = list(dict.fromkeys(value for _, op in ops for value in op.operands))
    sources = [v for v in used if makers[v] is None or (makers[v] not in inside and makers[v] not in constants)]
    number = {value: place for place, value in enumerate(sources)}
    made: list[Op] = []
    firsts = _first_values(traced)
    for value in used:
        maker = makers[value]
        if maker in constants and maker is not None:
            constant = traced.nodes[maker]
            assert isinstance(constant, Op)
            number[value] = len(sources) + len(made)
            made.append(constant)
    for place, op in ops:
        number[firsts[place]] = len(sources) + len(made)
        made.append(replace(op, operands=tuple(number[value] for value in op.operands)))
    outside = set(traced.outputs)
    for place in live:
        if place not in inside:
            outside |= set(traced.nodes[place].operands)
    results = [firsts[place] for place in nodes if firsts[place] in outside]
    names: set[str] = set()
    inputs = []
    for value in sources:
        tensor = replace(values[value], name=values[value].name or f"v{value}").tensor
        assert tensor is not None, "operators take floating point only"
        name = tensor.name if tensor.name not in names else f"{tensor.name}.{value}"
        names.add(name)
        inputs.append(replace(tensor, name=name))
    graph = Graph(tuple(inputs), tuple(made), tuple(number[value] for value in results))
    tensors(graph)
    return Part(graph, tuple(sources), tuple(results), tuple(nodes))


def _first_values(traced: Traced) -> list[int]:
    first, made = len(traced.inputs), []
    for node in traced.nodes:
        made.append(first)
        first += 1 if isinstance(node, Op) else len(node.results)
    return made


def _values(traced: Traced) -> list[Value]:
    """What is known of every value."""
    values = list(traced.inputs)
    for node in traced.nodes:
        if isinstance(node, Opaque):
            values += node.results
            continue
        used = [values[value].tensor for value in node.operands]
        local = replace(node, operands=tuple(range(len(used))))
        made = apply(local, used)
        values.append(Value(made.dims, made.dtype))
    return values
