"""A program as the concrete space takes it: extents in order, and expressions in which a sum is its degree alone.

The table of the published abstraction is that of a program without dimensions, in which a sum of degree n is a product
with one constant for every prime factor of n (csrc/oracle_degrees.hpp).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Dims, Graph, Op
from tilesmith.core.graph_check import BYTES, tensors
from tilesmith.core.operators import OPERATORS, Misfit
from tilesmith.superopt.macros import expand
from tilesmith.superopt.table import POWERS

PUBLISHED = ("exp", "square", "sqrt", "silu", "gelu", "relu")
"""What the published search tries on every value, whether the program has it or not."""
INTERPRETED = ("exp", "square", "sqrt", "rsqrt", "reciprocal")
HIGHEST_RANK = 4


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one value: what the table knows of it, and the operator that computes it."""

    name: str
    """Of the table: exp, scale, opaque and so on."""
    operator: str
    values: tuple[Fraction, ...] = ()
    id: int = -1
    shown: str = ""
    """Its name for oracles that read."""


@dataclass(frozen=True, slots=True)
class Norm:
    """An rms_norm over the last dimension, of this extent."""

    extent: int
    eps: Fraction
    root: tuple[int, ...]
    """Functions one after another: the root of the mean of squares."""


@dataclass(frozen=True, slots=True)
class Degrees:
    """A program in expressions whose sums are degrees. Function i < len(primes) is a sum of degree primes[i]."""

    inputs: int
    primes: tuple[int, ...]
    functions: tuple[Function, ...]
    nodes: tuple[tuple[str, int, int], ...]
    outputs: tuple[int, ...]

    @property
    def function_rows(self) -> list[tuple[str, int, str]]:
        return [(f.name, f.id, f.shown) for f in self.functions]


@dataclass(frozen=True, slots=True)
class Described:
    """A program for the concrete space. All its tensors have one rank: lower ones begin with extents of 1."""

    graph: Graph
    rank: int
    inputs: tuple[Dims, ...]
    outputs: tuple[Dims, ...]
    degrees: Degrees
    unary: tuple[int, ...]
    """Functions that are operators of the search."""
    norms: tuple[Norm, ...]
    transposes: bool
    subtracts: bool
    element_bytes: int


def described(graph: Graph, opaque_norms: bool = False) -> Described:
    """The program; `opaque_norms` leaves the root of a mean of squares unknown, as the published code does.

    Raises `OptionError` for what the concrete space does not know, with its place.
    """
    made = tensors(graph)
    for place, node in enumerate(graph.nodes):
        if not isinstance(node, Op):
            raise OptionError(f"Node {place} is a kernel; a search starts from operators.")
    try:
        spelled = expand(graph, norms="last")
        known = tensors(spelled)
        rank = max(2, *(len(t.dims) for t in known))
        if rank > HIGHEST_RANK:
            raise Misfit(f"it has a tensor of {rank} dimensions, more than {HIGHEST_RANK}")
        translation = _Translation(spelled, [t.dims for t in known], rank, opaque_norms)
        translation.run()
    except Misfit as misfit:
        raise OptionError(f"The program cannot be searched in the concrete space: {misfit}.") from None
    return Described(
        graph,
        rank,
        tuple(lifted(t.dims, rank) for t in graph.inputs),
        tuple(lifted(made[output].dims, rank) for output in graph.outputs),
        translation.degrees(),
        tuple(translation.unary),
        tuple(translation.norms),
        translation.transposes,
        any(term == "sub" for term, _, _ in translation.nodes),
        max(BYTES[tensor.dtype] for tensor in graph.inputs),
    )


def lifted(dims: Dims, rank: int) -> Dims:
    return (1,) * (rank - len(dims)) + dims


def prime_factors(number: int) -> list[int]:
    """With multiplicity, ascending."""
    factors, prime = [], 2
    while prime * prime <= number:
        while number % prime == 0:
            factors.append(prime)
            number //= prime
        prime += 1
    return [*factors, number] if number > 1 else factors


@dataclass(frozen=True, slots=True)
class _Value:
    node: int = -1
    number: Fraction | None = None


