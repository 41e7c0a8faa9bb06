"""Random targets, and random expressions of which some are part of them, to check oracles against each other.

A target is rewritten by axioms, one after another at random places; whatever a part of that is, it is a sub-expression,
and no oracle need be asked. Joined parts mostly are none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tilesmith.superopt.oracles import FUNCTIONS, PARTS, Expression, Kind, Target, apply, divisors, label, total, value

DEGREES = (2, 4, 6)
"""Few factors: a table has a class for every way to take some of them out of every place where they stand."""
KINDS: tuple[Kind, ...] = ("add", "mul", "mul", "div")
LARGEST = 40


@dataclass(frozen=True, slots=True)
class Pair:
    """An expression, and whether it is part of the target for certain."""

    expression: Expression
    part: bool


def degree_target(rng: random.Random, steps: int = 4) -> Target:
    """A target whose sums are degrees."""
    inputs = rng.randint(2, 3)
    known = [value(place) for place in range(inputs)]
    unused = list(known)
    exponentials = 0
    for _ in range(steps):
        x = unused.pop(rng.randrange(len(unused))) if unused else rng.choice(known)
        choice = rng.random()
        if choice < 0.3:
            made = total(rng.choice(DEGREES), x)
        elif choice < 0.5:
            name = rng.choice([name for name in _functions_of(x) if name != "exp" or not exponentials])
            exponentials += name == "exp"
            made = apply(name, x)
        else:
            y = unused.pop(rng.randrange(len(unused))) if unused else rng.choice(known)
            made = _joined(rng, x, y, KINDS)
        known.append(made)
        unused.append(made)
    while len(unused) > 1:
        unused.append(_joined(rng, unused.pop(0), unused.pop(0), ("mul",)))
    return Target(unused[0], inputs)


def label_target(rng: random.Random, steps: int = 4) -> Target:
    """A target whose sums are labels: a program of tensors with three names at most."""
    inputs = rng.randint(2, 3)
    names = tuple(tuple(rng.sample((1, 2, 3), rng.randint(1, 2))) for _ in range(inputs))
    shapes = [frozenset(tensor) for tensor in names]
    known = [value(place) for place in range(inputs)]
    summed: set[int] = set()
    unused = list(range(inputs))
    exponentials = 0
    for _ in range(steps):
        x = unused.pop(rng.randrange(len(unused))) if unused else rng.randrange(len(known))
        choice = rng.random()
        if choice < 0.3 and shapes[x]:
            name = rng.choice(sorted(shapes[x]))
            summed.add(name)
            known.append(total(label(name, PARTS[1]), total(label(name, PARTS[0]), known[x])))
            shapes.append(shapes[x] - {name})
        elif choice < 0.5:
            function = rng.choice([name for name in _functions_of(known[x]) if name != "exp" or not exponentials])
            exponentials += function == "exp"
            known.append(apply(function, known[x]))
            shapes.append(shapes[x])
        else:
            y = unused.pop(rng.randrange(len(unused))) if unused else rng.randrange(len(known))
            # What is added to what lacks a dimension has no sum over it.
            kinds: tuple[Kind, ...] = KINDS if shapes[x] == shapes[y] else ("mul", "div")
            known.append(_joined(rng, known[x], known[y], kinds))
            shapes.append(shapes[x] | shapes[y])
        unused.append(len(known) - 1)
    while len(unused) > 1:
        x, y = unused.pop(0), unused.pop(0)
        known.append(_joined(rng, known[x], known[y], ("mul",)))
        shapes.append(shapes[x] | shapes[y])
        unused.append(len(known) - 1)
    return Target(known[-1], inputs, names, frozenset(summed))


def _functions_of(x: Expression) -> list[str]:
    return [name for name in FUNCTIONS if name not in ("square", "sqrt") or not additive(x)]


def _joined(rng: random.Random, x: Expression, y: Expression, kinds: tuple[Kind, ...]) -> Expression:
    """Sums of sums, or their products, would have very many terms."""
    if additive(y):
        x, y = (apply("f0", x) if additive(x) else y), (y if additive(x) else x)
    if additive(x):
        kinds = tuple(kind for kind in kinds if kind != "add")
    return Expression(rng.choice(_joins_of(y, kinds)), 0, (x, y))


def _joins_of(second: Expression, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    return tuple(kind for kind in kinds if kind != "div" or not additive(second))


def pairs(target: Target, rng: random.Random, count: int) -> Iterator[Pair]:
    """Half of them parts of the target, rewritten; half of them parts joined at random, which may be parts or not."""
    for number in range(count):
        rewritten = rewrite(target, rng, rng.randint(0, 12))
        part = rng.choice(list(rewritten.parts()))
        if number % 2 == 0:
            yield Pair(part, True)
            continue
        other = rng.choice(list(rewritten.parts()))
        choice = rng.random()
        if choice < 0.6:
            yield Pair(Expression(rng.choice(_joins_of(other, ("add", "mul", "div"))), 0, (part, other)), False)
        elif choice < 0.8:
            yield Pair(apply(rng.choice(_functions_of(part)), part), False)
        else:
            numbers = sorted(target.free(part)) if target.names is not None else divisors(DEGREES)[1:]
            yield Pair(total(rng.choice(numbers), part) if numbers else part, not numbers)


def rewrite(target: Target, rng: random.Random, times: int) -> Expression:
    """The target after so many axioms at random places."""
    made = target.expression
    for _ in range(times):
        places = list(_places(made))
        path = rng.choice(places)
        choices = list(_rewritten(target, _at(made, path)))
        if choices:
            new = _put(made, path, rng.choice(choices))
            made = new if new.size() <= LARGEST else made
    return made


def _places(x: Expression, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    yield path
    for place, operand in enumerate(x.operands):
        yield from _places(operand, (*path, place))


def _at(x: Expression, path: tuple[int, ...]) -> Expression:
    for place in path:
        x = x.operands[place]
    return x


def _put(x: Expression, path: tuple[int, ...], new: Expression) -> Expression:
    if not path:
        return new
    first, rest = path[0], path[1:]
    operands = tuple(_put(o, rest, new) if place == first else o for place, o in enumerate(x.operands))
    return replace(x, operands=operands)


def _rewritten(target: Target, x: Expression) -> Iterator[Expression]:
    """Every axiom that applies at the root, in either direction."""
    match x:
        case Expression("add", _, (a, b)):
            yield b + a
            yield from _sums(a, b)
        case Expression("mul", _, (a, b)):
            yield b * a
            yield from _products(target, a, b)
        case Expression("div", _, (a, b)):
            yield from _quotients(target, a, b)
        case Expression("sum", number, (a,)):
            yield from _totals(target, number, a)
        case Expression("function", number, (a,)):
            yield from _functions(FUNCTIONS[number], a)


def _sums(a: Expression, b: Expression) -> Iterator[Expression]:
    if a.kind == "add":
        yield a.operands[0] + (a.operands[1] + b)
    for operator in ("mul", "div"):
        if a.kind == b.kind == operator and a.operands[1] == b.operands[1]:
            yield Expression(operator, 0, (a.operands[0] + b.operands[0], a.operands[1]))
    if a.kind == b.kind == "sum" and a.number == b.number:
        yield total(a.number, a.operands[0] + b.operands[0])


def _products(target: Target, a: Expression, b: Expression) -> Iterator[Expression]:
    if a.kind == "mul":
        yield a.operands[0] * (a.operands[1] * b)
    if b.kind == "div":
        yield (a * b.operands[0]) / b.operands[1]
    if a.kind == "add":
        yield a.operands[0] * b + a.operands[1] * b
    if a.kind == "sum" and _passes(target, a.number, b):
        yield total(a.number, a.operands[0] * b)
    if a.kind == b.kind == "function" and a.number == b.number:
        if FUNCTIONS[a.number] == "exp":
            yield apply("exp", a.operands[0] + b.operands[0])
        if FUNCTIONS[a.number] == "sqrt":
            yield apply("sqrt", a.operands[0] * b.operands[0])
    if a == b and not additive(a):
        yield apply("square", a)


def _quotients(target: Target, a: Expression, b: Expression) -> Iterator[Expression]:
    if a.kind == "add":
        yield a.operands[0] / b + a.operands[1] / b
    if a.kind == "mul":
        yield a.operands[0] * (a.operands[1] / b)
    if a.kind == "div":
        yield a.operands[0] / (a.operands[1] * b)
    if b.kind == "mul":
        yield (a / b.operands[0]) / b.operands[1]
    if a.kind == "sum" and _passes(target, a.number, b):
        yield total(a.number, a.operands[0] / b)


def _totals(target: Target, number: int, a: Expression) -> Iterator[Expression]:
    inner = a.operands
    if a.kind == "add":
        yield total(number, inner[0]) + total(number, inner[1])
    if a.kind in ("mul", "div") and _passes(target, number, inner[1]):
        yield replace(a, operands=(total(number, inner[0]), inner[1]))
    if target.names is None:
        if a.kind == "sum":
            yield total(number * a.number, inner[0])
        for divisor in divisors((number,))[1:-1]:
            yield total(divisor, total(number // divisor, a))
    elif a.kind == "sum":
        yield total(a.number, total(number, inner[0]))


def _functions(name: str, a: Expression) -> Iterator[Expression]:
    if name == "square":
        yield a * a
    if name == "exp" and a.kind == "add":
        yield apply("exp", a.operands[0]) * apply("exp", a.operands[1])
    if name == "sqrt" and a.kind == "mul":
        yield apply("sqrt", a.operands[0]) * apply("sqrt", a.operands[1])


def additive(x: Expression) -> bool:
    """Whether it is a sum of terms once products are distributed.

    The table takes the square, the root and the inverse of such as one value, and so does not know all that the axioms
    make of them: sqrt(x · (a + b)) is sqrt(x) · sqrt(a + b).
    """
    if x.kind == "add":
        return True
    if x.kind == "function":
        return FUNCTIONS[x.number] == "square" and additive(x.operands[0])
    return x.kind != "input" and any(additive(o) for o in (x.operands[:1] if x.kind == "div" else x.operands))


def _passes(target: Target, number: int, x: Expression) -> bool:
    """Whether a sum may move past this factor."""
    return target.names is None or number not in target.free(x)
