"""Values as numbers: what brute force knows of a tile instead of a class.

A value is an array of residues over every part of every dimension that it depends on, for all blocks and iterations at
once. Two values are the same when their numbers are. No normal form is involved, and nothing of the engine.

FIELD divides as numbers do. FREE obeys the stated axioms and no more: its inverse is a power of the number, which is
multiplicative but cancels nothing (x times the inverse of x is not 1), its root another power. Its numbers are triples,
which the inverse turns round, so that it does not commute with the root; and minus one is 1 in one of them, so that its
square is 1 but x - x is not 0. What is equal in FIELD and differs in FREE needs more than the axioms.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Q = 1073740571
P = 2 * Q + 1
"""Two primes; the second has a subgroup of the order of the first, in which exponentials live."""
ROUNDS = 2

Array = NDArray[np.uint64]
Label = tuple[str, str]
"""A dimension's letter and one of its parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    labels: frozenset[Label]
    outside: Array
    """Residues mod P: [planes, rounds, one axis for every label of the program, 1 where the value lacks it]."""
    inside: Array | None
    """Residues mod Q, where an exponential would look; None beneath an exponential."""


@dataclass(frozen=True, slots=True)
class Algebra:
    """For each plane: the powers, mod P and mod Q, that are inverse and root, and what minus one is, 1 or -1."""

    inverse: tuple[tuple[int, int], ...]
    root: tuple[tuple[int, int], ...]
    signs: tuple[int, ...]
    exchanges: bool
    """Whether the inverse moves every plane to the next, too."""


FIELD = Algebra(((P - 2, Q - 2),), (((P + 1) // 4, (Q + 1) // 4),), (-1,), exchanges=False)
FREE = Algebra(((97, 101), (89, 83), (79, 59)), ((61, 67), (71, 73), (53, 47)), (-1, 1, -1), exchanges=True)


def power(x: Array, exponent: int, modulus: int) -> Array:
    made = np.ones_like(x)
    while exponent:
        if exponent & 1:
            made = made * x % np.uint64(modulus)
        x = x * x % np.uint64(modulus)
        exponent >>= 1
    return made


def scattered(x: Array, salt: int) -> Array:
    """A random function of the residue."""
    z = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 2 + 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


@dataclass(slots=True)
class Numbers:
    """Values of one program over one algebra. `labels` are all that there are, each with its own small extent."""

    labels: Sequence[Label]
    algebra: Algebra
    seed: int
    _axes: dict[Label, int] = field(init=False)
    _inverses: dict[Value, Value] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._axes = {label: place for place, label in enumerate(self.labels, 2)}

    def extent(self, label: Label) -> int:
        """Pairwise different, so that a number of terms never tells one sum for another."""
        return self._axes[label]

    def draw(self, labels: frozenset[Label], name: str) -> Value:
        """A random tensor; the same for the same name."""
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        dims = [self.extent(label) if label in labels else 1 for label in self.labels]
        shape = (len(self.algebra.signs), ROUNDS, *dims)
        drawn = [rng.integers(1, m, shape, dtype=np.uint64) for m in (P, Q)]
        return Value(labels, drawn[0], drawn[1])

    def constant(self, name: str) -> Value:
        """A symbol without dimensions: what its digits are is unknown to the axioms."""
        return self.draw(frozenset(), f"constant {name}")

    def add(self, x: Value, y: Value) -> Value:
        return self._both(x, y, lambda a, b, m: (a + b) % m)

    def mul(self, x: Value, y: Value) -> Value:
        return self._both(x, y, lambda a, b, m: a * b % m)

    def sub(self, x: Value, y: Value) -> Value:
        signs = np.array(self.algebra.signs).reshape(-1, *(1,) * (len(self.labels) + 1))

        def join(a: Array, b: Array, m: np.uint64) -> Array:
            return (a + np.where(signs < 0, m - b, b)) % m

        return self._both(x, y, join)

    def div(self, x: Value, y: Value) -> Value:
        return self.mul(x, self.inverse(y))

    def inverse(self, x: Value) -> Value:
        if x not in self._inverses:
            made = self._power(x, self.algebra.inverse)
            if self.algebra.exchanges:
                inside = None if made.inside is None else np.roll(made.inside, 1, axis=0)
                made = Value(x.labels, np.roll(made.outside, 1, axis=0), inside)
            self._inverses[x] = made
        return self._inverses[x]

    def sqrt(self, x: Value) -> Value:
        return self._power(x, self.algebra.root)

    def exp(self, x: Value) -> Value | None:
        """None beneath another exponential: there may be one at most on any way."""
        if x.inside is None:
            return None
        bits = x.inside
        # 9 is a square, and so of order Q.
        made, base = np.ones_like(bits), np.uint64(9)
        for _ in range(Q.bit_length()):
            made = np.where(bits & np.uint64(1), made * base % np.uint64(P), made)
            base = base * base % np.uint64(P)
            bits = bits >> np.uint64(1)
        return Value(x.labels, made, None)

    def opaque(self, name: str, x: Value) -> Value:
        made = scattered(x.outside, zlib.crc32(name.encode()))
        inside = None if x.inside is None else scattered(made, 1) % np.uint64(Q)
        return Value(x.labels, made % np.uint64(P), inside)

    def sum(self, x: Value, labels: frozenset[Label]) -> Value:
        axes = tuple(self._axes[label] for label in sorted(labels))
        outside = x.outside.sum(axes, dtype=np.uint64, keepdims=True) % np.uint64(P)
        inside = None if x.inside is None else x.inside.sum(axes, dtype=np.uint64, keepdims=True) % np.uint64(Q)
        return Value(x.labels - labels, outside, inside)

    def same(self, x: Value, y: Value) -> bool:
        return x.labels == y.labels and np.array_equal(x.outside, y.outside)

    def key(self, x: Value) -> tuple[frozenset[Label], bytes]:
        """Equal for equal values and, but for chance, for no others."""
        return x.labels, hashlib.blake2b(x.outside.tobytes(), digest_size=16).digest()

    def _both(self, x: Value, y: Value, join) -> Value:  # type: ignore[no-untyped-def]
        outside = join(x.outside, y.outside, np.uint64(P))
        hidden = x.inside is None or y.inside is None
        return Value(x.labels | y.labels, outside, None if hidden else join(x.inside, y.inside, np.uint64(Q)))

    def _power(self, x: Value, exponents: tuple[tuple[int, int], ...]) -> Value:
        def planes(residues: Array, half: int, modulus: int) -> Array:
            return np.stack([power(r, e[half], modulus) for r, e in zip(residues, exponents, strict=True)])

        return Value(x.labels, planes(x.outside, 0, P), None if x.inside is None else planes(x.inside, 1, Q))
