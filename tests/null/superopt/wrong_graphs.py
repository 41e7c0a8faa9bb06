"""µGraphs that are almost right: mutants of right ones, and mistakes written by hand, each with its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from right_graphs import RIGHT, Pair, gqa_inputs

from tilesmith.core.graph import Accumulate, Graph, Node, Op, Step, Window
from tilesmith.core.graph_check import check, tensors
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt import programs
from tilesmith.superopt.build import Block, Expression, Program

WRONG: dict[str, Callable[[], Pair]] = {}


def wrong(build: Callable[[], Pair]) -> Callable[[], Pair]:
    WRONG[build.__name__] = build
    return build


def row_pair(first: Callable[..., Expression], second: Callable[..., Expression], *dims: tuple[int, ...]) -> Pair:
    """Two programs of inputs with these extents."""
    made = []
    for build in (first, second):
        b = Program()
        b.output(build(b, *(b.input(f"x{i}", extents) for i, extents in enumerate(dims))))
        made.append(b.graph())
    return made[0], made[1]


@wrong
def broadcast_along_the_other_dimension() -> Pair:
    dims = ((30, 30), (30,))
    return row_pair(lambda b, x, y: x + b.reshape(y, 30, 1), lambda _, x, y: x + y, *dims)


@wrong
def square_weight_not_transposed() -> Pair:
    return row_pair(lambda _, x, w: x @ w, lambda b, x, w: x @ b.transpose(w), (30, 30), (30, 30))


@wrong
def factors_of_one_shape_exchanged() -> Pair:
    return row_pair(lambda _, x, w: w @ x, lambda _, x, w: x @ w, (30, 30), (30, 30))


@wrong
def difference_the_other_way() -> Pair:
    return row_pair(lambda _, x, y: y - x, lambda _, x, y: x - y, (30, 20), (30, 20))


@wrong
def quotient_the_other_way() -> Pair:
    return row_pair(lambda _, x, y: y / x, lambda _, x, y: x / y, (30, 20), (30, 20))


@wrong
def mean_of_another_dimension() -> Pair:
    return row_pair(lambda b, x: x - b.mean(x, 0), lambda b, x: x - b.mean(x, 1), (30, 30))


@wrong
def sum_for_mean() -> Pair:
    return row_pair(lambda b, x: x - b.sum(x, 1), lambda b, x: x - b.mean(x, 1), (30, 20))


@wrong
def one_index_used_twice() -> Pair:
    """The diagonal's row: X @ X.T for X @ Y.T."""
    return row_pair(lambda b, x, _: x @ b.transpose(x), lambda b, x, y: x @ b.transpose(y), (30, 20), (30, 20))


@wrong
def epsilon_outside_of_the_root() -> Pair:
    def outside(b: Program, x: Expression) -> Expression:
        return x / (b.sqrt(b.mean(b.square(x), 1)) + 1e-5)

    return row_pair(outside, lambda b, x: b.rms_norm(x), (30, 20))


@wrong
def another_epsilon() -> Pair:
    return row_pair(lambda b, x: b.rms_norm(x, eps=1e-6), lambda b, x: b.rms_norm(x, eps=1e-5), (30, 20))


@wrong
def root_without_its_sign() -> Pair:
    """A row divided by its sum, then normed: right but for the sign of the sum."""

    def normed(b: Program, x: Expression) -> Expression:
        return x / b.sqrt(b.mean(b.square(x), 1))

    return row_pair(lambda b, x: normed(b, x / b.sum(x, 1)), normed, (30, 20))


@wrong
def root_of_a_square() -> Pair:
    return row_pair(lambda _, x: x, lambda b, x: b.sqrt(b.square(x)), (30, 20))


@wrong
def root_of_a_sum() -> Pair:
    return row_pair(lambda b, x, y: b.sqrt(x) + b.sqrt(y), lambda b, x, y: b.sqrt(x + y), (30, 20), (30, 20))


@wrong
def exponential_of_a_product() -> Pair:
    return row_pair(lambda b, x, y: b.exp(x) * b.exp(y), lambda b, x, y: b.exp(x * y), (30, 20), (30, 20))


