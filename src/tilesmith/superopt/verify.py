"""Is a µGraph the same program as another? Random evaluation at small sizes over two coupled prime fields.

A right program is accepted (within what the axioms know: see `field`), a wrong one with a probability below `bound`.
docs/ugraphs.md derives the bound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Dims, Graph
from tilesmith.core.operators import Misfit
from tilesmith.superopt.degree import chance
from tilesmith.superopt.evaluate import Planes, run
from tilesmith.superopt.field import draw_fields, number_radicands
from tilesmith.superopt.shrink import views

ROUNDS = 64
"""At a time."""
ENOUGH = 1e-30
"""Rounds go on until the bound is below this."""
MOST_ROUNDS = 512
HOPELESS = 0.99
"""A bound above this says nothing, and more rounds do not help."""
LEAST = 1e-300
"""No bound below this is stated: floating-point numbers end there."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The two agree. Output i of the reference is output `order[i]` of the candidate."""

    bound: float
    """The most probable that a wrong candidate gets here."""
    order: tuple[int, ...]
    seed: int
    rounds: int
    primes: tuple[int, int]
    sizes: tuple[tuple[Dims, ...], ...]
    """The extents of the inputs at which they were compared, one choice or several."""
    assumes: tuple[str, ...]
    """What the bound presupposes, in clauses."""


@dataclass(frozen=True, slots=True)
class Witness:
    """One element that differs, mod p, at the small sizes."""

    round: int
    output: int
    """The reference's."""
    index: tuple[int, ...]
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Refuted:
    """They differ, or cannot be compared: the message says which."""

    message: str
    seed: int
    witness: Witness | None = None


def verify(candidate: Graph, reference: Graph, seed: int, rounds: int | None = None) -> Verified | Refuted:
    """Whether two graphs of the same inputs compute the same outputs, in any order.

    In so many rounds, or without a number in as many as it takes to be sure. The same seed gives the same answer.
    Raises `OptionError` for a malformed graph, other inputs, or no rounds.
    """
    if rounds is not None and rounds < 1:
        raise OptionError(f"Verification takes at least one round, not {rounds}.")
    if [(t.dims, t.dtype) for t in candidate.inputs] != [(t.dims, t.dtype) for t in reference.inputs]:
        raise OptionError("The two graphs do not have the same inputs, so that they cannot be compared.")
    if len(candidate.outputs) != len(reference.outputs):
        return Refuted(f"it has {len(candidate.outputs)} outputs, not {len(reference.outputs)}", seed)
    rng = random.Random(seed)
    try:
        pairs = views((candidate, reference), seed)
    except Misfit as reason:
        return Refuted(f"the two cannot be compared at small sizes: {reason}", seed)
    compared: list[Verified] = []
    for small, wanted in pairs:
        verdict = _compared(small, wanted, seed, rng, rounds) if rounds else _sure(small, wanted, seed, rng)
        if isinstance(verdict, Refuted):
            return verdict
        if compared and verdict.order != compared[0].order:
            return Refuted("which output answers which depends on the sizes", seed)
        compared.append(verdict)
    # Wrong is what differs at one of the sizes, whichever that is.
    worst = max(compared, key=lambda each: each.bound)
    sizes = tuple(size for each in compared for size in each.sizes)
    return replace(worst, sizes=sizes, assumes=tuple(dict.fromkeys(c for each in compared for c in each.assumes)))


def _sure(small: Graph, wanted: Graph, seed: int, rng: random.Random) -> Verified | Refuted:
    """At one choice of sizes, until the bound is low."""
    bound, rounds = 1.0, 0
    while True:
        # In other fields and of other inputs each time: what passed once is as unlikely to pass again.
        verdict = _compared(small, wanted, seed, rng, ROUNDS)
        if isinstance(verdict, Refuted):
            return verdict
        bound, rounds = max(LEAST, bound * verdict.bound), rounds + ROUNDS
        if bound < ENOUGH or verdict.bound > HOPELESS or rounds >= MOST_ROUNDS:
            return replace(verdict, bound=bound, rounds=rounds)


def _compared(small: Graph, wanted: Graph, seed: int, rng: random.Random, rounds: int) -> Verified | Refuted:
    """At one choice of sizes."""
    fields = draw_fields(rng, rounds)
    drawn = np.random.default_rng(rng.getrandbits(64))
    inputs = [fields.random(drawn, tensor.dims) for tensor in wanted.inputs]
    expected = run(wanted, inputs, fields)
    taken = len(fields.radicands)
    found = run(small, inputs, fields)
    order: list[int] = []
    for place, value in enumerate(expected):
        equal = (i for i, other in enumerate(found) if i not in order and _same(value, other))
        match = next(equal, None)
        if match is None:
            left = [other for i, other in enumerate(found) if i not in order]
            return _refuted(place, value, left, seed)
        order.append(match)
    numbers, relations = number_radicands(fields)
    missed = chance(small, wanted, order, (numbers[taken:], numbers[:taken]), fields.q)
    bound = max(LEAST, (1 - math.ldexp(1 - missed.probability, -relations)) ** rounds)
    dims = tuple(tensor.dims for tensor in wanted.inputs)
    return Verified(bound, tuple(order), seed, rounds, (fields.p, fields.q), (dims,), missed.assumes)


def _same(left: Planes, right: Planes) -> bool:
    return left[0].shape[1:] == right[0].shape[1:] and bool(np.all(left[0] == right[0]))


def _refuted(place: int, value: Planes, found: Sequence[Planes], seed: int) -> Refuted:
    """The first difference from the first output of the same shape among those that answer no other."""
    shaped = [planes for planes in found if planes[0].shape[1:] == value[0].shape[1:]]
    if not shaped:
        return Refuted(f"no output has the extents {list(value[0].shape[1:])} of output {place}", seed)
    left, right = np.broadcast_arrays(value[0], shaped[0][0])
    where = tuple(int(i) for i in np.argwhere(left != right)[0])
    witness = Witness(where[0], place, where[1:], int(left[where]), int(right[where]))
    return Refuted(f"output {place} differs at {list(where[1:])}", seed, witness)
