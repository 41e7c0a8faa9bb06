"""What is known of a value without executing anything, and what arithmetic makes of it.

A number is known or not; of a tensor only what decides traffic is kept: of integers a base and a step for each
dimension, of pointers the argument that they point into plus such offsets, of a mask the share that is true.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Grid:
    """An integer tensor: base + the sum of index times step. None is unknown."""

    base: float | None
    steps: tuple[float | None, ...]
    shape: tuple[int, ...]

    @property
    def uniform(self) -> bool:
        return not any(self.steps) and None not in self.steps


@dataclass(frozen=True, slots=True)
class Mask:
    share: float


@dataclass(frozen=True, slots=True)
class Data:
    """What was loaded, or computed from it: unknown, and not there before its load ends."""


@dataclass(frozen=True, slots=True)
class Address:
    """A pointer, or a tensor of pointers, into the tensor behind one argument. `offset` counts elements."""

    pointer: str
    offset: float | Grid | Data | None


Value = float | Grid | Mask | Address | Data | None
"""Scalars are Python's numbers; None is unknown."""


def _grid(value: Value, shape: tuple[int, ...]) -> Grid | None:
    """A value as an integer tensor of this shape; an unknown scalar is a tensor of one unknown number."""
    if isinstance(value, Grid):
        return value
    if isinstance(value, (int, float)):
        return Grid(value, (0,) * len(shape), shape)
    return None


def plus(one: Value, two: Value, shape: tuple[int, ...], sign: int = 1) -> Value:
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return one + sign * two
    if isinstance(one, Data) or isinstance(two, Data):
        return Data()
    a, b = _grid(one, shape), _grid(two, shape)
    if a is None or b is None or len(a.steps) != len(b.steps):
        return None
    base = None if a.base is None or b.base is None else a.base + sign * b.base
    pairs = zip(a.steps, b.steps, strict=True)
    return Grid(base, tuple(None if p is None or q is None else p + sign * q for p, q in pairs), shape)


def times(one: Value, two: Value, shape: tuple[int, ...]) -> Value:
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return one * two
    a, b = _grid(one, shape), _grid(two, shape)
    if a is None or b is None:
        return None
    if not b.uniform:
        a, b = b, a
    if not b.uniform:
        return None
    c = b.base
    base = None if a.base is None or c is None else a.base * c
    return Grid(
        base, tuple(step if step == 0 else None if c is None or step is None else step * c for step in a.steps), shape
    )


def compared(name: str, one: Value, two: Value, shape: tuple[int, ...]) -> Value:
    """The share of elements for which a comparison of two integer tensors holds; all of them where that is unknown."""
    gap = plus(one, two, shape, sign=-1)
    if not isinstance(gap, Grid) or gap.base is None:
        return Mask(1.0)
    varying = [(step, size) for step, size in zip(gap.steps, shape, strict=True) if step != 0]
    if name in ("eq", "ne"):
        equal = float(gap.base == 0) if not varying else 1.0 / max(size for _, size in varying)
        return Mask(equal if name == "eq" else 1.0 - equal)
    if len(varying) > 1 or (varying and varying[0][0] is None):
        return Mask(1.0)
    step, size = varying[0] if varying else (0, 1)
    first, step = gap.base, step or 0
    # gap < 0 and gap > 0 mirror each other; gap <= 0 is gap < 1.
    if name.endswith(("gt", "ge")):
        first, step = -first, -step
    if name.endswith(("le", "ge")):
        first -= 1
    if step == 0:
        return Mask(float(first < 0))
    # Elements with first + i * step < 0.
    below = math.ceil(-first / step) if step > 0 else size - max(0, math.floor(first / -step) + 1)
    return Mask(min(max(below, 0), size) / size)


def advanced(start: Value, after: Value, iterations: float) -> Value:
    """A value that a loop carries, some iterations on, given what it is before and after the first one."""
    if start == after:
        return start
    if isinstance(start, Address) and isinstance(after, Address) and start.pointer == after.pointer:
        return replace(start, offset=as_offset(advanced(start.offset, after.offset, iterations)))
    if isinstance(start, Data) or isinstance(after, Data):
        return Data()
    if isinstance(start, (bool, Mask)) or isinstance(after, (bool, Mask)):
        return None
    if isinstance(start, (int, float)) and isinstance(after, (int, float)):
        return start + iterations * (after - start)
    if isinstance(start, Grid) and isinstance(after, Grid) and start.steps == after.steps:
        if start.base is None or after.base is None:
            return replace(start, base=None)
        return replace(start, base=start.base + iterations * (after.base - start.base))
    return None


def as_offset(value: Value) -> float | Grid | Data | None:
    return value if isinstance(value, (int, float, Grid, Data)) else None


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "andi": operator.and_,
    "ori": operator.or_,
    "xori": operator.xor,
    "shli": lambda a, b: a << min(b, 64),
    "shrsi": lambda a, b: a >> b,
    "shrui": lambda a, b: a >> b,
    "divsi": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "divui": lambda a, b: a // b,
    "floordivsi": lambda a, b: a // b,
    "ceildivsi": lambda a, b: -(-a // b),
    "ceildivui": lambda a, b: -(-a // b),
    "remsi": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
    "remui": lambda a, b: a % b,
}

_NUMBERS: dict[str, Callable[[float, float], float]] = {
    **dict.fromkeys(("minsi", "minui", "minimumf", "minnumf"), min),
    **dict.fromkeys(("maxsi", "maxui", "maximumf", "maxnumf"), max),
    **dict.fromkeys(("addi", "addf"), operator.add),
    **dict.fromkeys(("subi", "subf"), operator.sub),
    **dict.fromkeys(("muli", "mulf"), operator.mul),
    "divf": operator.truediv,
}

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    **dict.fromkeys(("eq", "oeq", "ueq"), operator.eq),
    **dict.fromkeys(("ne", "one", "une"), operator.ne),
    **dict.fromkeys(("slt", "ult", "olt"), operator.lt),
    **dict.fromkeys(("sle", "ule", "ole"), operator.le),
    **dict.fromkeys(("sgt", "ugt", "ogt"), operator.gt),
    **dict.fromkeys(("sge", "uge", "oge"), operator.ge),
}


def true_share(mask: Value) -> float:
    """The share of elements for which it holds; all of them where that is unknown."""
    if isinstance(mask, Mask):
        return mask.share
    return float(bool(mask)) if isinstance(mask, (int, float)) else 1.0


def scalar(name: str, one: float, two: float) -> Value:
    try:
        if name in _NUMBERS:
            return _NUMBERS[name](one, two)
        if name in _INTEGERS:
            return _INTEGERS[name](int(one), int(two))
    except (ArithmeticError, ValueError):
        return None
    return None


def logic(name: str, one: Value, two: Value) -> Value:
    a, b = true_share(one), true_share(two)
    shares = {"andi": a * b, "ori": a + b - a * b, "xori": a + b - 2 * a * b}
    return Mask(shares[name]) if name in shares else None


def wrapped(one: Value, two: Value) -> Value:
    """A remainder leaves alone what lies below the divisor; beyond it, the steps within a turn stay."""
    if not isinstance(one, Grid) or not isinstance(two, Grid) or not two.uniform or not two.base:
        return None
    if one.base is None or None in one.steps:
        return replace(one, base=None)
    return replace(one, base=float(one.base % two.base))
