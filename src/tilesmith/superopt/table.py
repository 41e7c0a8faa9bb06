"""A program as the engine takes it: every dimension has a name, and operators join values by names.

Names are numbers from 1. Two dimensions have one name where they run together (`rows`); a value that meets
itself under one name, as scores of self-attention do, is renamed first. The names that a renaming makes are aliases:
a tensor can be loaded under either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Dims, Graph, Limits, Op
from tilesmith.core.graph_check import BYTES, tensors
from tilesmith.core.operators import OPERATORS, Misfit
from tilesmith.superopt.macros import expand
from tilesmith.superopt.needed import needed
from tilesmith.superopt.rows import Atom, Row, Shape, flat, fresh, result_of

IN_BLOCK, IN_LOOP, IN_GRID = 1, 2, 4

LOOPED = 64
"""A sum over more elements than this may be looped over."""
SPLIT = 512
"""A sum over at least so many may be split over the grid, where another kernel can join the parts."""

INTERPRETED = ("exp", "square", "sqrt", "rsqrt")
POWERS = {Fraction(2): "square", Fraction(1, 2): "sqrt", Fraction(-1, 2): "rsqrt", Fraction(-1): "reciprocal"}

UNKNOWN = ("amax", "max_pool", "sum_pool", "expand", "slice", "concat", "unfold")

Names = tuple[int, ...]

MOST_NAMES = 20
"""So many dimensions fit the engine's words."""


class TooLarge(OptionError):
    """A program that must be cut before it is searched."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one value: how the engine knows it, and the operator that computes it."""

    name: str
    operator: str
    values: tuple[Fraction, ...] = ()
    id: int = -1
    eps: int = -1
    base: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """A program in names. Values of the engine are numbered apart from the graph's."""

    graph: Graph
    parts: tuple[int, ...]
    """Of name i + 1: which parts it may have."""
    extents: tuple[int, ...]
    inputs: tuple[Names, ...]
    """The names of every input's dimensions, without those of extent 1."""
    functions: tuple[Function, ...]
    nodes: tuple[tuple[str, int, int, Names], ...]
    outputs: tuple[int, ...]
    """Values of the engine."""
    output_names: tuple[Names, ...]
    output_dims: tuple[Dims, ...]
    aliases: tuple[tuple[int, int], ...]
    element_bytes: int

    def extent(self, name: int) -> int:
        return self.extents[name - 1]


