"""µGraphs known to be right, each with its reference: the structures that the paper reports, and what else is legal."""

from __future__ import annotations

from collections.abc import Callable

from tilesmith.core.graph import Graph, Window
from tilesmith.superopt import programs
from tilesmith.superopt.build import Block, Expression, Program

Pair = tuple[Graph, Graph]
RIGHT: dict[str, Callable[[], Pair]] = {}


def right(build: Callable[[], Pair]) -> Callable[[], Pair]:
    RIGHT[build.__name__] = build
    return build


def rms_tail(k: Block | Program, product: Expression, squares: Expression, count: int) -> Expression:
    return product / k.sqrt(squares / count + 1e-5)


@right
def rmsnorm_linear_divides_after_the_loop() -> Pair:
    b = Program()
    x, w = b.input("X", (2, 4096)), b.input("W", (4096, 6144))
    k = b.kernel((96,), 64)
    tile, weights = k.load(x, (None,), 1), k.load(w, (1,), 0)
    product, squares = k.accumulate(tile @ weights), k.accumulate(k.square(tile), 1)
    b.output(*k.store((rms_tail(k, product, squares, 4096), (1,))))
    return b.graph(), programs.rmsnorm_linear()


@right
def rmsnorm_linear_sums_after_the_loop() -> Pair:
    b = Program()
    x, w = b.input("X", (2, 4096)), b.input("W", (4096, 6144))
    k = b.kernel((2, 48), 16)
    tile, weights = k.load(x, (0, None), 1), k.load(w, (None, 1), 0)
    product, squares = k.accumulate(tile @ weights), k.sum(k.accumulate(tile * tile), 1)
    b.output(*k.store((product * k.rsqrt(squares * (1 / 4096) + 1e-5), (0, 1))))
    return b.graph(), programs.rmsnorm_linear()


@right
def rmsnorm_linear_splits_the_sum() -> Pair:
    """A product and a sum for each part of K, then one kernel that adds them."""
    b = Program()
    x, w = b.input("X", (2, 4096)), b.input("W", (4096, 6144))
    k = b.kernel((48, 8), 4)
    tile, weights = k.load(x, (None, 1), 1), k.load(w, (1, 0), 0)
    product, squares = k.accumulate(tile @ weights), k.accumulate(k.square(tile), 1)
    products, _ = k.store((k.reshape(product, 1, 2, 128), (2, 0)), (k.reshape(squares, 1, 2, 1), (2, 0)))
    only = b.kernel((8,), 4)
    sums = only.accumulate(only.square(only.load(x, (1,), 1)), 1)
    (squares_of,) = only.store((only.reshape(sums, 1, 2, 1), (0,)))
    c = b.kernel((24,))
    parts, rows = c.load(products, (2,)), c.load(squares_of, (None,))
    total = c.reshape(c.sum(parts, 0), 2, 256)
    root = c.sqrt(c.reshape(c.sum(rows, 0), 2, 1) / 4096 + 1e-5)
    b.output(*c.store((total / root, (1,))))
    return b.graph(), programs.rmsnorm_linear()


@right
def gated_mlp_in_one_kernel() -> Pair:
    b = Program()
    x, a, c = b.input("X", (8, 4096)), b.input("A", (4096, 4096)), b.input("B", (4096, 4096))
    k = b.kernel((64,), 32)
    tile, gate, up = k.load(x, (None,), 1), k.load(a, (1,), 0), k.load(c, (1,), 0)
    left, right = k.accumulate(tile @ gate), k.accumulate(tile @ up)
    b.output(*k.store((k.silu(left) * right, (1,))))
    return b.graph(), programs.gated_mlp()


@right
def gated_mlp_spells_silu_out() -> Pair:
    b = Program()
    x, a, c = b.input("X", (8, 4096)), b.input("A", (4096, 4096)), b.input("B", (4096, 4096))
    left, right = x @ a, x @ c
    b.output(b.sigmoid(left) * right * left)
    return b.graph(), programs.gated_mlp()


def attention(b: Program, q: Expression, k: Expression, v: Expression, online: bool) -> Expression:
    block = b.kernel((2, 4), 64)
    rows, keys, values = block.load(q, (0, 1)), block.load(k, (0, None), 2), block.load(v, (0, None), 1)
    scores = (rows @ keys) / 16
    if online:
        top, below = block.rescale(scores, values), block.rescale(scores)
    else:
        e = block.exp(scores)
        top, below = block.accumulate(e @ values), block.accumulate(e, 2)
    (made,) = block.store((top / below, (0, 1)))
    return made


def gqa_inputs(b: Program) -> tuple[Expression, Expression, Expression]:
    return b.input("Q", (2, 256, 64)), b.input("K", (2, 64, 4096)), b.input("V", (2, 4096, 64))


@right
def gqa_in_one_kernel() -> Pair:
    b = Program()
    b.output(attention(b, *gqa_inputs(b), online=False))
    return b.graph(), programs.gqa()


@right
def gqa_with_online_softmax() -> Pair:
    b = Program()
    b.output(attention(b, *gqa_inputs(b), online=True))
    return b.graph(), programs.gqa()


