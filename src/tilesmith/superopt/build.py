"""Write µGraphs by hand, without torch.

    b = Program()
    x, w = b.input("X", (8, 4096)), b.input("W", (4096, 4096))
    b.output(b.rms_norm(x) @ w)
    graph = b.graph()

The same as one graph-defined kernel of 64 blocks, each of which loops over the columns of X in 32 parts:

    k = b.kernel((64,), loop=32)
    tile, weights = k.load(x, (None,), 1), k.load(w, (1,), 0)
    product, squares = k.accumulate(tile @ weights), k.accumulate(k.square(tile), 1)
    (y,) = k.store((product / k.sqrt(squares / 4096 + 1e-5), (1,)))

Expressions broadcast as in PyTorch; negative axes count from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Dims, Gathering, Graph, Kernel, Load, Node, Op, Step, Store, Tensor, Window
from tilesmith.core.graph_check import apply, block, tensors, tiles
from tilesmith.core.operators import Misfit
from tilesmith.core.problem import Dtype

Number = int | float | Fraction


def exact(number: Number) -> Fraction:
    """The number that its shortest decimal names: 1e-5 is 1/100000. Raises `OptionError` unless it is finite."""
    try:
        return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
    except ValueError:
        raise OptionError(f"A µGraph's constants are finite numbers; {number} is none.") from None


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A value of a program that is being written. Two are the same only if they are one."""

    program: Writer
    value: int

    @property
    def dims(self) -> Dims:
        return self.program.tensor(self).dims

    def __add__(self, other: Expression | Number) -> Expression:
        return self.program.apply("add", self, other)

    def __radd__(self, other: Number) -> Expression:
        return self.program.apply("add", other, self)

    def __sub__(self, other: Expression | Number) -> Expression:
        return self.program.apply("sub", self, other)

    def __rsub__(self, other: Number) -> Expression:
        return self.program.apply("sub", other, self)

    def __mul__(self, other: Expression | Number) -> Expression:
        return self.program.apply("mul", self, other)

    def __rmul__(self, other: Number) -> Expression:
        return self.program.apply("mul", other, self)

    def __truediv__(self, other: Expression | Number) -> Expression:
        return self.program.apply("div", self, other)

    def __rtruediv__(self, other: Number) -> Expression:
        return self.program.apply("div", other, self)

    def __matmul__(self, other: Expression) -> Expression:
        return self.program.apply("matmul", self, other)

    def __neg__(self) -> Expression:
        return self.program.apply("mul", self, -1)

    def __pow__(self, exponent: Number) -> Expression:
        return self.program.apply("pow", self, values=(exponent,))