def named(graph: Graph, limits: Limits) -> Named:
    """The program in names. Raises `OptionError` for what the symbolic space does not know, with its place."""
    tensors(graph)
    try:
        return _Naming(expand(needed(graph), norms="all"), limits).run()
    except Misfit as misfit:
        raise OptionError(f"The program cannot be searched in the symbolic space: {misfit}.") from None


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of the engine with its dimensions in names, or a number."""

    node: int
    rows: tuple[Names, ...] = ()
    number: Fraction | None = None

    @property
    def names(self) -> Names:
        return tuple(name for row in self.rows for name in row)


@dataclass(slots=True)
class _Naming:
    graph: Graph
    limits: Limits
    nodes: list[tuple[str, int, int, Names]] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    constants: list[Fraction] = field(default_factory=list)
    kinds: list[Atom] = field(default_factory=list)
    """Of every name: the length that it stands for."""
    summed: set[Atom] = field(default_factory=set)

    def run(self) -> Named:
        rows, known = _rows_of(self.graph), tensors(self.graph)
        values: list[_Value] = []
        inputs: list[Names] = []
        for place, tensor_rows in enumerate(rows[: len(self.graph.inputs)]):
            named_rows = tuple(tuple(self._first(length) for length in row) for row in tensor_rows)
            made = _Value(self._emit("input", place), self._distinct(named_rows))
            inputs.append(made.names)
            values.append(made)
        for place, node in enumerate(self.graph.nodes):
            assert isinstance(node, Op), "rows_of refuses kernels"
            try:
                values.append(self._value(node, [values[value] for value in node.operands], rows[len(values)]))
            except Misfit as misfit:
                raise Misfit(f"node {place} ({node.operator}): {misfit}") from None
        outputs = [values[output] for output in self.graph.outputs]
        for place, output in enumerate(outputs):
            if output.number is not None:
                raise Misfit(f"output {place} is a constant")
        if len(self.kinds) > MOST_NAMES:
            raise TooLarge(f"The program has {len(self.kinds)} distinct dimensions, and a search takes {MOST_NAMES}.")
        aliases = [
            (a + 1, b + 1) for a in range(len(self.kinds)) for b in range(len(self.kinds))
            if a != b and self.kinds[a] is self.kinds[b]
        ]  # fmt: skip
        return Named(
            self.graph,
            tuple(self._parts(length) for length in self.kinds),
            tuple(length.size for length in self.kinds),
            tuple(inputs),
            tuple(self.functions),
            tuple(self.nodes),
            tuple(output.node for output in outputs),
            tuple(output.names for output in outputs),
            tuple(known[output].dims for output in self.graph.outputs),
            tuple(aliases),
            max(BYTES[tensor.dtype] for tensor in self.graph.inputs),
        )

    def _parts(self, length: Atom) -> int:
        if length not in self.summed or length.size <= LOOPED:
            return IN_BLOCK
        kernels = min(self.limits.kernel_ops, self.limits.graph_defined_kernels)
        return IN_BLOCK | IN_LOOP | (IN_GRID if kernels > 1 and length.size >= SPLIT else 0)

    # Names -----------------------------------------------------------------------------------------------------------

    def _first(self, length: Atom) -> int:
        for place, kind in enumerate(self.kinds):
            if kind is length:
                return place + 1
        self.kinds.append(length)
        return len(self.kinds)

    def _other(self, name: int, taken: Sequence[int]) -> int:
        """Another name for the same length."""
        kind = self.kinds[name - 1]
        for place, known in enumerate(self.kinds):
            if known is kind and place + 1 not in taken:
                return place + 1
        self.kinds.append(kind)
        return len(self.kinds)

    def _distinct(self, rows: tuple[Names, ...]) -> tuple[Names, ...]:
        """An input that has one length twice gets a second name for it."""
        seen: list[int] = []
        made = []
        for row in rows:
            renamed = []
            for name in row:
                fresh = self._other(name, seen) if name in seen else name
                seen.append(fresh)
                renamed.append(fresh)
            made.append(tuple(renamed))
        return tuple(made)

    def _renamed(self, value: _Value, to: dict[int, int]) -> _Value:
        """One after another; a name that is still taken waits, or steps aside."""
        left = {name: new for name, new in to.items() if name != new}
        current = value
        while left:
            present = current.names
            free = [name for name, new in left.items() if new not in present]
            name = free[0] if free else next(iter(left))
            new = left.pop(name)
            if not free:
                aside = self._other(name, (*present, *left.values(), new))
                left[aside] = new
                new = aside
            node = self._emit("rename", current.node, name << 8 | new)
            current = _Value(node, tuple(tuple(new if n == name else n for n in row) for row in current.rows))
        return current

    def _meeting(self, x: _Value, y: _Value, pairs: Sequence[tuple[Names, Names]]) -> _Value:
        """y, renamed so that it agrees with x where dimensions meet, and shares no other name with it."""
        to: dict[int, int] = {}
        for mine, theirs in pairs:
            if mine and theirs:
                to.update(zip(theirs, mine, strict=True))
        taken = [*x.names, *to.values()]
        for name in y.names:
            if name not in to and name in taken:
                to[name] = self._other(name, (*taken, *y.names))
                taken.append(to[name])
        return self._renamed(y, to)

    # Values ----------------------------------------------------------------------------------------------------------

    def _emit(self, term: str, a: int, b: int = 0, over: Names = ()) -> int:
        self.nodes.append((term, a, b, over))
        return len(self.nodes) - 1

    def _apply(self, function: Function, x: _Value) -> _Value:
        if function not in self.functions:
            self.functions.append(function)
        return _Value(self._emit("apply", x.node, self.functions.index(function)), x.rows)

    def _constant(self, number: Fraction) -> int:
        if number not in self.constants:
            self.constants.append(number)
        return self.constants.index(number)

    def _sum(self, x: _Value, names: Names) -> int:
        self.summed |= {self.kinds[name - 1] for name in names}
        return self._emit("sum", x.node, 0, names) if names else x.node

    def _value(self, op: Op, operands: Sequence[_Value], rows: Sequence[Row]) -> _Value:
        kind = OPERATORS[op.operator].kind
        if kind == "constant":
            return _Value(-1, (), op.values[0])
        x = operands[0]
        if op.operator == "matmul":
            return self._matmul(x, operands[1])
        if op.operator == "rms_norm":
            return self._normed(op, x)
        if kind == "view":
            return self._viewed(op, x, rows)
        if op.operator == "sum":
            if x.number is not None:
                raise Misfit("it sums a constant")
            over = tuple(name for axis in op.axes for name in x.rows[axis])
            return _Value(self._sum(x, over), tuple(() if axis in op.axes else row for axis, row in enumerate(x.rows)))
        if len(operands) == 2:
            return self._binary(op, x, operands[1])
        return self._unary(op, x)

    def _viewed(self, op: Op, x: _Value, rows: Sequence[Row]) -> _Value:
        if x.number is not None:
            return x
        if op.operator == "permute":
            return _Value(x.node, tuple(x.rows[axis] for axis in op.axes))
        names = list(x.names)
        made = []
        for row in rows:
            made.append(tuple(names[: len(row)]))
            del names[: len(row)]
        return _Value(x.node, tuple(made))

    def _matmul(self, x: _Value, y: _Value) -> _Value:
        batch = aligned_names(x.rows[:-2], y.rows[:-2])
        y = self._meeting(x, y, [*batch, (x.rows[-1], y.rows[-2])])
        lead = tuple(a or b for a, b in aligned_names(x.rows[:-2], y.rows[:-2]))
        made = (*lead, x.rows[-2], y.rows[-1])
        if not x.rows[-1]:
            return _Value(self._emit("mul", x.node, y.node), made)
        self.summed |= {self.kinds[name - 1] for name in x.rows[-1]}
        return _Value(self._emit("matmul", x.node, y.node, x.rows[-1]), made)

    def _binary(self, op: Op, x: _Value, y: _Value) -> _Value:
        if x.number is not None or y.number is not None:
            return self._with_number(op, x, y)
        if op.operator not in ("add", "sub", "mul", "div"):
            raise Misfit("the symbolic space takes it of a value and a number only; cut the program there")
        y = self._meeting(x, y, aligned_names(x.rows, y.rows))
        rows = tuple(a or b for a, b in aligned_names(x.rows, y.rows))
        return _Value(self._emit(op.operator, x.node, y.node), rows)

    def _with_number(self, op: Op, x: _Value, y: _Value) -> _Value:
        if x.number is not None and y.number is not None:
            return _Value(-1, (), _folded(op, x.number, y.number))
        value, number, first = (x, y.number, True) if y.number is not None else (y, x.number, False)
        assert number is not None, "one of the two is a number"
        rank = max(len(x.rows), len(y.rows))
        value = _Value(value.node, ((),) * (rank - len(value.rows)) + value.rows)
        match op.operator:
            case "add":
                return self._shifted(value, number)
            case "sub":
                return (
                    self._shifted(value, -number) if first else self._shifted(self._scaled(value, Fraction(-1)), number)
                )
            case "mul":
                return self._scaled(value, number)
            case "div":
                if first and not number:
                    raise Misfit("it divides by zero")
                if first:
                    return self._scaled(value, 1 / number)
                return self._scaled(self._apply(Function("reciprocal", "reciprocal"), value), number)
        return self._opaque(Op(op.operator, values=(number,)), value)

    def _scaled(self, x: _Value, number: Fraction) -> _Value:
        return x if number == 1 else self._apply(Function("scale", "mul", (number,), self._constant(number)), x)

    def _shifted(self, x: _Value, number: Fraction) -> _Value:
        return x if number == 0 else self._apply(Function("shift", "add", (number,), self._constant(number)), x)

    def _unary(self, op: Op, x: _Value) -> _Value:
        if x.number is not None:
            raise Misfit("it takes a constant")
        if op.operator == "cast":
            return x
        name = POWERS.get(op.values[0]) if op.operator == "pow" else op.operator
        if name in (*INTERPRETED, "reciprocal"):
            assert name is not None, "it is among names"
            return self._apply(Function(name, name), x)
        return self._opaque(op, x)

    def _opaque(self, op: Op, x: _Value) -> _Value:
        known = [f for f in self.functions if f.name == "opaque"]
        number = next((f.id for f in known if (f.operator, f.values) == (op.operator, op.values)), len(known))
        return self._apply(Function("opaque", op.operator, op.values, number), x)

    def _normed(self, op: Op, x: _Value) -> _Value:
        names = tuple(name for axis in op.axes for name in x.rows[axis])
        count = 1
        for name in names:
            count *= self.kinds[name - 1].size
        mean = Fraction(1, count)
        if len(names) == 1:
            # As one operator; its primitives are functions of the program too, so that the search knows both.
            made = self._apply(
                Function(
                    "rms_norm", "rms_norm", op.values, self._constant(mean), self._constant(op.values[0]), names[0]
                ),
                x,
            )
            self.summed.add(self.kinds[names[0] - 1])
            for function in (
                Function("square", "square"),
                Function("scale", "mul", (mean,), self._constant(mean)),
                Function("shift", "add", op.values, self._constant(op.values[0])),
                Function("sqrt", "sqrt"),
            ):
                if function not in self.functions:
                    self.functions.append(function)
        else:
            square = self._apply(Function("square", "square"), x)
            rows = tuple(() if axis in op.axes else row for axis, row in enumerate(x.rows))
            summed = _Value(self._sum(square, names), rows)
            root = self._apply(Function("sqrt", "sqrt"), self._shifted(self._scaled(summed, mean), op.values[0]))
            made = _Value(self._emit("div", x.node, root.node), x.rows)
        return made


def _rows_of(graph: Graph) -> list[Shape]:
    """The rows of every value. Raises `Misfit` with the node for what the search does not know."""
    known = [fresh(tensor.dims) for tensor in graph.inputs]
    for place, node in enumerate(graph.nodes):
        if not isinstance(node, Op):
            raise Misfit(f"node {place} is a kernel; a search starts from operators")
        try:
            known.append(_made(node, [known[value] for value in node.operands]))
        except Misfit as misfit:
            raise Misfit(f"node {place} ({node.operator}): {misfit}") from None
    # What was broken up after a value was made is broken up in it too.
    return [tuple(flat(row) for row in shape) for shape in known]


def _made(op: Op, operands: Sequence[Shape]) -> Shape:
    if op.operator == "rms_norm":
        return operands[0]
    if op.operator == "expand":
        # What is repeated along new dimensions is broadcast there by whoever takes it.
        x = operands[0]
        new = len(op.dims) - len(x)
        if all(row or extent == 1 for row, extent in zip(x, op.dims[new:], strict=True)):
            return (*((),) * new, *x)
    if op.operator in UNKNOWN:
        raise Misfit("the symbolic space does not know this operator; cut the program there")
    return result_of(op, operands)


def aligned_names(left: Sequence[Names], right: Sequence[Names]) -> list[tuple[Names, Names]]:
    """Dimensions that broadcast against each other, the last ones together."""
    rank = max(len(left), len(right))
    return list(zip(((),) * (rank - len(left)) + tuple(left), ((),) * (rank - len(right)) + tuple(right), strict=True))


def _folded(op: Op, x: Fraction, y: Fraction) -> Fraction:
    match op.operator:
        case "add":
            return x + y
        case "sub":
            return x - y
        case "mul":
            return x * y
        case "div" if y:
            return x / y
        case "max":
            return max(x, y)
        case "min":
            return min(x, y)
    raise Misfit("it joins two constants in a way that has no exact result")
