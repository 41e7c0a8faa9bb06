"""Reductions and scans by a candidate's own function, for Triton's interpreter, which combines elements one at a time.

Here whole halves are combined: a reduction of n elements asks the function log2(n) times, and so does a scan (Hillis
and Steele, Data parallel algorithms, 1986). Elements keep their order, so only associativity is used, which a GPU
relies on, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Fold = Callable[[Any, Sequence[Any]], list[Any]]
"""From the interpreter's operation, which holds function and axis, and the operands, to the results."""


def install() -> None:
    """Have the interpreter fold in halves."""
    from triton.runtime.interpreter import ReduceOps, ScanOps

    ReduceOps.generic_reduce = either(reduced, ReduceOps.generic_reduce)
    ScanOps.generic_scan = either(scanned, ScanOps.generic_scan)


def either(halves: Fold, one_by_one: Fold) -> Fold:
    """In halves where the function takes them."""

    def fold(operation: Any, operands: Sequence[Any]) -> list[Any]:
        try:
            return halves(operation, operands)
        except Exception:
            # Candidate's code: it may need scalars. What is wrong with it the interpreter says as it always did.
            return one_by_one(operation, operands)

    return fold


def reduced(operation: Any, operands: Sequence[Any]) -> list[Any]:
    """Each operand reduced along the operation's axis, or along all where it has none."""
    arrays = [operand.handle.data for operand in operands]
    dimensions = arrays[0].ndim
    if operation.axis is None:
        arrays = [array.reshape(-1) for array in arrays]
    axis = operation.axis or 0
    arrays = [np.moveaxis(array, axis, 0) for array in arrays]
    while len(arrays[0]) > 1:
        # Lengths are powers of two, as all of Triton's are.
        arrays = _combined(operation, operands, [array[0::2] for array in arrays], [array[1::2] for array in arrays])
    results = [array[0] for array in arrays]
    if operation.keep_dims and operation.axis is None:
        results = [np.reshape(result, (1,) * dimensions) for result in results]
    elif operation.keep_dims:
        results = [np.expand_dims(result, axis) for result in results]
    return [operation.to_tensor(result, operand.dtype) for result, operand in zip(results, operands, strict=True)]


def scanned(operation: Any, operands: Sequence[Any]) -> list[Any]:
    """Each operand's inclusive scan along the operation's axis."""
    arrays = [np.moveaxis(operand.handle.data, operation.axis, 0) for operand in operands]
    length, step = len(arrays[0]), 1
    while step < length:
        both = _combined(operation, operands, [np.roll(array, step, axis=0) for array in arrays], arrays)
        # What the roll has brought round from the end counts for nothing.
        arrays = [np.concatenate([array[:step], new[step:]]) for array, new in zip(arrays, both, strict=True)]
        step *= 2
    return [
        operation.to_tensor(np.moveaxis(array, 0, operation.axis), operand.dtype)
        for array, operand in zip(arrays, operands, strict=True)
    ]


def _combined(operation: Any, operands: Sequence[Any], before: list[Any], after: list[Any]) -> list[Any]:
    """The candidate's function of two stretches, element by element."""
    dtypes = [operand.dtype for operand in operands]
    arguments = [operation.to_tensor(array, dtype) for array, dtype in zip(before + after, dtypes * 2, strict=True)]
    with np.errstate(all="ignore"):
        got = operation.combine_fn.fn(*arguments)
    results = got if isinstance(got, tuple) else (got,)
    return [
        np.broadcast_to(getattr(getattr(result, "handle", None), "data", result), array.shape).astype(array.dtype)
        for result, array in zip(results, after, strict=True)
    ]