class Writer:
    """Operators, written one after another. Misuse raises `OptionError`."""

    def __init__(self) -> None:
        self._known: list[Tensor] = []

    def _append(self, op: Op) -> None:
        raise NotImplementedError

    def apply(
        self,
        operator: str,
        *operands: Expression | Number,
        axes: Sequence[int] = (),
        dims: Sequence[int] = (),
        values: Sequence[Number] = (),
        windows: Sequence[Window] = (),
        dtype: Dtype | None = None,
    ) -> Expression:
        """One operator of the table; numbers among the operands become constants."""
        used = tuple(self._owned(o) if isinstance(o, Expression) else self.constant(o).value for o in operands)
        rank = len(self._known[used[0]].dims) if used else 0
        positive = tuple(axis + rank if axis < 0 else axis for axis in axes)
        op = Op(operator, used, positive, tuple(dims), tuple(map(exact, values)), tuple(windows), dtype)
        try:
            made = apply(op, self._known)
        except Misfit as misfit:
            raise OptionError(f"{operator} cannot be applied: {misfit}.") from None
        self._append(op)
        self._known.append(made)
        return Expression(self, len(self._known) - 1)

    def _owned(self, expression: Expression) -> int:
        if expression.program is not self:
            raise OptionError("An expression of one program is used in another; write it again there.")
        return expression.value

    def tensor(self, expression: Expression) -> Tensor:
        return self._known[self._owned(expression)]

    def constant(self, number: Number) -> Expression:
        return self.apply("constant", values=(number,))

    def exp(self, x: Expression) -> Expression:
        return self.apply("exp", x)

    def log(self, x: Expression) -> Expression:
        return self.apply("log", x)

    def square(self, x: Expression) -> Expression:
        return self.apply("square", x)

    def sqrt(self, x: Expression) -> Expression:
        return self.apply("sqrt", x)

    def rsqrt(self, x: Expression) -> Expression:
        return self.apply("rsqrt", x)

    def relu(self, x: Expression) -> Expression:
        return self.apply("relu", x)

    def sigmoid(self, x: Expression) -> Expression:
        return self.apply("sigmoid", x)

    def tanh(self, x: Expression) -> Expression:
        return self.apply("tanh", x)

    def silu(self, x: Expression) -> Expression:
        return self.apply("silu", x)

    def gelu(self, x: Expression) -> Expression:
        """In its tanh form; the other is `apply("gelu_erf", x)`."""
        return self.apply("gelu", x)

    def clamp(self, x: Expression, low: Number, high: Number) -> Expression:
        return self.apply("clamp", x, values=(low, high))

    def cast(self, x: Expression, dtype: Dtype) -> Expression:
        return self.apply("cast", x, dtype=dtype)

    def max(self, x: Expression, other: Expression | Number) -> Expression:
        return self.apply("max", x, other)

    def min(self, x: Expression, other: Expression | Number) -> Expression:
        return self.apply("min", x, other)

    def sum(self, x: Expression, *axes: int) -> Expression:
        """Over axes, which stay with extent 1; `reshape` drops them."""
        return self.apply("sum", x, axes=axes)

    def mean(self, x: Expression, *axes: int) -> Expression:
        return self.apply("mean", x, axes=axes)

    def amax(self, x: Expression, *axes: int) -> Expression:
        return self.apply("amax", x, axes=axes)

    def softmax(self, x: Expression, axis: int = -1) -> Expression:
        return self.apply("softmax", x, axes=(axis,))

    def rms_norm(self, x: Expression, weight: Expression | None = None, eps: Number = 1e-5) -> Expression:
        """Over the last dimension, or over those that the weight has."""
        rank = 1 if weight is None else len(weight.dims)
        operands = (x,) if weight is None else (x, weight)
        return self.apply("rms_norm", *operands, axes=range(-rank, 0), values=(eps,))

    def convolve(self, x: Expression, weight: Expression, *windows: Window) -> Expression:
        """x [N, C, *] with weights [O, C / groups, *]: one window for each spatial dimension."""
        return self.apply("convolve", x, weight, windows=windows)

    def reshape(self, x: Expression, *dims: int) -> Expression:
        return self.apply("reshape", x, dims=dims)

    def permute(self, x: Expression, *axes: int) -> Expression:
        return self.apply("permute", x, axes=axes)

    def transpose(self, x: Expression, first: int = -2, second: int = -1) -> Expression:
        axes = list(range(len(x.dims)))
        axes[first], axes[second] = axes[second], axes[first]
        return self.permute(x, *axes)

    def expand(self, x: Expression, *dims: int) -> Expression:
        return self.apply("expand", x, dims=dims)

    def slice(self, x: Expression, axis: int, begin: int, end: int) -> Expression:
        return self.apply("slice", x, axes=(axis,), dims=(begin, end))

    def unfold(self, x: Expression, *windows: Window) -> Expression:
        """[..., S*] seen as [..., places*, sizes*], one window for each of the last dimensions."""
        return self.apply("unfold", x, windows=windows)

    def max_pool(self, x: Expression, *windows: Window) -> Expression:
        """The largest element that each window sees: one window for each of the last dimensions."""
        return self.apply("max_pool", x, windows=windows)

    def mean_pool(self, x: Expression, *windows: Window) -> Expression:
        return self.apply("mean_pool", x, windows=windows)

    def concat(self, *parts: Expression, axis: int) -> Expression:
        return self.apply("concat", *parts, axes=(axis,))


