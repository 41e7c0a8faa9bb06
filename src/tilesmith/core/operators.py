"""The operators of µGraphs: what each takes, and the shape that it makes.

    element-wise  add sub mul div max min                              two operands, broadcast as PyTorch does
                  exp log square sqrt rsqrt relu sigmoid tanh silu     one operand
                  gelu (the tanh form) gelu_erf
                  pow(exponent)  clamp(low, high)  cast(dtype)
    reductions    sum amax over axes, which stay with extent 1
    windows       max_pool sum_pool over the windows of the last dimensions; nothing is thought beyond the edges
    contraction   matmul of the last two dimensions; those before broadcast
    views         reshape(dims)  permute(axes)  expand(dims)  slice(axis, begin, end)  unfold(windows)
    joining       concat along an axis, of any number of operands
    constant      a number without dimensions
    macros        mean over axes; softmax over axes; rms_norm(eps) over axes, of x or of x and its weight;
                  mean_pool(windows), what is beyond the edges counting as zeros;
                  convolve(windows) of x [N, C, *] and weights [O, C / groups, *]

Macros are short for others (`superopt.macros` spells them out) and count as one operator. In exact arithmetic `cast` is
the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tilesmith.core.graph import Dims, Op

Kind = Literal["element-wise", "reduction", "window", "contraction", "view", "join", "constant", "macro"]
Attribute = Literal["axes", "dims", "values", "windows", "dtype"]


@dataclass(frozen=True, slots=True)
class Operator:
    """One row of the table."""

    kind: Kind
    arities: tuple[int, ...]
    """How many operands it takes; empty for any number from one."""
    takes: tuple[Attribute, ...] = ()
    values: int = 0
    """How many numbers it takes."""
    commutes: bool = False


_BINARY = {name: Operator("element-wise", (2,), commutes=name not in ("sub", "div")) for name in
           ("add", "sub", "mul", "div", "max", "min")}  # fmt: skip
_UNARY = {name: Operator("element-wise", (1,)) for name in
          ("exp", "log", "square", "sqrt", "rsqrt", "relu", "sigmoid", "tanh", "silu", "gelu", "gelu_erf")}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **_BINARY,
    **_UNARY,
    "pow": Operator("element-wise", (1,), ("values",), 1),
    "clamp": Operator("element-wise", (1,), ("values",), 2),
    "cast": Operator("element-wise", (1,), ("dtype",)),
    "sum": Operator("reduction", (1,), ("axes",)),
    "amax": Operator("reduction", (1,), ("axes",)),
    "max_pool": Operator("window", (1,), ("windows",)),
    "sum_pool": Operator("window", (1,), ("windows",)),
    "matmul": Operator("contraction", (2,)),
    "reshape": Operator("view", (1,), ("dims",)),
    "permute": Operator("view", (1,), ("axes",)),
    "expand": Operator("view", (1,), ("dims",)),
    "slice": Operator("view", (1,), ("axes", "dims")),
    "unfold": Operator("view", (1,), ("windows",)),
    "concat": Operator("join", (), ("axes",)),
    "constant": Operator("constant", (0,), ("values",), 1),
    "mean": Operator("macro", (1,), ("axes",)),
    "softmax": Operator("macro", (1,), ("axes",)),
    "rms_norm": Operator("macro", (1, 2), ("axes", "values"), 1),
    "mean_pool": Operator("macro", (1,), ("windows",)),
    "convolve": Operator("macro", (2,), ("windows",)),
}


class Misfit(ValueError):
    """An operator cannot be applied. The message says why, without the place."""


def broadcast(shapes: Sequence[Dims]) -> Dims:
    """The extents that shapes broadcast to, as in PyTorch. Raises `Misfit`."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    made = []
    for axis, extents in enumerate(zip(*padded, strict=True)):
        extent = next((e for e in extents if e != 1), 1)
        if any(e not in (1, extent) for e in extents):
            raise Misfit(f"extents {' and '.join(map(str, extents))} of dimension {axis} do not broadcast")
        made.append(extent)
    return tuple(made)


def form(op: Op) -> None:
    """Whether the operator exists and has what it takes, whatever its operands are. Raises `Misfit`."""
    row = OPERATORS.get(op.operator)
    if row is None:
        raise Misfit(f"there is no operator {op.operator!r}")
    if row.arities and len(op.operands) not in row.arities:
        wants = " or ".join(map(str, row.arities))
        raise Misfit(f"it takes {wants} operand{'s' * (wants != '1')}, not {len(op.operands)}")
    if not row.arities and not op.operands:
        raise Misfit("it takes at least one operand")
    for name in ("axes", "dims", "windows", "values"):
        if getattr(op, name) and name not in row.takes:
            raise Misfit(f"it takes no {name}")
    if (op.dtype is not None) != ("dtype" in row.takes):
        raise Misfit("it takes no dtype" if op.dtype else "it needs a dtype")
    if len(op.values) != row.values:
        raise Misfit(f"it takes {row.values} numbers, not {len(op.values)}")


