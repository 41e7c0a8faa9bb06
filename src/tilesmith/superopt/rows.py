"""Rows of atoms: what every dimension of every value is made of.

A dimension is a row of atoms, outermost first, and empty where its extent is 1. Where operators say that dimensions
are equal their rows are made equal, and an atom is broken up where one row cuts it and the other does not:
[batch, tokens, heads · dim] seen as [batch, tokens, heads, dim] makes two of the last dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilesmith.core.graph import Dims, Op, Step, Thread, Window
from tilesmith.core.operators import OPERATORS, Misfit


class Atom:
    """One factor of a dimension: a root, or the same as another, or broken into others. Sizes are the original's."""

    __slots__ = ("least", "parts", "pinned", "rule", "size")

    def __init__(self, size: int, pinned: bool = False, rule: Rule | None = None) -> None:
        self.size = size
        self.parts: Row | None = None
        """What it has turned out to be: another atom, or several."""
        self.pinned = pinned
        """Keeps its size: how many pieces a slice chooses from, or a window sees."""
        self.rule = rule
        """Where its size follows from others."""
        self.least = 2
        """Of its small size: windows that move take some room."""


Row = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a size follows from: the sum of the rows' sizes, or the places of a window in the one row."""

    rows: tuple[Row, ...]
    window: Window | None = None


Shape = tuple[Row, ...]
"""A row for each dimension."""


def row_of(extent: int, pinned: bool = False) -> Row:
    return () if extent == 1 else (Atom(extent, pinned),)


def fresh(dims: Dims) -> Shape:
    return tuple(row_of(extent) for extent in dims)


def flat(row: Iterable[Atom]) -> Row:
    """The roots that a row stands for."""
    made: list[Atom] = []
    stack = list(row)[::-1]
    while stack:
        atom = stack.pop()
        if atom.parts is None:
            made.append(atom)
        else:
            stack += atom.parts[::-1]
    return tuple(made)


def unify(left: Row, right: Row) -> Row:
    """Make two rows of one extent the same. Raises `Misfit` where they have no common atoms."""
    while True:
        a, b = flat(left), flat(right)
        pairs = [(x, y) for x, y in zip(a, b, strict=False) if x is not y]
        if not pairs:
            if len(a) != len(b):
                raise Misfit("extents that must be equal differ")
            return a
        x, y = pairs[0]
        if x.size == y.size:
            _merge(x, y)
        elif x.size > y.size:
            _break(x, y.size)
        else:
            _break(y, x.size)


def _merge(x: Atom, y: Atom) -> None:
    if x.rule and y.rule:
        if x.rule.window != y.rule.window or len(x.rule.rows) != len(y.rule.rows):
            raise Misfit("two extents follow from others in different ways")
        for left, right in zip(x.rule.rows, y.rule.rows, strict=True):
            if extent_of(left) != extent_of(right):
                raise Misfit("two extents follow from others in different ways")
            unify(left, right)
    elif (x.rule and y.pinned) or (y.rule and x.pinned):
        raise Misfit("an extent that cannot change follows from others")
    root, other = (x, y) if x.rule else (y, x)
    root.pinned |= other.pinned
    root.least = max(root.least, other.least)
    other.parts = (root,)


