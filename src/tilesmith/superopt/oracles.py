"""Oracles of pruning: is an expression a sub-expression of a target, under the axioms of the search?

    Table      the frozen table: one probe for each operator; what the searches ask
    Solver     z3 with the published axioms; within its effort it decides part, and only a yes is a proof
    Saturated  an e-graph of the target, by egglog; what is in it is a sub-expression

Each `accepts` an expression, or does not, or answers None where that was not decided.

An expression knows sums in one of two ways: by degree, the number of their terms, as published, or by label, the part
of a dimension that they run over, as the symbolic space has it. The axioms are those of the paper (Wu et al., Mirage: A
Multi-Level Superoptimizer for Tensor Programs, section 4.3), for degrees of any factors; a sum by label moves past what
is free of its label only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import egglog.bindings as egglog

from tilesmith import _core
from tilesmith.superopt.concrete import libz3
from tilesmith.superopt.concrete_program import prime_factors

Kind = Literal["input", "add", "mul", "div", "function", "sum"]
FUNCTIONS = ("exp", "sqrt", "square", "f0", "f1")
"""exp, sqrt and square have axioms; any other only equals itself."""
FUNCTION_ROWS = [
    *((name, -1, name) for name in ("exp", "sqrt", "square")),
    *(("opaque", place, f"f{place}") for place in (0, 1)),
]
PARTS = (1, 2)
"""Of a dimension that is summed: in the block, over the loop."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An input, two joined, or a function or a sum of one."""

    kind: Kind
    number: int = 0
    """Of an input its place; of a function its place in `FUNCTIONS`; of a sum its degree, or its label."""
    operands: tuple[Expression, ...] = ()

    def __add__(self, other: Expression) -> Expression:
        return Expression("add", 0, (self, other))

    def __mul__(self, other: Expression) -> Expression:
        return Expression("mul", 0, (self, other))

    def __truediv__(self, other: Expression) -> Expression:
        return Expression("div", 0, (self, other))

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.operands))
        if self.kind == "input":
            return f"v{self.number}"
        if self.kind in ("function", "sum"):
            return f"{FUNCTIONS[self.number] if self.kind == 'function' else f'sum[{self.number}]'}({inner})"
        return f"{self.kind}({inner})"

    def parts(self) -> Iterator[Expression]:
        """Itself and all that it is made of."""
        yield self
        for operand in self.operands:
            yield from operand.parts()

    def size(self) -> int:
        return sum(1 for _ in self.parts())


def value(place: int) -> Expression:
    return Expression("input", place)


def apply(name: str, x: Expression) -> Expression:
    return Expression("function", FUNCTIONS.index(name), (x,))


def total(number: int, x: Expression) -> Expression:
    """A sum of a degree, or over a label."""
    return Expression("sum", number, (x,))


def label(name: int, part: int) -> int:
    """A part of a dimension with a name, from 1."""
    return 8 * name + part


@dataclass(frozen=True, slots=True)
class Target:
    """What expressions are part of, or not."""

    expression: Expression
    inputs: int
    names: tuple[tuple[int, ...], ...] | None = None
    """Where sums are over labels: the names of every input's dimensions."""
    summed: frozenset[int] = frozenset()
    """The names that have two parts, because a sum runs over them."""

    def labels(self, name: int) -> tuple[int, ...]:
        return tuple(label(name, part) for part in (PARTS if name in self.summed else PARTS[:1]))

    def free(self, x: Expression) -> frozenset[int]:
        """The labels that an expression varies over."""
        if x.kind == "input":
            assert self.names is not None, "labels are asked for where there are some"
            return frozenset(made for name in self.names[x.number] for made in self.labels(name))
        free = frozenset[int]().union(*(self.free(operand) for operand in x.operands))
        return free - {x.number} if x.kind == "sum" else free


# The table ------------------------------------------------------------------------------------------------------------