@dataclass(slots=True)
class _Translation:
    graph: Graph
    dims: Sequence[Dims]
    rank: int
    opaque_norms: bool
    primes: list[int] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    constants: list[Fraction] = field(default_factory=list)
    nodes: list[tuple[str, int, int]] = field(default_factory=list)
    unary: list[int] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    transposes: bool = False

    def run(self) -> None:
        self._sums()
        for name in PUBLISHED:
            self._operator(self._named(name, ()))
        values = [_Value(self._emit("input", place)) for place in range(len(self.graph.inputs))]
        for place, node in enumerate(self.graph.nodes):
            assert isinstance(node, Op), "the caller refuses kernels"
            try:
                values.append(self._value(node, [values[value] for value in node.operands], len(values)))
            except Misfit as misfit:
                raise Misfit(f"node {place} ({node.operator}): {misfit}") from None
        for place, output in enumerate(self.graph.outputs):
            if values[output].number is not None:
                raise Misfit(f"output {place} is a constant")
            self.outputs.append(values[output].node)

    def degrees(self) -> Degrees:
        return Degrees(
            len(self.graph.inputs), tuple(self.primes), tuple(self.functions), tuple(self.nodes), tuple(self.outputs)
        )

    def _degree(self, op: Op) -> int:
        x = self.dims[op.operands[0]] if op.operands else ()
        if op.operator in ("matmul", "rms_norm"):
            return x[-1]
        return math.prod(x[axis] for axis in op.axes) if op.operator == "sum" else 1

    def _sums(self) -> None:
        """Functions begin with those of primes."""
        found = {p for op in self.graph.nodes if isinstance(op, Op) for p in prime_factors(self._degree(op))}
        self.primes = sorted(found)
        self.functions = [Function("scale", "", (), place, f"p{prime}") for place, prime in enumerate(self.primes)]
        self.constants = [Fraction(prime) for prime in self.primes]

    def _constant(self, number: Fraction) -> int:
        """Apart from those of primes, which are no numbers."""
        for place in range(len(self.primes), len(self.constants)):
            if self.constants[place] == number:
                return place
        self.constants.append(number)
        return len(self.constants) - 1

    def _known(self, function: Function) -> int:
        if function not in self.functions:
            self.functions.append(function)
        return self.functions.index(function)

    def _operator(self, function: int) -> int:
        if function not in self.unary:
            self.unary.append(function)
        return function

    def _named(self, operator: str, values: tuple[Fraction, ...]) -> int:
        if operator in INTERPRETED:
            return self._known(Function(operator, operator, (), -1, operator))
        opaque = [f for f in self.functions if f.name == "opaque"]
        number = next((f.id for f in opaque if (f.operator, f.values) == (operator, values)), len(opaque))
        return self._known(Function("opaque", operator, values, number, f"f{number}"))

    def _with(self, name: str, number: Fraction) -> int:
        operator = "mul" if name == "scale" else "add"
        place = self._constant(number)
        return self._known(Function(name, operator, (number,), place, f"c{place}"))

    def _emit(self, term: str, a: int, b: int = 0) -> int:
        self.nodes.append((term, a, b))
        return len(self.nodes) - 1

    def _apply(self, function: int, x: _Value) -> _Value:
        return _Value(self._emit("apply", x.node, function))

    def _chain(self, functions: Sequence[int], x: _Value) -> _Value:
        for function in functions:
            x = self._apply(function, x)
        return x

    def _summed(self, degree: int) -> list[int]:
        return [self.primes.index(prime) for prime in prime_factors(degree)]

    def _value(self, op: Op, operands: Sequence[_Value], made: int) -> _Value:
        if op.operator == "constant":
            return _Value(number=op.values[0])
        x = operands[0]
        if OPERATORS[op.operator].kind == "view":
            return self._viewed(op, x, made)
        if any(value.number is not None for value in operands) and op.operator in ("matmul", "sum", "rms_norm"):
            raise Misfit("it takes a constant")
        match op.operator:
            case "matmul":
                ranks = {len(self.dims[operand]) for operand in op.operands}
                if len(ranks) > 1:
                    raise Misfit("its operands have different ranks")
                product = _Value(self._emit("mul", x.node, operands[1].node))
                return self._chain(self._summed(self._degree(op)), product)
            case "sum":
                return self._chain(self._summed(self._degree(op)), x)
            case "rms_norm":
                return _Value(self._emit("div", x.node, self._chain(self._norm(op).root, x).node))
            case "cast":
                return x
        return self._binary(op, x, operands[1]) if len(operands) == 2 else self._unary(op, x)

    def _viewed(self, op: Op, x: _Value, made: int) -> _Value:
        before, after = self.dims[op.operands[0]], self.dims[made]
        if x.number is not None or lifted(before, self.rank) == lifted(after, self.rank):
            return x
        rank = len(before)
        if op.operator == "permute" and op.axes == (*range(rank - 2), rank - 1, rank - 2):
            self.transposes = True
            return x
        raise Misfit("the concrete space knows views that swap the last two dimensions only; cut the program there")

    def _norm(self, op: Op) -> Norm:
        extent, eps = self._degree(op), op.values[0]
        if self.opaque_norms:
            root = [self._named(f"rms of {extent}", op.values)]
        else:
            scale, shift = self._with("scale", Fraction(1, extent)), self._with("shift", eps)
            before, after = self._named("square", ()), self._named("sqrt", ())
            for function in (before, scale, shift, after):
                self._operator(function)
            root = [before, *self._summed(extent), scale, shift, after]
        norm = Norm(extent, eps, tuple(root))
        if norm not in self.norms:
            self.norms.append(norm)
        return norm

    def _binary(self, op: Op, x: _Value, y: _Value) -> _Value:
        if x.number is None and y.number is None:
            if op.operator not in ("add", "sub", "mul", "div"):
                raise Misfit("the concrete space takes it of a value and a number only; cut the program there")
            return _Value(self._emit(op.operator, x.node, y.node))
        if x.number is not None and y.number is not None:
            raise Misfit("it joins two constants; join them before")
        value, number, first = (x, y.number, True) if y.number is not None else (y, x.number, False)
        assert number is not None, "one of the two is a number"
        match op.operator:
            case "add":
                return self._shift(value, number)
            case "sub":
                return self._shift(value, -number) if first else self._shift(self._scale(value, Fraction(-1)), number)
            case "mul":
                return self._scale(value, number)
            case "div" if not first:
                return self._scale(self._apply(self._operator(self._named("reciprocal", ())), value), number)
            case "div" if number:
                return self._scale(value, 1 / number)
            case "div":
                raise Misfit("it divides by zero")
        return self._apply(self._operator(self._named(op.operator, (number,))), value)

    def _scale(self, x: _Value, number: Fraction) -> _Value:
        return x if number == 1 else self._apply(self._operator(self._with("scale", number)), x)

    def _shift(self, x: _Value, number: Fraction) -> _Value:
        return x if number == 0 else self._apply(self._operator(self._with("shift", number)), x)

    def _unary(self, op: Op, x: _Value) -> _Value:
        if x.number is not None:
            raise Misfit("it takes a constant")
        power = POWERS.get(op.values[0]) if op.operator == "pow" else None
        named = self._named(power, ()) if power else self._named(op.operator, op.values)
        return self._apply(self._operator(named), x)
