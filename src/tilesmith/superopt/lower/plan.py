"""One kernel as it will be written: its axes with sizes and names, where its tensors are, and what is chosen for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilesmith.core.graph import Accumulate, Kernel, Op, Step, Tensor, Window
from tilesmith.core.graph_check import Block, Phase, block
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower.axes import Axes, Row, Viewed, axes_of
from tilesmith.superopt.lower.sizes import ONE, Size, Unnamed, View, product

Sum = tuple[Size, int]
"""Over how many elements a sum goes, and into how many parts it is still split."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A kernel without macros and threads, with what is known of it before any choice."""

    name: str
    node: int
    """Its place in the graph."""
    kernel: Kernel
    made: Block
    axes: Axes
    sources: tuple[View | None, ...]
    """For every load the tensor; None for a number, which `numbers` has."""
    numbers: tuple[float | None, ...]
    sizes: tuple[Size, ...]
    """For every axis all its elements; for a part those of one tile."""
    names: tuple[str, ...]
    counts: tuple[Size, ...]
    """For every grid axis into how many parts the graph, or the shapes, cut it; that of tiles counts for nothing."""
    loop: Size
    """How often the loop runs where it walks along no axis."""
    dtypes: tuple[Dtype, ...]
    """How each store's tensor is kept."""

    @property
    def loops(self) -> bool:
        """Whether there is a loop: what varies over it is gathered, or nothing needs it."""
        return any(isinstance(step, Accumulate) for step in self.kernel.body)

    def many(self, grid: int) -> bool:
        """Whether an axis of the grid has, or may have, more than one program."""
        return self.axes.grid[grid] is not None or self.counts[grid] != ONE

    def dots(self, step: Step) -> bool:
        """Whether a step is a product on the matrix units: none of its three extents is 1."""
        product = isinstance(step, Op) and step.operator == "matmul"
        if not product and not (isinstance(step, Accumulate) and step.how == "rescale" and len(step.operands) == 2):
            return False
        left, right = (self.axes.rows[operand] for operand in step.operands[:2])
        return bool(left[-2] and left[-1] and right[-1])

    def pads(self, axis: int, block: int) -> bool:
        """Whether a tile of so many elements may reach beyond the axis, or beyond a program's share of it."""
        size = self.sizes[axis]
        parts = self.shares(axis)
        return bool(size.names) or bool(size.number % (parts * block))

    def shares(self, axis: int) -> int:
        """Into how many shares the grid cuts an axis along which the loop walks."""
        grid = self.axes.axes[axis].grid
        return self.kernel.grid[grid] if self.axes.axes[axis].kind == "span" and grid is not None else 1


def plan(
    node: int,
    kernel: Kernel,
    known: Sequence[Tensor],
    sources: Sequence[View | None],
    numbers: Sequence[float | None],
    named: bool,
    places: Callable[[Size, Window], Size],
) -> Plan:
    """`places` says how many places a window has along an extent.

    Raises `OptionError` with a clause for what cannot be lowered, `Unnamed` where sizes have no names.
    """
    made = block(kernel, known)
    axes = axes_of(kernel, made)
    count = len(axes.axes)
    along = {view.places: view for view in axes.views}
    free = {number: _size(number, kernel, axes, sources, named) for number in range(count) if number not in along}
    sizes = tuple(free[n] if n in free else places(_looked(along[n], free), along[n].window) for n in range(count))
    counts = tuple(_count(place, kernel, axes, sources, named) for place in range(len(kernel.grid)))
    return Plan(
        name="",
        node=node,
        kernel=kernel,
        made=made,
        axes=axes,
        sources=tuple(sources),
        numbers=tuple(numbers),
        sizes=sizes,
        names=tuple(_named(kernel, axes)),
        counts=counts,
        loop=_loop(kernel, axes, sources, named),
        dtypes=(),
    )