@wrong
def activation_before_the_product() -> Pair:
    return row_pair(lambda b, x, y: b.silu(x) @ y, lambda b, x, y: b.silu(x @ y), (30, 20), (20, 12))


@wrong
def another_activation() -> Pair:
    return row_pair(lambda b, x: b.gelu(x), lambda b, x: b.apply("gelu_erf", x), (30, 20))


@wrong
def gate_and_up_exchanged() -> Pair:
    def build(b: Program, x: Expression, a: Expression, c: Expression) -> Expression:
        return b.silu(x @ c) * (x @ a)

    return row_pair(build, lambda b, x, a, c: b.silu(x @ a) * (x @ c), (8, 40), (40, 40), (40, 40))


@wrong
def softmax_of_another_dimension() -> Pair:
    return row_pair(lambda b, x: b.softmax(x, 0), lambda b, x: b.softmax(x, 1), (30, 30))


@wrong
def maximum_for_sum() -> Pair:
    return row_pair(lambda b, x: b.amax(x, 1), lambda b, x: b.sum(x, 1), (30, 20))


@wrong
def relu_for_clamp() -> Pair:
    return row_pair(lambda b, x: b.relu(x), lambda b, x: b.clamp(x, 0, 0.1), (30, 20))


@wrong
def bounds_of_a_clamp_changed() -> Pair:
    return row_pair(lambda b, x: b.clamp(x, -1, 0.2), lambda b, x: b.clamp(x, -1, 0.1), (30, 20))


@wrong
def exponent_changed() -> Pair:
    return row_pair(lambda _, x: x**3, lambda _, x: x**2, (30, 20))


@wrong
def rows_reshaped_across() -> Pair:
    """[30, 20] seen as [20, 30] is no transposition."""
    return row_pair(lambda b, x: b.reshape(x, 20, 30), lambda b, x: b.transpose(x), (30, 20))


@wrong
def heads_not_moved_back() -> Pair:
    def build(b: Program, x: Expression) -> Expression:
        return b.reshape(b.permute(b.reshape(x, 6, 4, 5), 1, 0, 2), 6, 20)

    return row_pair(build, lambda _, x: x * 1, (6, 20))


@wrong
def slices_exchanged() -> Pair:
    return row_pair(
        lambda b, x: b.slice(x, 1, 10, 20) / b.slice(x, 1, 0, 10),
        lambda b, x: b.slice(x, 1, 0, 10) / b.slice(x, 1, 10, 20),
        (30, 20),
    )


@wrong
def joined_in_another_order() -> Pair:
    return row_pair(lambda b, x, y: b.concat(y, x, axis=1), lambda b, x, y: b.concat(x, y, axis=1), (30, 20), (30, 20))


@wrong
def window_with_another_stride_order() -> Pair:
    tall, wide = (Window(3, stride=2, padding=1), Window(3, padding=1)), (Window(3, padding=1), Window(3, 2, 1))
    first, second = Program(), Program()
    for b, windows in ((first, tall), (second, wide)):
        x, w = b.input("x", (2, 4, 9, 9)), b.input("w", (6, 4, 3, 3))
        b.output(b.sum(b.convolve(x, w, *windows), 2, 3))
    return first.graph(), second.graph()


@wrong
def kernel_of_a_convolution_turned() -> Pair:
    windows = (Window(3), Window(3))

    def build(b: Program, x: Expression, w: Expression) -> Expression:
        return b.convolve(x, b.transpose(w), *windows)

    return row_pair(build, lambda b, x, w: b.convolve(x, w, *windows), (2, 4, 9, 9), (6, 4, 3, 3))


# Kernels -------------------------------------------------------------------------------------------------------------