class Program(Writer):
    """A graph: inputs, then operators and kernels in the order in which they are written, and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self._inputs: list[Tensor] = []
        self._nodes: list[Node] = []
        self._outputs: list[int] = []

    def input(self, name: str, dims: Sequence[int], dtype: Dtype = "fp16") -> Expression:
        """A named tensor. All inputs come before the first operator."""
        if self._nodes:
            raise OptionError(f"Input {name!r} comes after an operator; name all inputs first.")
        self._inputs.append(Tensor(tuple(dims), dtype, name))
        self._known.append(self._inputs[-1])
        return Expression(self, len(self._known) - 1)

    def kernel(self, grid: Sequence[int] = (), loop: int = 1) -> Block:
        """A graph-defined kernel, which is part of the program once it stores something."""
        return Block(self, tuple(grid), loop)

    def output(self, *expressions: Expression) -> None:
        self._outputs += [self._owned(expression) for expression in expressions]

    def graph(self) -> Graph:
        """What was written, checked."""
        graph = Graph(tuple(self._inputs), tuple(self._nodes), tuple(self._outputs))
        tensors(graph)
        return graph

    def _append(self, op: Op) -> None:
        self._nodes.append(op)

    def _add(self, kernel: Kernel) -> list[Expression]:
        try:
            made = block(kernel, self._known).stored
        except Misfit as misfit:
            raise OptionError(f"The kernel is malformed: {misfit}.") from None
        self._nodes.append(kernel)
        self._known += made
        return [Expression(self, len(self._known) - len(made) + place) for place in range(len(made))]


class Block(Writer):
    """The inside of a kernel: loads, operators and accumulators, then one `store` of all that it makes."""

    def __init__(self, program: Program, grid: Dims, loop: int) -> None:
        super().__init__()
        self._program = program
        self._grid, self._loop = grid, loop
        self._parts: list[Load | Step] = []
        """As they were written, operands too: a kernel's own numbers have the loads first."""

    def load(self, source: Expression, imap: Sequence[int | None] = (), fmap: int | None = None) -> Expression:
        """A tile of a value of the program."""
        return self._write(Load(self._program._owned(source), tuple(imap), fmap))

    def accumulate(self, x: Expression, *axes: int, how: Gathering = "sum") -> Expression:
        """Gathered over the loop, and over axes."""
        rank = len(x.dims)
        positive = tuple(axis + rank if axis < 0 else axis for axis in axes)
        return self._write(Accumulate(how, (self._owned(x),), positive))

    def rescale(self, scores: Expression, values: Expression | None = None) -> Expression:
        """The sum of online softmax: of exp(S - max S), or of that times values."""
        operands = (scores,) if values is None else (scores, values)
        return self._write(Accumulate("rescale", tuple(map(self._owned, operands))))

    def store(self, *stores: tuple[Expression, Sequence[int | None]]) -> list[Expression]:
        """End the kernel: each value with its omap becomes a value of the program."""
        number = self._numbers()
        made = tuple(Store(number[self._owned(value)], tuple(omap)) for value, omap in stores)
        return self._program._add(self._kernel(made))

    def _numbers(self) -> list[int]:
        loads = [place for place, part in enumerate(self._parts) if isinstance(part, Load)]
        steps = [place for place, part in enumerate(self._parts) if not isinstance(part, Load)]
        number = {place: value for value, place in enumerate([*loads, *steps])}
        return [number[place] for place in range(len(self._parts))]

    def _kernel(self, stores: tuple[Store, ...] = ()) -> Kernel:
        number = self._numbers()
        loads = tuple(part for part in self._parts if isinstance(part, Load))
        body = tuple(
            replace(part, operands=tuple(number[operand] for operand in part.operands))
            for part in self._parts
            if not isinstance(part, Load)
        )
        return Kernel(self._grid, self._loop, loads, body, stores)

    def _write(self, part: Load | Step) -> Expression:
        self._parts.append(part)
        try:
            made, _ = tiles(self._kernel(), self._program._known)
        except Misfit as misfit:
            self._parts.pop()
            raise OptionError(f"The kernel is malformed: {misfit}.") from None
        self._known.append(made[self._numbers()[-1]])
        return Expression(self, len(self._known) - 1)

    def _append(self, op: Op) -> None:
        self._parts.append(op)
