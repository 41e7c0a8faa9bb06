"""µGraphs over two prime fields at once, coupled so that exponentials make sense.

A number is a pair of residues (a mod p, b mod q) with p = 2q + 1, both prime, q at least 31 bits long. The sum of pairs
and so on is that of the residues. exp(a, b) = (ω^b mod p, ·) for a random ω of order q, so that exp(x + y) =
exp(x) exp(y). Its second residue, where a further exponential would look, is a random function of the first.

Other functions are random functions of the residue mod p, the same one for the whole run, except that
- sqrt(a) = a^((p + 1) / 4): it multiplies, sqrt(xy) = sqrt(x) sqrt(y), and its square is x or -x. A field has no sign:
  a program right but for the sign of a root is found out only with probability 1/2 a round, so there are many rounds;
- x · sigmoid(x) is silu(x), and integer and half-integer powers are products and roots;
- max(x, y) is the one that comes later in a random order of the residues: max(x, x) = x, max is associative, and
  relu, clamp and reductions are made of it.

The source of the coupled fields is the paper by Wu et al., "A Multi-Level Superoptimizer for Tensor Programs" (2024),
section 5, which uses p = 227 and q = 113.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tilesmith.core.graph import Op
from tilesmith.superopt.evaluate import Array, Planes

_WITNESSES = (2, 3, 5, 7, 11)
"""Enough for every number below 2,152,302,898,747 (Jaeschke 1993)."""


def is_prime(n: int) -> bool:
    """Whether n < 2³² is prime: Miller and Rabin's test with bases that are known to suffice."""
    if n < 12:
        return n in (2, 3, 5, 7, 11)
    if any(n % small == 0 for small in (2, 3, 5, 7, 11)):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in _WITNESSES:
        power = pow(base, odd, n)
        if power not in (1, n - 1) and all((power := power * power % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def draw_primes(rng: random.Random) -> tuple[int, int]:
    """(p, q): p = 2q + 1, both prime, q ≡ 3 mod 4, q of 31 bits and p of 32."""
    while True:
        q = rng.randrange((1 << 30) + 3, (1 << 31) - 1, 4)
        if q % 4 == 3 and is_prime(q) and is_prime(2 * q + 1):
            return 2 * q + 1, q


def _mixed(x: Array, key: int) -> Array:
    """A random function of 64-bit words: two rounds of the finalizer of MurmurHash3 under a key."""
    made = x ^ np.uint64(key)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x9E3779B97F4A7C15):
        made = (made ^ (made >> np.uint64(33))) * np.uint64(factor)
    return made ^ (made >> np.uint64(29))


@dataclass(frozen=True, slots=True)
class Fields:
    """The algebra of one run: its primes, and for every round a root of unity."""

    p: int
    q: int
    omega: Array
    """(rounds,), each of order q mod p."""
    key: int
    """What makes the random functions this run's own."""
    radicands: list[Array] = field(default_factory=list)
    """What roots were taken of, mod p, collected while it runs."""

    def random(self, rng: np.random.Generator, dims: tuple[int, ...]) -> Planes:
        """Uniform residues for a tensor, other ones in every round."""
        shape = (len(self.omega), *dims)
        return tuple(rng.integers(0, prime, shape, dtype=np.uint64) for prime in (self.p, self.q))

    def constant(self, number: Fraction) -> Planes:
        residues = (number.numerator * pow(number.denominator, -1, prime) % prime for prime in (self.p, self.q))
        return tuple(np.array([residue], dtype=np.uint64) for residue in residues)

    def binary(self, operator: str, x: Planes, y: Planes) -> Planes:
        if operator in ("max", "min"):
            return self._chosen(operator == "max", x, y)
        if operator == "div":
            return tuple(a * _inverse(b, prime) % prime for a, b, prime in self._pairs(x, y))
        if operator == "add":
            return tuple((a + b) % prime for a, b, prime in self._pairs(x, y))
        if operator == "sub":
            return tuple((a + (prime - b)) % prime for a, b, prime in self._pairs(x, y))
        return tuple(a * b % prime for a, b, prime in self._pairs(x, y))

    def unary(self, op: Op, x: Planes) -> Planes:
        match op.operator:
            case "cast":
                return x
            case "square":
                return self.binary("mul", x, x)
            case "exp":
                return self._exp(x)
            case "sqrt":
                return self._sqrt(x)
            case "rsqrt":
                return self.binary("div", self.constant_like(Fraction(1), x), self._sqrt(x))
            case "relu":
                return self.binary("max", x, self.constant_like(Fraction(0), x))
            case "clamp":
                low, high = (self.constant_like(number, x) for number in op.values)
                return self.binary("min", self.binary("max", x, low), high)
            case "silu":
                return self.binary("mul", x, self._function("sigmoid", x))
            case "pow":
                return self._pow(op.values[0], x)
            case name:
                return self._function(name, x)

    def matmul(self, x: Planes, y: Planes) -> Planes:
        return tuple(_product(a, b, prime) for a, b, prime in self._pairs(x, y))

    def reduce(self, operator: str, x: Planes, axes: tuple[int, ...]) -> Planes:
        if operator == "sum":
            # Fewer than 2³² residues below 2³² never overflow 64 bits.
            totals = [np.asarray(np.sum(plane, axes, keepdims=True, dtype=np.uint64)) for plane in x]
            return tuple(total % np.uint64(prime) for total, prime in zip(totals, (self.p, self.q), strict=True))
        for axis in axes:
            last = _mixed(x[0], self.key).argmax(axis, keepdims=True)
            x = tuple(np.take_along_axis(plane, last, axis) for plane in x)
        return x

    def constant_like(self, number: Fraction, x: Planes) -> Planes:
        return tuple(plane.reshape((1,) * x[0].ndim) for plane in self.constant(number))

    def _pairs(self, x: Planes, y: Planes) -> list[tuple[Array, Array, np.uint64]]:
        return [(a, b, np.uint64(prime)) for a, b, prime in zip(x, y, (self.p, self.q), strict=True)]

    def _chosen(self, larger: bool, x: Planes, y: Planes) -> Planes:
        first, second = _mixed(x[0], self.key), _mixed(y[0], self.key)
        keep = first >= second if larger else first <= second
        return tuple(np.where(keep, a, b) for a, b in zip(x, y, strict=True))

    def _exp(self, x: Planes) -> Planes:
        base = self.omega.reshape((-1,) + (1,) * (x[1].ndim - 1))
        made = _power(base, x[1], self.p)
        return made, self._function("exp", (made, x[1]))[1]

    def _sqrt(self, x: Planes) -> Planes:
        self.radicands.append(x[0])
        return tuple(_power(plane, (prime + 1) // 4, prime) for plane, prime in zip(x, (self.p, self.q), strict=True))

    def _pow(self, exponent: Fraction, x: Planes) -> Planes:
        if exponent.denominator > 2 or abs(exponent) > 64:
            return self._function(f"pow {exponent}", x)
        base = x if exponent.denominator == 1 else self._sqrt(x)
        primes = (self.p, self.q)
        made = tuple(_power(plane, abs(exponent.numerator), prime) for plane, prime in zip(base, primes, strict=True))
        return made if exponent >= 0 else self.binary("div", self.constant_like(Fraction(1), x), made)

    def _function(self, name: str, x: Planes) -> Planes:
        key = random.Random(f"{self.key} {name}").getrandbits(64)
        word = _mixed(x[0], key)
        return word % np.uint64(self.p), _mixed(word, key) % np.uint64(self.q)


def number_radicands(fields: Fields) -> tuple[list[Array], int]:
    """A number for every radicand so far, equal ones alike, and how many sign relations hold among them at most.

    A relation is a product of radicands that is a square in every round, or in none: the root of a square y² is |y|
    over the reals, y or -y by chance over a field.
    """
    rounds = len(fields.omega)
    numbers: dict[bytes, int] = {}
    signs: list[int] = []
    numbered = []
    for plane in fields.radicands:
        flat = np.broadcast_to(plane, (rounds, *plane.shape[1:])).reshape(rounds, -1)
        squares = _power(flat, (fields.p - 1) // 2, fields.p) <= 1
        made = []
        for values, square in zip(flat.T, squares.T, strict=True):
            number = numbers.setdefault(values.tobytes(), len(numbers))
            if number == len(signs):
                signs.append(sum(1 << i for i, is_square in enumerate(square) if not is_square))
            made.append(number)
        numbered.append(np.array(made).reshape(1, *plane.shape[1:]))
    return numbered, len(signs) - (_rank([*signs, (1 << rounds) - 1]) - 1)


def _rank(rows: Iterable[int]) -> int:
    """Of rows of bits, over the field of two elements."""
    pivots: dict[int, int] = {}
    for row in rows:
        rest = row
        while rest and (top := rest.bit_length()) in pivots:
            rest ^= pivots[top]
        if rest:
            pivots[rest.bit_length()] = rest
    return len(pivots)


def draw_fields(rng: random.Random, rounds: int) -> Fields:
    """Fresh primes, roots of unity and random functions."""
    p, q = draw_primes(rng)
    # p - 1 = 2q: squares have order q, except 1.
    omega = [pow(rng.randrange(2, p - 1), 2, p) for _ in range(rounds)]
    return Fields(p, q, np.array(omega, dtype=np.uint64), rng.getrandbits(64))


def _product(x: Array, y: Array, prime: np.uint64) -> Array:
    """The product of matrices mod a prime below 2³², by that of floating-point ones.

    x is h·2¹⁶ + l, and the products of h and l with y are below 2⁴⁸: sums of 32 of them are exact in float64.
    """
    high, low, wide = ((part.astype(np.float64)) for part in (x >> np.uint64(16), x & np.uint64(0xFFFF), y))
    total: Array = np.zeros((), dtype=np.uint64)
    for k in range(0, x.shape[-1], 32):
        some = (..., slice(k, k + 32))
        rows = wide[..., k : k + 32, :]
        made = [(part[some] @ rows).astype(np.uint64) % prime for part in (high, low)]
        total = (total + (made[0] << np.uint64(16)) + made[1]) % prime
    return total


def _power(base: Array, exponent: Array | int, prime: int) -> Array:
    """base ^ exponent mod prime, element by element; 0 ^ 0 is 1."""
    modulus = np.uint64(prime)
    rest = np.asarray(exponent, dtype=np.uint64)
    made = np.ones(np.broadcast_shapes(base.shape, rest.shape), dtype=np.uint64)
    square = base
    while rest.any():
        made = np.where(rest & np.uint64(1), made * square % modulus, made)
        square = square * square % modulus
        rest = rest >> np.uint64(1)
    return made


def _inverse(x: Array, prime: np.uint64) -> Array:
    """1 / x, and 0 of 0: what a division by zero does to the verdict is part of the error bound."""
    return _power(x, int(prime) - 2, int(prime))