def result_dims(op: Op, shapes: Sequence[Dims]) -> Dims:
    """The extents of what an operator makes of operands with these extents. Raises `Misfit`."""
    form(op)
    kind = OPERATORS[op.operator].kind
    if kind == "element-wise":
        if op.operator == "clamp" and op.values[0] > op.values[1]:
            raise Misfit("its lower bound is above its upper bound")
        return broadcast(shapes)
    if kind == "constant":
        return ()
    if op.operator == "matmul":
        return _matmul(shapes[0], shapes[1])
    if op.operator == "concat":
        return _concat(op, shapes)
    if op.operator == "convolve":
        return _convolve(op, shapes[0], shapes[1])
    shape = shapes[0]
    if op.operator in ("reshape", "expand"):
        return _reshape(op, shape) if op.operator == "reshape" else _expand(op, shape)
    if op.operator == "permute":
        if sorted(op.axes) != list(range(len(shape))):
            raise Misfit(f"axes {_row(op.axes)} are no order of the {len(shape)} dimensions")
        return tuple(shape[axis] for axis in op.axes)
    if op.operator == "unfold":
        return _unfold(op, shape)
    if op.operator in ("max_pool", "sum_pool", "mean_pool"):
        return _pooled(op, shape)
    _axes(op, shape)
    if op.operator == "slice":
        if len(op.axes) != 1 or len(op.dims) != 2 or not 0 <= op.dims[0] < op.dims[1] <= shape[op.axes[0]]:
            raise Misfit(f"it needs one axis, and a begin and end within {_row(shape)}")
        return tuple(op.dims[1] - op.dims[0] if axis in op.axes else e for axis, e in enumerate(shape))
    if op.operator in ("softmax", "rms_norm"):
        if len(shapes) == 2 and (len(shapes[1]) > len(shape) or broadcast(shapes) != shape):
            raise Misfit(f"a weight {_row(shapes[1])} does not broadcast to {_row(shape)}")
        return shape
    return tuple(1 if axis in op.axes else extent for axis, extent in enumerate(shape))


def _row(extents: Sequence[int]) -> str:
    return f"[{', '.join(map(str, extents))}]"


def _axes(op: Op, shape: Dims) -> None:
    if not op.axes:
        raise Misfit("it needs axes")
    if len(set(op.axes)) != len(op.axes) or not all(0 <= axis < len(shape) for axis in op.axes):
        raise Misfit(f"axes {_row(op.axes)} are not distinct dimensions of {_row(shape)}")


def _matmul(left: Dims, right: Dims) -> Dims:
    if len(left) < 2 or len(right) < 2:
        raise Misfit(f"it multiplies matrices, not {_row(left)} and {_row(right)}")
    if left[-1] != right[-2]:
        raise Misfit(f"inner extents {left[-1]} and {right[-2]} of {_row(left)} and {_row(right)} differ")
    return (*broadcast((left[:-2], right[:-2])), left[-2], right[-1])


def _reshape(op: Op, shape: Dims) -> Dims:
    if any(extent < 1 for extent in op.dims) or math.prod(op.dims) != math.prod(shape):
        raise Misfit(f"{_row(shape)} cannot be seen as {_row(op.dims)}")
    return op.dims


def _expand(op: Op, shape: Dims) -> Dims:
    if any(extent < 1 for extent in op.dims) or len(op.dims) < len(shape) or broadcast((shape, op.dims)) != op.dims:
        raise Misfit(f"{_row(shape)} cannot be expanded to {_row(op.dims)}")
    return op.dims


def _concat(op: Op, shapes: Sequence[Dims]) -> Dims:
    first = shapes[0]
    _axes(op, first)
    axis = op.axes[0]
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(op.axes) != 1 or len(rest) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise Misfit(f"{' and '.join(map(_row, shapes))} cannot be joined along {_row(op.axes)}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _unfold(op: Op, shape: Dims) -> Dims:
    if not op.windows or len(op.windows) > len(shape):
        raise Misfit(f"it needs one window for each of the last dimensions of {_row(shape)}")
    lead, spatial = shape[: -len(op.windows)], shape[-len(op.windows) :]
    for window, extent in zip(op.windows, spatial, strict=True):
        if min(window.size, window.stride, window.dilation) < 1 or window.padding < 0 or window.places(extent) < 1:
            raise Misfit(f"a window of {window.size} does not fit a dimension of {extent}")
    places = tuple(window.places(extent) for window, extent in zip(op.windows, spatial, strict=True))
    return (*lead, *places, *(window.size for window in op.windows))


def _pooled(op: Op, shape: Dims) -> Dims:
    made = _unfold(op, shape)[: len(shape)]
    for window, extent in zip(op.windows, shape[-len(op.windows) :], strict=True):
        # A window that begins before the first element ends at it or behind, and meets one of the first `dilation`.
        sees = window.padding <= window.dilation * (window.size - 1) and window.dilation <= extent
        if op.operator == "max_pool" and window.padding and not sees:
            raise Misfit(f"a window of {window.size} may see nothing of a dimension of {extent} but padding")
    return made


def _convolve(op: Op, x: Dims, weight: Dims) -> Dims:
    count = len(op.windows)
    if len(x) != count + 2 or len(weight) != count + 2:
        raise Misfit(f"{_row(x)} and {_row(weight)} are no batch of inputs and weights for {count} windows")
    if weight[2:] != tuple(window.size for window in op.windows):
        raise Misfit(f"weights {_row(weight)} do not have the windows' sizes")
    if x[1] % weight[1] or weight[0] % (x[1] // weight[1]):
        raise Misfit(f"{x[1]} channels do not fall into groups of {weight[1]} for {weight[0]} outputs")
    places = _unfold(op, x)[2 : 2 + count]
    return (x[0], weight[0], *places)
