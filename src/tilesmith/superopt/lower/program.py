"""A graph as a sequence of launches: where every value is, which kernels are planned, and what sizes are called."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilesmith.core.errors import OptionError
from tilesmith.core.graph import Graph, Kernel, Op, Tensor, Window
from tilesmith.core.graph_check import tensors
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower.plan import Plan, equal_sizes, plan, stored_sizes, summed
from tilesmith.superopt.lower.sizes import Size, Unnamed, View, contiguous, viewed

TORCH: dict[Dtype, str] = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}
RESERVED = {"torch", "triton", "tl", "tickets", "partials", "out", "kernel_function", "between", "made"}


@dataclass(frozen=True, slots=True)
class Launch:
    """A graph-defined kernel and the buffers that it fills."""

    plan: Plan
    outputs: tuple[str, ...]
    sizes: tuple[tuple[Size, ...], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A statement of the wrapper: a buffer that the framework fills."""

    text: str


@dataclass(frozen=True, slots=True)
class Steps:
    """The whole program. With `named`, sizes are the inputs' and any will do; else they are the graph's."""

    inputs: tuple[tuple[str, Tensor], ...]
    named: bool
    symbols: tuple[tuple[str, int, int], ...]
    """Names of sizes, each with the input and the dimension that has it."""
    counted: tuple[tuple[str, str], ...]
    """Names of sizes that follow from others, each with its expression: the places of windows."""
    steps: tuple[Launch | Line, ...]
    outputs: tuple[str, ...]
    """Expressions."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A value of the graph as the wrapper has it."""

    tensor: Tensor
    view: View | None = None
    text: str = ""
    """As an expression."""
    number: float | None = None
    fresh: bool = False
    """Whether it is no input, nor a view of one."""


def program(graph: Graph, named: bool) -> Steps:
    """The steps of a prepared graph. Raises `Unnamed` where sizes do not follow from the inputs' shapes, and
    `OptionError` for what cannot be lowered."""
    known = tensors(graph)
    inputs = tuple(zip(_identifiers(graph.inputs), graph.inputs, strict=True))
    for tensor in known:
        if tensor.dtype not in TORCH:
            name = tensor.name or "a value"
            raise OptionError(f"{name} is {tensor.dtype}; kernels compute with fp32, fp16 and bf16, so cast it to one.")
    if not named:
        return _Walk(graph, known, inputs, {}, True).run()
    draft = {(place, dim): f"s{place}_{dim}" for place, (_, tensor) in enumerate(inputs)
             for dim, extent in enumerate(tensor.dims) if extent > 1}  # fmt: skip
    names = _called(_Walk(graph, known, inputs, draft, False).run(), draft)
    return _Walk(graph, known, inputs, names, True).run()


def _identifiers(inputs: Sequence[Tensor]) -> list[str]:
    """The inputs' names as Python's: a problem's parameters have dots."""
    made: list[str] = []
    for tensor in inputs:
        name = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in tensor.name)
        name = name if name.isidentifier() and name.isascii() else f"x{len(made)}"
        name = f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name
        while name in made:
            name += "_"
        made.append(name)
    return made


