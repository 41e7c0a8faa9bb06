"""Products whose result is stored turned, the other way round: (A B)ᵀ = Bᵀ Aᵀ, so that rows are stored as they lie.

A search finds whichever order it meets first. Turned, a tile's neighbours in registers are not neighbours in memory.
Where one side is short its order is worth keeping, since the matrix units take no fewer than 64 rows; so this is for
results that are long both ways, of loops that do nothing but add products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesmith.core.graph import Accumulate, Kernel, Op, Step, Tensor
from tilesmith.core.graph_check import Phase, block
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.needed import pruned

LONG = 128
"""Elements along each dimension of what is stored."""


def upright(kernel: Kernel, sources: Sequence[Tensor], dims: Sequence[tuple[int, ...]]) -> Kernel:
    """The same kernel with every product turned, if all that it stores, of extents `dims`, is turned; else as it is."""
    made = block(kernel, sources)
    flip = _Flip(kernel, made.tiles)
    first = len(kernel.loads)
    adds = all(
        isinstance(step, Accumulate) or (isinstance(step, Op) and step.operator in ("matmul", "permute"))
        for value, step in enumerate(kernel.body, first)
        if made.phases[value] is Phase.VARYING or isinstance(step, Accumulate)
    )
    long = all(len(extents) >= 2 and min(extents[-2:]) >= LONG for extents in dims)
    if not adds or not long or not any(isinstance(step, Op) and step.operator == "matmul" for step in kernel.body):
        return kernel
    stores = []
    for store in kernel.stores:
        step = kernel.body[store.source - first] if store.source >= first else None
        if step is None or not _swaps(step) or (source := flip.flipped(step.operands[0])) is None:
            return kernel
        stores.append(replace(store, source=source))
    return pruned(replace(kernel, body=tuple(flip.body), stores=tuple(stores)))


def _swaps(step: Step) -> bool:
    """Whether a step turns its last two dimensions and no other."""
    rank = len(step.axes) if isinstance(step, Op) and step.operator == "permute" else 0
    return rank >= 2 and isinstance(step, Op) and step.axes == _order(rank)


def _order(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


class _Flip:
    """Values of a kernel turned, each once, put after its own steps."""

    def __init__(self, kernel: Kernel, tiles: Sequence[Tensor]) -> None:
        self.first, self.steps, self.tiles = len(kernel.loads), kernel.body, tiles
        self.body: list[Step] = list(kernel.body)
        self.done: dict[int, int | None] = {}

    def flipped(self, value: int) -> int | None:
        """The number of a value with its last two dimensions turned; None for what cannot be."""
        if value not in self.done:
            self.done[value] = self._flipped(value)
        return self.done[value]

    def _flipped(self, value: int) -> int | None:
        rank = len(self.tiles[value].dims)
        if all(extent == 1 for extent in self.tiles[value].dims):
            return value
        if rank < 2:
            return None
        if value < self.first:
            return self._put(Op("permute", (value,), axes=_order(rank)))
        step = self.steps[value - self.first]
        if _swaps(step):
            return step.operands[0]
        if isinstance(step, Accumulate):
            plain = step.how == "sum" and not step.axes
        elif isinstance(step, Op):
            plain = step.operator == "matmul" or OPERATORS[step.operator].kind == "element-wise"
        else:
            plain = False
        operands = [self.flipped(operand) for operand in step.operands] if plain else []
        ranks = {len(self.tiles[o].dims) for o in step.operands if any(extent > 1 for extent in self.tiles[o].dims)}
        known = [operand for operand in operands if operand is not None]
        if not plain or len(known) < len(step.operands) or ranks - {rank}:
            return None
        turned = known[::-1] if isinstance(step, Op) and step.operator == "matmul" else known
        return self._put(replace(step, operands=tuple(turned)))

    def _put(self, step: Step) -> int:
        self.body.append(step)
        return self.first + len(self.body) - 1