@right
def gqa_flash_decoding() -> Pair:
    """The keys are split over the grid; a second kernel combines the parts."""
    b = Program()
    q, k, v = gqa_inputs(b)
    split = b.kernel((2, 8, 16), 4)
    rows = split.load(q, (0, 1, None))
    keys, values = split.load(k, (0, None, 2), 2), split.load(v, (0, None, 1), 1)
    e = split.exp((rows @ keys) / 16)
    tops, sums = split.accumulate(e @ values), split.accumulate(e, 2)
    tops, sums = split.store(
        (split.reshape(tops, 1, 1, 32, 64), (1, 2, 0)), (split.reshape(sums, 1, 1, 32, 1), (1, 2, 0))
    )
    c = b.kernel((2, 8))
    total, below = c.sum(c.load(tops, (1, 2)), 0), c.sum(c.load(sums, (1, 2)), 0)
    b.output(*c.store((c.reshape(total / below, 1, 32, 64), (0, 1))))
    return b.graph(), programs.gqa()


@right
def gqa_flash_decoding_online() -> Pair:
    """The same with running maxima: every part is scaled by its own, and rescaled by the largest when combined."""
    b = Program()
    q, k, v = gqa_inputs(b)
    split = b.kernel((2, 8, 16), 4)
    rows = split.load(q, (0, 1, None))
    keys, values = split.load(k, (0, None, 2), 2), split.load(v, (0, None, 1), 1)
    scores = (rows @ keys) / 16
    parts = split.rescale(scores, values), split.rescale(scores), split.accumulate(scores, 2, how="max")
    stored = split.store(*((split.reshape(part, 1, 1, 32, part.dims[2]), (1, 2, 0)) for part in parts))
    c = b.kernel((2, 8))
    tops, sums, peaks = (c.load(part, (1, 2)) for part in stored)
    scale = c.exp(peaks - c.amax(peaks, 0))
    made = c.sum(tops * scale, 0) / c.sum(sums * scale, 0)
    b.output(*c.store((c.reshape(made, 1, 32, 64), (0, 1))))
    return b.graph(), programs.gqa()


@right
def qknorm_fused_in() -> Pair:
    b = Program()
    q, k, v = b.input("Q", (2, 256, 64)), b.input("K", (2, 4096, 64)), b.input("V", (2, 4096, 64))
    block = b.kernel((2, 16), 32)
    rows, keys, values = block.load(q, (0, 1)), block.load(k, (0, None), 1), block.load(v, (0, None), 1)
    e = block.exp((block.rms_norm(rows) @ block.transpose(block.rms_norm(keys))) / 16)
    made = block.accumulate(e @ values) / block.accumulate(e, 2)
    b.output(*block.store((made, (0, 1))))
    return b.graph(), programs.qknorm_gqa()


@right
def lora_in_one_kernel() -> Pair:
    b = Program()
    x, w = b.input("X", (16, 256)), b.input("W", (256, 4096))
    left, right = b.input("A", (256, 16)), b.input("B", (16, 4096))
    k = b.kernel((32,), 4)
    tile, weights, down, up = k.load(x, (None,), 1), k.load(w, (1,), 0), k.load(left, (None,), 0), k.load(right, (1,))
    made = k.accumulate(tile @ weights) + k.accumulate(tile @ down) @ up
    b.output(*k.store((made, (1,))))
    return b.graph(), programs.lora()


@right
def lora_joined_inside_the_block() -> Pair:
    """[X, XA] @ [W; B]: one product of joined matrices."""
    b = Program()
    x, w = b.input("X", (16, 256)), b.input("W", (256, 4096))
    left, right = b.input("A", (256, 16)), b.input("B", (16, 4096))
    k = b.kernel((32,))
    tile, weights, down, up = k.load(x, (None,)), k.load(w, (1,)), k.load(left, (None,)), k.load(right, (1,))
    made = k.concat(tile, tile @ down, axis=1) @ k.concat(weights, up, axis=0)
    b.output(*k.store((made, (1,))))
    return b.graph(), programs.lora()


@right
def norm_transformer_in_one_kernel() -> Pair:
    b = Program()
    h, x, a = (b.input(name, (8, 4096)) for name in "HXa")
    k = b.kernel((8,))
    hidden, rows, scale = (k.load(value, (0,)) for value in (h, x, a))
    k_sum = rows + scale * (k.rms_norm(hidden) + rows)
    b.output(*k.store((k.rms_norm(k_sum), (0,))))
    return b.graph(), programs.norm_transformer()


@right
def fused_gate_up_in_one_kernel() -> Pair:
    b = Program()
    x = b.input("x", (512, 3072), "bf16")
    gate, up = b.input("Wg", (24576, 3072), "bf16"), b.input("Wu", (24576, 3072), "bf16")
    k = b.kernel((4, 192), 48)
    tile, left, right = k.load(x, (0, None), 1), k.load(gate, (None, 0), 1), k.load(up, (None, 0), 1)
    made = k.gelu(k.accumulate(tile @ k.transpose(left))) * k.accumulate(tile @ k.transpose(right))
    b.output(*k.store((made, (0, 1))))
    return b.graph(), programs.fused_gate_up()


