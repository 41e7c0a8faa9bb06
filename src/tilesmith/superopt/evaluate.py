"""What a µGraph computes, over any algebra: all three levels are executed, tile by tile and iteration by iteration.

A value is a tuple of arrays of one shape, its planes: one of float64 for numbers, two of residues for the pair of prime
fields. Every plane has leading axes before those of the tensor: first the rounds, which are independent evaluations,
and inside a kernel one for every axis of the grid, so that all blocks are executed at once. The loop is a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Step, Store, Thread, Window
from tilesmith.core.graph_check import Phase, block, tensors
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.macros import expand

Array = NDArray[Any]
Planes = tuple[Array, ...]


class Algebra(Protocol):
    """What numbers are. Operands are broadcast already where there are two."""

    def constant(self, number: Fraction) -> Planes:
        """Without dimensions: planes of shape (1,) or (rounds,)."""
        ...

    def unary(self, op: Op, x: Planes) -> Planes: ...

    def binary(self, operator: str, x: Planes, y: Planes) -> Planes: ...

    def matmul(self, x: Planes, y: Planes) -> Planes:
        """Of the last two axes; those before are broadcast."""
        ...

    def reduce(self, operator: str, x: Planes, axes: tuple[int, ...]) -> Planes:
        """sum or amax; the axes stay."""
        ...


@dataclass(frozen=True, slots=True)
class _Value:
    planes: Planes
    rank: int
    """Of the tensor: the last axes."""

    @property
    def lead(self) -> int:
        return self.planes[0].ndim - self.rank

    @property
    def dims(self) -> tuple[int, ...]:
        return self.planes[0].shape[self.lead :]

    def view(self, change: Callable[[Array], Array], rank: int | None = None) -> _Value:
        return _Value(tuple(change(plane) for plane in self.planes), self.rank if rank is None else rank)


def run(graph: Graph, inputs: Sequence[Planes], algebra: Algebra) -> list[Planes]:
    """The outputs. Every plane has one leading axis, the rounds. Raises `OptionError` for a malformed graph."""
    spelled, phases = _spelled(graph)
    values = [_Value(planes, planes[0].ndim - 1) for planes in inputs]
    for place, node in enumerate(spelled.nodes):
        if isinstance(node, Op):
            values.append(_apply(node, values, 1, algebra))
        else:
            values += _kernel(node, values, phases[place], algebra)
    return [values[output].planes for output in spelled.outputs]


@lru_cache(maxsize=64)
def _spelled(graph: Graph) -> tuple[Graph, dict[int, tuple[Phase, ...]]]:
    """Without macros, and for each kernel the phases of its values: a graph is run over several algebras."""
    spelled = expand(graph)
    known = tensors(spelled)
    kernels = {place: node for place, node in enumerate(spelled.nodes) if isinstance(node, Kernel)}
    return spelled, {place: block(node, known).phases for place, node in kernels.items()}


# Operators, at every level -------------------------------------------------------------------------------------------


def _apply(op: Op, values: Sequence[_Value], lead: int, algebra: Algebra) -> _Value:
    operands = [values[value] for value in op.operands]
    kind = OPERATORS[op.operator].kind
    if kind == "constant":
        planes = algebra.constant(op.values[0])
        return _Value(tuple(plane.reshape(plane.shape[:1] + (1,) * (lead - 1)) for plane in planes), 0)
    x = operands[0]
    axes = tuple(axis + lead for axis in op.axes)
    if kind == "reduction":
        return _Value(algebra.reduce(op.operator, x.planes, axes), x.rank)
    if kind == "window":
        return _pooled(op, x, algebra)
    if kind == "contraction":
        left, right = _aligned(operands)
        return _Value(algebra.matmul(left.planes, right.planes), left.rank)
    if kind == "element-wise":
        if len(operands) == 1:
            return _Value(algebra.unary(op, x.planes), x.rank)
        left, right = _aligned(operands)
        return _Value(algebra.binary(op.operator, left.planes, right.planes), left.rank)
    return _viewed(op, operands, lead, axes)


def _viewed(op: Op, operands: Sequence[_Value], lead: int, axes: tuple[int, ...]) -> _Value:
    x = operands[0]
    if op.operator == "concat":
        shape = np.broadcast_shapes(*(value.planes[0].shape[:lead] for value in operands))
        parts = [value.view(lambda plane: np.broadcast_to(plane, shape + plane.shape[lead:])) for value in operands]
        joined = zip(*(part.planes for part in parts), strict=True)
        return _Value(tuple(np.concatenate(planes, axes[0]) for planes in joined), x.rank)
    if op.operator == "permute":
        return x.view(lambda plane: plane.transpose(*range(lead), *axes))
    if op.operator == "slice":
        cut = (slice(None),) * axes[0] + (slice(*op.dims),)
        return x.view(lambda plane: plane[cut])
    if op.operator == "expand":
        padded = _padded(x, len(op.dims))
        return padded.view(lambda plane: np.broadcast_to(plane, plane.shape[:lead] + op.dims))
    if op.operator == "reshape":
        return x.view(lambda plane: plane.reshape(plane.shape[:lead] + op.dims), len(op.dims))
    made = x.view(lambda plane: _unfolded(plane, op.windows))
    return _Value(made.planes, x.rank + len(op.windows))


def _unfolded(plane: Array, windows: tuple[Window, ...]) -> Array:
    """[..., S*] to [..., places*, sizes*]."""
    count = len(windows)
    pads = [(0, 0)] * (plane.ndim - count) + [(window.padding, window.padding) for window in windows]
    padded = np.pad(plane, pads)
    first = plane.ndim - count
    for number, window in enumerate(windows):
        places = window.places(plane.shape[first + number])
        index = np.arange(places)[:, None] * window.stride + np.arange(window.size) * window.dilation
        # The sizes wait at the end, in order, while the places stand where the dimension was.
        taken = np.take(padded, index, axis=first + number)
        padded = np.moveaxis(taken, first + number + 1, -1)
    return padded


def _pooled(op: Op, x: _Value, algebra: Algebra) -> _Value:
    """One dimension after another: what all windows see of it, reduced.

    Sums have zeros beyond the edges. Maxima have another element of the same window there, which changes nothing.
    """
    planes, how = x.planes, "sum" if op.operator == "sum_pool" else "amax"
    for number, window in enumerate(op.windows):
        axis = planes[0].ndim - len(op.windows) + number
        extent = planes[0].shape[axis]
        index = np.arange(window.places(extent))[:, None] * window.stride - window.padding
        index = index + np.arange(window.size) * window.dilation
        inside = (index >= 0) & (index < extent)
        if how == "amax":
            first = np.take_along_axis(index, inside.argmax(1)[:, None], 1)
            index, inside = np.where(inside, index, first), np.ones_like(inside)
        shape = (*inside.shape, *(1 for _ in planes[0].shape[axis + 1 :]))
        kept, spots = inside.reshape(shape), index.clip(0, extent - 1)
        taken = tuple(np.where(kept, np.take(plane, spots, axis), plane.dtype.type(0)) for plane in planes)
        planes = tuple(np.squeeze(plane, axis + 1) for plane in algebra.reduce(how, taken, (axis + 1,)))
    return _Value(planes, x.rank)


def _padded(value: _Value, rank: int) -> _Value:
    """The same with dimensions of extent 1 put before its own, behind the leading axes."""
    lead, missing = value.lead, (1,) * (rank - value.rank)
    return value.view(lambda plane: plane.reshape(plane.shape[:lead] + missing + plane.shape[lead:]), rank)


def _aligned(values: Sequence[_Value]) -> list[_Value]:
    rank = max(value.rank for value in values)
    return [_padded(value, rank) for value in values]


# Kernels -------------------------------------------------------------------------------------------------------------


def _kernel(kernel: Kernel, sources: Sequence[_Value], phases: Sequence[Phase], algebra: Algebra) -> list[_Value]:
    count, lead = len(kernel.loads) + len(kernel.body), 1 + len(kernel.grid)
    values: list[_Value | None] = [None] * count

    def steps(phase: Phase, iteration: int) -> None:
        for place, load in enumerate(kernel.loads):
            if phases[place] is phase:
                values[place] = _tile(kernel, load, sources[load.source], iteration)
        for place, step in enumerate(kernel.body, len(kernel.loads)):
            if phases[place] is phase and not isinstance(step, Accumulate):
                values[place] = _step(step, _made(values, step), lead, algebra)

    gathers = {place: step for place, step in enumerate(kernel.body, len(kernel.loads)) if isinstance(step, Accumulate)}
    steps(Phase.INVARIANT, 0)
    gathered: dict[int, _Gathered] = {}
    for iteration in range(kernel.loop):
        steps(Phase.VARYING, iteration)
        for place, step in gathers.items():
            gathered[place] = _gather(step, gathered.get(place), _made(values, step), lead, algebra)
    for place, gather in gathered.items():
        values[place] = gather.total
    steps(Phase.AFTER, 0)
    return [_stored(kernel, store, values[store.source]) for store in kernel.stores]


def _made(values: Sequence[_Value | None], step: Step) -> list[_Value]:
    made = [values[value] for value in step.operands]
    return [value for value in made if value is not None]


def _step(step: Step, operands: list[_Value], lead: int, algebra: Algebra) -> _Value:
    if isinstance(step, Thread):
        values = list(operands)
        for op in step.ops:
            values.append(_apply(op, values, lead, algebra))
        return values[-1]
    assert isinstance(step, Op)
    return _apply(Op(step.operator, tuple(range(len(operands))), step.axes, step.dims, step.values, step.windows),
                  operands, lead, algebra)  # fmt: skip


def _tile(kernel: Kernel, load: Load, source: _Value, iteration: int) -> _Value:
    """The blocks' tiles of one iteration: the grid's axes lead, where a block does not choose they are 1 long."""

    def cut(plane: Array) -> Array:
        # Every dimension that the grid cuts becomes two: the parts, then their elements.
        shape = [plane.shape[0]]
        parts, elements = {}, []
        for dim, extent in enumerate(plane.shape[1:]):
            count = 1
            if dim in load.imap:
                axis = load.imap.index(dim)
                count = kernel.grid[axis]
                parts[axis] = len(shape)
                shape.append(count)
            elements.append(len(shape))
            shape.append(extent // count)
        plane = plane.reshape(shape).transpose(0, *(parts[axis] for axis in sorted(parts)), *elements)
        absent = [1 + axis for axis in range(len(kernel.grid)) if axis not in parts]
        plane = np.expand_dims(plane, tuple(absent))
        if load.fmap is None:
            return plane
        axis = 1 + len(kernel.grid) + load.fmap
        part = plane.shape[axis] // kernel.loop
        return plane[(slice(None),) * axis + (slice(iteration * part, (iteration + 1) * part),)]

    return source.view(cut)


@dataclass(frozen=True, slots=True)
class _Gathered:
    total: _Value
    top: _Value | None = None
    """The running maximum of a rescaling sum."""


def _gather(step: Accumulate, old: _Gathered | None, operands: list[_Value], lead: int, algebra: Algebra) -> _Gathered:
    x = operands[0]
    if step.how == "rescale":
        return _rescaled(old, operands, algebra)
    if step.how == "concat":
        new = x
        if old is not None:
            axis = lead + step.axes[0]
            joined = zip(old.total.planes, x.planes, strict=True)
            new = _Value(tuple(np.concatenate(planes, axis) for planes in joined), x.rank)
        return _Gathered(new)
    if step.axes:
        axes = tuple(axis + lead for axis in step.axes)
        x = _Value(algebra.reduce("sum" if step.how == "sum" else "amax", x.planes, axes), x.rank)
    if old is None:
        return _Gathered(x)
    combined = algebra.binary("add" if step.how == "sum" else "max", old.total.planes, x.planes)
    return _Gathered(_Value(combined, x.rank))


def _rescaled(old: _Gathered | None, operands: list[_Value], algebra: Algebra) -> _Gathered:
    """One iteration of online softmax: total · exp(m - m') + exp(S - m') @ V, where m' = max(m, max S)."""
    scores = operands[0]
    last = (scores.planes[0].ndim - 1,)
    top = algebra.reduce("amax", scores.planes, last)
    if old is not None and old.top is not None:
        top = algebra.binary("max", old.top.planes, top)
    exp = Op("exp", (0,))
    weights = _Value(algebra.unary(exp, algebra.binary("sub", scores.planes, top)), scores.rank)
    if len(operands) == 1:
        added = _Value(algebra.reduce("sum", weights.planes, last), scores.rank)
    else:
        left, right = _aligned([weights, operands[1]])
        added = _Value(algebra.matmul(left.planes, right.planes), left.rank)
    peak = _Value(top, scores.rank)
    if old is None or old.top is None:
        return _Gathered(added, peak)
    shrink = _Value(algebra.unary(exp, algebra.binary("sub", old.top.planes, top)), scores.rank)
    total, factor = _aligned([old.total, shrink])
    kept = algebra.binary("mul", total.planes, factor.planes)
    return _Gathered(_Value(algebra.binary("add", kept, added.planes), added.rank), peak)


def _stored(kernel: Kernel, store: Store, value: _Value | None) -> _Value:
    """The tensor that the blocks' tiles make."""
    assert value is not None, "a checked kernel stores what it made"
    lead = 1 + len(kernel.grid)

    def join(plane: Array) -> Array:
        # What every block computes alike is there once; axes that no dimension takes are 1 long.
        wide = tuple(g if axis is not None else 1 for g, axis in zip(kernel.grid, store.omap, strict=True))
        plane = np.broadcast_to(plane, (plane.shape[0], *wide, *plane.shape[lead:]))
        order, shape = [0], [plane.shape[0]]
        for dim, extent in enumerate(plane.shape[lead:]):
            axis = store.omap.index(dim) if dim in store.omap else None
            order += [lead + dim] if axis is None else [1 + axis, lead + dim]
            shape.append(extent if axis is None else extent * kernel.grid[axis])
        spare = [1 + axis for axis, dim in enumerate(store.omap) if dim is None]
        return plane.transpose(*order, *spare).reshape(shape)

    return value.view(join)
