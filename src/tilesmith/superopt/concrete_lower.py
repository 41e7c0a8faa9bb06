"""From what the concrete search found to a µGraph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tilesmith.core.graph import Accumulate, Dims, Graph, Kernel, Load, Node, Op, Step, Store
from tilesmith.core.graph_check import tensors
from tilesmith.superopt.concrete_program import Described, Norm
from tilesmith.superopt.macros import Emit

FoundStep = tuple[str, int, int, int]
"""What it is, its argument, its operands (-1: none)."""
FoundLoad = tuple[int, list[int], int]
FoundBlock = tuple[list[int], int, list[FoundLoad], list[FoundStep], list[int], list[int]]
"""Grid, loop, loads (source, imap, fmap), steps, the values that are stored, omap; -1 leaves whole."""
FoundNode = FoundStep | FoundBlock
FoundGraph = tuple[list[FoundNode], list[int]]
"""Kernels, and the tensors that are the outputs."""


def lower(program: Described, found: FoundGraph) -> Graph:
    """The µGraph. It has not been verified."""
    nodes: list[Node] = []
    count = len(program.graph.inputs)

    def emit(node: Node) -> int:
        nonlocal count
        nodes.append(node)
        count += len(node.stores) if isinstance(node, Kernel) else 1
        return count - 1

    number: list[int] = []
    for place, (tensor, dims) in enumerate(zip(program.graph.inputs, program.inputs, strict=True)):
        number.append(place if tensor.dims == dims else emit(Op("reshape", (place,), dims=dims)))
    for node in found[0]:
        if len(node) == 4:
            kind, arg, a, b = node
            operands = [number[value] for value in (a, b) if value >= 0]
            number.append(_operator(program, kind, arg, operands, emit))
        else:
            first = count
            kernel = _kernel(program, node, number)
            emit(kernel)
            number += range(first, first + len(kernel.stores))
    outputs = []
    made = tensors(program.graph)
    for reference, tensor_place, dims in zip(program.graph.outputs, found[1], program.outputs, strict=True):
        wanted = made[reference].dims
        value = number[tensor_place]
        outputs.append(value if wanted == dims else emit(Op("reshape", (value,), dims=wanted)))
    return Graph(program.graph.inputs, tuple(nodes), tuple(outputs))


def _operator(program: Described, kind: str, arg: int, operands: Sequence[int], emit: Emit) -> int:
    last = program.rank - 1
    match kind:
        case "matmul_transposed":
            axes = (*range(last - 1), last, last - 1)
            return emit(Op("matmul", (operands[0], emit(Op("permute", (operands[1],), axes=axes)))))
        case "apply":
            function = program.degrees.functions[arg]
            if function.name in ("scale", "shift") or function.operator in ("max", "min"):
                return emit(Op(function.operator, (operands[0], emit(Op("constant", values=function.values)))))
            if function.name == "reciprocal":
                return emit(Op("div", (emit(Op("constant", values=(Fraction(1),))), operands[0])))
            return emit(Op(function.operator, (operands[0],), values=function.values))
        case "norm":
            return emit(Op("rms_norm", (operands[0],), axes=(last,), values=(program.norms[arg].eps,)))
        case "sum":
            return emit(Op("sum", (operands[0],), axes=(arg,)))
    return emit(Op(kind, tuple(operands)))


def _kernel(program: Described, block: FoundBlock, sources: Sequence[int]) -> Kernel:
    grid, loop, found_loads, steps, stored, omap = block
    axes = [axis for axis, extent in enumerate(grid) if extent > 1]

    def cuts(map_: Sequence[int]) -> tuple[int | None, ...]:
        return tuple(map_[axis] if map_[axis] >= 0 else None for axis in axes)

    loads = tuple(Load(sources[s], cuts(imap), fmap if fmap >= 0 else None) for s, imap, fmap in found_loads)
    body = _Body(program, loop, len(loads))
    for step in steps:
        body.step(*step)
    stores = tuple(Store(body.values[value], cuts(omap)) for value in stored)
    return Kernel(tuple(grid[axis] for axis in axes), loop, loads, tuple(body.steps), stores)


@dataclass(slots=True)
class _Body:
    """The steps of a kernel; `values` are those of the search, which has no constants and no views."""

    program: Described
    loop: int
    loads: int
    steps: list[Step] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = list(range(self.loads))

    def emit(self, step: Step) -> int:
        self.steps.append(step)
        return self.loads + len(self.steps) - 1

    def step(self, kind: str, arg: int, a: int, b: int) -> None:
        operands = [self.values[value] for value in (a, b) if value >= 0]
        match kind:
            case "accumulate":
                self.values.append(self._gathered(operands[0], ()))
            case "accumulate_sum":
                self.values.append(self._gathered(operands[0], (self.program.rank - 1,)))
            case "accumulate_root":
                self.values.append(self._root(operands[0], self.program.norms[arg]))
            case _:
                self.values.append(_operator(self.program, kind, arg, operands, self.emit))

    def _gathered(self, value: int, axes: Dims) -> int:
        """A loop of one iteration gathers nothing."""
        if self.loop > 1:
            return self.emit(Accumulate("sum", (value,), axes))
        return self.emit(Op("sum", (value,), axes=axes)) if axes else value

    def _root(self, value: int, norm: Norm) -> int:
        squares = self._gathered(self.emit(Op("square", (value,))), (self.program.rank - 1,))
        mean = self.emit(Op("mul", (squares, self.emit(Op("constant", values=(Fraction(1, norm.extent),))))))
        return self.emit(Op("sqrt", (self.emit(Op("add", (mean, self.emit(Op("constant", values=(norm.eps,)))))),)))