@right
def product_in_another_order() -> Pair:
    """(A·B)·C as A·(B·C), which the published canonical order loses."""
    b, r = Program(), Program()
    x, y, z = (b.input(name, dims) for name, dims in (("A", (12, 30)), ("B", (30, 20)), ("C", (20, 7))))
    b.output(x @ (y @ z))
    x, y, z = (r.input(name, dims) for name, dims in (("A", (12, 30)), ("B", (30, 20)), ("C", (20, 7))))
    r.output((x @ y) @ z)
    return b.graph(), r.graph()


@right
def outputs_change_places() -> Pair:
    b, r = Program(), Program()
    x, y = b.input("X", (6, 10)), b.input("Y", (6, 10))
    b.output(x * y, x + y)
    x, y = r.input("X", (6, 10)), r.input("Y", (6, 10))
    r.output(y + x, y * x)
    return b.graph(), r.graph()


@right
def exponential_of_a_sum() -> Pair:
    b, r = Program(), Program()
    x, y = b.input("X", (6, 10)), b.input("Y", (6, 10))
    b.output(b.exp(x) * b.exp(y))
    x, y = r.input("X", (6, 10)), r.input("Y", (6, 10))
    r.output(r.exp(x + y))
    return b.graph(), r.graph()


@right
def convolution_as_a_product() -> Pair:
    b, r = Program(), Program()
    windows = (Window(3, stride=2, padding=1), Window(3, stride=2, padding=1))
    x, w = b.input("x", (4, 8, 15, 15)), b.input("w", (12, 8, 3, 3))
    columns = b.reshape(b.permute(b.unfold(x, *windows), 0, 2, 3, 1, 4, 5), 4, 64, 72)
    made = columns @ b.transpose(b.reshape(w, 12, 72))
    b.output(b.reshape(b.transpose(made), 4, 12, 8, 8))
    x, w = r.input("x", (4, 8, 15, 15)), r.input("w", (12, 8, 3, 3))
    r.output(r.convolve(x, w, *windows))
    return b.graph(), r.graph()


@right
def heads_cut_by_the_grid() -> Pair:
    """A projection that is split into heads afterwards, and one whose blocks are the heads."""
    b, r = Program(), Program()
    x, w = b.input("x", (10, 48)), b.input("w", (48, 40))
    k = b.kernel((5,), 3)
    made = k.accumulate(k.load(x, (None,), 1) @ k.load(w, (1,), 0))
    b.output(*k.store((k.reshape(made, 1, 10, 8), (0,))))
    x, w = r.input("x", (10, 48)), r.input("w", (48, 40))
    r.output(r.permute(r.reshape(x @ w, 10, 5, 8), 1, 0, 2))
    return b.graph(), r.graph()


@right
def tiles_put_together_by_the_loop() -> Pair:
    b, r = Program(), Program()
    x = b.input("x", (10, 48))
    k = b.kernel((5,), 3)
    b.output(*k.store((k.accumulate(k.exp(k.load(x, (0,), 1)), 1, how="concat"), (0,))))
    x = r.input("x", (10, 48))
    r.output(r.exp(x))
    return b.graph(), r.graph()


@right
def maximum_in_parts() -> Pair:
    b, r = Program(), Program()
    x = b.input("x", (10, 48))
    k = b.kernel((5,), 3)
    b.output(*k.store((k.accumulate(k.load(x, (0,), 1), 1, how="max"), (0,))))
    x = r.input("x", (10, 48))
    r.output(r.amax(x, 1))
    return b.graph(), r.graph()


@right
def threes_of_a_joined_projection() -> Pair:
    """q, k and v cut out of one product, and three products with the cut weights."""
    b, r = Program(), Program()
    x, w = b.input("x", (10, 48)), b.input("w", (48, 60))
    q, k, v = (x @ b.slice(w, 1, 20 * i, 20 * i + 20) for i in range(3))
    b.output((q * k) + v)
    x, w = r.input("x", (10, 48)), r.input("w", (48, 60))
    made = x @ w
    q, k, v = (r.slice(made, 1, 20 * i, 20 * i + 20) for i in range(3))
    r.output(v + (k * q))
    return b.graph(), r.graph()


@right
def chained_in_registers() -> Pair:
    graph, reference = RIGHT["gated_mlp_in_one_kernel"]()
    return with_thread(graph), reference


def with_thread(graph: Graph) -> Graph:
    """The last two steps of the one kernel, silu and mul, as one thread."""
    from dataclasses import replace

    from tilesmith.core.graph import Kernel, Op, Store, Thread

    kernel = graph.nodes[0]
    assert isinstance(kernel, Kernel)
    left, right = len(kernel.loads) + 1, len(kernel.loads) + 3
    thread = Thread((left, right), (Op("silu", (0,)), Op("mul", (2, 1))))
    body = (*kernel.body[:-2], thread)
    made = replace(kernel, body=body, stores=(Store(len(kernel.loads) + len(body) - 1, (1,)),))
    return replace(graph, nodes=(made,))
