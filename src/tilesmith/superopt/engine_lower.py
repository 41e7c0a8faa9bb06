"""From what the engine found to a µGraph: names become dimensions again, in an order, and views join them.

Between kernels a tensor has one dimension for every name, and one more in front for a sum that is split over the grid:
its parts. Inside a kernel likewise, without those that the grid or the loop cut to one. Operators are given the views
that they need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tilesmith import _core
from tilesmith.core.graph import Accumulate, Dims, Graph, Kernel, Load, Node, Op, Step, Store
from tilesmith.superopt.table import IN_GRID, Function, Named, Names

VARYING = 0


@dataclass(frozen=True, slots=True)
class _Laid:
    """A value with one dimension for every name."""

    value: int
    names: Names
    dims: Dims

    def extent(self, name: int) -> int:
        return self.dims[self.names.index(name)]


def lower(program: Named, engine: _core.Engine, kernels: Sequence[_core.Kernel]) -> Graph:
    """The µGraph of kernels that were found, over the inputs of the program's graph."""
    return _Lowering(program, engine).run(kernels)


class _Lowering:
    def __init__(self, program: Named, engine: _core.Engine) -> None:
        self.program, self.engine = program, engine
        self.nodes: list[Node] = []
        self.count = len(program.graph.inputs)
        self.made: dict[int, _Laid] = {}
        """Of tensors between kernels, by the engine's number."""
        self.views: dict[int, list[tuple[int, dict[int, int]]]] = {}
        for tensor, other, names in engine.views:
            self.views.setdefault(tensor, []).append((other, dict(names)))

    def run(self, kernels: Sequence[_core.Kernel]) -> Graph:
        self._inputs()
        for kernel in kernels:
            self._kernel(kernel)
        outputs = []
        wanted = zip(self.engine.output_tensors, self.program.output_names, self.program.output_dims, strict=True)
        for tensor, names, dims in wanted:
            laid = self.made[tensor]
            outputs.append(self._view(laid.value, laid.dims, _order(laid.names, names), dims))
        return Graph(self.program.graph.inputs, tuple(self.nodes), tuple(outputs))

    def _node(self, node: Node, values: int = 1) -> int:
        self.nodes.append(node)
        self.count += values
        return self.count - values

    def _view(self, value: int, dims: Dims, order: tuple[int, ...], shape: Dims) -> int:
        if order != tuple(range(len(order))):
            value = self._node(Op("permute", (value,), axes=order))
            dims = tuple(dims[axis] for axis in order)
        return value if dims == shape else self._node(Op("reshape", (value,), dims=shape))

    def _inputs(self) -> None:
        for place, (names, known) in enumerate(zip(self.program.inputs, self.engine.input_tensors, strict=True)):
            if known is None:
                continue
            tensor, renamed = known
            dims = tuple(self.program.extent(name) for name in names)
            value = self._view(place, self.program.graph.inputs[place].dims, (), dims)
            self._add(tensor, _Laid(value, tuple(dict(renamed).get(name, name) for name in names), dims))

    def _add(self, tensor: int, laid: _Laid) -> None:
        self.made[tensor] = laid
        for other, new in self.views.get(tensor, ()):
            self.made[other] = _Laid(laid.value, tuple(new.get(name, name) for name in laid.names), laid.dims)

    def _kernel(self, kernel: _core.Kernel) -> None:
        loop_name, _, split_name = kernel.walk
        axes = [*kernel.cuts, *([(split_name, kernel.split)] if split_name else [])]
        body = _Body(self.program.functions)
        loads = []
        for (tensor, parts), (tile, phase) in zip(kernel.inputs, kernel.values, strict=False):
            laid = self.made[tensor]
            has = dict(parts)
            imap = tuple(
                laid.names.index(name) if name in has and (name != split_name or has[name] & IN_GRID) else None
                for name, _ in axes
            )
            fmap = laid.names.index(loop_name) if phase == VARYING else None
            loads.append(Load(laid.value, imap, fmap))
            extents = list(laid.dims)
            for axis, (_, count) in zip(imap, axes, strict=True):
                if axis is not None:
                    extents[axis] //= count
            if fmap is not None:
                extents[fmap] //= kernel.loop
            body.load(laid.names, tuple(extents), tile)
        body.fit()
        for (kind, a, b, function, over), (tile, _) in zip(kernel.steps, kernel.values[len(loads) :], strict=True):
            body.step(kind, a, b, function, tuple(over))
            assert set(body.values[-1].names) == set(tile), "the engine and the lowering agree on every tile"
        stores, stored = [], []
        for (tensor, _), place in kernel.outputs:
            laid = body.values[place]
            if split_name and split_name not in laid.names:
                laid = body.view(laid, (split_name, *laid.names), (1, *laid.dims))
            omap = tuple(laid.names.index(name) for name, _ in axes)
            stores.append(Store(laid.value, omap))
            counts = dict(axes)
            joined = tuple(e * counts.get(name, 1) for name, e in zip(laid.names, laid.dims, strict=True))
            stored.append((tensor, laid.names, joined))
        loops = kernel.loop if loop_name else 1
        grid = tuple(count for _, count in axes)
        first = self._node(Kernel(grid, loops, tuple(loads), tuple(body.steps), tuple(stores)), len(stores))
        for place, (tensor, names, dims) in enumerate(stored):
            self._add(tensor, _Laid(first + place, names, dims))


