"""Element-wise operators as Triton expressions in float32, and what they make of the zeros that pad a tile."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np

from tilesmith.core.graph import Op
from tilesmith.core.problem import Dtype
from tilesmith.superopt.numeric import Floats


class Pad(IntEnum):
    """What lies in a tile beyond its elements."""

    ZERO = 0
    FINITE = 1
    ANY = 2


TL: dict[Dtype, str] = {"fp32": "tl.float32", "fp16": "tl.float16", "bf16": "tl.bfloat16"}
_BINARY = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}",
           "max": "tl.maximum({}, {})", "min": "tl.minimum({}, {})"}  # fmt: skip
_UNARY = {"exp": "tl.exp({})", "log": "tl.log({})", "square": "{0} * {0}", "sqrt": "tl.sqrt({})",
          "rsqrt": "tl.rsqrt({})", "relu": "tl.maximum({}, 0.0)", "sigmoid": "tl.sigmoid({})",
          "silu": "{0} * tl.sigmoid({0})", "tanh": "2.0 * tl.sigmoid(2.0 * {}) - 1.0",
          "gelu": "{0} * tl.sigmoid({0} * (1.5957691216057308 + 0.07135481627260025 * {0} * {0}))",
          "gelu_erf": "0.5 * {0} * (1.0 + tl.erf(0.7071067811865476 * {0}))", "cast": "{}"}  # fmt: skip
_KEEPS_ZERO = {"square", "sqrt", "relu", "tanh", "silu", "gelu", "gelu_erf", "cast"}
_FINITE_OF_ZERO = {"exp", "sigmoid"}
_FINITE_OF_FINITE = {"relu", "tanh", "silu", "gelu", "gelu_erf", "cast", "sigmoid"}
MULTIPLIED = 16
"""Whole exponents up to this are products; they keep the sign of what is negative."""


def number(value: float) -> str:
    """A float32 constant. Finite ones are written as they are."""
    if math.isnan(value):
        return 'float("nan")'
    return repr(float(value)) if math.isfinite(value) else f'float("{"-" if value < 0 else ""}inf")'


def folded(op: Op, operands: list[float]) -> float:
    """An operator of numbers."""
    algebra = Floats()
    planes = [(np.array([operand], dtype=np.float64),) for operand in operands]
    with np.errstate(all="ignore"):
        made = algebra.unary(op, *planes) if len(planes) == 1 else algebra.binary(op.operator, *planes)
    return float(made[0][0])


def unary(op: Op, x: str) -> str:
    """`x` is a name or a constant."""
    if op.operator == "pow":
        return _power(float(op.values[0]), x)
    if op.operator == "clamp":
        low, high = (number(float(value)) for value in op.values)
        return f"tl.minimum(tl.maximum({x}, {low}), {high})"
    return _UNARY[op.operator].format(x)


def binary(operator: str, x: str, y: str) -> str:
    return _BINARY[operator].format(x, y)


def _power(exponent: float, x: str) -> str:
    if exponent == int(exponent) and 0 < abs(exponent) <= MULTIPLIED:
        product = " * ".join([x] * int(abs(exponent)))
        return product if exponent > 0 else f"1.0 / ({product})"
    if exponent == 0:
        return f"{x} * 0.0 + 1.0"
    if abs(exponent) == 0.5:
        return f"tl.sqrt({x})" if exponent > 0 else f"tl.rsqrt({x})"
    power = f"tl.exp2({number(exponent)} * tl.log2(tl.abs({x})))"
    if exponent == int(exponent):
        return power if exponent % 2 == 0 else f"tl.where({x} < 0.0, -1.0, 1.0) * {power}"
    # Roots of what is negative are not numbers.
    return f'tl.where({x} < 0.0, float("nan"), {power})'


def pad_of_unary(op: Op, x: Pad) -> Pad:
    name = op.operator
    if name == "pow":
        return Pad.ZERO if x is Pad.ZERO and op.values[0] > 0 else Pad.ANY
    if name == "clamp":
        return Pad.ZERO if x is Pad.ZERO and op.values[0] <= 0 <= op.values[1] else Pad.FINITE if x < Pad.ANY else x
    if x is Pad.ZERO and name in _KEEPS_ZERO:
        return Pad.ZERO
    if x is Pad.ZERO and name in _FINITE_OF_ZERO:
        return Pad.FINITE
    return Pad.FINITE if x is Pad.FINITE and name in _FINITE_OF_FINITE else Pad.ANY


def pad_of_binary(operator: str, x: Pad | None, y: Pad | None) -> Pad:
    """None stands for an operand that does not lie along the padded axis: whatever it is, it belongs to elements."""
    if operator == "mul":
        if Pad.ZERO in (x, y) and Pad.ANY not in (x, y):
            return Pad.ZERO
    elif operator == "div":
        return Pad.ZERO if x is Pad.ZERO and y is None else Pad.ANY
    elif x is Pad.ZERO and y is Pad.ZERO:
        return Pad.ZERO
    return Pad.ANY if Pad.ANY in (x, y) or operator == "div" else Pad.FINITE
