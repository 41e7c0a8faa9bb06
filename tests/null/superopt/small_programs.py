"""Small programs of letters, drawn by number: each has at least one graph, the program as it is written."""

from __future__ import annotations

import random

from brute import COMMUTE, Function, Term, Written

EXTENTS = (("B", 8), ("K", 128), ("M", 192), ("N", 40))
"""Sums over the second and third may be looped over."""
FUNCTIONS: tuple[Function, ...] = (
    ("exp",), ("square",), ("sqrt",), ("rsqrt",), ("reciprocal",), ("silu",), ("scale", "1/16"), ("shift", "1/100"),
)  # fmt: skip
MOST_STEPS = 4


def natural(program: Written) -> int:
    """Loads and steps of one kernel that computes it as it is written."""
    return len(program.inputs) + program.operators()


def small_program(number: int) -> Written:
    """The program of this number. All of its inputs are needed."""
    rng = random.Random(number)
    while True:
        made = _drawn(rng)
        if made is not None:
            return made


def _drawn(rng: random.Random) -> Written | None:
    letters = [letter for letter, _ in EXTENTS]
    inputs = tuple("".join(rng.sample(letters, rng.choice((1, 2, 2, 2)))) for _ in range(rng.choice((1, 2, 2, 3))))
    used = tuple((letter, extent) for letter, extent in EXTENTS if any(letter in dims for dims in inputs))
    program = Written(inputs, used, ("input", 0))
    idle: list[Term] = [("input", place) for place in range(len(inputs))]
    known = list(idle)
    for _ in range(MOST_STEPS):
        if len(idle) == 1 and len(known) > len(inputs) + 1 and rng.random() < 0.3:
            break
        x = rng.choice(idle) if rng.random() < 0.9 else rng.choice(known)
        y = rng.choice(idle) if rng.random() < 0.7 else rng.choice(known)
        made = _step(rng, program, x, y)
        if made is None or made in known:
            return None
        known.append(made)
        idle = [term for term in idle if term not in made[1:]] + [made]
    if len(idle) != 1 or idle[0][0] == "input" or _exponentials(idle[0]) > 1:
        return None
    body = Written(inputs, used, idle[0])
    return body if body.rank() <= 3 and body.operators() <= MOST_STEPS else None


def _step(rng: random.Random, program: Written, x: Term, y: Term) -> Term | None:
    mine, theirs = program.letters_of(x), program.letters_of(y)
    match rng.randrange(9):
        case 0 | 1:
            function = rng.choice(FUNCTIONS)
            if mine and rng.random() < 0.15:
                letter = rng.choice(sorted(mine))
                function = ("rms_norm", letter, f"1/{program.extent(letter)}", "1/1000")
            return ("apply", function, x)
        case 2:
            return ("sum", x, rng.choice(sorted(mine))) if mine else None
        case 3 | 4 | 5:
            shared = mine & theirs
            if not shared:
                return None
            over = rng.choice(sorted(shared))
            if rng.random() < 0.2:
                over = "".join(sorted(shared))
            if shared > set(over) and mine == theirs:
                return None
            return ("matmul", *sorted((x, y), key=repr), over)
        case _:
            kind = rng.choice(("add", "mul", "mul", "div", "sub"))
            if x == y:
                return None
            return (kind, *(sorted((x, y), key=repr) if kind in COMMUTE else (x, y)))


def _exponentials(term: Term) -> int:
    """On one way."""
    parts = [part for part in term[1:] if isinstance(part, tuple)]
    if term[0] == "apply":
        return (term[1][0] == "exp") + _exponentials(term[2])
    return max((_exponentials(part) for part in parts), default=0)
