"""Macros spelled out in primitive operators, so that search and verification know those only.

    mean over n elements      sum * (1 / n)
    rms_norm(x, weight)       x / sqrt(sum(x²) * (1 / n) + eps) * weight
    softmax(x)                exp(x) / sum(exp(x))
    mean_pool of n elements   sum_pool * (1 / n)
    convolve(x, w)            unfold(x) as a matrix @ w as a matrix

The exact softmax is the same with and without a shift by the maximum, as by every m that does not depend on the summed
dimension: exp(x - m) / sum(exp(x - m)) = exp(x) / sum(exp(x)). What runs must shift: `rescale` accumulates that way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from tilesmith.core.graph import Dims, Graph, Kernel, Node, Op, Step, Tensor
from tilesmith.core.graph_check import apply, block, tensors
from tilesmith.core.operators import OPERATORS

Emit = Callable[[Op], int]
"""Appends an operator and answers the number of its value."""
Norms = Literal["none", "last", "all"]
"""Which norms stay, without their weights: those over the last dimension alone, or all."""


def expand(graph: Graph, norms: Norms = "none") -> Graph:
    """The same program in primitives, inside kernels too. Raises `OptionError` for a malformed graph."""
    made = tensors(graph)
    number = {value: value for value in range(len(graph.inputs))}
    known = list(graph.inputs)
    nodes: list[Node] = []
    value = len(graph.inputs)

    def emit(op: Op) -> int:
        nodes.append(op)
        known.append(apply(op, known))
        return len(known) - 1

    for node in graph.nodes:
        if isinstance(node, Op):
            number[value] = spell(replace(node, operands=tuple(number[o] for o in node.operands)), known, emit, norms)
            value += 1
            continue
        kernel = _kernel(node, made)
        nodes.append(replace(kernel, loads=tuple(replace(load, source=number[load.source]) for load in kernel.loads)))
        for _ in node.stores:
            number[value] = len(known)
            known.append(made[value])
            value += 1
    return Graph(graph.inputs, tuple(nodes), tuple(number[output] for output in graph.outputs))


def _kernel(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    tiles = list(block(kernel, sources).tiles)
    known = tiles[: len(kernel.loads)]
    number = {value: value for value in range(len(known))}
    body: list[Step] = []

    def emit(op: Op) -> int:
        body.append(op)
        known.append(apply(op, known))
        return len(known) - 1

    for value, step in enumerate(kernel.body, len(kernel.loads)):
        moved = replace(step, operands=tuple(number[operand] for operand in step.operands))
        if isinstance(moved, Op):
            number[value] = spell(moved, known, emit)
        else:
            number[value] = len(known)
            body.append(moved)
            known.append(tiles[value])
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return replace(kernel, body=tuple(body), stores=stores)


def spell(op: Op, known: Sequence[Tensor], emit: Emit, norms: Norms = "none") -> int:
    """Emit an operator, a macro in its primitives, and answer the number of the result."""
    if OPERATORS[op.operator].kind != "macro":
        return emit(op)
    x = op.operands[0]
    if op.operator == "convolve":
        return _convolve(op, known[x].dims, known[op.operands[1]].dims, emit)
    if op.operator == "softmax":
        e = emit(Op("exp", (x,)))
        return emit(Op("div", (e, emit(Op("sum", (e,), axes=op.axes)))))
    if op.operator == "mean_pool":
        share = emit(Op("constant", values=(Fraction(1, math.prod(window.size for window in op.windows)),)))
        return emit(Op("mul", (emit(Op("sum_pool", (x,), windows=op.windows)), share)))
    if op.operator == "rms_norm" and (norms == "all" or (norms == "last" and op.axes == (len(known[x].dims) - 1,))):
        return _weighted(op, emit(replace(op, operands=(x,))), emit)
    count = emit(Op("constant", values=(Fraction(1, math.prod(known[x].dims[axis] for axis in op.axes)),)))
    if op.operator == "mean":
        return emit(Op("mul", (emit(Op("sum", (x,), axes=op.axes)), count)))
    mean = emit(Op("mul", (emit(Op("sum", (emit(Op("square", (x,))),), axes=op.axes)), count)))
    shifted = emit(Op("add", (mean, emit(Op("constant", values=op.values)))))
    return _weighted(op, emit(Op("div", (x, emit(Op("sqrt", (shifted,)))))), emit)


def _weighted(norm: Op, normed: int, emit: Emit) -> int:
    return normed if len(norm.operands) == 1 else emit(Op("mul", (normed, norm.operands[1])))


def _convolve(op: Op, x: Dims, weight: Dims, emit: Emit) -> int:
    """Groups become a batch dimension: [N, G, places, C/G·sizes] @ [G, C/G·sizes, O/G]."""
    count = len(op.windows)
    groups = x[1] // weight[1]
    places = tuple(window.places(extent) for window, extent in zip(op.windows, x[2:], strict=True))
    inner, spots = math.prod(weight[1:]), math.prod(places)
    # [N, C, places, sizes] -> [N, G, C/G, places, sizes] -> [N, G, places, C/G, sizes] -> [N, G, spots, inner]
    view = emit(Op("unfold", op.operands[:1], windows=op.windows))
    view = emit(Op("reshape", (view,), dims=(x[0], groups, weight[1], *places, *weight[2:])))
    axes = (0, 1, *range(3, 3 + count), 2, *range(3 + count, 3 + 2 * count))
    view = emit(Op("reshape", (emit(Op("permute", (view,), axes=axes)),), dims=(x[0], groups, spots, inner)))
    matrix = emit(Op("reshape", op.operands[1:], dims=(groups, weight[0] // groups, inner)))
    made = emit(Op("matmul", (view, emit(Op("permute", (matrix,), axes=(0, 2, 1))))))
    made = emit(Op("permute", (made,), axes=(0, 1, 3, 2)))
    return emit(Op("reshape", (made,), dims=(x[0], weight[0], *places)))
