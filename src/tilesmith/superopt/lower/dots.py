"""Products of tiles as expressions: on the matrix units, or element by element where an extent is 1."""

from __future__ import annotations

from dataclasses import replace

from tilesmith.core.graph import Accumulate, Step
from tilesmith.core.graph_check import promote
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower.axes import Row, Rows
from tilesmith.superopt.lower.places import Places, operand
from tilesmith.superopt.lower.text import TL, Pad
from tilesmith.superopt.lower.values import Pads, Value, folded, kept, pads_of, spread


def product_pads(left: Value, right: Value) -> Pads:
    made = pads_of("mul", left, right)
    return tuple((axis, pad) for axis, pad in made if axis not in left.rows[-1])


def thin(places: Places, rows: Rows, left: Value, right: Value) -> str:
    """A product of which an extent is 1: element by element, then a sum."""
    wide: Rows = (*rows[:-1], left.rows[-1], rows[-1])
    x = replace(left, rows=(*left.rows, ()))
    y = replace(right, rows=(*right.rows[:-2], (), *right.rows[-2:]))
    made = f"{spread(x, wide)} * {spread(y, wide)}"
    if not left.rows[-1]:
        return made
    return folded(places, Value(wide, made, pads=pads_of("mul", left, right)), (len(rows) - 1,), "sum")


def dot(places: Places, step: Step, rows: Rows, left: Value, right: Value, into: str, tf32: bool) -> str:
    """A matrix product on the matrix units, added to `into` where there is such."""
    tiles = [places.plan.made.tiles[source] for source in step.operands]
    # The weights of a softmax are at most 1: the values' dtype holds them.
    dtype = tiles[1].dtype if isinstance(step, Accumulate) else promote(tiles)
    x, y = _factor(places, left, dtype, right, -1), _factor(places, right, dtype, left, -2)
    batch = [row for row in rows[:-2] if row]
    if batch:
        x, y = _batched(places, left, x, rows, batch), _batched(places, right, y, rows, batch)
    more = [f'input_precision="{"tf32" if tf32 else "ieee"}"'] if dtype == "fp32" else []
    if len(batch) < 2:
        return f"tl.dot({', '.join([x, y, *([into] if into else []), *more])})"
    made = f"tl.reshape(tl.dot({', '.join([x, y, *more])}), {places.shape([row for row in rows if row])})"
    return f"{into} + {made}" if into else made


def _factor(places: Places, value: Value, dtype: Dtype, other: Value, inner: int) -> str:
    """An operand of a product in its dtype, with nothing that counts beyond the elements of the inner dimension."""
    source = value.raw if value.raw and value.dtype == dtype else value.text
    if source is value.text and dtype != "fp32":
        source = f"{operand(source)}.to({TL[dtype]})"
    # Zero times what is finite is zero.
    loose = [a for a, pad in value.pads if a in value.rows[inner] and _counts(pad, other.pad(a), inner)]
    return kept(places, value, source, loose, "0.0")


def _counts(pad: Pad, other: Pad | None, inner: int) -> bool:
    if pad is Pad.FINITE:
        # One of both must be zero: the left one is made so.
        return other is not Pad.ZERO and inner == -1
    return pad is Pad.ANY


def _batched(places: Places, value: Value, source: str, rows: Rows, batch: list[Row]) -> str:
    """An operand with every batch dimension, joined to one."""
    tail = value.rows[-2:]
    full: Rows = (*rows[:-2], *tail)
    made = spread(replace(value, text=source), full)
    if [row for row in value.rows[:-2] if row] != batch:
        made = f"tl.broadcast_to({made}, {places.shape([row for row in full if row])})"
    if len(batch) == 1:
        return made
    joined = tuple(axis for row in batch for axis in row)
    return f"tl.reshape({made}, {places.shape([joined, *tail])})"
