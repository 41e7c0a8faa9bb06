"""A value of a block as text, and expressions that are made of one: spread, masked, folded, seen otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilesmith.core.graph import Op
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower import text
from tilesmith.superopt.lower.axes import Row, Rows
from tilesmith.superopt.lower.places import Places, operand
from tilesmith.superopt.lower.text import Pad

LOW = 'float("-inf")'

Pads = tuple[tuple[int, Pad], ...]
"""What lies beyond the elements, along every axis that may be padded."""


@dataclass(frozen=True, slots=True)
class Value:
    rows: Rows
    text: str
    """In float32, as an operand."""
    raw: str = ""
    """As it was loaded; empty for what is computed."""
    dtype: Dtype = "fp32"
    """Of `raw`."""
    number: float | None = None
    """Of a constant."""
    pads: Pads = ()
    turned: tuple[int, ...] = ()
    """Of what is only stored: for each dimension of `rows` and of the text which dimension of the value it is."""

    @property
    def present(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row)

    def pad(self, axis: int) -> Pad | None:
        return dict(self.pads).get(axis)


def pads_of(operator: str, x: Value, y: Value) -> Pads:
    axes = dict.fromkeys(axis for axis, _ in (*x.pads, *y.pads))
    return tuple((axis, text.pad_of_binary(operator, x.pad(axis), y.pad(axis))) for axis in axes)


def spread(value: Value, rows: Rows) -> str:
    """A value's text with the dimensions of a result that it broadcasts to."""
    present = [place for place, row in enumerate(rows) if row]
    lead = len(rows) - len(value.rows)
    own = [place + lead for place, row in enumerate(value.rows) if row]
    if not own or own == present:
        return value.text
    return f"{operand(value.text)}[{', '.join(':' if place in own else 'None' for place in present)}]"


def kept(places: Places, x: Value, source: str, axes: Sequence[int], other: str) -> str:
    """A value with `other` beyond its elements along some axes."""
    mask = places.mask(x.present, axes) if axes else ""
    return f"tl.where({mask}, {source}, {other})" if mask else source


def folded(places: Places, x: Value, dims: Sequence[int], how: str) -> str:
    """The sum or maximum over dimensions, of elements only."""
    safe = {None, Pad.ZERO} if how == "sum" else {None}
    loose = [axis for dim in dims for axis in x.rows[dim] if x.pad(axis) not in safe]
    made = kept(places, x, x.text, loose, "0.0" if how == "sum" else LOW)
    present = [dim for dim, row in enumerate(x.rows) if row]
    for dim in sorted((dim for dim in dims if x.rows[dim]), reverse=True):
        made = f"tl.{how}({made}, axis={present.index(dim)})"
    return made


def viewed(places: Places, op: Op, x: Value, rows: Rows) -> str:
    """How a tile is seen otherwise, for `format`; empty where it is the same."""
    before, after = x.present, tuple(row for row in rows if row)
    if op.operator == "permute":
        moved = [axis for axis in op.axes if x.rows[axis]]
        order = [sorted(moved).index(axis) for axis in moved]
        if order == sorted(order):
            return ""
        return "tl.trans({})" if order == [1, 0] else f"tl.permute({{}}, ({', '.join(map(str, order))}))"
    if before == after:
        return ""
    if op.operator == "reshape":
        return f"tl.reshape({{}}, {places.shape(after)})"
    if not before:
        return f"tl.full({places.shape(after)}, 1.0, tl.float32) * {{}}"
    return f"tl.broadcast_to({spread(replace(x, text='{}'), rows)}, {places.shape(after)})"