def equal_sizes(plan: Plan) -> Iterator[tuple[Size, Size]]:
    """Sizes that the kernel takes for one."""
    for number, size in enumerate(plan.sizes):
        for place, load in enumerate(plan.kernel.loads):
            view = plan.sources[place]
            for dim, row in enumerate(plan.axes.rows[place]):
                if view is not None and row == (number,) and plan.axes.axes[number].kind != "part":
                    yield size, view.sizes[dim]
                elif view is not None and not row and load.fmap != dim and dim in load.imap:
                    yield plan.counts[load.imap.index(dim)], view.sizes[dim]


def stored_sizes(plan: Plan, place: int) -> tuple[Size, ...]:
    """The extents of what a store makes."""
    store = plan.kernel.stores[place]
    made = []
    for dim, row in enumerate(plan.axes.rows[store.source]):
        grid = store.omap.index(dim) if dim in store.omap else None
        size = product(plan.sizes[axis] for axis in row)
        counted = grid is not None and (not row or plan.axes.axes[row[0]].kind in ("part", "whole"))
        if counted and grid is not None:
            size = plan.counts[grid] * size
        if _joined(plan.kernel, store.source, dim) and (not row or plan.axes.axes[row[0]].kind == "part"):
            size = plan.loop * size
        made.append(size)
    return tuple(made)


def _joined(kernel: Kernel, value: int, dim: int) -> bool:
    """Whether the tiles of all iterations lie one after another along a dimension."""
    step = kernel.body[value - len(kernel.loads)] if value >= len(kernel.loads) else None
    return isinstance(step, Accumulate) and step.how == "concat" and dim in step.axes