def _break(atom: Atom, outer: int) -> None:
    if atom.rule:
        raise Misfit("an extent that follows from others is cut")
    if atom.size % outer:
        raise Misfit(f"extents of {atom.size} and {outer} overlap without a common factor")
    atom.parts = (Atom(outer, atom.pinned), Atom(atom.size // outer, atom.pinned))


def extent_of(row: Row) -> int:
    return math.prod(atom.size for atom in row)


# What operators say about rows ---------------------------------------------------------------------------------------


def step_of(step: Step, operands: Sequence[Shape], loop: Row) -> Shape:
    """The rows that a step of a block makes; `loop` is what `concat` puts tiles one after another along."""
    if isinstance(step, Op):
        return result_of(step, operands)
    if isinstance(step, Thread):
        inner = list(operands)
        for op in step.ops:
            inner.append(result_of(op, [inner[value] for value in op.operands]))
        return inner[-1]
    first = operands[0]
    if step.how == "rescale":
        return (*first[:-1], ()) if len(operands) == 1 else _matmul(first, operands[1])
    if step.how == "concat":
        return tuple((*loop, *row) if axis in step.axes else row for axis, row in enumerate(first))
    return tuple(() if axis in step.axes else row for axis, row in enumerate(first))


def result_of(op: Op, operands: Sequence[Shape]) -> Shape:
    """The rows that a primitive operator makes. Raises `Misfit` where rows cannot say how sizes depend."""
    kind = OPERATORS[op.operator].kind
    if kind == "constant":
        return ()
    if kind == "element-wise":
        return _broadcast(operands)
    if kind == "contraction":
        return _matmul(operands[0], operands[1])
    first = operands[0]
    if kind == "window":
        return _unfold(op, first)[: len(first)]
    if kind == "reduction":
        return tuple(() if axis in op.axes else row for axis, row in enumerate(first))
    match op.operator:
        case "permute":
            return tuple(first[axis] for axis in op.axes)
        case "reshape":
            made = fresh(op.dims)
            unify(_all(first), _all(made))
            return made
        case "expand":
            padded = (*((),) * (len(op.dims) - len(first)), *first)
            return tuple(row or row_of(extent) for row, extent in zip(padded, op.dims, strict=True))
        case "slice":
            return _sliced(op, first)
        case "concat":
            return _concat(op, operands)
        case _:
            return _unfold(op, first)


def _all(shape: Shape) -> Row:
    return tuple(atom for row in shape for atom in row)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    made: list[Row] = [()] * rank
    for shape in shapes:
        for axis, row in enumerate(shape, rank - len(shape)):
            made[axis] = unify(made[axis], row) if made[axis] and row else made[axis] or row
    return tuple(made)


def _matmul(left: Shape, right: Shape) -> Shape:
    unify(left[-1], right[-2])
    return (*_broadcast([left[:-2], right[:-2]]), left[-2], right[-1])


def _sliced(op: Op, shape: Shape) -> Shape:
    axis, (begin, end) = op.axes[0], op.dims
    extent, part = extent_of(flat(shape[axis])), end - begin
    row = row_of(part)
    if extent % part == 0 and begin % part == 0:
        unify(shape[axis], (*row_of(extent // part, pinned=True), *row))
    else:
        _pin(shape[axis])
        row = row_of(part, pinned=True)
    return (*shape[:axis], row, *shape[axis + 1 :])


def _pin(row: Row) -> None:
    for atom in flat(row):
        if atom.rule:
            raise Misfit("an extent that cannot change follows from others")
        atom.pinned = True


def _concat(op: Op, operands: Sequence[Shape]) -> Shape:
    axis = op.axes[0]
    rows = tuple(shape[axis] for shape in operands)
    rest = _broadcast([(*shape[:axis], *shape[axis + 1 :]) for shape in operands])
    extents = [extent_of(flat(row)) for row in rows]
    if len(set(extents)) == 1:
        for row in rows[1:]:
            unify(rows[0], row)
        row = (*row_of(len(rows), pinned=True), *rows[0])
    else:
        row = (Atom(sum(extents), rule=Rule(rows)),)
    return (*rest[:axis], row, *rest[axis:])


def _unfold(op: Op, shape: Shape) -> Shape:
    first = len(shape) - len(op.windows)
    places: list[Row] = []
    for row, window in zip(shape[first:], op.windows, strict=True):
        extent = extent_of(flat(row))
        if window == Window(1):
            places.append(row)
        elif window.places(extent) == 1:
            _pin(row)
            places.append(())
        else:
            for atom in flat(row) if len(flat(row)) == 1 else ():
                needed = window.stride + window.dilation * (window.size - 1) + 1 - 2 * window.padding
                atom.least = max(atom.least, window.dilation, needed)
            places.append((Atom(window.places(extent), rule=Rule((row,), window)),))
    return (*shape[:first], *places, *(row_of(window.size, pinned=True) for window in op.windows))