class Table:
    """The table of the search, asked one operator after another."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._made = _judge(target) if target.names is None else _named(target)

    @property
    def incomplete(self) -> str:
        """Why values are missing; empty where none are."""
        return self._made.incomplete

    @property
    def classes(self) -> int:
        return self._made.classes

    def accepts(self, x: Expression) -> bool:
        if isinstance(self._made, _core.Judge):
            return self._made.accepts(_written(self._made, self._target, x))
        return self._class(self._made, x) >= 0

    def probe_ns(self, times: int) -> float:
        """Of a target whose sums are degrees: nanoseconds of one probe, of random classes."""
        assert isinstance(self._made, _core.Judge), "sums are labels here"
        return self._made.probe_ns(times)

    def _class(self, table: _core.NamedTable, x: Expression) -> int:
        if x.kind == "input":
            return table.input(x.number)
        classes = [self._class(table, operand) for operand in x.operands]
        if x.kind == "function":
            return table.probe("apply", classes[0], x.number)
        return table.probe(x.kind, classes[0], x.number if x.kind == "sum" else classes[1])


def _written(judge: _core.Judge, target: Target, x: Expression) -> int:
    """Its number, among the expressions of the judge."""
    if x.kind == "input":
        return judge.input(x.number)
    operands = [_written(judge, target, operand) for operand in x.operands]
    if x.kind == "function":
        return judge.make("function", len(_primes(target)) + x.number, operands[0])
    return judge.make(x.kind, *((x.number, operands[0]) if x.kind == "sum" else operands))


def _primes(target: Target) -> list[int]:
    """Of degrees: the first functions of the table are their sums."""
    degrees = {part.number for part in target.expression.parts() if part.kind == "sum"}
    return sorted({prime for degree in degrees for prime in prime_factors(degree)})


def _judge(target: Target) -> _core.Judge:
    primes = _primes(target)
    functions = [("scale", place, f"p{prime}") for place, prime in enumerate(primes)]
    nodes: list[tuple[str, int, int]] = [("input", place, 0) for place in range(target.inputs)]

    def emit(x: Expression) -> int:
        if x.kind == "input":
            return x.number
        operands = [emit(operand) for operand in x.operands]
        if x.kind == "sum":
            node = operands[0]
            for prime in prime_factors(x.number):
                nodes.append(("apply", node, primes.index(prime)))
                node = len(nodes) - 1
            return node
        last = len(primes) + x.number if x.kind == "function" else operands[1]
        nodes.append(("apply" if x.kind == "function" else x.kind, operands[0], last))
        return len(nodes) - 1

    output = emit(target.expression)
    return _core.Judge(target.inputs, primes, [*functions, *FUNCTION_ROWS], nodes, [output], [])


def _named(target: Target) -> _core.NamedTable:
    assert target.names is not None, "the caller asks"
    most = max((name for names in target.names for name in names), default=0)
    parts = [sum(PARTS) if name in target.summed else PARTS[0] for name in range(1, most + 1)]
    nodes: list[tuple[str, int, int, Sequence[int]]] = [("input", place, 0, ()) for place in range(target.inputs)]

    def emit(x: Expression) -> int:
        if x.kind == "input":
            return x.number
        if x.kind == "sum":
            # A target sums whole dimensions: one part after the other.
            inner = x.operands[0]
            assert (inner.kind, inner.number // 8) == ("sum", x.number // 8), "both parts of a dimension"
            nodes.append(("sum", emit(inner.operands[0]), 0, (x.number // 8,)))
            return len(nodes) - 1
        operands = [emit(operand) for operand in x.operands]
        last = x.number if x.kind == "function" else operands[1]
        nodes.append(("apply" if x.kind == "function" else x.kind, operands[0], last, ()))
        return len(nodes) - 1

    output = emit(target.expression)
    return _core.NamedTable(parts, target.names, FUNCTION_ROWS, nodes, [output])


# z3 -------------------------------------------------------------------------------------------------------------------


class Solver:
    """z3, of a target whose sums are degrees. It rarely refutes; what it does not prove within its effort is None."""

    def __init__(self, target: Target, effort: int = 80_000) -> None:
        self._target = target
        self._judge = _judge(target)
        targets = [self._judge.formula(_written(self._judge, target, target.expression))]
        self._solver = _core.Solver(_core.Z3(str(libz3())), self._judge.axioms(), targets, effort)

    def accepts(self, x: Expression) -> bool | None:
        text = self._judge.formula(_written(self._judge, self._target, x))
        if not text:
            return False
        return {"yes": True, "no": False, "unknown": None}[self._solver.ask(text)]


# egglog ---------------------------------------------------------------------------------------------------------------

_LANGUAGE = """
(datatype E (In i64) (Add E E) (Mul E E) (Div E E) (Fn i64 E) (Sum i64 E))
(rewrite (Add a b) (Add b a))
(rewrite (Mul a b) (Mul b a))
(birewrite (Add a (Add b c)) (Add (Add a b) c))
(birewrite (Mul a (Mul b c)) (Mul (Mul a b) c))
(birewrite (Mul a (Add b c)) (Add (Mul a b) (Mul a c)))
(birewrite (Add (Div a c) (Div b c)) (Div (Add a b) c))
(birewrite (Mul a (Div b c)) (Div (Mul a b) c))
(birewrite (Div (Div a b) c) (Div a (Mul b c)))
(birewrite (Mul (Fn 0 a) (Fn 0 b)) (Fn 0 (Add a b)))
(birewrite (Mul (Fn 1 a) (Fn 1 b)) (Fn 1 (Mul a b)))
(birewrite (Fn 2 a) (Mul a a))
(birewrite (Sum i (Add a b)) (Add (Sum i a) (Sum i b)))
"""
_DEGREES = """
(relation Divides (i64 i64))
(birewrite (Sum i (Mul a b)) (Mul (Sum i a) b))
(birewrite (Sum i (Div a b)) (Div (Sum i a) b))
(rewrite (Sum i (Sum j a)) (Sum (* i j) a))
(rewrite (Sum n a) (Sum j (Sum (/ n j) a)) :when ((Divides j n)))
"""
_LABELS = """
(relation Lacks (E i64))
(rule ((Lacks a l) (Lacks b l) (= e (Add a b))) ((Lacks e l)))
(rule ((Lacks a l) (Lacks b l) (= e (Mul a b))) ((Lacks e l)))
(rule ((Lacks a l) (Lacks b l) (= e (Div a b))) ((Lacks e l)))
(rule ((Lacks a l) (= e (Fn f a))) ((Lacks e l)))
(rule ((Lacks a l) (= e (Sum i a))) ((Lacks e l)))
(rule ((= e (Sum i a))) ((Lacks e i)))
(rewrite (Sum i (Sum j a)) (Sum j (Sum i a)))
(rewrite (Sum i (Mul a b)) (Mul (Sum i a) b) :when ((Lacks b i)))
(rewrite (Mul (Sum i a) b) (Sum i (Mul a b)) :when ((Lacks b i)))
(rewrite (Sum i (Div a b)) (Div (Sum i a) b) :when ((Lacks b i)))
(rewrite (Div (Sum i a) b) (Sum i (Div a b)) :when ((Lacks b i)))
"""


class Saturated:
    """An e-graph of a target. Where it did not saturate within its rounds and nodes, no is no answer."""

    def __init__(self, target: Target, rounds: int = 30, nodes: int = 20_000) -> None:
        self._graph = egglog.EGraph()
        self._span = egglog.RustSpan("number", 0, 0)
        self._numbers: dict[int, egglog.Value] = {}
        self._run(_LANGUAGE + (_DEGREES if target.names is None else _LABELS))
        self._run(f"(let $target {_lisp(target.expression)})" + _facts(target))
        self.saturated = False
        for _ in range(rounds):
            (report,) = self._run("(run 1)")
            assert isinstance(report, egglog.RunScheduleOutput), "that is what a run answers"
            self.saturated = not report.report.updated
            self.nodes = self._size()
            if self.saturated or self.nodes > nodes:
                break

    def accepts(self, x: Expression) -> bool | None:
        found = self._find(x) is not None
        return found or (False if self.saturated else None)

    def _run(self, script: str) -> list[object]:
        return list(self._graph.run_program(*self._graph.parse_program(script)))

    def _size(self) -> int:
        (report,) = self._run("(print-size)")
        words = str(report).replace("(", " ").replace(")", " ").split()
        return sum(int(count) for name, count in zip(words[::2], words[1::2], strict=True) if name[0].isupper())

    def _number(self, number: int) -> egglog.Value:
        if number not in self._numbers:
            self._numbers[number] = self._graph.eval_expr(egglog.Lit(self._span, egglog.Int(number)))[1]
        return self._numbers[number]

    def _find(self, x: Expression) -> egglog.Value | None:
        """Bottom-up, without adding anything."""
        arguments: list[egglog.Value] = []
        if x.kind in ("input", "function", "sum"):
            arguments.append(self._number(x.number))
        for operand in x.operands:
            found = self._find(operand)
            if found is None:
                return None
            arguments.append(found)
        return self._graph.lookup_function(_NAMES[x.kind], arguments)


_NAMES: dict[Kind, str] = {"input": "In", "add": "Add", "mul": "Mul", "div": "Div", "function": "Fn", "sum": "Sum"}


def _lisp(x: Expression) -> str:
    numbered = f"{x.number} " if x.kind in ("input", "function", "sum") else ""
    return f"({_NAMES[x.kind]} {numbered}{' '.join(map(_lisp, x.operands))})"


def _facts(target: Target) -> str:
    if target.names is None:
        degrees = {part.number for part in target.expression.parts() if part.kind == "sum"}
        factors = divisors({*degrees, *(a * b for a in degrees for b in degrees)})
        return "".join(f"(Divides {d} {n})" for n in factors for d in factors if 1 < d < n and n % d == 0)
    every = {made for names in target.names for name in names for made in target.labels(name)}
    return "".join(
        f"(Lacks (In {place}) {made})"
        for place in range(target.inputs)
        for made in sorted(every - target.free(value(place)))
    )


def divisors(numbers: Iterable[int]) -> list[int]:
    """Of any of them, ascending."""
    found: set[int] = set()
    for number in numbers:
        made = {1}
        for prime in prime_factors(number):
            made |= {divisor * prime for divisor in made}
        found |= made
    return sorted(found)