def _size(number: int, kernel: Kernel, axes: Axes, sources: Sequence[View | None], named: bool) -> Size:
    axis = axes.axes[number]
    if axis.kind == "part":
        if named:
            raise Unnamed
        return Size(axis.tile)
    for place in range(len(kernel.loads)):
        view = sources[place]
        for dim, row in enumerate(axes.rows[place]):
            if row == (number,) and view is not None:
                return view.sizes[dim]
    if named:
        raise Unnamed
    for place in range(len(kernel.loads)):
        view = sources[place]
        for dim, row in enumerate(axes.rows[place]):
            if number in row and view is not None:
                if row[0] != number:
                    return Size(axis.tile)
                return Size(view.dims[dim] // math.prod(axes.axes[other].tile for other in row[1:]))
    return Size(axis.tile)


def _looked(view: Viewed, sizes: Mapping[int, Size]) -> Size:
    return ONE if view.seen is None else sizes[view.seen]


def _count(place: int, kernel: Kernel, axes: Axes, sources: Sequence[View | None], named: bool) -> Size:
    """Of programs along a grid axis, where they have no tiles of their own to count."""
    literal = Size(kernel.grid[place])
    if axes.grid[place] is not None or any(a.grid == place and a.kind == "span" for a in axes.axes):
        return literal
    used = [
        (number, load.imap[place]) for number, load in enumerate(kernel.loads) if load.imap[place] is not None
    ]  # fmt: skip
    for number, dim in used:
        view = sources[number]
        load = kernel.loads[number]
        if view is not None and dim is not None and not axes.rows[number][dim] and load.fmap != dim:
            return view.sizes[dim]
    if named and literal.number > 1:
        raise Unnamed
    return literal


def _loop(kernel: Kernel, axes: Axes, sources: Sequence[View | None], named: bool) -> Size:
    if axes.step is not None or kernel.loop == 1:
        return ONE if kernel.loop == 1 else Size(kernel.loop)
    for number, load in enumerate(kernel.loads):
        view = sources[number]
        dim = load.fmap
        if view is not None and dim is not None and not axes.rows[number][dim] and dim not in load.imap:
            return view.sizes[dim]
    if named:
        raise Unnamed
    return Size(kernel.loop)


def _named(kernel: Kernel, axes: Axes) -> Iterator[str]:
    """What an axis is to the kernel, in a word."""
    stored = [row for store in kernel.stores for row in axes.rows[store.source]]
    last = {row[-1] for store in kernel.stores for row in axes.rows[store.source][-1:] if row}
    used: dict[str, int] = {}
    kept = {axis for row in stored for axis in row}
    looked = dict(_looked_along(axes))
    for number in range(len(axes.axes)):
        if number in looked:
            word = looked[number]
        elif number == axes.step:
            word = "inner"
        elif number not in kept:
            word = "depth"
        else:
            word = "columns" if number in last else "rows"
        used[word] = used.get(word, 0) + 1
        yield word if used[word] == 1 else f"{word}{used[word]}"


def _looked_along(axes: Axes) -> Iterator[tuple[int, str]]:
    """Axes that windows look along, and those of their places, as images have them."""
    for view in axes.views:
        words = ("width", "height", "depth")
        behind = len(axes.rows[view.value]) - 1 - view.dim
        word = words[min(behind, 2)]
        if view.seen is not None:
            yield view.seen, word
        if view.places is not None:
            yield view.places, f"out_{word}"


def needs(made: Plan) -> tuple[frozenset[str], ...]:
    """For every value who reads it: products ("dot"), others ("math"), stores ("store"); and if any in the "loop"."""
    phases, first = made.made.phases, len(made.kernel.loads)
    found: list[set[str]] = [set() for _ in phases]
    for store in made.kernel.stores:
        found[store.source].add("store")
    for value in range(len(phases) - 1, first - 1, -1):
        step = made.kernel.body[value - first]
        kind = OPERATORS[step.operator].kind if isinstance(step, Op) else ""
        if kind == "window":
            # It loads what it sees itself.
            continue
        inside = phases[value] is Phase.VARYING or isinstance(step, Accumulate) or "loop" in found[value]
        for place, source in enumerate(step.operands):
            if kind == "view":
                found[source] |= found[value] - {"loop"}
            elif made.dots(step) and (isinstance(step, Op) or place == 1):
                found[source].add("dot")
            else:
                found[source].add("math")
            if inside and phases[source] is not Phase.AFTER:
                found[source].add("loop")
    return tuple(map(frozenset, found))


def summed(made: Plan) -> tuple[Sum | None, ...]:
    """For every value over how many elements its elements are sums, and into how many parts those are still split."""
    counts: list[Sum | None] = []
    first = len(made.kernel.loads)
    for value in range(len(made.made.tiles)):
        if value < first:
            view = made.sources[value]
            counts.append(view.summed if view is not None else None)
            continue
        step = made.kernel.body[value - first]
        source = step.operands[0] if step.operands else 0
        total = isinstance(step, Op) and step.operator == "sum"
        if total or (not isinstance(step, Op) and getattr(step, "how", "") == "sum"):
            axes = [axis for dim in getattr(step, "axes", ()) for axis in made.axes.rows[source][dim]]
            counts.append(_over(made, counts[source], axes, total or made.axes.step is not None))
        elif isinstance(step, Op) and step.operator in ("reshape", "cast"):
            counts.append(counts[source])
        else:
            counts.append(None)
    return tuple(counts)


def _over(made: Plan, before: Sum | None, axes: Sequence[int], known: bool) -> Sum | None:
    """A sum over axes of what `before` says are sums already."""
    if not known or (not axes and before is None):
        return None
    size, parts = before or (ONE, 1)
    for axis in axes:
        if made.axes.axes[axis].kind == "part":
            return None
        own = made.sizes[axis]
        if parts > 1 and not own.names and own.number == parts:
            parts = 1
            continue
        size, parts = product((size, own)), parts * made.shares(axis)
    return size, parts


def blocks_text(plan: Plan, row: Row) -> str:
    """How many elements of a program lie along a row."""
    return " * ".join(f"BLOCK_{plan.names[axis].upper()}" for axis in row)
