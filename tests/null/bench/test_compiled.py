"""The wire form of a call is checked as what it is: the word of a process that nobody trusts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.bench import compiled
from tilesmith.bench.compiled import Call, Choice, Compiled, Operator, Pointer, from_json, to_json
from tilesmith.core.profile import Launch

counts = st.integers(0, 2**40)
sizes = st.integers(1, 2**31 - 1)
names = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | names
launches = st.builds(
    Launch,
    kernel=names,
    grid=st.tuples(sizes, sizes, sizes),
    warps=st.integers(1, 64),
    stages=counts,
    shared_bytes=counts,
    registers=counts,
    spills=counts,
    arguments=st.dictionaries(names, scalars, max_size=4).map(lambda given: tuple(sorted(given.items()))),
    features=st.frozensets(names, max_size=3),
)
pointers = st.builds(Pointer, name=names, index=counts, dtype=names, nbytes=counts, tensor=names)
kernels = st.builds(Compiled, launches, st.text(), st.text(), st.lists(pointers, max_size=3).map(tuple))
operators = st.builds(Operator, names, st.sampled_from(("fill", "copy", "library")), counts)
choices = st.lists(kernels, min_size=1, max_size=3).map(tuple).map(lambda each: Choice(each, len(each) - 1))
calls = st.lists(kernels | operators | choices, max_size=4).map(tuple)


@settings(deadline=None)
@given(calls)
def test_json_brings_back_the_call(call: Call) -> None:
    assert from_json(json.loads(json.dumps(to_json(call)))) == call


def example() -> dict[str, Any]:
    launch = Launch("k", (4, 1, 1), 4, 3, 0, 32, 0, (("n", 5),), frozenset({"tma"}))
    kernel = Compiled(launch, "ttir", "ptx", (Pointer("x", 0, "fp32", 64),))
    written = to_json((kernel, kernel, Operator("aten.zeros", "fill", 64), Choice((kernel,), 0)))
    back: dict[str, Any] = json.loads(json.dumps(written))
    return back


def test_a_text_travels_once() -> None:
    assert example()["texts"] == [["ttir", "ptx"]]


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no such text": lambda call: call["call"][0].update(text=1),
    "a negative text": lambda call: call["call"][0].update(text=-1),
    "two dimensions": lambda call: call["call"][0].update(grid=[1, 1]),
    "an empty grid": lambda call: call["call"][0].update(grid=[0, 1, 1]),
    "true warps": lambda call: call["call"][0].update(warps=True),
    "half a warp": lambda call: call["call"][0].update(warps=0.5),
    "a huge number": lambda call: call["call"][0].update(registers=2**64),
    "a list argument": lambda call: call["call"][0].update(arguments=[["n", []]]),
    "a huge argument": lambda call: call["call"][0].update(arguments=[["n", 2**70]]),
    "a long name": lambda call: call["call"][0].update(kernel="k" * 1001),
    "a missing field": lambda call: call["call"][0].pop("spills"),
    "an extra field": lambda call: call["call"][0].update(more=1),
    "a short pointer": lambda call: call["call"][0].update(pointers=[["x", 0, "fp32"]]),
    "features of numbers": lambda call: call["call"][0].update(features=[1]),
    "an unknown kind": lambda call: call["call"][2].update(kind="send"),
    "an unhashable kind": lambda call: call["call"][2].update(kind=[]),
    "an empty choice": lambda call: call["call"][3].update(configurations=[], chosen=None),
    "a choice of nothing": lambda call: call["call"][3].update(chosen=1),
    "a choice in a choice": lambda call: call["call"][3].update(configurations=[call["call"][3].copy()]),
    "texts of numbers": lambda call: call.update(texts=[[1, 2]]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_shape_is_refused(name: str) -> None:
    call = example()
    BROKEN[name](call)
    with pytest.raises(ValueError, match=r"call|texts"):
        from_json(call)


@pytest.mark.parametrize("value", [None, [], "call", 1, {}, {"texts": {}, "call": []}])
def test_what_is_no_call_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not an? "):
        from_json(value)


def test_the_message_says_where() -> None:
    call = example()
    call["call"][0]["pointers"][0][3] = "many"
    with pytest.raises(ValueError, match=r"call\[0\]\.pointers\[0\]: not a whole number"):
        from_json(call)


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    call = example()
    monkeypatch.setattr(compiled, "MOST_ITEMS", 2)
    with pytest.raises(ValueError, match="at most 2 items"):
        from_json(call)


def test_texts_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_TEXT", 6)
    with pytest.raises(ValueError, match="longer than 6 characters"):
        from_json(example())
