"""Folding in halves gives what folding one element at a time gives, for any associative function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import ReduceOps, ScanOps, TensorHandle

from tilesmith.bench import folds

ONE_BY_ONE = {ReduceOps: ReduceOps.generic_reduce, ScanOps: ScanOps.generic_scan}


def tensor(values: Any) -> Any:
    data = np.asarray(values, dtype=np.int32)
    return tl.tensor(TensorHandle(data, tl.int32), tl.block_type(tl.int32, list(data.shape)))


def then(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any]:
    """x -> ax + b, then x -> cx + d: associative, not commutative. Wraps around."""
    a, b, c, d = (value.handle.data for value in (a, b, c, d))
    with np.errstate(over="ignore"):
        return made(a * c), made(b * c + d)


def made(data: Any) -> Any:
    kind = tl.block_type(tl.int32, list(data.shape)) if data.shape else tl.int32
    return tl.tensor(TensorHandle(data, tl.int32), kind)


@st.composite
def maps(draw: st.DrawFn) -> tuple[Any, Any, int]:
    shape = draw(st.sampled_from([(1,), (2,), (16,), (4, 8), (8, 1), (2, 4, 2)]))
    count = int(np.prod(shape))
    numbers = st.lists(st.integers(-9, 9), min_size=count, max_size=count)
    return (
        tensor(np.reshape(draw(numbers), shape)),
        tensor(np.reshape(draw(numbers), shape)),
        draw(st.integers(0, len(shape) - 1)),
    )


def values(tensors: list[Any]) -> list[tuple[Any, ...]]:
    return [(each.type, each.handle.data.tolist()) for each in tensors]


@settings(deadline=None, max_examples=60)
@given(maps(), st.booleans())
def test_a_reduction_along_an_axis(operands: tuple[Any, Any, int], keep: bool) -> None:
    slopes, offsets, axis = operands
    operation = ReduceOps(axis, SimpleNamespace(fn=then), keep)
    assert values(folds.reduced(operation, (slopes, offsets))) == values(
        ONE_BY_ONE[ReduceOps](operation, (slopes, offsets))
    )


@settings(deadline=None, max_examples=60)
@given(maps())
def test_a_reduction_of_everything(operands: tuple[Any, Any, int]) -> None:
    flat = tuple(tensor(operand.handle.data.reshape(-1)) for operand in operands[:2])
    expected = ONE_BY_ONE[ReduceOps](ReduceOps(0, SimpleNamespace(fn=then), False), flat)
    found = folds.reduced(ReduceOps(None, SimpleNamespace(fn=then), False), operands[:2])
    assert values(found) == values(expected)
    kept = folds.reduced(ReduceOps(None, SimpleNamespace(fn=then), True), operands[:2])
    assert [each.handle.data.ndim for each in kept] == [operands[0].handle.data.ndim] * 2


@settings(deadline=None, max_examples=60)
@given(maps())
def test_a_scan(operands: tuple[Any, Any, int]) -> None:
    slopes, offsets, axis = operands
    operation = ScanOps(axis, SimpleNamespace(fn=then), False)
    assert values(folds.scanned(operation, (slopes, offsets))) == values(
        ONE_BY_ONE[ScanOps](operation, (slopes, offsets))
    )


def test_a_function_that_needs_scalars_gets_them() -> None:
    def larger(a: Any, b: Any) -> Any:
        return a if a.handle.data.item() > b.handle.data.item() else b

    operation = ReduceOps(0, SimpleNamespace(fn=larger), False)
    (result,) = folds.either(folds.reduced, ONE_BY_ONE[ReduceOps])(operation, (tensor([3, 9, 4, 1]),))
    assert result.handle.data.item() == 9


def test_its_own_error_is_what_it_says() -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("nothing here")

    operation = ScanOps(0, SimpleNamespace(fn=broken), False)
    with pytest.raises(KeyError, match="nothing here"):
        folds.either(folds.scanned, ONE_BY_ONE[ScanOps])(operation, (tensor([1, 2]),))
