"""How probable it is that one round over the fields overlooks a difference: degrees of what graphs compute.

An algebra like the others: a value is the degrees of a fraction of polynomials over each of the two fields, a name for
each denominator so that fractions of one denominator are added without multiplying it, and the roots that it stands
on. Exponentials and random functions count as variables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tilesmith.core.graph import Graph, Op
from tilesmith.superopt.evaluate import Array, Planes, run

_NUM, _DEN, _NAME, _NUM_Q, _DEN_Q, _NAME_Q, _ROOTS, _FROM, _TO = range(9)
_FIELDS = ((_NUM, _DEN, _NAME), (_NUM_Q, _DEN_Q, _NAME_Q))
_BITS = 64


class Degrees:
    """Planes: numerator, denominator and its name mod p, the same mod q, a bit for every radicand, a range of inputs.

    A name is a random number for each divisor, and the sum of them for a product: equal names are equal denominators.
    The range holds every element of the inputs that the value depends on; all, where it does through a function.
    """

    def __init__(self, radicands: Sequence[Array]) -> None:
        self.radicands = list(radicands)
        """For every root that will be taken, in order, the numbers of the radicands."""
        self.applied = 0
        """Elements that a random function, or a comparison, was applied to."""
        self.compared = 0
        """Those of them that were compared."""
        self.argument = 0.0
        """The largest degree of such an element, numerator and denominator together."""
        self.exponents = 0
        self.exponent = 0.0
        self.stands: set[int] = set()
        """The roots, as bits, of each element that a function or a comparison was applied to."""
        self.powers: set[int] = set()
        """The roots of each exponent."""
        self.ranges: dict[int, tuple[float, float]] = {}
        """Of every radicand, by its number."""
        self.elements = 0
        """Of the inputs so far."""
        self.names = np.random.default_rng(0)

    def constant(self, number: Fraction) -> Planes:
        del number
        return _variables((1,), 0, (math.inf, -math.inf))

    def variables(self, dims: tuple[int, ...]) -> Planes:
        """An input."""
        made = _variables((1, *dims), 1)
        place = self.elements + np.arange(math.prod(dims), dtype=np.float64).reshape(1, *dims)
        self.elements += math.prod(dims)
        return (*made[:_FROM], place, place)

    def unary(self, op: Op, x: Planes) -> Planes:
        match op.operator:
            case "cast":
                return x
            case "square":
                return self.binary("mul", x, x)
            case "sqrt":
                return self._root(x)
            case "rsqrt":
                return self._inverse(self._root(x))
            case "exp":
                self.exponents += x[0].size
                self.exponent = max(self.exponent, float(np.max(x[_NUM_Q] + x[_DEN_Q])))
                self.powers |= _bits(x[_ROOTS])
                return _variables(x[0].shape, 1)
            case "silu":
                return self.binary("mul", x, self._applied(x))
            case "pow" if op.values[0].denominator <= 2 and abs(op.values[0]) <= _BITS:
                base = x if op.values[0].denominator == 1 else self._root(x)
                times = np.uint64(abs(op.values[0].numerator))
                made = (*(plane * times for plane in base[:_ROOTS]), *base[_ROOTS:])
                return self._inverse(made) if op.values[0] < 0 else made
            case "relu" | "clamp":
                self._compared(x)
                return x
            case _:
                return self._applied(x)

    def binary(self, operator: str, x: Planes, y: Planes) -> Planes:
        if operator == "div":
            return self.binary("mul", x, self._inverse(y))
        if operator in ("max", "min"):
            self._compared(x)
            self._compared(y)
        made: list[Array] = []
        for num, den, name in _FIELDS:
            a, b, c, d = x[num], x[den], y[num], y[den]
            if operator == "mul":
                made += [a + c, b + d, x[name] + y[name]]
                continue
            # The sum of fractions, or one of two: over the one denominator, or the product of both.
            one = x[name] == y[name]
            over = np.where(one, np.maximum(a, c), np.maximum(a + d, c + b))
            made += [over, np.where(one, b, b + d), np.where(one, x[name], x[name] + y[name])]
        return (*made, x[_ROOTS] | y[_ROOTS], np.minimum(x[_FROM], y[_FROM]), np.maximum(x[_TO], y[_TO]))

    def matmul(self, x: Planes, y: Planes) -> Planes:
        total = self.binary("mul", _column(x, 0), _row(y, 0))
        for k in range(1, x[0].shape[-1]):
            total = self.binary("add", total, self.binary("mul", _column(x, k), _row(y, k)))
        return total

    def reduce(self, operator: str, x: Planes, axes: tuple[int, ...]) -> Planes:
        if operator != "sum":
            self._compared(x)
        made: list[Array] = []
        for num, den, name in _FIELDS:
            first = np.min(x[name], axes, keepdims=True)
            one = first == np.max(x[name], axes, keepdims=True)
            below = np.where(one, np.max(x[den], axes, keepdims=True), np.sum(x[den], axes, keepdims=True))
            above = np.max(x[num] - x[den], axes, keepdims=True) + below
            made += [above, below, np.where(one, first, np.sum(x[name], axes, keepdims=True))]
        roots = np.bitwise_or.reduce(x[_ROOTS], axes, keepdims=True)
        return (*made, roots, np.min(x[_FROM], axes, keepdims=True), np.max(x[_TO], axes, keepdims=True))

    def _applied(self, x: Planes) -> Planes:
        self.applied += x[0].size
        self.argument = max(self.argument, float(np.max(x[_NUM] + x[_DEN])))
        self.stands |= _bits(x[_ROOTS])
        return _variables(x[0].shape, 1)

    def _compared(self, x: Planes) -> None:
        self._applied(x)
        self.compared += x[0].size

    def _inverse(self, x: Planes) -> Planes:
        made: list[Array] = []
        for num, den, _ in _FIELDS:
            made += [x[den], x[num], self.names.integers(1, 1 << 64, x[num].shape, dtype=np.uint64, endpoint=False)]
        return (*made, *x[_ROOTS:])

    def _root(self, x: Planes) -> Planes:
        made: list[Array] = []
        for num, den, _ in _FIELDS:
            named = self.names.integers(1, 1 << 63, x[num].shape, dtype=np.uint64)
            made += [x[num] / 2, x[den] / 2, np.where(x[den] > 0, named, np.uint64(0))]
        numbers = self.radicands.pop(0)
        for number in np.unique(numbers).tolist():
            here = np.broadcast_to(numbers == number, x[0].shape)
            # Equal radicands depend on no more than what all of them are made of.
            low, high = self.ranges.get(number, (-math.inf, math.inf))
            self.ranges[number] = max(low, float(np.max(x[_FROM][here]))), min(high, float(np.min(x[_TO][here])))
        bits = np.uint64(1) << (numbers.astype(np.uint64) % np.uint64(_BITS))
        return (*made, x[_ROOTS] | bits, *x[_FROM:])


@dataclass(frozen=True, slots=True)
class Chance:
    """How probable it is that one round takes two different graphs for equal, but for the signs of roots."""

    probability: float
    """At most."""
    assumes: tuple[str, ...]
    """What this presupposes, in clauses."""


def chance(
    candidate: Graph, reference: Graph, order: Sequence[int], radicands: tuple[Sequence[Array], Sequence[Array]], q: int
) -> Chance:
    """Of two graphs at the sizes at which they are compared.

    `order` says which output of the candidate answers each of the reference; `radicands` numbers what each takes roots
    of; q is the smaller prime.
    """
    if any(np.max(numbers, initial=0) >= _BITS for row in radicands for numbers in row):
        return Chance(1.0, ())
    algebras = Degrees(radicands[0]), Degrees(radicands[1])
    found, expected = (
        run(graph, [algebra.variables(tensor.dims) for tensor in graph.inputs], algebra)
        for graph, algebra in zip((candidate, reference), algebras, strict=True)
    )
    ranges = {number: algebra.ranges[number] for algebra in algebras for number in algebra.ranges}
    if any(low > high for low, high in ranges.values()):
        # The root of a constant has one sign in all rounds.
        return Chance(1.0, ())
    pairs = [(found[place], planes) for place, planes in zip(order, expected, strict=True)]
    degree = max(float(np.max(np.maximum(x[_NUM] + y[_DEN], y[_NUM] + x[_DEN]))) for x, y in pairs)
    made = set().union(*(_bits(x[_ROOTS] | y[_ROOTS]) for x, y in pairs))
    stands, powers = (set().union(*(getattr(algebra, name) for algebra in algebras)) for name in ("stands", "powers"))
    applied, compared, exponents = (
        sum(getattr(algebra, name) for algebra in algebras) for name in ("applied", "compared", "exponents")
    )
    # Two arguments that differ, but not here: their difference has twice the degree of either, of pairs half as many.
    hidden = _multiplied(made, ranges) * degree
    hidden += _multiplied(_pairs(stands), ranges) * applied**2 * max(algebra.argument for algebra in algebras)
    hidden += _multiplied(_pairs(powers), ranges) * exponents**2 * max(algebra.exponent for algebra in algebras)
    assumed = {
        "exponents that differ are independent": exponents,
        "functions without algebra are random": applied - compared,
        "the orders of compared elements that matter were drawn": compared,
        "no difference hides where the square of a root is minus what it is the root of": len(ranges),
    }
    assumes = tuple(clause for clause, count in assumed.items() if count)
    return Chance(min(1.0, hidden / q), assumes)


def _bits(roots: Array) -> set[int]:
    return set(np.unique(roots).tolist())


def _pairs(stands: Iterable[int]) -> set[int]:
    return {one | other for one in stands for other in stands}


def _multiplied(stands: Iterable[int], ranges: Mapping[int, tuple[float, float]]) -> float:
    """How many times its degree counts where a value stands on some roots, at the most: 4 for every root.

    Radicands that share no input are drawn one after another, and then only the roots of one group that does count.
    Those of what depends on everything count always. docs/ugraphs.md has the proof.
    """
    most = 0
    for bits in stands:
        rows = sorted(ranges[number] for number in range(_BITS) if bits >> number & 1)
        everywhere = sum(math.isinf(low) for low, _ in rows)
        groups: list[int] = []
        end = -math.inf
        for low, high in rows[everywhere:]:
            if low <= end and groups:
                groups[-1] += 1
            else:
                groups.append(1)
            end = max(end, high)
        most = max(most, everywhere + max(groups, default=0))
    return 4.0**most


def _variables(shape: tuple[int, ...], degree: int, inputs: tuple[float, float] = (-math.inf, math.inf)) -> Planes:
    """Of this degree, made of all inputs unless a range of them is given."""
    one, zero, name = np.full(shape, float(degree)), np.zeros(shape), np.zeros(shape, dtype=np.uint64)
    return one, zero, name, one, zero, name, name, np.full(shape, inputs[0]), np.full(shape, inputs[1])


def _column(x: Planes, k: int) -> Planes:
    return tuple(plane[..., :, k, None] for plane in x)


def _row(x: Planes, k: int) -> Planes:
    return tuple(plane[..., None, k, :] for plane in x)