def _called(draft: Steps, names: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    """Words for sizes: one for those that must be equal, from what the first kernel does along it."""
    root = {name: name for name in names.values()}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    plans = [step.plan for step in draft.steps if isinstance(step, Launch)]
    for made in plans:
        for left, right in equal_sizes(made):
            if left.names[:1] == right.names[:1] or not {*left.names, *right.names} <= root.keys():
                continue
            if len(left.names) == len(right.names) == 1 and left.number == right.number:
                one, two = sorted((find(left.names[0]), find(right.names[0])))
                root[two] = one
    words: dict[str, str] = {}
    taken = {name for name, _ in draft.inputs}

    def call(size: Size, word: str) -> None:
        if len(size.names) == 1 and size.names[0] in root and find(size.names[0]) not in words:
            base = word.rstrip("0123456789").upper()
            name, count = base, 2
            while name in taken:
                name, count = f"{base}{count}", count + 1
            taken.add(name)
            words[find(size.names[0])] = name

    for made in plans:
        if made.axes.step is not None:
            call(made.sizes[made.axes.step], made.names[made.axes.step])
    for made in plans:
        for size, word in zip(made.sizes, made.names, strict=True):
            call(size, word)
        for size in made.counts:
            call(size, "batch")
    for name in names.values():
        call(Size(2, (name,), 1), "extent")
    return {place: words[find(name)] for place, name in names.items()}


@dataclass(slots=True)
class _Walk:
    graph: Graph
    known: tuple[Tensor, ...]
    inputs: tuple[tuple[str, Tensor], ...]
    names: Mapping[tuple[int, int], str]
    """Of the inputs' extents; empty where sizes are numbers."""
    final: bool
    """Whether axes are called as their sizes are; else the sizes have no good names yet."""
    made: list[_Made] = field(default_factory=list)
    steps: list[Launch | Line] = field(default_factory=list)
    buffers: int = 0
    counted: dict[tuple[Size, Window], str] = field(default_factory=dict)

    def run(self) -> Steps:
        if not self.inputs:
            raise OptionError("The graph has no inputs; nothing says where its kernels should run.")
        for place, (name, tensor) in enumerate(self.inputs):
            sizes = [self._input_size(place, dim, extent) for dim, extent in enumerate(tensor.dims)]
            self.made.append(_Made(tensor, contiguous(name, tensor.dtype, sizes), name))
        for place, node in enumerate(self.graph.nodes):
            if isinstance(node, Kernel):
                self._kernel(place, node)
            else:
                self._op(node)
        symbols: dict[str, tuple[str, int, int]] = {}
        for (place, dim), name in self.names.items():
            symbols.setdefault(name, (name, place, dim))
        counted = tuple((name, _places(size, window)) for (size, window), name in self.counted.items())
        outputs = self._outputs()
        return Steps(self.inputs, bool(self.names), tuple(symbols.values()), counted, tuple(self.steps), outputs)

    def _input_size(self, place: int, dim: int, extent: int) -> Size:
        name = self.names.get((place, dim))
        return Size(extent) if name is None else Size(extent, (name,), 1)

    def _count(self, size: Size, window: Window) -> Size:
        """How many places a window has along an extent: a size with a name of its own, where the extent has one."""
        count = window.places(size.number)
        if not size.names or count == 1:
            return Size(count)
        if (size, window) not in self.counted:
            taken = {*self.counted.values(), *self.names.values(), *(name for name, _ in self.inputs)}
            base = f"OUT_{'_'.join(size.names)}"
            name = base
            while name in taken:
                name = f"{base}_{len(self.counted)}"
            self.counted[size, window] = name
        return Size(count, (self.counted[size, window],), 1)

    def _buffer(self, output: bool) -> str:
        self.buffers += 1
        return f"{'made' if output else 'between'}{self.buffers}"

    # Kernels ---------------------------------------------------------------------------------------------------------

    def _kernel(self, place: int, kernel: Kernel) -> None:
        sources = [self.made[load.source] for load in kernel.loads]
        where = f"kernel {place}"
        try:
            made = plan(
                place,
                kernel,
                self.known,
                [source.view for source in sources],
                [source.number for source in sources],
                bool(self.names),
                self._count,
            )
        except OptionError as error:
            raise OptionError(f"The graph cannot be lowered: {where}: {error}.") from None
        first = len(self.made)
        dtypes = tuple(self._kept(first + number) for number in range(len(kernel.stores)))
        made = replace(made, dtypes=dtypes, name=self._title(place, kernel), names=self._words(made))
        sizes = tuple(stored_sizes(made, number) for number in range(len(kernel.stores)))
        outputs = tuple(self._buffer(first + number in self._answers()) for number in range(len(kernel.stores)))
        self.steps.append(Launch(made, outputs, sizes))
        counts = summed(made)
        for name, size, dtype, store in zip(outputs, sizes, dtypes, kernel.stores, strict=True):
            view = replace(contiguous(name, dtype, size), summed=counts[store.source])
            self.made.append(_Made(self.known[len(self.made)], view, name, fresh=True))

    def _words(self, made: Plan) -> tuple[str, ...]:
        """An axis is called as its size, where that has a name of its own in the kernel."""
        if not self.final:
            return made.names
        own = [size.names[0].lower() if len(size.names) == 1 and size.constant == 1 else "" for size in made.sizes]
        taken = {name for name, _ in self.inputs} | {name.lower() for name, _ in self.inputs}
        words: list[str] = []
        for word, name in zip(made.names, own, strict=True):
            chosen = name if name and own.count(name) == 1 else word
            while chosen in words or chosen in taken or (chosen != name and chosen in own):
                chosen += "_"
            words.append(chosen)
        return tuple(words)

    def _title(self, place: int, kernel: Kernel) -> str:
        """What a kernel does, in a few words."""
        words: list[str] = []
        for step in kernel.body:
            word = step.operator if isinstance(step, Op) else "softmax" if step.how == "rescale" else ""  # type: ignore[union-attr]
            plain = not word or (word in OPERATORS and OPERATORS[word].kind in ("view", "constant"))
            if not plain and word not in words:
                words.append(word)
        count = sum(isinstance(node, Kernel) for node in self.graph.nodes)
        number = sum(isinstance(node, Kernel) for node in self.graph.nodes[:place])
        kept = words if len(words) <= 3 else [*words[:2], words[-1]]
        return "_".join([*(kept or ["copy"]), "kernel", *([str(number)] if count > 1 else [])])

    def _answers(self) -> set[int]:
        """Values that are returned, or whose views are."""
        wanted = set(self.graph.outputs)
        value = len(self.known)
        for node in reversed(self.graph.nodes):
            value -= 1 if isinstance(node, Op) else len(node.stores)
            if isinstance(node, Op) and value in wanted and OPERATORS[node.operator].kind == "view":
                wanted |= set(node.operands)
        return wanted

    def _kept(self, value: int) -> Dtype:
        """How a tensor between kernels is kept: in float32, unless a product or the framework takes it as it is."""
        tensor = self.known[value]
        exact = value in self._answers() or any(self._takes(value))
        return tensor.dtype if exact else "fp32"

    def _takes(self, value: int) -> Iterator[bool]:
        made = len(self.inputs)
        for node in self.graph.nodes:
            count = 1 if isinstance(node, Op) else len(node.stores)
            if isinstance(node, Op) and value in node.operands:
                view = OPERATORS[node.operator].kind == "view"
                yield from self._takes(made) if view else iter((True,))
            elif isinstance(node, Kernel):
                yield from (_multiplies(node, place) for place, load in enumerate(node.loads) if load.source == value)
            made += count

    # Everything else -------------------------------------------------------------------------------------------------

    def _op(self, op: Op) -> None:
        tensor = self.known[len(self.made)]
        operands = [self.made[value] for value in op.operands]
        if op.operator == "constant":
            self.made.append(_Made(tensor, number=float(op.values[0])))
            return
        x = operands[0]
        if OPERATORS[op.operator].kind == "view" and x.view is not None:
            padded = self._padded(op, x)
            view = viewed(replace(op, windows=tuple(replace(w, padding=0) for w in op.windows)), padded.view or x.view,
                          bool(self.names))  # fmt: skip
            if view is not None:
                fresh = padded.fresh or x.fresh
                self.made.append(_Made(tensor, view, self._seen(op, padded.text, view), fresh=fresh))
                return
            self._fill(tensor, f"{padded.text}.{_call(op)}.contiguous()")
            return
        if self.names:
            raise Unnamed
        texts = [self._text(made) for made in operands]
        if OPERATORS[op.operator].kind == "view":
            self._fill(tensor, f"{texts[0]}.{_call(op)}.contiguous()")
        elif op.operator == "concat":
            self._fill(tensor, f"torch.cat(({', '.join(texts)},), dim={op.axes[0]})")
        else:
            self._fill(tensor, f"torch.matmul({', '.join(texts)})")

    def _fill(self, tensor: Tensor, expression: str) -> None:
        name = self._buffer(False)
        self.steps.append(Line(f"{name} = {expression}"))
        sizes = [Size(extent) for extent in tensor.dims]
        self.made.append(_Made(tensor, contiguous(name, tensor.dtype, sizes), name, fresh=True))

    def _text(self, made: _Made) -> str:
        if made.number is None:
            return made.text
        device = f"{self.inputs[0][0]}.device"
        return f"torch.full({made.tensor.dims}, {made.number!r}, device={device}, dtype={TORCH[made.tensor.dtype]})"

    def _padded(self, op: Op, x: _Made) -> _Made:
        """The operand of an unfolding with its zeros before and after, which the framework copies."""
        if not any(window.padding for window in op.windows) or x.view is None:
            return x
        if self.names:
            raise Unnamed
        pads = [str(window.padding) for window in reversed(op.windows) for _ in range(2)]
        name = self._buffer(False)
        self.steps.append(Line(f"{name} = torch.nn.functional.pad({x.text}, ({', '.join(pads)}))"))
        first = len(x.tensor.dims) - len(op.windows)
        dims = [*x.tensor.dims[:first]]
        dims += [e + 2 * w.padding for e, w in zip(x.tensor.dims[first:], op.windows, strict=True)]
        return replace(x, view=contiguous(name, x.view.dtype, [Size(e) for e in dims]), text=name, fresh=True)

    def _seen(self, op: Op, text: str, view: View) -> str:
        """A view as an expression of the wrapper."""
        if op.operator == "reshape":
            return f"{text}.reshape({', '.join(size.text for size in view.sizes)})"
        if op.operator == "expand":
            return f"{text}.expand({', '.join(size.text for size in view.sizes)})"
        if op.operator == "unfold":
            strides = [row[0].stride.number if row else 0 for row in view.rows]
            return f"torch.as_strided({view.buffer}, {view.dims}, {tuple(strides)}, {view.offset})"
        return f"{text}.{_call(op)}"

    def _outputs(self) -> tuple[str, ...]:
        made: list[str] = []
        for value in self.graph.outputs:
            text = self._text(self.made[value])
            # What is returned is nobody else's memory.
            own = self.made[value].fresh or self.made[value].number is not None
            made.append(text if own and text not in made else f"{text}.clone()")
        return tuple(made)


def _call(op: Op) -> str:
    if op.operator == "permute":
        return f"permute({', '.join(map(str, op.axes))})"
    if op.operator == "slice":
        return f"narrow({op.axes[0]}, {op.dims[0]}, {op.dims[1] - op.dims[0]})"
    return f"{op.operator}({', '.join(map(str, op.dims))})"


def _places(size: Size, window: Window) -> str:
    """How many places a window has, as the wrapper says it: the same as `Window.places`."""
    room = 2 * window.padding - window.dilation * (window.size - 1) - 1
    return f"({size.text} {'-' if room < 0 else '+'} {abs(room)}) // {window.stride} + 1"


def _multiplies(kernel: Kernel, load: int) -> bool:
    """Whether a product has a load as an operand, as it is or seen otherwise."""
    seen = {load}
    for value, step in enumerate(kernel.body, len(kernel.loads)):
        if isinstance(step, Op) and seen & set(step.operands):
            if step.operator == "matmul":
                return True
            if OPERATORS[step.operator].kind == "view":
                seen.add(value)
        elif not isinstance(step, Op) and step.operands[1:] and step.operands[1] in seen:
            return True
    return False
