"""Extents as the source writes them, and tensors in device memory as views of others.

An extent is a product of names, which the wrapper takes from the inputs' shapes, and of a number. Where an extent can
not be said that way, nothing is said by name: the source is then made for the graph's own shapes only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Dims, Op
from tilesmith.core.problem import Dtype


class Unnamed(Exception):
    """An extent does not follow from the inputs' shapes by products alone."""


@dataclass(frozen=True, slots=True)
class Size:
    """An extent, or a distance between elements."""

    number: int
    """For the graph's own shapes."""
    names: tuple[str, ...] = ()
    factor: int = -1
    """What is multiplied with the names; -1 stands for all of `number`."""

    @property
    def constant(self) -> int:
        return self.number if self.factor < 0 else self.factor

    @property
    def text(self) -> str:
        parts = [*self.names, *([str(self.constant)] if self.constant != 1 or not self.names else [])]
        return " * ".join(parts)

    @property
    def atom(self) -> str:
        """The text as an operand of another operator."""
        return f"({self.text})" if " " in self.text else self.text

    def __mul__(self, other: Size) -> Size:
        names = tuple(sorted((*self.names, *other.names)))
        return Size(self.number * other.number, names, self.constant * other.constant)


ONE = Size(1)


def product(sizes: Iterable[Size]) -> Size:
    return math.prod(sizes, start=ONE)


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements at one distance from one another."""

    size: Size
    stride: Size


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the wrapper has it: a buffer, and for each dimension the pieces that it is made of, outermost first.

    A piece for each dimension is what PyTorch's strides say; more come from dimensions joined across a permutation.
    A dimension of extent 1 has none.
    """

    buffer: str
    dtype: Dtype
    rows: tuple[tuple[Piece, ...], ...]
    offset: int = 0
    summed: tuple[Size, int] | None = None
    """Where the elements are sums: over how many, and into how many parts those were split before."""

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(product(piece.size for piece in row) for row in self.rows)

    @property
    def dims(self) -> Dims:
        return tuple(size.number for size in self.sizes)

    @property
    def elements(self) -> int:
        """Elements of the buffer that it shows: what is repeated counts once."""
        pieces = [piece for row in self.rows for piece in row]
        return math.prod(piece.size.number for piece in pieces if piece.stride.number)


def contiguous(buffer: str, dtype: Dtype, sizes: Sequence[Size]) -> View:
    """A whole buffer in row-major order."""
    rows: list[tuple[Piece, ...]] = []
    stride = ONE
    for size in reversed(sizes):
        rows.append(() if size.number == 1 else (Piece(size, stride),))
        stride = stride * size if size.number != 1 else stride
    return View(buffer, dtype, tuple(rows[::-1]))


def viewed(op: Op, view: View, named: bool) -> View | None:
    """What a view operator makes of a view; None where elements must move.

    Raises `Unnamed` where the result has extents that its names do not say.
    """
    rows = view.rows
    match op.operator:
        case "permute":
            return replace(view, rows=tuple(rows[axis] for axis in op.axes), summed=None)
        case "expand":
            padded = (*((),) * (len(op.dims) - len(rows)), *rows)
            if named and any(extent > 1 and not row for extent, row in zip(op.dims, padded, strict=True)):
                raise Unnamed
            new = tuple(
                (Piece(Size(extent), Size(0)),) if extent > 1 and not row else row
                for extent, row in zip(op.dims, padded, strict=True)
            )
            return replace(view, rows=new)
        case "slice":
            if named:
                raise Unnamed
            (axis,), (begin, end) = op.axes, op.dims
            if len(rows[axis]) != 1:
                return view if end - begin == view.dims[axis] else None
            (piece,) = rows[axis]
            row = () if end - begin == 1 else (Piece(Size(end - begin), piece.stride),)
            offset = view.offset + begin * piece.stride.number
            return replace(view, rows=(*rows[:axis], row, *rows[axis + 1 :]), offset=offset)
        case "unfold" if all(window.padding == 0 for window in op.windows):
            return _unfolded(op, view, named)
        case "reshape":
            return _reshaped(view, op.dims, named)
        case _:
            return None


def _unfolded(op: Op, view: View, named: bool) -> View | None:
    if named:
        raise Unnamed
    first = len(view.rows) - len(op.windows)
    places: list[tuple[Piece, ...]] = []
    inner: list[tuple[Piece, ...]] = []
    for row, window, extent in zip(view.rows[first:], op.windows, view.dims[first:], strict=True):
        if len(row) > 1:
            return None
        stride = row[0].stride.number if row else 0
        count = window.places(extent)
        places.append((Piece(Size(count), Size(stride * window.stride)),) if count > 1 else ())
        inner.append((Piece(Size(window.size), Size(stride * window.dilation)),) if window.size > 1 else ())
    return replace(view, rows=(*view.rows[:first], *places, *inner))


def _reshaped(view: View, dims: Dims, named: bool) -> View | None:
    pieces = [piece for row in view.rows for piece in row]
    rows: list[tuple[Piece, ...]] = []
    for extent in dims:
        row: list[Piece] = []
        missing = extent
        while missing > 1:
            piece = pieces.pop(0)
            if missing % piece.size.number == 0:
                row.append(piece)
                missing //= piece.size.number
                continue
            if named:
                raise Unnamed
            if piece.size.number % missing:
                return None
            rest = piece.size.number // missing
            row.append(Piece(Size(missing), Size(piece.stride.number * rest)))
            pieces.insert(0, Piece(Size(rest), piece.stride))
            missing = 1
        rows.append(_joined(row))
    return replace(view, rows=tuple(rows))


def _joined(row: list[Piece]) -> tuple[Piece, ...]:
    """Neighbours that follow one another in memory are one piece."""
    made: list[Piece] = []
    for piece in row:
        if made and made[-1].stride == piece.stride * piece.size:
            made[-1] = Piece(made[-1].size * piece.size, piece.stride)
        else:
            made.append(piece)
    return tuple(made)
