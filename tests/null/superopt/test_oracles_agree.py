"""The table never prunes what an oracle accepts: z3, an e-graph, or an axiom after another at random."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tilesmith.superopt.oracle_pairs import degree_target, label_target, pairs
from tilesmith.superopt.oracles import (
    Expression,
    Saturated,
    Solver,
    Table,
    Target,
    apply,
    divisors,
    label,
    total,
    value,
)

A, B, C = (value(place) for place in range(3))
LOOPED = (4, 16, 64)
WIDTHS = (3072, 4096, 6144, 11008, 14336)
"""Of weights; but for 4096 none is a power of two."""


@pytest.mark.parametrize("write", [degree_target, label_target])
@pytest.mark.parametrize("seed", range(25))
def test_the_table_knows_what_axioms_and_the_e_graph_know(write: Callable[..., Target], seed: int) -> None:
    rng = random.Random(seed)
    target = write(rng)
    table, graph = Table(target), Saturated(target, rounds=10, nodes=3000)
    assert table.incomplete == ""
    decided = 0
    for pair in pairs(target, rng, 16):
        accepted = graph.accepts(pair.expression)
        decided += accepted is not None
        if pair.part or accepted:
            assert table.accepts(pair.expression), f"{pair.expression} is part of {target.expression}"
    assert decided > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_table_knows_what_z3_proves(seed: int) -> None:
    rng = random.Random(1000 + seed)
    target = degree_target(rng)
    table, solver = Table(target), Solver(target, effort=10_000)
    proved = 0
    for pair in pairs(target, rng, 8):
        if solver.accepts(pair.expression):
            proved += 1
            assert table.accepts(pair.expression), f"{pair.expression} is part of {target.expression}"
    assert proved > 0


def test_most_of_what_is_joined_at_random_is_pruned() -> None:
    pruned = accepted = 0
    for seed in range(40):
        rng = random.Random(seed)
        target = degree_target(rng)
        table = Table(target)
        verdicts = [table.accepts(pair.expression) for pair in pairs(target, rng, 16) if not pair.part]
        pruned += verdicts.count(False)
        accepted += verdicts.count(True)
    assert pruned > 4 * accepted > 0


@pytest.mark.parametrize("width", WIDTHS)
def test_a_product_loops_over_any_width(width: int) -> None:
    """By 4, 16 and 64, with every factor of what is left in the block, in either order."""
    target = Target(total(width, A * B), 2)
    table, graph = Table(target), Saturated(target)
    assert graph.saturated
    for loop in LOOPED:
        for inside in divisors((width // loop,)):
            accumulated = total(loop, total(inside, A * B) if inside > 1 else A * B)
            for x in (accumulated, total(loop, A) * B, total(inside, total(loop, B)) * A if inside > 1 else A):
                assert table.accepts(x)
                assert graph.accepts(x)
    foreign = next(prime for prime in (5, 11, 13) if width % prime)
    for x in (total(foreign, A * B), total(width, total(2, A)), total(2 * width, A * B), A * A):
        assert not table.accepts(x)
        assert not graph.accepts(x)


@pytest.mark.parametrize("width", [3072, 6144, 11008, 14336])
def test_z3_proves_that_loops_are_parts_of_any_width(width: int) -> None:
    target = Target(total(width, A * B), 2)
    solver = Solver(target)
    for loop in LOOPED:
        assert solver.accepts(total(loop, total(width // loop, A * B)))
    assert solver.accepts(total(5 if width % 5 else 7, A * B)) is not True


@pytest.mark.parametrize("oracle", [Table, Saturated, Solver])
def test_three_factors_in_any_order(oracle: Callable[[Target], Table | Saturated | Solver]) -> None:
    """A·(B·C) and (A·B)·C, which the published order of operators does not both find."""
    target = Target(total(256, A * total(64, B * C)), 3)
    asked = oracle(target)
    for x in (total(64, B * C), A * total(64, B * C), total(256, A * B), total(64, total(256, A * B) * C)):
        assert asked.accepts(x)
    assert not asked.accepts(A * C + B)


def test_a_label_is_not_a_degree() -> None:
    """Two dimensions of one extent: a sum over the wrong one is as long."""
    m, k, n = 1, 2, 3
    inside, loop = label(k, 1), label(k, 2)
    target = Target(total(loop, total(inside, A * B)), 2, ((m, k), (k, n)), frozenset({k}))
    table, graph = Table(target), Saturated(target)
    for x in (total(inside, A * B), total(loop, A * B), total(inside, total(loop, A * B))):
        assert table.accepts(x)
        assert graph.accepts(x)
    for x in (total(inside, A), total(label(m, 1), A * B), total(inside, A) * B):
        assert not table.accepts(x)
        assert not graph.accepts(x)
    by_degree = Table(Target(total(64, A * B), 2))
    assert by_degree.accepts(total(64, A) * B)


def test_what_a_sum_does_not_see_moves_out() -> None:
    m, k = 1, 2
    inside, loop = label(k, 1), label(k, 2)
    weighted = total(loop, total(inside, (A * B) / C))
    target = Target(weighted, 3, ((m, k), (k,), (m,)), frozenset({k}))
    table, graph = Table(target), Saturated(target)
    after = total(loop, total(inside, A * B)) / C
    assert table.accepts(after)
    assert graph.accepts(after)


def test_functions_have_their_axioms_and_others_none() -> None:
    target = Target(apply("exp", A + B) * apply("f0", C), 3)
    table, graph = Table(target), Saturated(target)
    for x in (apply("exp", A) * apply("exp", B), A + B, apply("f0", C)):
        assert table.accepts(x)
        assert graph.accepts(x)
    for x in (apply("f0", A), apply("f1", C), apply("exp", C)):
        assert not table.accepts(x)
        assert not graph.accepts(x)


def test_an_expression_is_readable() -> None:
    x: Expression = total(64, A * apply("exp", B)) / C
    assert str(x) == "div(sum[64](mul(v0, exp(v1))), v2)"
    assert x.size() == 7
