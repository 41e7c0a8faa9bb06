"""Strategies: programs of one to three kernels in the forms that searches make, over extents of any kind."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Graph
from tilesmith.superopt.build import Block, Expression, Program
from tilesmith.superopt.lower.options import Choice, grid_order, may_group, may_prefetch, may_split, slices
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.tma import fits, may_copy

parts = st.sampled_from((1, 2, 3, 4))
tiles = st.sampled_from((1, 2, 3, 5, 8, 12, 16, 20))
UNARY = ("square", "relu", "sigmoid", "tanh", "silu", "gelu", "gelu_erf")
BINARY = ("add", "sub", "mul", "max", "min")


@dataclass(frozen=True)
class Cut:
    """An extent as parts of the grid, iterations and elements of a tile."""

    grid: int
    loop: int
    tile: int

    @property
    def extent(self) -> int:
        return self.grid * self.loop * self.tile


@st.composite
def lowerable(draw: st.DrawFn) -> Graph:
    """A graph whose outputs are finite on inputs between 0.5 and 1.5."""
    form = draw(st.sampled_from((product, split_product, rows, attention, chain, parts_of_an_axis, transposed)))
    graph = form(draw)
    return replace(graph, inputs=tuple(replace(tensor, dtype="fp32") for tensor in graph.inputs))


def elementwise(draw: st.DrawFn, b: Block | Program, x: Expression, others: list[Expression]) -> Expression:
    """A few element-wise operators on x, with others that broadcast to it."""
    for _ in range(draw(st.integers(0, 2))):
        if others and draw(st.booleans()):
            y = draw(st.sampled_from(others))
            try:
                made = b.apply(draw(st.sampled_from(BINARY)), x, y)
            except OptionError:
                continue
            x = made if made.dims == x.dims else x
        else:
            x = b.apply(draw(st.sampled_from(UNARY)), x)
    return x


def product(draw: st.DrawFn) -> Graph:
    """X @ W with something done to the tiles, sums beside it, and an epilogue."""
    rows, inner, columns = (Cut(draw(parts), draw(parts), draw(tiles)) for _ in range(3))
    rows, columns = replace(rows, loop=1), replace(columns, loop=1)
    batch = draw(st.sampled_from((0, 0, 1, 2)))
    inner = replace(inner, grid=1)
    b = Program()
    lead = (batch,) if batch else ()
    first = len(lead)
    turned = draw(st.booleans())
    x = b.input("X", (*lead, rows.extent, inner.extent))
    w = b.input("W", (*lead, *((columns.extent, inner.extent) if turned else (inner.extent, columns.extent))))
    bias = b.input("bias", (columns.extent,))
    k = b.kernel((*lead, rows.grid, columns.grid), inner.loop)
    heads = (0,) if batch else ()
    tile = k.load(x, (*heads, first, None), first + 1)
    weights = k.load(w, (*heads, None, first + (0 if turned else 1)), first + (1 if turned else 0))
    added = k.load(bias, (*((None,) if batch else ()), None, 0))
    weights = k.transpose(weights) if turned else weights
    made = k.accumulate(elementwise(draw, k, tile, []) @ weights)
    if draw(st.booleans()):
        squares = k.accumulate(k.square(tile), -1)
        made = made / k.sqrt(squares / inner.extent + 1e-5)
    made = elementwise(draw, k, made, [added])
    places = (*heads, first, first + 1)
    b.output(*k.store((made, places)))
    return b.graph()


def split_product(draw: st.DrawFn) -> Graph:
    """The same with the inner dimension over the grid, and a kernel or an operator that adds the parts."""
    inner, columns = Cut(draw(parts), draw(parts), draw(tiles)), Cut(draw(parts), 1, draw(tiles))
    rows = draw(tiles)
    b = Program()
    x, w = b.input("X", (rows, inner.extent)), b.input("W", (inner.extent, columns.extent))
    k = b.kernel((columns.grid, inner.grid), inner.loop)
    tile, weights = k.load(x, (None, 1), 1), k.load(w, (1, 0), 0)
    made = k.reshape(k.accumulate(tile @ weights), 1, rows, columns.tile)
    if draw(st.booleans()):
        (parts_,) = k.store((made, (2, 0)))
        b.output(b.reshape(elementwise(draw, b, b.sum(parts_, 0), []), rows, columns.extent))
        return b.graph()
    (parts_,) = k.store((made, (2, 0)))
    c = b.kernel((columns.grid,))
    total = c.sum(c.load(parts_, (2,)), 0)
    b.output(*c.store((c.reshape(elementwise(draw, c, total, []), rows, columns.tile), (1,))))
    return b.graph()


def rows(draw: st.DrawFn) -> Graph:
    """Something over whole rows, such as a softmax or a norm, with or without a loop over other rows."""
    height, width = Cut(draw(parts), draw(parts), draw(tiles)), draw(st.sampled_from((1, 5, 16, 24, 33)))
    b = Program()
    x, y = b.input("X", (height.extent, width)), b.input("Y", (1, width))
    looped = draw(st.booleans())
    k = b.kernel((height.grid,), height.loop if looped else 1)
    tile = k.load(x, (0,), 0 if looped else None)
    one = k.load(y, (None,))
    made = tile
    match draw(st.integers(0, 3)):
        case 0:
            made = k.softmax(tile)
        case 1:
            made = k.rms_norm(tile) * one
        case 2:
            made = tile - k.mean(tile, 1)
        case _:
            made = k.amax(tile, 1) * tile
    made = elementwise(draw, k, made, [one])
    if not looped:
        b.output(*k.store((made, (0,))))
        return b.graph()
    how = draw(st.sampled_from(("sum", "max", "concat")))
    axes = (0,) if how == "concat" else draw(st.sampled_from(((), (0,), (1,), (0, 1))))
    b.output(*k.store((k.accumulate(made, *axes, how=how), (0,))))  # type: ignore[arg-type]
    return b.graph()


def attention(draw: st.DrawFn) -> Graph:
    """Scores, their exponentials, and what those weigh; by running maxima or without; split or not."""
    heads, queries = draw(st.sampled_from((1, 2))), Cut(draw(parts), 1, draw(tiles))
    keys = Cut(draw(parts), draw(parts), draw(tiles))
    dim, width = draw(tiles), draw(tiles)
    b = Program()
    q, k = b.input("Q", (heads, queries.extent, dim)), b.input("K", (heads, dim, keys.extent))
    v = b.input("V", (heads, keys.extent, width))
    split = draw(st.booleans())
    block = b.kernel((heads, queries.grid, keys.grid if split else 1), keys.loop)
    rows_ = block.load(q, (0, 1, None))
    across = 2 if split else None
    columns, values = block.load(k, (0, None, across), 2), block.load(v, (0, None, across and 1), 1)
    scores = (rows_ @ columns) / 8
    top, below = block.rescale(scores, values), block.rescale(scores)
    peak = block.accumulate(scores, 2, how="max")
    if not split:
        b.output(*block.store((top / below, (0, 1, 2)), (peak, (0, 1, 2))))
        return b.graph()
    shapes = [(part, (1, 1, queries.tile, part.dims[2])) for part in (top, below, peak)]
    stored = block.store(*((block.reshape(part, *dims), (1, 2, 0)) for part, dims in shapes))
    c = b.kernel((heads, queries.grid))
    tops, sums, peaks = (c.load(part, (1, 2)) for part in stored)
    scale = c.exp(peaks - c.amax(peaks, 0))
    made = c.sum(tops * scale, 0) / c.sum(sums * scale, 0)
    b.output(*c.store((c.reshape(made, 1, queries.tile, width), (0, 1))))
    return b.graph()


def chain(draw: st.DrawFn) -> Graph:
    """Operators between kernels, with views and reductions."""
    b = Program()
    dims = tuple(draw(st.lists(tiles, min_size=1, max_size=3)))
    x = b.input("x", dims)
    others = [b.input("y", dims[-1:]), b.input("z", (1,) * len(dims))]
    for _ in range(draw(st.integers(1, 3))):
        x = elementwise(draw, b, x, others)
        match draw(st.integers(0, 4)):
            case 0:
                x = b.sum(x, draw(st.integers(0, len(x.dims) - 1)))
            case 1:
                x = b.permute(x, *draw(st.permutations(range(len(x.dims)))))
            case 2:
                x = b.reshape(x, *reversed(x.dims))
            case 3:
                x = b.softmax(x, -1)
            case _:
                x = x * 0.5
    b.output(x)
    return b.graph()


def parts_of_an_axis(draw: st.DrawFn) -> Graph:
    """A norm over each part of a row: tiles mean something, so their sizes are the graph's."""
    width, height = Cut(draw(parts), draw(parts), draw(tiles)), draw(tiles)
    b = Program()
    x = b.input("X", (height, width.extent))
    k = b.kernel((width.grid,), width.loop)
    tile = k.load(x, (1,), 1)
    made = tile / k.sqrt(k.sum(k.square(tile), 1) + 1)
    match draw(st.integers(0, 2)):
        case 0:
            b.output(*k.store((k.accumulate(made, 1, how="concat"), (1,))))
        case 1:
            b.output(*k.store((k.accumulate(made), (1,))))
        case _:
            b.output(*k.store((k.accumulate(made, 1), (1,))))
    return b.graph()


