"""The engine finds what brute force finds, on programs small enough for that. As a script it compares more:

python tests/null/superopt/test_brute_force.py 0 400
"""

from __future__ import annotations

import sys
import time

import pytest
from brute import Term, Values, Written, brute
from brute_engine import engine, graph_of
from brute_values import FIELD, FREE
from small_programs import natural, small_program

from tilesmith.core.errors import OptionError
from tilesmith.superopt.verify import Verified, verify

X, A, B, C = (("input", place) for place in range(4))
SIZES = (("B", 8), ("K", 128), ("N", 40))


def matmul(x: Term, y: Term, over: str) -> Term:
    return ("matmul", *sorted((x, y), key=repr), over)


def rms(x: Term) -> Term:
    return ("apply", ("rms_norm", "K", "1/128", "1/100000"), x)


def exp(x: Term) -> Term:
    return ("apply", ("exp",), x)


SCORES = exp(matmul(X, A, "D"))
PUBLISHED = {
    "rmsnorm_linear": Written(("BK", "KN"), SIZES, matmul(rms(X), A, "K")),
    "gated_mlp": Written(("BK", "KN", "KN"), SIZES,
                         ("mul", ("apply", ("silu",), matmul(X, A, "K")), matmul(X, B, "K"))),
    "lora": Written(("BK", "KN", "KR", "RN"), (*SIZES, ("R", 16)),
                    ("add", matmul(X, A, "K"), matmul(matmul(X, B, "K"), C, "R"))),
    "gqa": Written(("BD", "DS", "SE"), (("B", 8), ("D", 64), ("S", 128), ("E", 32)),
                   matmul(("div", SCORES, ("sum", SCORES, "S")), B, "S")),
    "norm_transformer": Written(("BK", "BK", "BK"), SIZES[:2], rms(("add", X, ("mul", B, ("add", rms(A), X))))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "most", "graphs"), [("rmsnorm_linear", 5, 1), ("gated_mlp", 7, 1), ("lora", 8, 4), ("gqa", 7, 0)]
)
def test_published_programs_lose_nothing(name: str, most: int, graphs: int) -> None:
    found = engine(PUBLISHED[name], most)
    assert found == brute(PUBLISHED[name], most, FREE)
    assert len(found) == graphs


def compared(number: int, states: int) -> tuple[int, set[tuple[str, Term]], set[tuple[str, Term]]] | None:
    """Of the program of this number: how many graphs it has, which are lost, which made up. None where the engine
    refuses it, or where brute force takes too long."""
    program = small_program(number)
    most = natural(program) + (program.operators() < 3)
    try:
        found = engine(program, most)
    except OptionError:
        return None
    forced = brute(program, most, FREE, states)
    if found is None or forced is None:
        return None
    return len(forced), forced - found, found - forced


def test_small_programs_lose_nothing() -> None:
    programs = graphs = 0
    for number in range(70):
        result = compared(number, states=300)
        if result is None:
            continue
        assert result[1:] == (set(), set()), small_program(number)
        programs, graphs = programs + 1, graphs + result[0]
    assert programs > 10
    assert graphs > 2 * programs


def test_what_division_adds_needs_a_cancellation() -> None:
    """Over numbers that divide, brute force finds more: x / x, or a row of ones. Nothing of it holds by the axioms."""
    program = Written(("BS", "SE"), (("B", 8), ("S", 16), ("E", 12)), ("mul", matmul(X, A, "S"), ("sum", X, "S")))
    most = natural(program) + 1
    found, more = engine(program, most), brute(program, most, FIELD)
    assert found is not None
    assert more is not None
    assert found < more
    free = Values(program, FREE)
    wanted = free.of(program.body)
    assert all(not free.numbers.same(free.of(term), wanted) for loop, term in more - found if not loop)
    assert all(free.numbers.same(free.of(term), wanted) for loop, term in found if not loop)


def test_what_division_adds_to_small_programs_never_holds_by_the_axioms() -> None:
    extras = 0
    for number in range(40):
        program = small_program(number)
        most = natural(program) + (program.operators() < 3)
        try:
            found = engine(program, most)
        except OptionError:
            continue
        more = brute(program, most, FIELD, states=1500)
        if found is None or more is None:
            continue
        assert found <= more
        free = Values(program, FREE)
        wanted = free.of(program.body)
        for loop, term in more - found:
            if not loop:
                extras += 1
                assert not free.numbers.same(free.of(term), wanted), (program, term)
    assert extras > 0


@pytest.mark.parametrize("number", range(0, 60, 7))
def test_letters_and_graphs_say_the_same(number: int) -> None:
    """The program that brute force evaluates is the one that the engine is given."""
    graph = graph_of(small_program(number))
    assert isinstance(verify(graph, graph, seed=number), Verified)


def main(first: int, end: int) -> int:
    programs = graphs = refused = faults = 0
    began = time.process_time()
    for number in range(first, end):
        result = compared(number, states=30_000)
        if result is None:
            refused += 1
            continue
        programs, graphs = programs + 1, graphs + result[0]
        for kind, terms in zip(("lost", "made up"), result[1:], strict=True):
            for loop, term in sorted(terms, key=repr):
                faults += 1
                print(f"program {number}, {kind}: loop over {loop or 'nothing'}, {term}", flush=True)
    print(f"{programs} programs with {graphs} graphs compared, {refused} not, {faults} differences, "
          f"{time.process_time() - began:.0f} s")  # fmt: skip
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
