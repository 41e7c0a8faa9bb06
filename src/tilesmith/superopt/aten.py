"""ATen operators in terms of µGraphs. What has no rule here, or no exact one, stays PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

from tilesmith.core.errors import OptionError, ProblemError
from tilesmith.core.graph import Op, Window
from tilesmith.core.graph_check import BYTES, apply
from tilesmith.core.operators import Misfit
from tilesmith.superopt.build import exact
from tilesmith.superopt.traced import Opaque, Traced, Value


class _Untranslatable(Exception):
    """No operator of µGraphs does this."""


Arguments = Mapping[str, Any]
Made = int | list[int]


class _Writer:
    """Collects nodes; what one row of the trace has emitted can be taken back."""

    def __init__(self, inputs: Sequence[Value]) -> None:
        self.known: list[Value] = list(inputs)
        self.nodes: list[Op | Opaque] = []
        self.places: list[str] = []
        self.place = ""
        self.calls: list[int] = []
        self.call = 0

    def apply(
        self,
        operator: str,
        *operands: int,
        axes: Sequence[int] = (),
        dims: Sequence[int] = (),
        values: Sequence[Any] = (),
        windows: Sequence[Window] = (),
        dtype: Any = None,
    ) -> int:
        rank = len(self.known[operands[0]].dims) if operands else 0
        positive = tuple(axis + rank if axis < 0 else axis for axis in axes)
        numbers = tuple(map(_number, values))
        op = Op(operator, operands, positive, tuple(dims), numbers, tuple(windows), dtype)
        used = [self.known[value].tensor for value in operands]
        if None in used:
            raise _Untranslatable("it computes with integers")
        local = Op(operator, tuple(range(len(operands))), positive, tuple(dims), numbers, tuple(windows), dtype)
        made = apply(local, used)
        if 0 in (*made.dims, *(extent for tensor in used if tensor for extent in tensor.dims)):
            raise _Untranslatable("a tensor without elements")
        self.nodes.append(op)
        self.places.append(self.place)
        self.calls.append(self.call)
        self.known.append(Value(made.dims, made.dtype))
        return len(self.known) - 1

    def constant(self, number: Any) -> int:
        return self.apply("constant", values=(number,))

    def dims(self, value: int) -> tuple[int, ...]:
        return self.known[value].dims

    def reshape(self, value: int, dims: Sequence[int]) -> int:
        return value if tuple(dims) == self.dims(value) else self.apply("reshape", value, dims=dims)

    def axis(self, value: int, axis: int, extra: int = 0) -> int:
        """Counted from the front; `extra` for operators that make a dimension."""
        return axis + len(self.dims(value)) + extra if axis < 0 else axis


def translate(answer: Mapping[str, Any]) -> Traced:
    """The program that the child process listed."""
    inputs = [Value(tuple(row["dims"]), row["dtype"], row["name"], row["origin"]) for row in answer["inputs"]]
    writer = _Writer(inputs)
    results: list[Made] = []

    def value(argument: Any) -> Any:
        """A reference becomes a number of a value, wrapped; everything else stays."""
        if isinstance(argument, dict) and "input" in argument:
            return _Reference(argument["input"])
        if isinstance(argument, dict) and "row" in argument:
            return _Reference(results[argument["row"]])
        return [value(entry) for entry in argument] if isinstance(argument, list) else argument

    # Of what makes several values, how many are used: all up to the last that is taken.
    taken = [0] * len(answer["rows"])
    for row in answer["rows"]:
        if row["target"] == "getitem":
            source = row["arguments"]["0"]["row"]
            taken[source] = max(taken[source], row["arguments"]["1"] + 1)
    for writer.call, row in enumerate(answer["rows"]):
        if not row["results"]:
            # A check of metadata: the trace itself has passed it.
            results.append([])
            continue
        writer.place = row["place"]
        arguments = {name: value(argument) for name, argument in row["arguments"].items()}
        results.append(_translated(writer, row, arguments, taken[writer.call]))
    outputs = [value(output) for output in answer["outputs"]]
    if not all(isinstance(output, _Reference) and isinstance(output.value, int) for output in outputs):
        raise ProblemError("The model returns something else than tensors that it computes, which a µGraph cannot.")
    return Traced(
        tuple(inputs),
        tuple(writer.nodes),
        tuple(output.value for output in outputs),
        tuple(writer.places),
        tuple(writer.calls),
        tuple(made if isinstance(made, int) else tuple(made) for made in results),
    )


@dataclass(frozen=True, slots=True)
class _Reference:
    value: Any
    """The number of a value, or a list of them where an operator makes several."""


def _translated(writer: _Writer, row: Mapping[str, Any], arguments: Arguments, taken: int) -> Made:
    target = row["target"]
    before = len(writer.known), len(writer.nodes)
    if target == "getitem":
        made: Made = arguments["0"].value[arguments["1"]]
        return made
    rule = RULES.get(target.removeprefix("aten."))
    if rule is not None:
        try:
            made = rule(writer, _plain(arguments))
        except (_Untranslatable, Misfit, OptionError, KeyError):
            # A missing key is an argument that another version of PyTorch names otherwise.
            made = []
        unused = isinstance(made, list) and taken <= len(made) < len(row["results"])
        wanted = row["results"][: len(made)] if isinstance(made, list) and unused else row["results"]
        if (listed := _as_listed(writer, made, wanted)) is not None:
            return listed
    # What was emitted for it is taken back.
    del writer.known[before[0] :], writer.nodes[before[1] :], writer.places[before[1] :], writer.calls[before[1] :]
    results = [Value(tuple(r["dims"]), r["dtype"]) if r else Value((), "nothing") for r in row["results"]]
    writer.nodes.append(Opaque(target, tuple(_operands(list(arguments.values()))), tuple(results)))
    writer.places.append(writer.place)
    writer.calls.append(writer.call)
    writer.known += results
    numbers = list(range(before[0], before[0] + len(results)))
    return numbers[0] if len(numbers) == 1 else numbers


def _plain(arguments: Arguments) -> Arguments:
    """References as numbers of values: which argument is one is known to the rule."""

    def bare(value: Any) -> Any:
        if isinstance(value, _Reference):
            return value.value
        return [bare(entry) for entry in value] if isinstance(value, list) else value

    plain = {name: bare(value) for name, value in arguments.items()}
    # Some operators take a tensor or a number in one place.
    return {**plain, "is_number": {name for name, value in arguments.items() if not isinstance(value, _Reference)}}


def _operands(arguments: list[Any]) -> list[int]:
    made: list[int] = []
    for argument in arguments:
        if isinstance(argument, _Reference):
            made += argument.value if isinstance(argument.value, list) else [argument.value]
        elif isinstance(argument, list):
            made += _operands(argument)
    return made


def _as_listed(writer: _Writer, made: Made, results: Sequence[Mapping[str, Any]]) -> Made | None:
    """The translation, cast where PyTorch's result has another dtype; None where it makes something else."""
    values = [made] if isinstance(made, int) else list(made)
    if len(values) != len(results) or not values:
        return None
    for place, result in enumerate(results):
        known = writer.known[values[place]]
        if result is None or known.dims != tuple(result["dims"]):
            return None
        if known.dtype != result["dtype"]:
            if known.dtype not in BYTES or result["dtype"] not in BYTES:
                return None
            values[place] = writer.apply("cast", values[place], dtype=result["dtype"])
    return values[0] if isinstance(made, int) else values