def split_attention(combine: Callable[[Block, Expression, Expression, Expression], Expression]) -> Pair:
    """Flash-decoding with running maxima, combined in some way."""
    b = Program()
    q, k, v = gqa_inputs(b)
    split = b.kernel((2, 8, 16), 4)
    rows = split.load(q, (0, 1, None))
    keys, values = split.load(k, (0, None, 2), 2), split.load(v, (0, None, 1), 1)
    scores = (rows @ keys) / 16
    parts = split.rescale(scores, values), split.rescale(scores), split.accumulate(scores, 2, how="max")
    stored = split.store(*((split.reshape(part, 1, 1, 32, part.dims[2]), (1, 2, 0)) for part in parts))
    c = b.kernel((2, 8))
    made = combine(c, *(c.load(part, (1, 2)) for part in stored))
    b.output(*c.store((c.reshape(made, 1, 32, 64), (0, 1))))
    return b.graph(), programs.gqa()


@wrong
def parts_not_rescaled() -> Pair:
    return split_attention(lambda c, tops, sums, _: c.sum(tops, 0) / c.sum(sums, 0))


@wrong
def sums_not_rescaled() -> Pair:
    def combine(c: Block, tops: Expression, sums: Expression, peaks: Expression) -> Expression:
        return c.sum(tops * c.exp(peaks - c.amax(peaks, 0)), 0) / c.sum(sums, 0)

    return split_attention(combine)


@wrong
def rescaled_the_wrong_way() -> Pair:
    def combine(c: Block, tops: Expression, sums: Expression, peaks: Expression) -> Expression:
        scale = c.exp(c.amax(peaks, 0) - peaks)
        return c.sum(tops * scale, 0) / c.sum(sums * scale, 0)

    return split_attention(combine)


@wrong
def parts_averaged() -> Pair:
    return split_attention(lambda c, tops, sums, _: c.mean(tops / sums, 0))


@wrong
def only_the_largest_part() -> Pair:
    return split_attention(lambda c, tops, sums, _: c.amax(tops, 0) / c.amax(sums, 0))


@wrong
def top_rescaled_and_sum_plain() -> Pair:
    b = Program()
    q, k, v = gqa_inputs(b)
    block = b.kernel((2, 4), 64)
    rows, keys, values = block.load(q, (0, 1)), block.load(k, (0, None), 2), block.load(v, (0, None), 1)
    scores = (rows @ keys) / 16
    made = block.rescale(scores, values) / block.accumulate(block.exp(scores), 2)
    b.output(*block.store((made, (0, 1))))
    return b.graph(), programs.gqa()


@wrong
def normed_by_tile() -> Pair:
    """Every tile of the rows is normed by itself."""
    b = Program()
    x, w = b.input("X", (2, 4096)), b.input("W", (4096, 6144))
    k = b.kernel((96,), 64)
    tile, weights = k.load(x, (None,), 1), k.load(w, (1,), 0)
    b.output(*k.store((k.accumulate(k.rms_norm(tile) @ weights), (1,))))
    return b.graph(), programs.rmsnorm_linear()


@wrong
def activation_inside_the_loop() -> Pair:
    b = Program()
    x, a, c = b.input("X", (8, 4096)), b.input("A", (4096, 4096)), b.input("B", (4096, 4096))
    k = b.kernel((64,), 32)
    tile, gate, up = k.load(x, (None,), 1), k.load(a, (1,), 0), k.load(c, (1,), 0)
    b.output(*k.store((k.accumulate(k.silu(tile @ gate)) * k.accumulate(tile @ up), (1,))))
    return b.graph(), programs.gated_mlp()


@wrong
def product_of_the_parts() -> Pair:
    """(Σ a)(Σ b) is not Σ ab."""
    b = Program()
    x, a, c = b.input("X", (8, 4096)), b.input("A", (4096, 4096)), b.input("B", (4096, 4096))
    k = b.kernel((64,), 32)
    tile, gate, up = k.load(x, (None,), 1), k.load(a, (1,), 0), k.load(c, (1,), 0)
    b.output(*k.store((k.accumulate((tile @ gate) * (tile @ up)), (1,))))
    r = Program()
    x, a, c = r.input("X", (8, 4096)), r.input("A", (4096, 4096)), r.input("B", (4096, 4096))
    r.output((x @ a) * (x @ c))
    return b.graph(), r.graph()


