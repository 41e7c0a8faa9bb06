"""Right µGraphs verify, and none that is wrong does."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import programs as programs_of
from right_graphs import RIGHT
from wrong_graphs import WRONG, all_mutants, mutants

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Graph, Kernel, Limits, Op
from tilesmith.core.graph_hash import canonical
from tilesmith.core.operators import Misfit
from tilesmith.superopt import programs
from tilesmith.superopt.build import Program
from tilesmith.superopt.evaluate import run
from tilesmith.superopt.field import draw_fields, draw_primes, is_prime
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.numeric import Floats, difference
from tilesmith.superopt.search import search
from tilesmith.superopt.shrink import shrink, views
from tilesmith.superopt.verify import Refuted, Verified, verify


@pytest.mark.parametrize("name", RIGHT)
def test_right_graphs_verify_and_agree_in_floating_point(name: str) -> None:
    candidate, reference = RIGHT[name]()
    verdict = verify(candidate, reference, seed=11)
    assert isinstance(verdict, Verified), verdict
    assert verdict.bound < 1e-30
    assert difference(candidate, reference, seed=12, order=verdict.order) < 1e-9


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_written_by_hand_are_refuted(name: str) -> None:
    candidate, reference = WRONG[name]()
    for seed in range(2):
        assert isinstance(verify(candidate, reference, seed), Refuted)


def test_there_are_enough_near_misses() -> None:
    assert len(WRONG) > 50


def test_no_mutant_that_computes_something_else_verifies() -> None:
    wrong = right = 0
    for number, (name, mutant, reference) in enumerate(all_mutants()):
        if number % 17:
            continue
        verdict = verify(mutant, reference, number, rounds=12)
        order = verdict.order if isinstance(verdict, Verified) else ()
        try:
            same = difference(mutant, reference, number, order) < 1e-9
        except Misfit:
            same = False
        assert isinstance(verdict, Verified) == same, (name, mutant)
        wrong, right = wrong + (not same), right + same
    assert wrong > 25
    assert right > 5


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_every_program_equals_itself_at_small_and_distinct_sizes(name: str) -> None:
    graph = programs.PROGRAMS[name]()
    verdict = verify(graph, graph, seed=5)
    assert isinstance(verdict, Verified)
    assert verdict.bound < 1e-30
    assert all(math.prod(dims) < 2000 for inputs in verdict.sizes for dims in inputs)


def test_the_same_seed_gives_the_same_answer_and_another_other_primes() -> None:
    graph = programs.lora()
    first, again, other = (verify(graph, graph, seed) for seed in (1, 1, 2))
    assert first == again
    assert isinstance(first, Verified)
    assert isinstance(other, Verified)
    assert first.primes != other.primes
    p, q = first.primes
    assert p == 2 * q + 1
    assert q >= 1 << 30


def test_the_bound_comes_from_degrees_primes_and_rounds() -> None:
    graph = programs.lora()
    one, two = (verify(graph, graph, 1, rounds=rounds) for rounds in (1, 2))
    assert isinstance(one, Verified)
    assert isinstance(two, Verified)
    # X·A·B has degree 3.
    assert one.bound == pytest.approx(3 / one.primes[1])
    assert two.bound == pytest.approx(one.bound**2)


def test_a_root_of_a_square_weakens_the_bound() -> None:
    b = Program()
    b.output(b.sqrt(b.square(b.input("x", (1, 1)))))
    graph = b.graph()
    verdict = verify(graph, graph, 1, rounds=16)
    assert isinstance(verdict, Verified)
    assert verdict.bound == pytest.approx(2.0**-16, rel=1e-3)


def test_what_cannot_be_compared_is_said() -> None:
    graph = programs.lora()
    with pytest.raises(OptionError, match="same inputs"):
        verify(graph, programs.gated_mlp(), 1)
    with pytest.raises(OptionError, match="at least one round"):
        verify(graph, graph, 1, rounds=0)


def test_the_witness_is_an_element_that_differs() -> None:
    candidate, reference = WRONG["sum_for_mean"]()
    verdict = verify(candidate, reference, 1)
    assert isinstance(verdict, Refuted)
    assert verdict.witness is not None
    assert verdict.witness.expected != verdict.witness.found
    assert verify(candidate, reference, 1) == verdict


def test_primes_are_prime() -> None:
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]
    # Strong pseudoprimes to the bases 2, 3 and 5.
    assert not any(is_prime(n) for n in (25326001, 161304001, 960946321, 1157839381, 3215031751))
    p, q = draw_primes(random.Random(3))
    assert pow(2, p - 1, p) == pow(2, q - 1, q) == 1
    assert p % 8 == 7


def test_fields_obey_the_axioms() -> None:
    b = Program()
    x, y, z = (b.input(name, (3, 4)) for name in "xyz")
    pairs = (
        (b.exp(x + y), b.exp(x) * b.exp(y)),
        (b.sqrt(x * y), b.sqrt(x) * b.sqrt(y)),
        (x / (y * z), x / y / z),
        (x / y + z / y, (x + z) / y),
        (b.max(x, b.max(y, z)), b.max(b.max(z, x), y)),
        (b.silu(x), x * b.sigmoid(x)),
        (x**-2, 1 / b.square(x)),
        (x**0.5, b.sqrt(x)),
        (b.rsqrt(x), x**-0.5),
        (b.sum(x + y, 0), b.sum(x, 0) + b.sum(y, 0)),
        (b.sum(b.sum(x, 0), 1), b.sum(x, 0, 1)),
        (b.relu(x), b.max(x, 0)),
        (b.clamp(x, -1, 1), b.min(b.max(x, -1), 1)),
        (x - y, x + (-y)),
    )
    b.output(*(side for pair in pairs for side in pair))
    fields = draw_fields(random.Random(1), 8)
    drawn = np.random.default_rng(1)
    made = run(b.graph(), [fields.random(drawn, (3, 4)) for _ in range(3)], fields)
    for left, right in zip(made[::2], made[1::2], strict=True):
        assert np.array_equal(left[0], right[0])


def test_a_running_maximum_gives_the_same_as_the_whole() -> None:
    """Online softmax, executed iteration by iteration, is the softmax; also where exponentials overflow."""
    candidate, _ = RIGHT["gqa_with_online_softmax"]()
    (small,) = shrink((candidate,), random.Random(4))
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal(tensor.dims) * 100 for tensor in small.inputs)
    (made,) = run(small, [(array[None],) for array in (q, k, v)], Floats())
    scores = q @ k / 16
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    assert np.allclose(made[0][0], weights @ v / weights.sum(-1, keepdims=True))


def test_constants_of_means_stay_when_sizes_shrink() -> None:
    (small,) = shrink((programs.rmsnorm_linear(),), random.Random(1))
    assert any(op.values and op.values[0].denominator == 4096 for op in small.nodes)  # type: ignore[union-attr]


@settings(deadline=None)
@given(programs_of(), st.integers(0, 1000))
def test_any_program_equals_itself_in_disguise(graph: Graph, seed: int) -> None:
    verdict = verify(canonical(graph).graph, reordered(graph), seed, rounds=4)
    assert isinstance(verdict, Verified), verdict


def reordered(graph: Graph) -> Graph:
    """The inputs in the order of the canonical form."""
    order = canonical(graph).order
    number = {old: new for new, old in enumerate(order)}

    def moved(value: int) -> int:
        return number.get(value, value)

    nodes = [
        replace(node, operands=tuple(map(moved, node.operands)))
        if isinstance(node, Op)
        else replace(node, loads=tuple(replace(load, source=moved(load.source)) for load in node.loads))
        for node in graph.nodes
    ]
    inputs = tuple(graph.inputs[old] for old in order)
    return Graph(inputs, tuple(nodes), tuple(map(moved, graph.outputs)))


def test_what_cannot_shrink_is_compared_as_it_is_when_small() -> None:
    candidate, reference = WRONG["heads_not_moved_back"]()
    verdict = verify(candidate, reference, 1)
    assert isinstance(verdict, Refuted)
    assert verdict.witness is not None
    b = Program()
    b.output(b.reshape(b.input("x", (3000, 2000)), 2000, 3000))
    large = b.graph()
    c = Program()
    c.output(c.transpose(c.input("x", (3000, 2000))))
    verdict = verify(large, c.graph(), 1)
    assert isinstance(verdict, Refuted)
    assert "cannot be compared at small sizes" in verdict.message


def test_what_the_bound_presupposes_is_said() -> None:
    said = {}
    for name in ("lora", "gqa", "gated_mlp"):
        graph = programs.PROGRAMS[name]()
        verdict = verify(graph, graph, 1)
        assert isinstance(verdict, Verified)
        said[name] = verdict.assumes
    assert said["lora"] == ()
    assert said["gqa"] == ("exponents that differ are independent",)
    assert said["gated_mlp"] == ("functions without algebra are random",)


def test_one_output_answers_one() -> None:
    def pair(first: str, second: str) -> Graph:
        b = Program()
        x = b.input("x", (6, 10))
        b.output(b.apply(first, x), b.apply(second, x))
        return b.graph()

    for twice, once in ((("exp", "exp"), ("silu", "exp")), (("silu", "exp"), ("exp", "exp"))):
        verdict = verify(pair(*once), pair(*twice), 1)
        assert isinstance(verdict, Refuted)
        assert verdict.witness is not None


def test_a_whole_layer_is_compared_kernel_by_kernel_and_no_mutant_of_it_passes() -> None:
    """The cheapest of any number of kernels. With every cut at once its sizes are too large, and say nothing."""
    b = Program()
    x, query, key, value = (
        b.input("x", (2048, 4096)),
        *(b.input(name, (4096, 128)) for name in ("query", "key", "value")),
    )
    output, down = b.input("output", (128, 4096)), b.input("down", (11008, 4096))
    gate, up = b.input("gate", (4096, 11008)), b.input("up", (4096, 11008))
    normed = b.rms_norm(x)
    weights = b.exp((normed @ query) @ b.transpose(normed @ key))
    h = x + ((weights / b.sum(weights, 1)) @ (normed @ value)) @ output
    normed = b.rms_norm(h)
    b.output(h + (b.silu(normed @ gate) * (normed @ up)) @ down)
    layer = b.graph()
    found = search(layer, Limits(inputs=3), Plan(keep=2, kernels="closure", threads=2))
    assert found.verified == 2
    assert found.error_bound < 1e-20
    graph = found.graphs[-1].graph
    verdict = verify(graph, layer, 1)
    assert isinstance(verdict, Verified)
    assert len(verdict.sizes) > 2
    wrong = 0
    for number, mutant in enumerate(mutants(graph)):
        if number % 20:
            continue
        try:
            # Floating point looks at all cuts at once.
            small, wanted = shrink((mutant, layer), random.Random(number))
        except Misfit:
            continue
        same = difference(small, wanted, number, small=False) < 1e-9
        assert isinstance(verify(mutant, layer, number, rounds=12), Verified) == same
        wrong += not same
    assert wrong > 4


def test_roots_that_share_no_input_count_one_by_one() -> None:
    """Else the bound would double, or worse, with every row that was normalised on the way to an output."""
    b = Program()
    inputs = [b.input(f"x{place}", (6, 8)) for place in range(10)]
    total = b.rms_norm(inputs[0])
    for x in inputs[1:]:
        total = total + b.rms_norm(x)
    b.output(total)
    verdict = verify(b.graph(), b.graph(), 1, rounds=36)
    assert isinstance(verdict, Verified)
    # Σ x/s has degree 11 at most over a denominator of degree 10: crosswise 21, times 4 for a root, not for ten.
    assert verdict.bound ** (1 / 36) == pytest.approx(4 * 21 / verdict.primes[1], rel=0.3)
    assert "square of a root" in verdict.assumes[0]


def test_the_root_of_a_constant_bounds_nothing() -> None:
    b = Program()
    x = b.input("x", (4, 6))
    b.output(b.sqrt(b.constant(2)) * x)
    verdict = verify(b.graph(), b.graph(), 1)
    assert isinstance(verdict, Verified)
    assert verdict.bound == 1


@pytest.mark.parametrize("inner", [1, 31, 32, 33, 100])
def test_products_of_matrices_of_residues_are_exact(inner: int) -> None:
    fields = draw_fields(random.Random(inner), 3)
    top = np.uint64(fields.p - 1)
    rng = np.random.default_rng(inner)
    x, y = fields.random(rng, (4, inner)), fields.random(rng, (inner, 5))
    # The largest there are, too.
    x[0][0], y[0][0] = top, top
    made = fields.matmul(x, y)
    for plane, left, right, prime in zip(made, x, y, (fields.p, fields.q), strict=True):
        exact = left.astype(object) @ right.astype(object) % prime
        assert np.array_equal(plane, exact.astype(np.uint64))


def test_many_kernels_are_cut_a_few_at_a_time() -> None:
    b = Program()
    x, w = b.input("x", (256, 256)), b.input("w", (256, 256))
    for parts in (2, 4, 8, 16, 32, 64, 128):
        k = b.kernel((parts,))
        x = k.store((k.load(x, (0,)) @ k.load(w, (None,)), (0,)))[0]
    b.output(x)
    candidate = b.graph()
    r = Program()
    y, w = r.input("x", (256, 256)), r.input("w", (256, 256))
    for _ in range(7):
        y = y @ w
    r.output(y)
    pairs = views((candidate, r.graph()), 1)
    assert len(pairs) > 1
    cut = set()
    for small, _ in pairs:
        assert math.prod(small.inputs[0].dims) < 200
        kernels = [node for node in small.nodes if isinstance(node, Kernel)]
        cut |= {place for place, kernel in enumerate(kernels) if kernel.grid[0] > 1}
    assert len(cut) == 7
    assert isinstance(verify(candidate, r.graph(), 1), Verified)
