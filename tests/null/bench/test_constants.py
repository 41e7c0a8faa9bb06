"""Overriding module constants in source: the value changes, what follows from it changes, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.bench.constants import apply_constants
from tilesmith.core.errors import ProblemError

CASES = {
    "plain": ("N = 4\n", {"N": 7}, {"N": 7}),
    "expression": ("N = 2048 * 2\nM = N // 2\n", {"N": 6}, {"N": 6, "M": 3}),
    "annotated": ("N: int = 4\n", {"N": 7}, {"N": 7}),
    "chained": ("A = B = 3\n", {"A": 5}, {"A": 5, "B": 3}),
    "both of a chain": ("A = B = 3\n", {"A": 5, "B": 6}, {"A": 5, "B": 6}),
    "tuple": ("M, N = 3, 4\nP = M * N\n", {"N": 5}, {"M": 3, "N": 5, "P": 15}),
    "unpacked call": ("M, *R = range(3)\n", {"M": 9}, {"M": 9, "R": [1, 2]}),
    "comment": ("N = 4  # columns; of X\n", {"N": 7}, {"N": 7}),
    "one line": ("N = 4; M = N + 1\n", {"N": 7}, {"N": 7, "M": 8}),
    "several lines": ("N = (\n    4\n)\nM = N\n", {"N": 7}, {"N": 7, "M": 7}),
    "continued": ("N = \\\n    4\nM = N\n", {"N": 7}, {"N": 7, "M": 7}),
    "if": ("if True:\n    N = 4\nelse: N = 5\n", {"N": 7}, {"N": 7}),
    "try": ("try:\n    N = 1 // 0\nexcept ZeroDivisionError:\n    N = 4\n", {"N": 7}, {"N": 7}),
    "augmented": ("N = 4\nN *= 2\nM = N\n", {"N": 7}, {"N": 7, "M": 7}),
    "not ASCII": ("s = 'größe'; N = 4; t = 'ß'\n", {"N": 7}, {"s": "größe", "N": 7, "t": "ß"}),
    "carriage returns": ("M = 1\r\nN = 4\r\nP = N\r\n", {"N": 7}, {"M": 1, "N": 7, "P": 7}),
    "form feed": ("M = 1\n\f\nN = 4\n", {"N": 7}, {"M": 1, "N": 7}),
    "no last newline": ("N = 4", {"N": 7}, {"N": 7}),
    "other types": ("S = 1\nT = 2\nB = 3\nF = 4\n", {"S": "a'b", "T": (1, 2), "B": False, "F": 1e-5},
                    {"S": "a'b", "T": (1, 2), "B": False, "F": 1e-5}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_form_of_assignment(case: str) -> None:
    source, overrides, expected = CASES[case]
    changed = apply_constants(source, overrides)
    names: dict[str, object] = {}
    exec(changed, names)
    assert {name: names[name] for name in expected} == expected
    assert changed.count("\n") == source.count("\n")


def test_a_local_of_the_same_name_is_left_alone() -> None:
    source = "N = 4\ndef f():\n    N = 5\n    return N\nclass C:\n    N = 6\n"
    names: dict[str, object] = {}
    exec(apply_constants(source, {"N": 7}), names)
    assert (names["N"], names["f"](), names["C"].N) == (7, 5, 6)  # type: ignore[operator, attr-defined]


def test_errors_keep_their_line() -> None:
    source = "M, N = (\n    3,\n    4,\n)\n\nraise RuntimeError\n"
    with pytest.raises(RuntimeError) as caught:
        exec(compile(apply_constants(source, {"M": 1, "N": 2}), "problem.py", "exec"), {})
    assert caught.tb.tb_next.tb_lineno == 6  # type: ignore[union-attr]


def test_a_name_that_is_not_assigned_is_an_error() -> None:
    with pytest.raises(ProblemError, match="no top-level constant named K, Q"):
        apply_constants("from sizes import K\nN = 3\nQ: int\n", {"K": 1, "N": 2, "Q": 3})


def test_a_source_that_does_not_parse_is_an_error() -> None:
    with pytest.raises(ProblemError, match="does not parse"):
        apply_constants("def f(:\n", {"N": 1})


def test_nothing_to_override_leaves_the_text_alone() -> None:
    assert apply_constants("anything at all (", {}) == "anything at all ("


@given(
    st.dictionaries(
        st.sampled_from("ABCDE"),
        st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(), st.tuples(st.integers())),
    ),
    st.text(alphabet="#;é漢 '\"\t", max_size=8),
)
def test_any_constant_survives(overrides: dict[str, object], note: str) -> None:
    source = "".join(f"{name} = 0  # {note}\n" for name in "ABCDE")
    names: dict[str, object] = {}
    exec(apply_constants(source, overrides), names)  # type: ignore[arg-type]
    assert {name: names[name] for name in "ABCDE"} == dict.fromkeys("ABCDE", 0) | overrides
