"""Names for dimensions: what the engine is told of a program."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Kernel, Limits
from tilesmith.core.graph_check import check, shared_bytes, tensors
from tilesmith.superopt import engine as engines
from tilesmith.superopt.build import Expression, Program
from tilesmith.superopt.engine_lower import lower
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.numeric import difference
from tilesmith.superopt.programs import PROGRAMS, transformer_layer
from tilesmith.superopt.table import IN_BLOCK, IN_GRID, IN_LOOP, Named, named

ONE = Limits(kernel_ops=1, graph_defined_kernels=1)
TWO = Limits(kernel_ops=2, graph_defined_kernels=2)


def graphs(program: Graph, limits: Limits, keep: int) -> list[Graph]:
    """What the engine finds, not yet verified."""
    plan = Plan(keep=keep, seconds=5)
    names = named(program, limits)
    made = engines.engine(names, limits, plan, target())
    engines.run(made)
    return [lower(names, made, kernels) for kernels in made.graphs()]


def functions(program: Named) -> list[tuple[str, tuple[Fraction, ...]]]:
    return [(f.operator, f.values) for f in program.functions]


def test_dimensions_that_run_together_have_one_name() -> None:
    b = Program()
    x, w, v = b.input("x", (8, 128)), b.input("w", (128, 128)), b.input("v", (128, 64))
    b.output((x @ w + x) @ v)
    program = named(b.graph(), ONE)
    # x + x @ w makes the rows and the columns of w one dimension, which w has twice: its second is another name of it.
    assert program.inputs[0] == (1, 2)
    assert program.inputs[1][0] == 2
    assert program.inputs[1][1] != 2
    assert program.inputs[2][0] == 2
    assert set(program.aliases) == {(2, program.inputs[1][1]), (program.inputs[1][1], 2)}


def test_heads_are_two_factors_of_one_dimension() -> None:
    program = named(transformer_layer(), ONE)
    extents = {name: [program.extent(n) for n in names] for name, names in zip(
        (t.name for t in program.graph.inputs), program.inputs, strict=True)}  # fmt: skip
    assert extents["x"] == [256, 512]
    assert extents["query"] == [512, 8, 64]
    assert extents["output"] == [8, 64, 512]
    # Tokens as queries and as keys.
    assert len(program.aliases) == 2


def test_extents_of_one_have_no_name() -> None:
    b = Program()
    x, y = b.input("x", (1, 64)), b.input("y", (1, 1))
    b.output(x * y)
    program = named(b.graph(), ONE)
    assert program.inputs == ((1,), ())


def test_only_long_sums_are_looped_and_split() -> None:
    b = Program()
    x, w, v = b.input("x", (8, 4096)), b.input("w", (4096, 64)), b.input("v", (64, 32))
    b.output((x @ w) @ v)
    assert named(b.graph(), ONE).parts == (IN_BLOCK, IN_BLOCK | IN_LOOP, IN_BLOCK, IN_BLOCK)
    assert named(b.graph(), TWO).parts == (IN_BLOCK, IN_BLOCK | IN_LOOP | IN_GRID, IN_BLOCK, IN_BLOCK)


def test_constants_are_exact_and_folded() -> None:
    b = Program()
    x = b.input("x", (64, 32))
    third = b.constant(1) / 3
    b.output(b.relu((x / 16 + 1e-5) * (third + third) - 0))
    assert functions(named(b.graph(), ONE)) == [
        ("mul", (Fraction(1, 16),)), ("add", (Fraction(1, 100000),)), ("mul", (Fraction(2, 3),)), ("relu", ()),
    ]  # fmt: skip


def test_powers_are_what_they_are_called() -> None:
    b = Program()
    x = b.input("x", (64, 32))
    b.output(x**2, x**0.5, x**-0.5, x**-1, x**3)
    assert [f.name for f in named(b.graph(), ONE).functions] == ["square", "sqrt", "rsqrt", "reciprocal", "opaque"]


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda b, x: b.reshape(x, 6, 8) @ b.reshape(x, 8, 6), "without a common factor"),
        (lambda _, x: x / 0, "divides by zero"),
        (lambda b, x: b.sum(b.expand(b.sum(x, 1), 12, 7), 1), "expand"),
        (lambda b, _: b.constant(2) + 3, "output 0 is a constant"),
    ],
)
def test_what_has_no_names_is_refused(write, says) -> None:  # type: ignore[no-untyped-def]
    b = Program()
    x = b.input("x", (12, 4))
    b.output(write(b, x))
    with pytest.raises(OptionError, match=says):
        named(b.graph(), ONE)


def test_kernels_are_no_start() -> None:
    found = graphs(PROGRAMS["lora"](), ONE, keep=1)
    with pytest.raises(OptionError, match="a search starts from operators"):
        named(found[0], ONE)


@pytest.mark.parametrize("name", ["rmsnorm_linear", "gqa", "lora"])
def test_shared_memory_is_what_the_checker_counts(name: str) -> None:
    program = PROGRAMS[name]()
    plan = Plan(keep=40)
    names = named(program, TWO)
    made = engines.engine(names, TWO, plan, target())
    engines.run(made)
    for kernels in made.graphs():
        graph = lower(names, made, kernels)
        values = tensors(graph)
        nodes = [node for node in graph.nodes if isinstance(node, Kernel)]
        assert [shared_bytes(node, values) for node in nodes] == [int(kernel.shared_bytes) for kernel in kernels]


def random_program(seed: int) -> Graph:
    """A few operators on a few matrices, with contractions, residuals, transposes and sums."""
    rng = random.Random(seed)
    b = Program()
    lengths = [rng.choice((64, 128, 256)) for _ in range(3)]
    values = [b.input(name, (rng.choice(lengths), rng.choice(lengths))) for name in "xyz"[: rng.choice((1, 2, 3))]]
    for _ in range(rng.choice((2, 3, 4, 5))):
        x, y = rng.choice(values), rng.choice(values)
        choices: list[Callable[[Expression, Expression], Expression]] = [
            lambda x, _: b.relu(x), lambda x, _: b.square(x), lambda x, _: b.silu(x), lambda x, _: b.sum(x, 1),
            lambda x, _: x * 0.5, lambda x, _: x + 2, lambda x, _: b.exp(x),
        ]  # fmt: skip
        if x.dims[1] == y.dims[0] and 1 not in (*x.dims, *y.dims):
            choices += [lambda x, y: x @ y] * 4
        if x.dims[1] == y.dims[1] and 1 not in (*x.dims, *y.dims):
            choices += [lambda x, y: x @ b.transpose(y)] * 3
        if all(1 in (p, q) or p == q for p, q in zip(x.dims, y.dims, strict=True)):
            choices += [lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x - y]
        values.append(rng.choice(choices)(x, y))
    b.output(values[-1])
    return b.graph()


@given(st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_random_programs_are_searched_and_right(seed: int) -> None:
    program = random_program(seed)
    try:
        found = graphs(program, Limits(kernel_ops=2, graph_defined_kernels=2, block_ops=8), keep=3)
    except OptionError:
        return
    for graph in found:
        assert check(graph) == ()
        assert difference(graph, program, seed=seed % 1000) < 1e-9