def _number(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Untranslatable(f"{value!r} is no number")
    return exact(value)


# Rules: one for each ATen operator ------------------------------------------------------------------------------------

Rule = Callable[[_Writer, Arguments], Made]
RULES: dict[str, Rule] = {}


def _rule(*targets: str) -> Callable[[Rule], Rule]:
    def note(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return note


def _unary(operator: str) -> Rule:
    return lambda w, a: w.apply(operator, a["self"])


for _name in ("exp", "log", "sqrt", "rsqrt", "square", "relu", "sigmoid", "tanh", "silu"):
    RULES[f"{_name}.default"] = _unary(_name)


def _other(w: _Writer, a: Arguments) -> int:
    """The second operand: a tensor, or a number as a constant."""
    other: int = a["other"]
    return w.constant(other) if "other" in a["is_number"] else other


def _binary(operator: str) -> Rule:
    def rule(w: _Writer, a: Arguments) -> Made:
        other = _other(w, a)
        if a.get("alpha", 1) != 1:
            other = w.apply("mul", other, w.constant(a["alpha"]))
        return w.apply(operator, a["self"], other)

    return rule


for _target, _operator in (
    ("add.Tensor", "add"), ("add.Scalar", "add"), ("sub.Tensor", "sub"), ("sub.Scalar", "sub"), ("mul.Tensor", "mul"),
    ("mul.Scalar", "mul"), ("div.Tensor", "div"), ("div.Scalar", "div"), ("maximum.default", "max"),
    ("minimum.default", "min"),
):  # fmt: skip
    RULES[_target] = _binary(_operator)


@_rule("rsub.Scalar", "rsub.Tensor")
def _rsub(w: _Writer, a: Arguments) -> Made:
    if a["alpha"] != 1:
        raise _Untranslatable("alpha")
    return w.apply("sub", _other(w, a), a["self"])


@_rule("neg.default")
def _neg(w: _Writer, a: Arguments) -> Made:
    return w.apply("mul", a["self"], w.constant(-1))


@_rule("reciprocal.default")
def _reciprocal(w: _Writer, a: Arguments) -> Made:
    return w.apply("div", w.constant(1), a["self"])


@_rule("abs.default")
def _abs(w: _Writer, a: Arguments) -> Made:
    return w.apply("max", a["self"], w.apply("mul", a["self"], w.constant(-1)))


@_rule("gelu.default")
def _gelu(w: _Writer, a: Arguments) -> Made:
    return w.apply("gelu" if a["approximate"] == "tanh" else "gelu_erf", a["self"])


@_rule("leaky_relu.default")
def _leaky_relu(w: _Writer, a: Arguments) -> Made:
    if not 0 <= a["negative_slope"] <= 1:
        raise _Untranslatable("a slope above 1")
    return w.apply("max", a["self"], w.apply("mul", a["self"], w.constant(a["negative_slope"])))


@_rule("relu6.default")
def _relu6(w: _Writer, a: Arguments) -> Made:
    return w.apply("clamp", a["self"], values=(0, 6))


@_rule("clamp.default", "hardtanh.default", "clamp_min.default", "clamp_max.default")
def _clamp(w: _Writer, a: Arguments) -> Made:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if low is not None and high is not None:
        return w.apply("clamp", a["self"], values=(low, high))
    return w.apply("min" if low is None else "max", a["self"], w.constant(high if low is None else low))


@_rule("pow.Tensor_Scalar")
def _pow(w: _Writer, a: Arguments) -> Made:
    if a["exponent"] == 2:
        return w.apply("square", a["self"])
    return w.apply("pow", a["self"], values=(a["exponent"],))


@_rule("to.dtype", "_to_copy.default", "to.dtype_layout")
def _to(w: _Writer, a: Arguments) -> Made:
    dtype = a["dtype"]["dtype"] if isinstance(a["dtype"], dict) else w.known[a["self"]].dtype
    if w.known[a["self"]].dtype == dtype:
        made: int = a["self"]
        return made
    if dtype not in BYTES:
        raise _Untranslatable(f"{dtype} is no dtype of µGraphs")
    return w.apply("cast", a["self"], dtype=dtype)


@_rule("clone.default", "contiguous.default", "alias.default", "detach.default", "lift_fresh_copy.default")
def _same(_w: _Writer, a: Arguments) -> Made:
    made: int = a["self"]
    return made


@_rule("dropout.default")
def _dropout(_w: _Writer, a: Arguments) -> Made:
    if a["train"] and a["p"] != 0:
        raise _Untranslatable("it draws random numbers")
    made: int = a["input"]
    return made


# Reductions and norms


def _reduced(w: _Writer, operator: str, value: int, axes: Sequence[int], keep: bool) -> int:
    dims = w.dims(value)
    chosen = sorted({w.axis(value, axis) for axis in axes} or range(len(dims)))
    made = w.apply(operator, value, axes=chosen)
    return made if keep else w.reshape(made, [extent for axis, extent in enumerate(dims) if axis not in chosen])


def _axes(a: Arguments) -> list[int]:
    dim = a.get("dim")
    return [dim] if isinstance(dim, int) else dim or []


def _reduction_of(operator: str) -> Rule:
    def rule(w: _Writer, a: Arguments) -> Made:
        value = a["self"]
        if isinstance(a.get("dtype"), dict):
            value = _to(w, a)
        return _reduced(w, operator, value, _axes(a), a.get("keepdim", False))

    return rule


for _target in ("sum.dim_IntList", "sum.default", "mean.dim", "mean.default", "amax.default"):
    RULES[_target] = _reduction_of(_target.partition(".")[0])


@_rule("softmax.int", "_softmax.default")
def _softmax(w: _Writer, a: Arguments) -> Made:
    value = a["self"]
    if isinstance(a.get("dtype"), dict):
        value = _to(w, a)
    return w.apply("softmax", value, axes=(a["dim"],))


@_rule("rms_norm.default")
def _rms_norm(w: _Writer, a: Arguments) -> Made:
    # Without an epsilon PyTorch takes that of the dtype in which it computes, at least float32.
    eps = a["eps"]
    if eps is None:
        eps = Fraction(1, 1 << 52 if w.known[a["input"]].dtype == "fp64" else 1 << 23)
    operands = (a["input"],) if a["weight"] is None else (a["input"], a["weight"])
    return w.apply("rms_norm", *operands, axes=range(-len(a["normalized_shape"]), 0), values=(eps,))


def _normal(w: _Writer, value: int, axes: Sequence[int], eps: Any) -> int:
    """(x - mean) / sqrt(mean of squares of that + eps)."""
    centred = w.apply("sub", value, w.apply("mean", value, axes=axes))
    variance = w.apply("mean", w.apply("square", centred), axes=axes)
    return w.apply("div", centred, w.apply("sqrt", w.apply("add", variance, w.constant(eps))))


@_rule("layer_norm.default")
def _layer_norm(w: _Writer, a: Arguments) -> Made:
    made = _normal(w, a["input"], range(-len(a["normalized_shape"]), 0), a["eps"])
    made = made if a["weight"] is None else w.apply("mul", made, a["weight"])
    return made if a["bias"] is None else w.apply("add", made, a["bias"])


@_rule("group_norm.default")
def _group_norm(w: _Writer, a: Arguments) -> Made:
    dims, groups = w.dims(a["input"]), a["num_groups"]
    inner = math.prod(dims[1:]) // groups
    made = w.reshape(_normal(w, w.reshape(a["input"], (dims[0], groups, inner)), (2,), a["eps"]), dims)
    wide = (dims[1], *(1 for _ in dims[2:]))
    made = made if a["weight"] is None else w.apply("mul", made, w.reshape(a["weight"], wide))
    return made if a["bias"] is None else w.apply("add", made, w.reshape(a["bias"], wide))


@_rule("var.correction", "var.dim")
def _var(w: _Writer, a: Arguments) -> Made:
    value = a["self"]
    axes = _axes(a) or list(range(len(w.dims(value))))
    correction = a["correction"] if "correction" in a else int(a["unbiased"])
    correction = 1 if correction is None else correction
    count = math.prod(w.dims(value)[axis] for axis in axes)
    if count <= correction:
        raise _Untranslatable("a variance of too few")
    centred = w.apply("sub", value, w.apply("mean", value, axes=axes))
    total = _reduced(w, "sum", w.apply("square", centred), axes, a["keepdim"])
    return w.apply("mul", total, w.constant(1 / (Fraction(count) - _number(correction))))


@_rule("linalg_vector_norm.default")
def _vector_norm(w: _Writer, a: Arguments) -> Made:
    if a["ord"] != 2 or a["dtype"] is not None:
        raise _Untranslatable("another norm than the Euclidean")
    return w.apply("sqrt", _reduced(w, "sum", w.apply("square", a["self"]), _axes(a), a["keepdim"]))


# Windows


def _spread(values: Sequence[int], count: int) -> Sequence[int]:
    """One number for every dimension: PyTorch takes one for all."""
    return list(values) * count if len(values) == 1 else values


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _pool(operator: str, count: int) -> Rule:
    """Of the last `count` dimensions. Where rounding up gives more places the result has other extents, and stays."""

    def rule(w: _Writer, a: Arguments) -> Made:
        sizes = _spread(_listed(a["kernel_size"]), count)
        strides = _spread(_listed(a["stride"]), count) or sizes
        paddings = _spread(_listed(a["padding"]), count)
        dilations = _spread(_listed(a.get("dilation", 1)), count)
        if operator == "mean_pool":
            if a.get("divisor_override") is not None:
                raise _Untranslatable("another divisor")
            if any(paddings) and not a["count_include_pad"]:
                raise _Untranslatable("a mean of fewer elements at the edges")
        windows = [Window(*row) for row in zip(sizes, strides, paddings, dilations, strict=True)]
        return w.apply(operator, a["self"], windows=windows)

    return rule


def _first(rule: Rule) -> Rule:
    """What makes the first of several values, where nobody takes the others."""

    def made(w: _Writer, a: Arguments) -> Made:
        value = rule(w, a)
        return [value] if isinstance(value, int) else value

    return made


def _adaptive(count: int) -> Rule:
    """Windows that tile the dimensions: all where one element is left of each."""

    def rule(w: _Writer, a: Arguments) -> Made:
        dims, sizes = w.dims(a["self"])[-count:], _spread(_listed(a["output_size"]), count)
        if all(size == 1 for size in sizes):
            return w.apply("mean", a["self"], axes=range(-count, 0))
        if any(not size or extent % size for extent, size in zip(dims, sizes, strict=True)):
            raise _Untranslatable("windows of several sizes")
        windows = [Window(extent // size, extent // size) for extent, size in zip(dims, sizes, strict=True)]
        return w.apply("mean_pool", a["self"], windows=windows)

    return rule


for _count in (1, 2, 3):
    RULES[f"max_pool{_count}d.default"] = _pool("max_pool", _count)
    RULES[f"max_pool{_count}d_with_indices.default"] = _first(_pool("max_pool", _count))
    RULES[f"avg_pool{_count}d.default"] = _pool("mean_pool", _count)
    RULES[f"adaptive_avg_pool{_count}d.default"] = _adaptive(_count)


# Products


def _product(w: _Writer, left: int, right: int) -> int:
    """As torch.matmul: vectors become matrices, and the dimension goes again."""
    one, two = w.dims(left), w.dims(right)
    if not one or not two:
        raise _Untranslatable("a product of numbers")
    x = w.reshape(left, (1, *one)) if len(one) == 1 else left
    y = w.reshape(right, (*two, 1)) if len(two) == 1 else right
    made = w.apply("matmul", x, y)
    dims = list(w.dims(made))
    if len(two) == 1:
        del dims[-1]
    if len(one) == 1:
        del dims[-1 if len(two) == 1 else -2]
    return w.reshape(made, dims)


@_rule("matmul.default", "mm.default", "bmm.default", "mv.default", "dot.default")
def _matmul(w: _Writer, a: Arguments) -> Made:
    return _product(w, a["self"], next(a[name] for name in ("other", "mat2", "vec", "tensor") if name in a))


def _transposed(w: _Writer, value: int, first: int = -2, second: int = -1) -> int:
    axes = list(range(len(w.dims(value))))
    axes[first], axes[second] = axes[second], axes[first]
    return value if axes == sorted(axes) else w.apply("permute", value, axes=axes)


@_rule("linear.default")
def _linear(w: _Writer, a: Arguments) -> Made:
    made = _product(w, a["input"], _transposed(w, a["weight"]))
    return made if a["bias"] is None else w.apply("add", made, a["bias"])


@_rule("addmm.default", "baddbmm.default")
def _addmm(w: _Writer, a: Arguments) -> Made:
    left, right = (a["mat1"], a["mat2"]) if "mat1" in a else (a["batch1"], a["batch2"])
    made, added = w.apply("matmul", left, right), a["self"]
    if a["alpha"] != 1:
        made = w.apply("mul", made, w.constant(a["alpha"]))
    if a["beta"] != 1:
        added = w.apply("mul", added, w.constant(a["beta"]))
    return w.apply("add", added, made)


@_rule("scaled_dot_product_attention.default")
def _attention(w: _Writer, a: Arguments) -> Made:
    if a["attn_mask"] is not None or a["dropout_p"] or a["is_causal"] or a.get("enable_gqa"):
        raise _Untranslatable("masked attention")
    width = w.dims(a["query"])[-1]
    scale = 1 / math.sqrt(width) if a["scale"] is None else a["scale"]
    scores = w.apply("matmul", a["query"], _transposed(w, a["key"]))
    weights = w.apply("softmax", w.apply("mul", scores, w.constant(scale)), axes=(-1,))
    return w.apply("matmul", weights, a["value"])


@_rule("conv1d.default", "conv2d.default", "conv3d.default")
def _convolution(w: _Writer, a: Arguments) -> Made:
    sizes = w.dims(a["weight"])[2:]
    count = len(sizes)
    rows = zip(sizes, *(_spread(a[name], count) for name in ("stride", "padding", "dilation")), strict=True)
    value, dims = a["input"], w.dims(a["input"])
    single = len(dims) == count + 1
    made = w.apply(
        "convolve", w.reshape(value, (1, *dims)) if single else value, a["weight"], windows=[Window(*r) for r in rows]
    )
    if a["bias"] is not None:
        made = w.apply("add", made, w.reshape(a["bias"], (*w.dims(a["bias"]), *(1 for _ in sizes))))
    return w.reshape(made, w.dims(made)[1:]) if single else made


@_rule("einsum.default")
def _einsum(w: _Writer, a: Arguments) -> Made:
    """Of two operands without repeated letters: a product of matrices with a batch."""
    text = a["equation"].replace(" ", "")
    terms, arrow, result = text.partition("->")
    parts = terms.split(",")
    if not arrow or len(parts) != 2 or "." in text or any(len(set(part)) != len(part) for part in (*parts, result)):
        raise _Untranslatable("another einsum than of two operands")
    left, right = parts
    extent = dict(zip(left + right, (*w.dims(a["tensors"][0]), *w.dims(a["tensors"][1])), strict=True))
    batch = [c for c in left if c in right and c in result]
    inner = [c for c in left if c in right and c not in result]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]
    if any(c not in result for c in rows + columns):
        raise _Untranslatable("an einsum that sums one operand")

    def matrix(value: int, letters: str, first: list[str], second: list[str]) -> int:
        order = [letters.index(c) for c in (*batch, *first, *second)]
        value = value if order == sorted(order) else w.apply("permute", value, axes=order)
        extents = [math.prod(extent[c] for c in group) for group in (first, second)]
        return w.reshape(value, (*(extent[c] for c in batch), *extents))

    made = w.apply("matmul", matrix(a["tensors"][0], left, rows, inner), matrix(a["tensors"][1], right, inner, columns))
    letters = [*batch, *rows, *columns]
    made = w.reshape(made, [extent[c] for c in letters])
    order = [letters.index(c) for c in result]
    return made if order == sorted(order) else w.apply("permute", made, axes=order)


# Views


@_rule("view.default", "reshape.default", "_unsafe_view.default")
def _view(w: _Writer, a: Arguments) -> Made:
    sizes = list(a["size"] if "size" in a else a["shape"])
    if -1 in sizes:
        sizes[sizes.index(-1)] = math.prod(w.dims(a["self"])) // max(1, -math.prod(sizes))
    return w.reshape(a["self"], sizes)


@_rule("flatten.using_ints")
def _flatten(w: _Writer, a: Arguments) -> Made:
    dims = w.dims(a["self"])
    begin, end = w.axis(a["self"], a["start_dim"]), w.axis(a["self"], a["end_dim"])
    return w.reshape(a["self"], (*dims[:begin], math.prod(dims[begin : end + 1]), *dims[end + 1 :]))


@_rule("unflatten.int")
def _unflatten(w: _Writer, a: Arguments) -> Made:
    dims, axis = w.dims(a["self"]), w.axis(a["self"], a["dim"])
    sizes = list(a["sizes"])
    if -1 in sizes:
        sizes[sizes.index(-1)] = dims[axis] // max(1, -math.prod(sizes))
    return w.reshape(a["self"], (*dims[:axis], *sizes, *dims[axis + 1 :]))


@_rule("transpose.int")
def _transpose(w: _Writer, a: Arguments) -> Made:
    return _transposed(w, a["self"], a["dim0"], a["dim1"])


@_rule("t.default", "numpy_T.default", "mT.default")
def _t(w: _Writer, a: Arguments) -> Made:
    rank = len(w.dims(a["self"]))
    made: int = a["self"]
    return made if rank < 2 else _transposed(w, made)


@_rule("permute.default")
def _permute(w: _Writer, a: Arguments) -> Made:
    return w.apply("permute", a["self"], axes=a["dims"])


@_rule("unsqueeze.default")
def _unsqueeze(w: _Writer, a: Arguments) -> Made:
    dims, axis = w.dims(a["self"]), w.axis(a["self"], a["dim"], 1)
    return w.reshape(a["self"], (*dims[:axis], 1, *dims[axis:]))


@_rule("squeeze.default", "squeeze.dim", "squeeze.dims")
def _squeeze(w: _Writer, a: Arguments) -> Made:
    dims = w.dims(a["self"])
    chosen = {w.axis(a["self"], axis) for axis in _axes(a)} if "dim" in a else set(range(len(dims)))
    return w.reshape(a["self"], [e for axis, e in enumerate(dims) if e != 1 or axis not in chosen])


@_rule("expand.default", "broadcast_to.default")
def _expand(w: _Writer, a: Arguments) -> Made:
    sizes, dims = a["size"], w.dims(a["self"])
    old = (*(1 for _ in range(len(sizes) - len(dims))), *dims)
    wanted = [extent if size == -1 else size for size, extent in zip(sizes, old, strict=True)]
    made: int = a["self"]
    return made if tuple(wanted) == dims else w.apply("expand", made, dims=wanted)


@_rule("broadcast_tensors.default")
def _broadcast(w: _Writer, a: Arguments) -> Made:
    rank = max(len(w.dims(value)) for value in a["tensors"])
    padded = [(1,) * (rank - len(w.dims(value))) + w.dims(value) for value in a["tensors"]]
    wanted = tuple(max(extents) for extents in zip(*padded, strict=True))
    return [value if w.dims(value) == wanted else w.apply("expand", value, dims=wanted) for value in a["tensors"]]


def _piece(w: _Writer, value: int, axis: int, begin: int, end: int) -> int:
    extent = w.dims(value)[axis]
    begin, end = (min(max(edge + extent if edge < 0 else edge, 0), extent) for edge in (begin, end))
    whole = begin == 0 and end == extent
    return value if whole else w.apply("slice", value, axes=(axis,), dims=(begin, end))


@_rule("slice.Tensor")
def _slice(w: _Writer, a: Arguments) -> Made:
    if a["step"] != 1:
        raise _Untranslatable("a slice with a step")
    axis = w.axis(a["self"], a["dim"])
    end = w.dims(a["self"])[axis] if a["end"] is None else a["end"]
    return _piece(w, a["self"], axis, a["start"] or 0, end)


@_rule("select.int")
def _select(w: _Writer, a: Arguments) -> Made:
    axis, dims = w.axis(a["self"], a["dim"]), w.dims(a["self"])
    index = a["index"] + dims[axis] if a["index"] < 0 else a["index"]
    return w.reshape(_piece(w, a["self"], axis, index, index + 1), (*dims[:axis], *dims[axis + 1 :]))


def _pieces(w: _Writer, value: int, axis: int, sizes: Sequence[int]) -> list[int]:
    edges = pairwise(accumulate(sizes, initial=0))
    return [_piece(w, value, axis, begin, end) for begin, end in edges]


@_rule("split.Tensor", "chunk.default", "split_with_sizes.default", "unbind.int")
def _split(w: _Writer, a: Arguments) -> Made:
    axis = w.axis(a["self"], a["dim"])
    extent = w.dims(a["self"])[axis]
    if "split_sizes" in a:
        return _pieces(w, a["self"], axis, a["split_sizes"])
    if "split_size" in a or "chunks" in a:
        size = a["split_size"] if "split_size" in a else -(-extent // a["chunks"])
        return _pieces(w, a["self"], axis, [min(size, extent - begin) for begin in range(0, extent, size)])
    rest = [e for other, e in enumerate(w.dims(a["self"])) if other != axis]
    return [w.reshape(piece, rest) for piece in _pieces(w, a["self"], axis, [1] * extent)]


@_rule("cat.default")
def _cat(w: _Writer, a: Arguments) -> Made:
    values = a["tensors"]
    return values[0] if len(values) == 1 else w.apply("concat", *values, axes=(a["dim"],))


@_rule("stack.default")
def _stack(w: _Writer, a: Arguments) -> Made:
    dims, axis = w.dims(a["tensors"][0]), w.axis(a["tensors"][0], a["dim"], 1)
    return w.apply("concat", *(w.reshape(v, (*dims[:axis], 1, *dims[axis:])) for v in a["tensors"]), axes=(axis,))