@dataclass(slots=True)
class _Body:
    """The steps of a kernel; `values` are the engine's, `steps` have the views between them too."""

    functions: Sequence[Function]
    values: list[_Laid] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _loads: int = 0
    _kept: list[Sequence[int]] = field(default_factory=list)

    def load(self, names: Names, dims: Dims, tile: Sequence[int]) -> None:
        self.values.append(_Laid(self._loads, names, dims))
        self._kept.append(tile)
        self._loads += 1

    def fit(self) -> None:
        """Once all loads are known: drop the dimensions that were cut to one."""
        for place, (laid, tile) in enumerate(zip(self.values, self._kept, strict=True)):
            names = tuple(name for name in laid.names if name in tile)
            self.values[place] = self.view(laid, names, tuple(laid.extent(name) for name in names))

    def emit(self, step: Step) -> int:
        self.steps.append(step)
        return self._loads + len(self.steps) - 1

    def view(self, laid: _Laid, names: Names, dims: Dims) -> _Laid:
        """The same elements in the same order with other dimensions."""
        return laid if dims == laid.dims else _Laid(self.emit(Op("reshape", (laid.value,), dims=dims)), names, dims)

    def grouped(self, laid: _Laid, *groups: Names) -> int:
        """One dimension for every group of names, each a product, in this order."""
        flat = tuple(name for group in groups for name in group)
        value, dims = laid.value, laid.dims
        order = _order(laid.names, flat)
        if order != tuple(range(len(order))):
            value = self.emit(Op("permute", (value,), axes=order))
            dims = tuple(dims[axis] for axis in order)
        shape = tuple(math.prod(laid.extent(name) for name in group) for group in groups)
        return value if shape == dims else self.emit(Op("reshape", (value,), dims=shape))

    def step(self, kind: str, a: int, b: int, function: int, over: Names) -> None:
        x = self.values[a]
        if b >= 0 and kind == "matmul":
            self.values.append(self._matmul(x, self.values[b], over))
        elif b >= 0:
            self.values.append(self._elementwise(kind, x, self.values[b]))
        elif kind == "apply":
            self.values.append(_Laid(self._apply(self.functions[function], x), x.names, x.dims))
        elif kind == "accumulate":
            self.values.append(_Laid(self.emit(Accumulate("sum", (x.value,))), x.names, x.dims))
        else:
            axes = tuple(x.names.index(name) for name in over)
            gathered = kind == "accumulate_sum"
            value = self.emit(Accumulate("sum", (x.value,), axes) if gathered else Op("sum", (x.value,), axes=axes))
            kept = _Laid(value, x.names, tuple(1 if n in over else e for n, e in zip(x.names, x.dims, strict=True)))
            names = tuple(name for name in x.names if name not in over)
            self.values.append(self.view(kept, names, tuple(x.extent(name) for name in names)))

    def _elementwise(self, operator: str, x: _Laid, y: _Laid) -> _Laid:
        leading, other = (x, y) if len(x.names) >= len(y.names) else (y, x)
        names = (*(name for name in other.names if name not in leading.names), *leading.names)
        shaped = []
        for laid in (x, y):
            # Dimensions in front need not be there to broadcast.
            first = next((place for place, name in enumerate(names) if name in laid.names), len(names))
            shaped.append(self.grouped(laid, *((name,) if name in laid.names else () for name in names[first:])))
        dims = tuple((x if name in x.names else y).extent(name) for name in names)
        return _Laid(self.emit(Op(operator, tuple(shaped))), names, dims)

    def _matmul(self, x: _Laid, y: _Laid, over: Names) -> _Laid:
        batch = tuple(name for name in x.names if name in y.names and name not in over)
        rows = tuple(name for name in x.names if name not in y.names)
        columns = tuple(name for name in y.names if name not in x.names)
        lead = tuple((name,) for name in batch)
        value = self.emit(Op("matmul", (self.grouped(x, *lead, rows, over), self.grouped(y, *lead, over, columns))))
        made = tuple(math.prod(laid.extent(n) for n in group) for laid, group in ((x, rows), (y, columns)))
        names = (*batch, *rows, *columns)
        dims = tuple((x if name in x.names else y).extent(name) for name in names)
        laid = _Laid(value, names, (*(x.extent(name) for name in batch), *made))
        return self.view(laid, names, dims)

    def _apply(self, function: Function, x: _Laid) -> int:
        match function.name:
            case "scale" | "shift":
                return self.emit(Op(function.operator, (x.value, self._constant(function.values))))
            case "reciprocal":
                return self.emit(Op("div", (self.emit(Op("constant", values=(Fraction(1),))), x.value)))
            case "rms_norm":
                axis = x.names.index(function.base)
                return self.emit(Op("rms_norm", (x.value,), axes=(axis,), values=function.values))
            case "opaque" if function.operator in ("max", "min"):
                return self.emit(Op(function.operator, (x.value, self._constant(function.values))))
        return self.emit(Op(function.operator, (x.value,), values=function.values))

    def _constant(self, values: tuple[Fraction, ...]) -> int:
        return self.emit(Op("constant", values=values))


def _order(names: Names, wanted: Names) -> tuple[int, ...]:
    return tuple(names.index(name) for name in wanted)