@wrong
def low_rank_product_for_every_part() -> Pair:
    """The invariant factor is applied to the sum of sums: B is multiplied once too often by a part of X."""
    b = Program()
    x, w = b.input("X", (16, 256)), b.input("W", (256, 4096))
    left, right = b.input("A", (256, 16)), b.input("B", (16, 4096))
    k = b.kernel((32,), 4)
    tile, weights, down, up = k.load(x, (None,), 1), k.load(w, (1,), 0), k.load(left, (None,), 0), k.load(right, (1,))
    both = k.accumulate(tile @ weights + (tile @ down) @ up)
    b.output(*k.store((both + k.accumulate(tile @ down) @ up, (1,))))
    return b.graph(), programs.lora()


@wrong
def combining_kernel_forgets_a_part() -> Pair:
    b = Program()
    x, w = b.input("X", (6, 64)), b.input("W", (64, 40))
    k = b.kernel((5, 4))
    made = k.load(x, (None, 1)) @ k.load(w, (1, 0))
    (parts,) = k.store((k.reshape(made, 1, 6, 8), (2, 0)))
    b.output(b.reshape(b.slice(parts, 0, 0, 1), 6, 40))
    r = Program()
    x, w = r.input("X", (6, 64)), r.input("W", (64, 40))
    r.output(x @ w)
    return b.graph(), r.graph()


@wrong
def parts_are_joined_along_the_rows() -> Pair:
    """Output tiles of a square grid put together transposed."""
    b = Program()
    x, y = b.input("X", (12, 30)), b.input("Y", (30, 12))
    k = b.kernel((2, 2))
    b.output(*k.store((k.load(x, (0, None)) @ k.load(y, (None, 1)), (1, 0))))
    r = Program()
    x, y = r.input("X", (12, 30)), r.input("Y", (30, 12))
    r.output(x @ y)
    return b.graph(), r.graph()


def normed_linear(square: Callable[[Block, Expression, Expression], Expression], share: int = 4096) -> Pair:
    """rms(X) @ W as one kernel that divides after the loop by some sum of squares."""
    b = Program()
    x, w = b.input("X", (2, 4096)), b.input("W", (4096, 6144))
    k = b.kernel((96,), 64)
    tile, weights = k.load(x, (None,), 1), k.load(w, (1,), 0)
    product = k.accumulate(tile @ weights)
    b.output(*k.store((product / k.sqrt(square(k, tile, weights) / share + 1e-5), (1,))))
    return b.graph(), programs.rmsnorm_linear()


@wrong
def mean_of_one_tile() -> Pair:
    """Divided by the 64 elements of an iteration, not by all."""
    return normed_linear(lambda k, tile, _: k.accumulate(k.square(tile), 1), share=64)


@wrong
def norm_of_the_weights() -> Pair:
    return normed_linear(lambda k, _, weights: k.reshape(k.accumulate(k.square(weights), 0), 1, 64))


@wrong
def square_of_the_sum() -> Pair:
    return normed_linear(lambda k, tile, _: k.square(k.accumulate(tile, 1)))


@wrong
def epsilon_in_every_iteration() -> Pair:
    def square(k: Block, tile: Expression, _: Expression) -> Expression:
        return k.accumulate(k.sum(k.square(tile), 1) + 1e-5 * 4096)

    return normed_linear(square)


@wrong
def root_in_every_iteration() -> Pair:
    return normed_linear(lambda k, tile, _: k.square(k.accumulate(k.sqrt(k.sum(k.square(tile), 1)))))


def gated(gate: Callable[[Block, Expression, Expression], Expression]) -> Pair:
    b = Program()
    x, left, right = b.input("X", (8, 4096)), b.input("A", (4096, 4096)), b.input("B", (4096, 4096))
    k = b.kernel((64,), 32)
    tile, first, second = k.load(x, (None,), 1), k.load(left, (1,), 0), k.load(right, (1,), 0)
    b.output(*k.store((gate(k, k.accumulate(tile @ first), k.accumulate(tile @ second)), (1,))))
    return b.graph(), programs.gated_mlp()