def transposed(draw: st.DrawFn) -> Graph:
    """Tiles seen in another order or shape, inside a kernel."""
    height, width, depth = Cut(draw(parts), 1, draw(tiles)), draw(tiles), draw(st.sampled_from((2, 3, 4)))
    b = Program()
    x = b.input("X", (height.extent, depth, width))
    w = b.input("W", (depth * width, 6))
    k = b.kernel((height.grid,))
    tile, weights = k.load(x, (0,)), k.load(w, (None,))
    match draw(st.integers(0, 2)):
        case 0:
            made = k.permute(elementwise(draw, k, tile, []), 0, 2, 1)
            b.output(*k.store((made, (0,))))
        case 1:
            made = k.reshape(elementwise(draw, k, tile, []), height.tile, depth * width) @ weights
            b.output(*k.store((made, (0,))))
        case _:
            made = k.reshape(k.permute(tile, 0, 2, 1), height.tile, depth * width)
            b.output(*k.store((elementwise(draw, k, made, []), (0,))))
    return b.graph()


@st.composite
def another_way(draw: st.DrawFn, plan: Plan, choice: Choice) -> Choice:
    """Any other choice that is allowed, whether or not it would ever be made."""
    blocks = [
        block if axis.kind in ("whole", "part") else draw(st.sampled_from((16, 32) if axis.dot else (1, 2, 8, 32)))
        for axis, block in zip(plan.axes.axes, choice.blocks, strict=True)
    ]
    made = replace(choice, blocks=tuple(blocks), group=0, stream=draw(st.booleans()), again=draw(st.booleans()))
    if may_prefetch(plan) and draw(st.booleans()):
        made = replace(made, prefetch=True, stages=1)
    else:
        made = replace(made, prefetch=False, stages=draw(st.sampled_from((1, 3))))
    if may_split(plan) and draw(st.booleans()):
        made = replace(made, split=draw(st.sampled_from((2, 3, 4))))
        return replace(made, together=slices(plan, made.blocks, made.split) is not None and draw(st.booleans()))
    made = replace(made, split=1, order=tuple(draw(st.permutations(grid_order(plan)))))
    if may_group(plan) and draw(st.booleans()):
        made = replace(made, group=draw(st.sampled_from((2, 3))))
    made = replace(made, programs=draw(st.sampled_from((0, 1, 3))))
    if may_copy(plan) and not made.prefetch and fits(plan, made):
        return replace(made, descriptors=draw(st.booleans()))
    return made
