"""What the engine finds, in the terms of brute force; and a program of letters as a graph."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from brute import COMMUTE, NONE, Function, Term, Written

from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Limits
from tilesmith.superopt import engine as engines
from tilesmith.superopt.build import Expression, Program
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.table import Named, named


def graph_of(program: Written) -> Graph:
    """The program as a graph of operators. Dimensions are in the order of their letters, but as given for inputs."""
    b = Program()
    inputs = [b.input(f"x{i}", [program.extent(c) for c in letters]) for i, letters in enumerate(program.inputs)]
    known: dict[Term, tuple[Expression, str]] = {}

    def spread(made: tuple[Expression, str], *groups: str) -> Expression:
        """One dimension for every group of letters, 1 where it has none of them."""
        x, letters = made
        order = [letters.index(c) for group in groups for c in group if c in letters]
        if order != sorted(order):
            x = b.permute(x, *order)
        dims = [1] * len(groups)
        for place, group in enumerate(groups):
            for c in group:
                dims[place] *= program.extent(c) if c in letters else 1
        return x if tuple(dims) == x.dims else b.reshape(x, *dims)

    def write(term: Term) -> tuple[Expression, str]:
        if term not in known:
            known[term] = made(term)
        return known[term]

    def applied(function: Function, x: Expression, letters: str) -> Expression:
        match function[0]:
            case "scale":
                return b.apply("mul", x, b.apply("constant", values=(Fraction(function[1]),)))
            case "shift":
                return b.apply("add", x, b.apply("constant", values=(Fraction(function[1]),)))
            case "reciprocal":
                return 1 / x
            case "rms_norm":
                eps = Fraction(function[3])
                return b.apply("rms_norm", x, axes=(letters.index(function[1]),), values=(eps,))
        return b.apply(function[0], x)

    def made(term: Term) -> tuple[Expression, str]:
        match term[0]:
            case "input":
                return inputs[term[1]], program.inputs[term[1]]
            case "apply":
                x, letters = write(term[2])
                return applied(term[1], x, letters), letters
            case "sum":
                x, letters = write(term[1])
                summed = b.sum(x, *(letters.index(c) for c in term[2]))
                left = "".join(c for c in letters if c not in term[2])
                return b.reshape(summed, *(program.extent(c) for c in left)), left
            case "matmul":
                x, y = write(term[1]), write(term[2])
                over = term[3]
                batch = "".join(sorted(set(x[1]) & set(y[1]) - set(over)))
                rows, columns = ("".join(sorted(set(mine[1]) - set(other[1]))) for mine, other in ((x, y), (y, x)))
                product = spread(x, *batch, rows, over) @ spread(y, *batch, over, columns)
                letters = batch + rows + columns
                return b.reshape(product, *(program.extent(c) for c in letters)), letters
        x, y = write(term[1]), write(term[2])
        letters = "".join(sorted(set(x[1]) | set(y[1])))
        return b.apply(term[0], spread(x, *letters), spread(y, *letters)), letters

    b.output(write(program.body)[0])
    return b.graph()


BOUNDLESS = replace(target(), registers=1 << 40, block_shared_bytes=1 << 60)


def engine(program: Written, most: int) -> set[tuple[str, Term]] | None:
    """Every block graph of one kernel that the engine finds, on a GPU on which everything fits. None where a letter
    stands for dimensions that nothing makes equal: the engine tells them apart."""
    graph = graph_of(program)
    limits = Limits(kernel_ops=1, graph_defined_kernels=1, block_ops=most, shared_bytes=1 << 60)
    names = named(graph, limits)
    made = engines.engine(names, limits, Plan(keep=100_000), BOUNDLESS)
    result = engines.run(made)
    assert result.stop == "exhausted", result.incomplete
    letters = letters_of(program, names)
    if letters is None:
        return None
    places = {known[0]: place for place, known in enumerate(made.input_tensors) if known is not None}
    found = set()
    for (kernel,) in made.graphs():
        values: list[Term] = [("input", places[tensor]) for tensor, _ in kernel.inputs]
        for kind, a, b, function, over in kernel.steps:
            values.append(term_of(kind, values[a], values[b] if b >= 0 else None, function, over, names, letters))
        ((_, stored),) = kernel.outputs
        found.add((letters.get(kernel.walk[0], NONE), values[stored]))
    assert result.unfit == 0, "everything fits"
    assert len(found) == result.graphs, "every implementation is ranked, and none twice"
    return found


def letters_of(program: Written, names: Named) -> dict[int, str] | None:
    letters: dict[int, str] = {}
    for row, dims in zip(names.inputs, program.inputs, strict=True):
        for name, letter in zip(row, dims, strict=True):
            assert letters.setdefault(name, letter) == letter, "one name for a letter"
    return letters if len(set(letters.values())) == len(letters) else None


def term_of(
    kind: str, x: Term, y: Term | None, function: int, over: list[int], names: Named, letters: dict[int, str]
) -> Term:
    summed = "".join(sorted(letters[name] for name in over))
    if y is not None:
        operands = sorted((x, y), key=repr) if kind in COMMUTE else (x, y)
        return (kind, *operands, summed) if kind == "matmul" else (kind, *operands)
    if kind == "apply":
        return ("apply", function_of(names, function, letters), x)
    if kind == "sum":
        return ("sum", x, summed)
    return ("gather", x, summed)


def function_of(names: Named, place: int, letters: dict[int, str]) -> Function:
    made = names.functions[place]
    match made.name:
        case "scale" | "shift":
            return (made.name, str(made.values[0]))
        case "rms_norm":
            mean = f"1/{names.extents[made.base - 1]}"
            return ("rms_norm", letters[made.base], mean, str(made.values[0]))
        case "opaque":
            return (made.operator,)
    return (made.name,)
