"""Online softmax from plain sums of exponentials: the same graph, with its sums shifted by a running maximum.

The search knows exp(S), Σ exp(S) and Σ exp(S)·V, whose quotient overflows where scores are large. `rescale` accumulates
both sums relative to the maximum of a row, and their quotient stays the same (docs/ugraphs.md has the proof). Whether a
whole graph stays the same depends on what becomes of the sums, so the result is verified against what it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesmith.core.graph import Accumulate, Dims, Graph, Kernel, Op, Step
from tilesmith.core.graph_check import block, check, tensors
from tilesmith.superopt.verify import Verified, verify

VIEWS = ("reshape", "permute")


def shifted(graph: Graph, seed: int) -> Graph | None:
    """The graph with every sum of exponentials over a loop rescaled. None where it has none, or would not be the same.

    Inputs, outputs and schedules stay.
    """
    known = tensors(graph)
    nodes = tuple(
        _kernel(node, [tile.dims for tile in block(node, known).tiles]) if isinstance(node, Kernel) else node
        for node in graph.nodes
    )
    made = replace(graph, nodes=nodes)
    if made == graph or check(made):
        return None
    verdict = verify(made, graph, seed)
    return made if isinstance(verdict, Verified) and verdict.order == tuple(range(len(graph.outputs))) else None


def _kernel(kernel: Kernel, dims: Sequence[Dims]) -> Kernel:
    """`dims`: of every tile of the kernel."""
    first = len(kernel.loads)
    tiles = dict(enumerate(dims[:first]))
    body: list[Step] = []
    number = list(range(first))
    scores: dict[int, int] = {}
    """Of a value that is exp(S), in whatever view: S in that view."""
    sums: dict[int, tuple[tuple[int, ...], tuple[Op, ...]]] = {}
    """Of a sum of exp(S) over its last dimension, or of exp(S) @ V: S, or S and V, and the views taken since."""

    def emit(step: Step) -> int:
        body.append(step)
        return first + len(body) - 1

    def last(value: int, axes: tuple[int, ...]) -> bool:
        return value in scores and axes == (len(tiles[value]) - 1,)

    for place, step in enumerate(kernel.body, first):
        operands = tuple(number[value] for value in step.operands)
        source = operands[0] if operands else -1
        made = -1
        if isinstance(step, Accumulate) and step.how == "sum":
            if last(source, step.axes):
                made = emit(Accumulate("rescale", (scores[source],)))
            elif source in sums and not step.axes:
                over, views = sums[source]
                made = emit(Accumulate("rescale", over))
                for view in views:
                    made = emit(replace(view, operands=(made,)))
        if made < 0:
            made = emit(replace(step, operands=operands))
        number.append(made)
        tiles[made] = dims[place]
        if not isinstance(step, Op):
            continue
        if step.operator == "exp":
            scores[made] = source
        elif step.operator in VIEWS and source in scores:
            scores[made] = emit(replace(step, operands=(scores[source],)))
        elif step.operator in VIEWS and source in sums:
            sums[made] = (sums[source][0], (*sums[source][1], step))
        elif step.operator == "sum" and last(source, step.axes):
            sums[made] = ((scores[source],), ())
        elif step.operator == "matmul" and source in scores:
            sums[made] = ((scores[source], operands[1]), ())
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    rescaled = any(isinstance(step, Accumulate) and step.how == "rescale" for step in body)
    return _swept(replace(kernel, body=tuple(body), stores=stores)) if rescaled else kernel


def _swept(kernel: Kernel) -> Kernel:
    """Without the steps that no store needs; all loads stay."""
    first = len(kernel.loads)
    needed = {store.source for store in kernel.stores}
    for value in reversed(range(first, first + len(kernel.body))):
        if value in needed:
            needed.update(kernel.body[value - first].operands)
    kept = [value for value in range(first, first + len(kernel.body)) if value in needed]
    number = {value: place for place, value in enumerate([*range(first), *kept])}
    body = tuple(
        replace(step, operands=tuple(number[value] for value in step.operands))
        for step in (kernel.body[value - first] for value in kept)
    )
    return replace(
        kernel, body=body, stores=tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    )
