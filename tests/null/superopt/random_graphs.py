"""Strategies: any well-formed graph of small extents, and any form that a graph's data can have."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Store, Tensor, Thread, Window
from tilesmith.superopt.build import Block, Expression, Program, Writer

UNARY = ("exp", "square", "sqrt", "silu", "relu", "sigmoid", "tanh", "gelu", "log", "rsqrt")
BINARY = ("add", "sub", "mul", "div", "max", "min")
numbers = st.integers(-1, 12)


@st.composite
def programs(draw: st.DrawFn) -> Graph:
    """Programs that mean something: operators and, often, a kernel, applied where they fit."""
    b = Program()
    extents = st.sampled_from((1, 2, 6, 12))
    values = [
        b.input(f"x{i}", tuple(draw(st.lists(extents, min_size=1, max_size=3)))) for i in range(draw(st.integers(1, 3)))
    ]
    for _ in range(draw(st.integers(1, 6))):
        values += kernel(draw, b, values) if draw(st.integers(0, 3)) == 0 else operator(draw, b, values)
    b.output(*draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
    return b.graph()


def operator(draw: st.DrawFn, b: Writer, values: list[Expression]) -> list[Expression]:
    """One operator, if the draw fits; else none."""
    x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
    kind = draw(st.integers(0, 7))
    try:
        match kind:
            case 0:
                return [b.apply(draw(st.sampled_from(UNARY)), x)]
            case 1 | 2:
                return [b.apply(draw(st.sampled_from(BINARY)), x, y)]
            case 3:
                return [x @ (y if draw(st.booleans()) else b.transpose(y))]
            case 4:
                return [b.apply(draw(st.sampled_from(("sum", "amax", "mean", "softmax"))), x, axes=(-1,))]
            case 5:
                return [x * Fraction(draw(st.integers(1, 9)), draw(st.integers(1, 9)))]
            case 6:
                return [b.reshape(x, *reversed(x.dims))]
            case _:
                return [b.concat(x, y, axis=0)]
    except (OptionError, IndexError):
        return []


def kernel(draw: st.DrawFn, b: Program, values: list[Expression]) -> list[Expression]:
    """A kernel over one or two values, if the draw fits; else none."""
    grid = tuple(draw(st.lists(st.sampled_from((1, 2, 3)), max_size=2)))
    cuts = st.one_of(st.none(), st.integers(0, 2))
    try:
        k: Block = b.kernel(grid, draw(st.sampled_from((1, 2, 3))))
        inner = [
            k.load(draw(st.sampled_from(values)), [draw(cuts) for _ in grid], draw(cuts))
            for _ in range(draw(st.integers(1, 2)))
        ]
        for _ in range(draw(st.integers(0, 3))):
            inner += operator(draw, k, inner)
        last = inner[-1]
        how = draw(st.sampled_from(("sum", "max", "rescale", "none")))
        if how == "rescale":
            last = k.rescale(last)
        elif how != "none":
            last = k.accumulate(last, how=how)  # type: ignore[arg-type]
        return k.store((last, [draw(cuts) for _ in grid]))
    except OptionError:
        return []


rows = st.lists(numbers, max_size=4).map(tuple)
cuts = st.lists(st.one_of(st.none(), numbers), max_size=3).map(tuple)
OTHERS = (
    "sum mean softmax rms_norm matmul reshape permute expand slice unfold max_pool sum_pool mean_pool concat constant "
    "convolve pow clamp cast blur"
)
names = st.sampled_from((*UNARY, *BINARY, *OTHERS.split()))
ops = st.builds(
    Op,
    names,
    rows,
    rows,
    rows,
    st.lists(st.fractions(max_denominator=50), max_size=2).map(tuple),
    st.lists(st.builds(Window, numbers, numbers, numbers, numbers), max_size=2).map(tuple),
    st.sampled_from((None, "fp16", "fp32")),
)
steps = st.one_of(
    ops,
    st.builds(Accumulate, st.sampled_from(("sum", "max", "concat", "rescale")), rows, rows),
    st.builds(Thread, rows, st.lists(ops, max_size=3).map(tuple)),
)
kernels = st.builds(
    Kernel,
    rows,
    numbers,
    st.lists(st.builds(Load, numbers, cuts, st.one_of(st.none(), numbers)), max_size=3).map(tuple),
    st.lists(steps, max_size=4).map(tuple),
    st.lists(st.builds(Store, numbers, cuts), max_size=2).map(tuple),
)
tensors = st.builds(Tensor, rows, st.sampled_from(("fp16", "fp32", "bf16")), st.sampled_from(("", "X", "Y", "Z")))
data = st.builds(
    Graph,
    st.lists(tensors, max_size=3).map(tuple),
    st.lists(st.one_of(ops, kernels), max_size=5).map(tuple),
    rows,
)
"""Any data at all: well formed or, mostly, not."""


@st.composite
def disguised(draw: st.DrawFn, graph: Graph) -> Graph:
    """The same under other names, inputs and independent nodes in another order, operands that commute swapped."""
    count = len(graph.inputs)
    order = draw(st.permutations(range(count)))
    number = {old: new for new, old in enumerate(order)}
    inputs = tuple(replace(graph.inputs[old], name=f"n{new}") for new, old in enumerate(order))
    firsts = []
    first = count
    for node in graph.nodes:
        firsts.append(first)
        first += 1 if isinstance(node, Op) else len(node.stores)
    left = list(range(len(graph.nodes)))
    nodes: list[Op | Kernel] = []
    total = count
    while left:
        sources = {place: _sources(graph.nodes[place]) for place in left}
        ready = [place for place in left if all(value in number for value in sources[place])]
        place = draw(st.sampled_from(ready))
        left.remove(place)
        node = graph.nodes[place]
        if isinstance(node, Op):
            operands = tuple(number[value] for value in node.operands)
            if node.operator in ("add", "mul", "max", "min") and draw(st.booleans()):
                operands = operands[::-1]
            nodes.append(replace(node, operands=operands))
            number[firsts[place]] = total
            total += 1
        else:
            nodes.append(replace(node, loads=tuple(replace(ld, source=number[ld.source]) for ld in node.loads)))
            for offset in range(len(node.stores)):
                number[firsts[place] + offset] = total
                total += 1
    return Graph(inputs, tuple(nodes), tuple(number[value] for value in graph.outputs))


def _sources(node: Op | Kernel) -> tuple[int, ...]:
    return node.operands if isinstance(node, Op) else tuple(load.source for load in node.loads)