@wrong
def the_other_one_gates() -> Pair:
    return gated(lambda k, left, right: left * k.silu(right))


@wrong
def both_gate() -> Pair:
    return gated(lambda k, left, right: k.silu(left) * k.silu(right))


@wrong
def gated_by_a_sigmoid() -> Pair:
    return gated(lambda k, left, right: k.sigmoid(left) * right)


@wrong
def activation_of_the_product() -> Pair:
    return gated(lambda k, left, right: k.silu(left * right))


def attended(weigh: Callable[[Block, Expression, Expression], tuple[Expression, Expression]]) -> Pair:
    """Attention as one kernel: from scores and values of an iteration the two sums."""
    b = Program()
    q, key, value = gqa_inputs(b)
    k = b.kernel((2, 4), 64)
    rows, keys, values = k.load(q, (0, 1)), k.load(key, (0, None), 2), k.load(value, (0, None), 1)
    top, bottom = weigh(k, rows @ keys, values)
    b.output(*k.store((top / bottom, (0, 1))))
    return b.graph(), programs.gqa()


@wrong
def scaled_after_the_exponential() -> Pair:
    def weigh(k: Block, scores: Expression, values: Expression) -> tuple[Expression, Expression]:
        weights = k.exp(scores) / 16
        return k.accumulate(weights @ values), k.accumulate(weights, 2)

    return attended(weigh)


@wrong
def unscaled_below() -> Pair:
    def weigh(k: Block, scores: Expression, values: Expression) -> tuple[Expression, Expression]:
        return k.accumulate(k.exp(scores / 16) @ values), k.accumulate(k.exp(scores), 2)

    return attended(weigh)


@wrong
def normalised_in_every_iteration() -> Pair:
    def weigh(k: Block, scores: Expression, values: Expression) -> tuple[Expression, Expression]:
        weights = k.exp(scores / 16)
        return k.accumulate((weights / k.sum(weights, 2)) @ values), k.constant(64)

    return attended(weigh)


@wrong
def largest_instead_of_the_sum() -> Pair:
    def weigh(k: Block, scores: Expression, values: Expression) -> tuple[Expression, Expression]:
        weights = k.exp(scores / 16)
        return k.accumulate(weights @ values), k.accumulate(weights, 2, how="max")

    return attended(weigh)


@wrong
def split_sum_joined_from_one_part() -> Pair:
    """Every part of the top, but of the bottom the first part only."""
    b = Program()
    q, key, value = gqa_inputs(b)
    k = b.kernel((2, 8, 16), 4)
    rows, keys, values = k.load(q, (0, 1, None)), k.load(key, (0, None, 2), 2), k.load(value, (0, None, 1), 1)
    weights = k.exp((rows @ keys) / 16)
    parts = k.accumulate(weights @ values), k.accumulate(weights, 2)
    tops, bottoms = k.store(*((k.reshape(part, 1, 1, 32, part.dims[2]), (1, 2, 0)) for part in parts))
    c = b.kernel((2, 8))
    top, bottom = c.load(tops, (1, 2)), c.load(bottoms, (1, 2))
    made = c.sum(top, 0) / c.slice(bottom, 0, 0, 1)
    b.output(*c.store((c.reshape(made, 1, 32, 64), (0, 1))))
    return b.graph(), programs.gqa()


def normed_twice(step: Callable[[Block, Expression, Expression, Expression], Expression]) -> Pair:
    b = Program()
    inputs = [b.input(name, (8, 4096)) for name in "HXa"]
    k = b.kernel((8,))
    h, x, share = (k.load(tensor, (0,)) for tensor in inputs)
    b.output(*k.store((step(k, h, x, share), (0,))))
    return b.graph(), programs.norm_transformer()


@wrong
def residual_forgotten() -> Pair:
    return normed_twice(lambda k, h, x, share: k.rms_norm(share * (k.rms_norm(h) + x)))


@wrong
def inner_norm_forgotten() -> Pair:
    return normed_twice(lambda k, h, x, share: k.rms_norm(x + share * (h + x)))


