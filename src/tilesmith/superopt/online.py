"""Softmax that stands any scores, from plain sums of exponentials: the same graph, with its sums shifted by a maximum.

The search knows exp(S), Σ exp(S) and Σ exp(S)·V, whose quotient overflows where scores are large. `rescale` accumulates
both sums relative to the running maximum of a row, and their quotient stays the same (docs/ugraphs.md has the proof). A
kernel without a loop gets one, of one iteration, along what it sums; where that cannot be, because the quotient comes
before the product, the scores are less the maximum of the row that a block holds. Whether a whole graph stays the same
depends on what becomes of the sums, so the result is verified against what it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Dims, Graph, Kernel, Op, Step, Tensor
from tilesmith.core.graph_check import block, check, tensors
from tilesmith.superopt.lower.axes import axes_of
from tilesmith.superopt.lower.forms import along, summed_at_once
from tilesmith.superopt.needed import pruned
from tilesmith.superopt.verify import Verified, verify

VIEWS = ("reshape", "permute")


def shifted(graph: Graph, seed: int) -> Graph | None:
    """The graph with its sums of exponentials shifted. None where it has none, or would not be the same.

    Inputs, outputs and grids stay.
    """
    known = tensors(graph)
    for way in (_online, _less_maxima):
        made = replace(graph, nodes=tuple(way(n, known) if isinstance(n, Kernel) else n for n in graph.nodes))
        if made == graph or check(made):
            continue
        verdict = verify(made, graph, seed)
        if isinstance(verdict, Verified) and verdict.order == tuple(range(len(graph.outputs))):
            return made
    return None


def overflows(graph: Graph) -> bool:
    """Whether it takes exponentials of what is not less its own maximum."""
    for node in graph.nodes:
        if isinstance(node, Op):
            if node.operator == "exp":
                return True
            continue
        steps = dict(enumerate(node.body, len(node.loads)))
        for step in node.body:
            if isinstance(step, Op) and step.operator == "exp" and not _less_its_maximum(steps, step.operands[0]):
                return True
    return False


def _less_its_maximum(steps: dict[int, Step], value: int) -> bool:
    less = steps.get(value)
    top = steps.get(less.operands[1]) if isinstance(less, Op) and less.operator == "sub" else None
    return isinstance(top, Op) and less is not None and top.operator == "amax" and top.operands[0] == less.operands[0]


def _online(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    ways = [kernel] if kernel.loop > 1 else [*_walked(kernel, sources), kernel]
    for way in map(summed_at_once, ways):
        made = _rescaled(way, [tile.dims for tile in block(way, sources).tiles])
        if made is not None:
            return made
    return _less_maxima(kernel, sources)


def _walked(kernel: Kernel, sources: Sequence[Tensor]) -> list[Kernel]:
    """A kernel without a loop with one of one iteration, along what its sums of exponentials run."""
    gathers = any(isinstance(step, Accumulate) for step in kernel.body)
    if gathers or any(load.fmap is not None for load in kernel.loads):
        return []
    try:
        axes = axes_of(kernel, block(kernel, sources))
    except OptionError:
        return []
    rows = [axes.rows[source][dim] for source, dim in _sums(kernel)]
    numbers = dict.fromkeys(row[0] for row in rows if len(row) == 1)
    return [made for axis in numbers if (made := along(kernel, axes, axis, sources)) is not None]


def _sums(kernel: Kernel) -> list[tuple[int, int]]:
    """The exponentials that are summed in a block, and along which dimension."""
    first = len(kernel.loads)
    made = []
    for step in kernel.body:
        if isinstance(step, Op) and step.operator == "sum" and len(step.axes) == 1 and step.operands[0] >= first:
            source = kernel.body[step.operands[0] - first]
            if isinstance(source, Op) and source.operator == "exp":
                made.append((step.operands[0], step.axes[0]))
    return made


# By a running maximum ------------------------------------------------------------------------------------------------


def _rescaled(kernel: Kernel, dims: Sequence[Dims]) -> Kernel | None:
    """A kernel that rescales what it summed; None where it gathers no exponentials. `dims`: of every tile of it."""
    first = len(kernel.loads)
    tiles = dict(enumerate(dims[:first]))
    body: list[Step] = []
    numbers: dict[Step, int] = {}
    number = list(range(first))
    scores: dict[int, int] = {}
    """Of a value that is exp(S), in whatever view: S in that view."""
    sums: dict[int, tuple[tuple[int, ...], tuple[Op, ...]]] = {}
    """Of a sum of exp(S) over one dimension, or of exp(S) @ V: S, or S and V, and the views taken since."""

    def emit(step: Step) -> int:
        # Sums of the same scores must share them, in whatever order their dimensions came: so they share the maximum.
        if step not in numbers:
            body.append(step)
            numbers[step] = first + len(body) - 1
        return numbers[step]

    def turned(value: int, order: tuple[int, ...]) -> int:
        made = emit(Op("permute", (value,), axes=order)) if order != tuple(range(len(order))) else value
        tiles[made] = tuple(tiles[value][axis] for axis in order)
        return made

    def summed(value: int, axis: int) -> tuple[tuple[int, ...], tuple[Op, ...]]:
        """The scores with what is summed last, and how their sum is turned back."""
        rank = len(tiles[value])
        order = (*(other for other in range(rank) if other != axis), axis)
        back = tuple(order.index(place) for place in range(rank))
        return (turned(scores[value], order),), (Op("permute", (0,), axes=back),) if axis != rank - 1 else ()

    def gathered(over: tuple[int, ...], views: Sequence[Op]) -> int:
        made = emit(Accumulate("rescale", over))
        for view in views:
            made = emit(replace(view, operands=(made,)))
        return made

    for place, step in enumerate(kernel.body, first):
        operands = tuple(number[value] for value in step.operands)
        source = operands[0] if operands else -1
        if isinstance(step, Op) and step.operator == "sum" and _gathered(step, kernel, dims):
            number.append(source)
            continue
        made = -1
        if isinstance(step, Accumulate) and step.how == "sum":
            if source in scores and len(step.axes) == 1:
                made = gathered(*summed(source, step.axes[0]))
            elif source in sums and not step.axes:
                made = gathered(*sums[source])
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
            tiles[scores[made]] = tiles[made]
        elif step.operator in VIEWS and source in sums:
            sums[made] = (sums[source][0], (*sums[source][1], step))
        elif step.operator == "sum" and source in scores and len(step.axes) == 1:
            sums[made] = summed(source, step.axes[0])
        elif step.operator == "matmul" and source in scores:
            sums[made] = ((scores[source], operands[1]), ())
        elif step.operator == "matmul" and operands[1] in scores:
            # (V exp(S))ᵀ = exp(Sᵀ) Vᵀ
            left, right = (_swap(len(tiles[operand])) for operand in operands)
            over = (turned(scores[operands[1]], right), turned(source, left))
            sums[made] = (over, (Op("permute", (0,), axes=_swap(len(dims[place]))),))
    if not any(isinstance(step, Accumulate) and step.how == "rescale" for step in body):
        return None
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return pruned(replace(kernel, body=tuple(body), stores=stores))


def _gathered(step: Op, kernel: Kernel, dims: Sequence[Dims]) -> bool:
    """Whether a sum is of what an accumulator summed already."""
    (value,) = step.operands
    source = kernel.body[value - len(kernel.loads)] if value >= len(kernel.loads) else None
    return isinstance(source, Accumulate) and all(dims[value][axis] == 1 for axis in step.axes)


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


# By the maximum of a row that is held --------------------------------------------------------------------------------


def _less_maxima(kernel: Kernel, _: Sequence[Tensor]) -> Kernel:
    """Every exponential that is summed in the block, of scores less their maximum along what is summed."""
    first = len(kernel.loads)
    along_of = dict(_sums(kernel))
    body: list[Step] = []
    number = list(range(first))
    for value, step in enumerate(kernel.body, first):
        operands = tuple(number[operand] for operand in step.operands)
        if value in along_of:
            body.append(Op("amax", operands, axes=(along_of[value],)))
            body.append(Op("sub", (*operands, first + len(body) - 1)))
            operands = (first + len(body) - 1,)
        body.append(replace(step, operands=operands))
        number.append(first + len(body) - 1)
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return replace(kernel, body=tuple(body), stores=stores)
