"""µGraphs as JSON: strict in, one form out. `docs/ugraph.schema.json` is this page's schema.

    {"inputs": [{"name": "X", "dims": [2, 4096], "dtype": "fp16"}, ...],
     "nodes": [{"op": "matmul", "operands": [0, 1]}, {"kernel": {"grid": [96], "loop": 64, "loads": [...], ...}}],
     "outputs": [2]}

A step of a kernel is {"op": ...}, {"accumulate": "sum", ...} or {"thread": [ops], ...}. What is empty may be left out.
Numbers are exact: "1/4096", or a JSON number, which means its decimal.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tilesmith.core import graph as core
from tilesmith.core.errors import OptionError
from tilesmith.core.graph_check import check
from tilesmith.core.problem import Dtype
from tilesmith.superopt.build import exact

LARGEST = 1 << 40
DEEPEST = 32

Value = Annotated[int, Field(ge=0, le=LARGEST)]
Extent = Annotated[int, Field(ge=1, le=LARGEST)]
Axis = Annotated[int, Field(ge=0, lt=DEEPEST)]
Dims = Annotated[tuple[Extent, ...], Field(max_length=DEEPEST)]
Axes = Annotated[tuple[Axis, ...], Field(max_length=DEEPEST)]
Cuts = Annotated[tuple[Axis | None, ...], Field(max_length=DEEPEST)]
Number = Annotated[str, Field(pattern=r"^-?[0-9]{1,400}(/0*[1-9][0-9]{0,400})?$")] | int | float


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Tensor(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    dims: Dims
    dtype: Dtype


class Window(_Strict):
    size: Extent
    stride: Extent = 1
    padding: Value = 0
    dilation: Extent = 1


class Op(_Strict):
    op: str
    operands: tuple[Value, ...] = ()
    axes: Axes = ()
    dims: Annotated[tuple[Value, ...], Field(max_length=DEEPEST)] = ()
    """Extents; of a slice where it begins and ends."""
    values: tuple[Number, ...] = ()
    windows: Annotated[tuple[Window, ...], Field(max_length=DEEPEST)] = ()
    dtype: Dtype | None = None

    def value(self) -> core.Op:
        windows = tuple(core.Window(**window.model_dump()) for window in self.windows)
        return core.Op(
            self.op, self.operands, self.axes, self.dims, tuple(map(_exact, self.values)), windows, self.dtype
        )


class Accumulate(_Strict):
    accumulate: core.Gathering
    operands: tuple[Value, ...]
    axes: Axes = ()

    def value(self) -> core.Accumulate:
        return core.Accumulate(self.accumulate, self.operands, self.axes)


class Thread(_Strict):
    thread: tuple[Op, ...]
    operands: tuple[Value, ...] = ()

    def value(self) -> core.Thread:
        return core.Thread(self.operands, tuple(op.value() for op in self.thread))


class Load(_Strict):
    source: Value
    imap: Cuts = ()
    fmap: Axis | None = None


class Store(_Strict):
    source: Value
    omap: Cuts = ()


class Body(_Strict):
    grid: Dims = ()
    loop: Extent = 1
    loads: tuple[Load, ...] = ()
    body: tuple[Op | Accumulate | Thread, ...] = ()
    stores: Annotated[tuple[Store, ...], Field(min_length=1)]


class Kernel(_Strict):
    kernel: Body

    def value(self) -> core.Kernel:
        body = self.kernel
        return core.Kernel(
            body.grid,
            body.loop,
            tuple(core.Load(load.source, load.imap, load.fmap) for load in body.loads),
            tuple(step.value() for step in body.body),
            tuple(core.Store(store.source, store.omap) for store in body.stores),
        )


class Graph(_Strict):
    """A µGraph of tilesmith."""

    inputs: tuple[Tensor, ...] = ()
    nodes: tuple[Op | Kernel, ...] = ()
    outputs: Annotated[tuple[Value, ...], Field(min_length=1)]

    def value(self) -> core.Graph:
        inputs = tuple(core.Tensor(tensor.dims, tensor.dtype, tensor.name) for tensor in self.inputs)
        return core.Graph(inputs, tuple(node.value() for node in self.nodes), self.outputs)


def from_json(text: str | bytes, name: str = "the graph") -> core.Graph:
    """Read a graph. Raises `OptionError`, naming the place, for what is no JSON, not of the schema, or malformed."""
    try:
        graph = Graph.model_validate_json(text).value()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top"
        raise OptionError(f"In {name}, at {place}: {first['msg']}.") from None
    faults = check(graph)
    if faults:
        raise OptionError(f"In {name}: {faults[0]}.")
    return graph


def to_json(graph: core.Graph) -> str:
    """The one JSON text of a graph, a node a line. `from_json` gives the same graph back."""
    inputs = [{"name": tensor.name, "dims": tensor.dims, "dtype": tensor.dtype} for tensor in graph.inputs]
    nodes = [_op(node) if isinstance(node, core.Op) else {"kernel": _kernel(node)} for node in graph.nodes]
    parts = [f'"inputs": {_lines(inputs)}', f'"nodes": {_lines(nodes)}', f'"outputs": {json.dumps(graph.outputs)}']
    return "{" + ",\n ".join(parts) + "}\n"


def schema() -> str:
    """The JSON schema of graphs."""
    made = Graph.model_json_schema(by_alias=True)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **made}, indent=1, sort_keys=True) + "\n"
    )


def _exact(number: str | int | float) -> Fraction:
    return Fraction(number) if isinstance(number, str) else exact(number)


def _lines(rows: list[dict[str, Any]]) -> str:
    return "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "]" if rows else "[]"


def _row(value: Any) -> dict[str, Any]:
    """A dataclass without what has its default."""
    return {key: entry for key, entry in asdict(value).items() if entry not in ((), None)}


def _op(op: core.Op) -> dict[str, Any]:
    row = {"op": op.operator, **_row(op), "values": [str(number) for number in op.values]}
    row["windows"] = [
        {k: v for k, v in asdict(w).items() if v != getattr(core.Window(1), k) or k == "size"} for w in op.windows
    ]
    return {key: entry for key, entry in row.items() if key != "operator" and entry}


def _kernel(kernel: core.Kernel) -> dict[str, Any]:
    body = []
    for step in kernel.body:
        if isinstance(step, core.Op):
            body.append(_op(step))
        elif isinstance(step, core.Accumulate):
            body.append({"accumulate": step.how, **{k: v for k, v in _row(step).items() if k != "how"}})
        else:
            body.append({"thread": [_op(op) for op in step.ops], "operands": step.operands})
    loads, stores = [_row(load) for load in kernel.loads], [_row(store) for store in kernel.stores]
    return {"grid": kernel.grid, "loop": kernel.loop, "loads": loads, "body": body, "stores": stores}