@wrong
def factors_share_exchanged() -> Pair:
    return normed_twice(lambda k, h, x, share: k.rms_norm(share + x * (k.rms_norm(h) + x)))


@wrong
def the_other_one_is_normed() -> Pair:
    return normed_twice(lambda k, h, x, share: k.rms_norm(x + share * (k.rms_norm(x) + h)))


# Mutants -------------------------------------------------------------------------------------------------------------

OTHER = {
    "add": ("sub", "mul"), "mul": ("add", "div"), "div": ("mul",), "sub": ("add",), "exp": ("square", "silu"),
    "square": ("exp", "relu"), "sqrt": ("rsqrt", "square"), "rsqrt": ("sqrt",), "silu": ("relu", "gelu", "sigmoid"),
    "gelu": ("silu",), "sigmoid": ("silu", "tanh"), "sum": ("amax",), "amax": ("sum",),
}  # fmt: skip


def mutants(graph: Graph) -> Iterator[Graph]:
    """Every graph that differs in one place and is still well formed with outputs of the same extents."""
    wanted = [tensors(graph)[output].dims for output in graph.outputs]
    for place, node in enumerate(graph.nodes):
        for other in _changed(node, place, graph):
            made = replace(graph, nodes=(*graph.nodes[:place], other, *graph.nodes[place + 1 :]))
            if not check(made) and [tensors(made)[output].dims for output in made.outputs] == wanted:
                yield made


def _changed(node: Node, place: int, graph: Graph) -> Iterator[Node]:
    if isinstance(node, Op):
        count = len(graph.inputs) + sum(1 if isinstance(n, Op) else len(n.stores) for n in graph.nodes[:place])
        yield from (step for step in _changed_step(node, count) if isinstance(step, Op))
        return
    for number, load in enumerate(node.loads):
        others = [replace(load, fmap=fmap) for fmap in (None, 0, 1, 2) if fmap != load.fmap]
        others += [replace(load, imap=tuple(reversed(load.imap))), replace(load, imap=load.imap[1:] + load.imap[:1])]
        others += [replace(load, source=source) for source in range(len(graph.inputs)) if source != load.source]
        for axis in range(len(load.imap)):
            others += [replace(load, imap=(*load.imap[:axis], d, *load.imap[axis + 1 :])) for d in (None, 0, 1, 2)]
        for other in others:
            yield replace(node, loads=(*node.loads[:number], other, *node.loads[number + 1 :]))
    for number, store in enumerate(node.stores):
        others_of = [replace(store, omap=tuple(reversed(store.omap)))]
        others_of += [replace(store, source=s) for s in range(len(node.loads) + len(node.body)) if s != store.source]
        for changed in others_of:
            yield replace(node, stores=(*node.stores[:number], changed, *node.stores[number + 1 :]))
    for number, step in enumerate(node.body):
        for made in _changed_step(step, len(node.loads) + number):
            yield replace(node, body=(*node.body[:number], made, *node.body[number + 1 :]))


def _changed_step(step: Step, known: int) -> Iterator[Step]:
    for position in range(len(step.operands)):
        for value in range(known):
            if value != step.operands[position]:
                operands = (*step.operands[:position], value, *step.operands[position + 1 :])
                yield replace(step, operands=operands)
    if len(step.operands) == 2:
        yield replace(step, operands=step.operands[::-1])
    if isinstance(step, Accumulate):
        if step.how in ("sum", "max"):
            yield replace(step, how="max" if step.how == "sum" else "sum")
        return
    if not isinstance(step, Op):
        return
    for name in OTHER.get(step.operator, ()):
        yield replace(step, operator=name)
    if step.operator == "constant":
        yield replace(step, values=(step.values[0] * 2,))
        yield replace(step, values=(step.values[0] + Fraction(1, 1000),))
    if step.axes and OPERATORS[step.operator].kind in ("reduction", "macro"):
        for axis in range(3):
            yield replace(step, axes=(axis,))


def all_mutants() -> Iterator[tuple[str, Graph, Graph]]:
    for name, build in RIGHT.items():
        graph, reference = build()
        for made in mutants(graph):
            yield name, made, reference
