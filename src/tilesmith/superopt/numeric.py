"""µGraphs over float64: the independent evaluation that every result must pass beside the one over fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Graph, Op
from tilesmith.superopt.evaluate import Array, Planes, run
from tilesmith.superopt.shrink import views

_erf = np.frompyfunc(math.erf, 1, 1)


class Floats:
    """Numbers in float64, as NumPy computes them."""

    def constant(self, number: Fraction) -> Planes:
        return (np.array([float(number)]),)

    def unary(self, op: Op, x: Planes) -> Planes:
        return (_unary(op, x[0]),)

    def binary(self, operator: str, x: Planes, y: Planes) -> Planes:
        made: Array = _BINARY[operator](x[0], y[0])
        return (made,)

    def matmul(self, x: Planes, y: Planes) -> Planes:
        return (x[0] @ y[0],)

    def reduce(self, operator: str, x: Planes, axes: tuple[int, ...]) -> Planes:
        return ((np.sum if operator == "sum" else np.max)(x[0], axes, keepdims=True),)


_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum
}  # fmt: skip


def _unary(op: Op, x: Array) -> Array:
    match op.operator:
        case "exp" | "log" | "square" | "sqrt" | "tanh":
            made: Array = getattr(np, op.operator)(x)
        case "rsqrt":
            made = 1 / np.sqrt(x)
        case "relu":
            made = np.maximum(x, 0)
        case "sigmoid":
            made = _sigmoid(x)
        case "silu":
            made = x * _sigmoid(x)
        case "gelu":
            made = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case "gelu_erf":
            made = 0.5 * x * (1 + np.asarray(_erf(x / math.sqrt(2)), dtype=np.float64))
        case "pow":
            made = np.power(x, float(op.values[0]))
        case "clamp":
            made = np.clip(x, float(op.values[0]), float(op.values[1]))
        case "cast":
            made = x
        case other:
            raise AssertionError(f"{other} has no floating-point evaluation")
    return made


def _sigmoid(x: Array) -> Array:
    made: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return made


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs in float64, of inputs by name. Raises `OptionError` where one is missing or has other extents."""
    planes = []
    for tensor in graph.inputs:
        if tensor.name not in inputs or inputs[tensor.name].shape != tensor.dims:
            raise OptionError(f"Input {tensor.name!r} must be an array of shape {list(tensor.dims)}.")
        planes.append((np.asarray(inputs[tensor.name], dtype=np.float64)[None],))
    with np.errstate(all="ignore"):
        return [made[0][0] for made in run(graph, planes, Floats())]


def difference(candidate: Graph, reference: Graph, seed: int, order: Sequence[int] = (), small: bool = True) -> float:
    """How far the outputs of two graphs are apart, in standard deviations of the reference's, on normal inputs.

    At small sizes that the seed chooses, the worst of them, or at the graphs' own. `order` says which output of the
    candidate answers each of the reference. Where one of the two overflows, smaller inputs are drawn; if none do, what
    is not finite in the reference is not compared, and the answer is infinite if that is everything. Raises
    `OptionError` for malformed graphs, and `Misfit` where there are no small sizes.
    """
    pairs = views((candidate, reference), seed) if small else ((candidate, reference),)
    return max(_difference(one, other, seed, order) for one, other in pairs)


SCALES = (1.0, 0.5, 0.25, 0.1)
"""Of inputs: sums of exponentials overflow where scores are large."""


def _difference(candidate: Graph, reference: Graph, seed: int, order: Sequence[int]) -> float:
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(tensor.dims) for tensor in reference.inputs]
    for change in (np.positive, np.abs):
        for scale in SCALES:
            expected, found = (_outputs(graph, [change(x) * scale for x in drawn]) for graph in (reference, candidate))
            if all(np.isfinite(array).all() for array in (*expected, *found)):
                return _apart(expected, [found[place] for place in order] or found)
    expected, found = (_outputs(graph, [np.abs(x) for x in drawn]) for graph in (reference, candidate))
    return _apart(expected, [found[place] for place in order] or found)


def _outputs(graph: Graph, drawn: Sequence[Array]) -> list[Array]:
    return evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, drawn, strict=True)})


def _apart(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Where the expected is finite; infinite where that is nowhere, or the found is not."""
    worst = 0.0
    for array, other in zip(expected, found, strict=True):
        finite = np.isfinite(array)
        if other.shape != array.shape or not finite.any() or not np.isfinite(other[finite]).all():
            return math.inf
        scale = max(float(np.std(array[finite])), float(np.max(np.abs(array[finite]))) * 1e-3, 1e-30)
        worst = max(worst, float(np.max(np.abs(other[finite] - array[finite]))) / scale)
    return worst
