"""A kernel as Triton source: one `@triton.jit` function, a statement for every step of the µGraph.

A value of a block is a Triton tensor with one dimension for every dimension of its tile that is longer than 1. Its
extent is a power of two; what lies beyond the tile's elements is kept out of sums, maxima and memory by masks. A mask
is compared only where a size does not divide: `tl.full(..., True)` is what the compiler drops. Element-wise operators
and sums are computed in float32; operands of products have the graph's dtypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tilesmith.core.graph import Accumulate, Op, Step
from tilesmith.core.graph_check import Phase
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.lower import split, text, tma
from tilesmith.superopt.lower.axes import Rows
from tilesmith.superopt.lower.dots import dot, product_pads, thin
from tilesmith.superopt.lower.options import Choice, grid_order, may_stream, slices
from tilesmith.superopt.lower.places import Lines, Names, Places, operand
from tilesmith.superopt.lower.plan import needs, summed
from tilesmith.superopt.lower.program import Launch
from tilesmith.superopt.lower.sizes import ONE, Size, Unnamed, contiguous
from tilesmith.superopt.lower.split import Carried
from tilesmith.superopt.lower.text import TL, Pad
from tilesmith.superopt.lower.values import LOW, Pads, Value, folded, kept, pads_of, spread, viewed
from tilesmith.superopt.lower.window_text import Windows
from tilesmith.superopt.lower.windows import walking

RESERVED = {
    "program", "part", "tile", "others", "step", "ahead", "ahead_inside", "across", "strip", "height", "other", "spots",
    "count_ptr", "ticket", "mark", "marks", "goal", "come", "looks", "turn", "own", "own_slices", "tl", "triton",
    "torch", "SPLIT", "GROUP", "SHARE",
}  # fmt: skip
"""Names that a kernel's source uses beside those of its values."""
WORDS = {
    "add": "added", "sub": "less", "mul": "scaled", "div": "ratio", "max": "larger", "min": "smaller", "exp": "e",
    "log": "logs", "square": "squared", "sqrt": "root", "rsqrt": "inverse_root", "relu": "kept", "sigmoid": "gate",
    "tanh": "bent", "silu": "gated", "gelu": "gated", "gelu_erf": "gated", "pow": "power", "clamp": "clamped",
    "cast": "same", "permute": "turned", "reshape": "shaped", "expand": "wide", "matmul": "product", "sum": "total",
    "amax": "most",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """A kernel's source, and what a launch must give it, in order."""

    lines: tuple[str, ...]
    buffers: tuple[str, ...]
    symbols: tuple[str, ...]
    """Sizes, passed by their names."""
    constants: tuple[tuple[str, int | Size], ...]
    """Other constants: numbers, or a size that a power of two must reach."""
    scratch: tuple[str, ...]
    """Of a split kernel: for every buffer of partial results the elements of one program, as a product of constants."""
    tiled: tuple[tma.Descriptor, ...] = ()
    """What is copied through descriptors; they come before the buffers."""
    launch: tuple[str, ...] = ()
    """How many warps and stages there are, as arguments of a launch; empty where that is what the choice says."""


def written(launch: Launch, choice: Choice, tf32: bool, fixed: frozenset[Fraction] | None) -> Written:
    """The source of one kernel.

    Raises `Unnamed` for a constant that is not among the `fixed` ones and no mean's n, where those are given.
    """
    return Emitter(launch, choice, tf32, fixed).run()


class Emitter:
    """Writes one kernel, statement by statement. Values are numbered as in the kernel's block."""

    def __init__(self, launch: Launch, choice: Choice, tf32: bool, fixed: frozenset[Fraction] | None) -> None:
        self.plan = plan = walking(launch.plan) if choice.walk else launch.plan
        self.choice, self.outputs, self.out_sizes, self.tf32 = choice, launch.outputs, launch.sizes, tf32
        self.fixed = None if fixed is None else {float(value) for value in fixed}
        self.kernel, self.axes, self.phases = plan.kernel, plan.axes, plan.made.phases
        self.first = len(plan.kernel.loads)
        self.names = Names()
        self.places = self.tiles = Places(plan, choice, self.names)
        self.slice: int | None = None
        """The axis of which every program of a tile finishes a slice."""
        self.names.taken |= RESERVED
        self.out = Lines(self.names)
        self.values: dict[int, Value] = {}
        self.state: dict[int, str] = {}
        """What an accumulator is carried in over the loop."""
        self.peaks: dict[int, str] = {}
        """By scores, their running maximum."""
        self.weights: dict[int, tuple[Value, str]] = {}
        """By scores, exp(S - m) of this iteration and what shrinks what was added before."""
        self.tiled: dict[int, tma.Descriptor] = {}
        """By load, what it is copied through."""
        for value in tma.copied(plan) if choice.descriptors else ():
            name = self.names.new(f"{self._buffer(value)}_tiles")
            self.tiled[value] = tma.descriptor(plan, self.places, value, name)
        self.filling: dict[int, tma.Descriptor] = {}
        """By store, what is filled through one."""
        for place, name in enumerate(self.outputs if choice.descriptors and not choice.consumers else ()):
            if tma.may_store(plan, choice, place):
                tiles = self.names.new(f"{name}_tiles")
                made = tma.stored(plan, self.places, place, name, self.out_sizes[place], tiles)
                self.filling[place] = replace(made, dtype=None)
        self.needs = needs(plan)
        self.sums = summed(plan)

    # The function ----------------------------------------------------------------------------------------------------

    def run(self) -> Written:
        plan = self.plan
        for window in (view.window for view in self.axes.views):
            for number in (window.size, window.stride, window.padding, window.dilation):
                self._held(number)
        self.places.programs()
        values = range(len(self.phases))
        still = [v for v in values if self.phases[v] is Phase.INVARIANT]
        if self.choice.walk:
            self._walk()
            return self._assembled([*self.places.head.made, *self.out.made])
        early = [v for v in still if not plan.loops or "loop" in self.needs[v]]
        for value in early:
            self._make(value)
        if plan.loops:
            self._loop()
        body = self.out
        self.slice = slices(plan, self.choice.blocks, self.choice.split) if self.choice.together else None
        if self.slice is not None:
            self.places, self.out, own = split.all_add(self.tiles, self.out, self._carried(), self.slice)
            self.peaks, self.state = own.peaks, own.state
            for value, name in own.state.items():
                self.values[value] = replace(self.values[value], text=name)
        elif self.choice.split > 1:
            split.last_adds(self.tiles, self.out, self._carried())
        for value in still:
            if value not in early:
                self._make(value)
        for value in values:
            if self.phases[value] is Phase.AFTER and isinstance(self._step(value), Op):
                self._make(value)
        for place, store in enumerate(self.kernel.stores):
            if not _joins(self._step(store.source)):
                self._store(place, self.values[store.source])
        if self.slice is not None:
            body.made += [f"        {line}" for line in (*self.places.head.made, *self.out.made)]
            self.places = self.tiles
        elif self.choice.split > 1:
            # The next call finds what this one found.
            self.out("tl.atomic_xchg(tickets_ptr + tile, 0)")
        return self._assembled([*self.places.head.made, *body.made])

    def _assembled(self, body: list[str]) -> Written:
        plan, choice = self.plan, self.choice
        loaded = [view.buffer for v, view in enumerate(plan.sources) if view is not None and v not in self.tiled]
        written = [name for place, name in enumerate(self.outputs) if place not in self.filling]
        buffers = list(dict.fromkeys([*loaded, *written]))
        rows = self._carried().rows.values() if choice.split > 1 else ()
        scratch = tuple(split.cells(self.tiles, row) for row in rows)
        buffers += [split.partials(place) for place in range(len(scratch))] + (["tickets"] if scratch else [])
        lines = [f"    {line}" for line in body]
        if choice.programs:
            order = grid_order(plan, choice.order)
            total = " * ".join(self.places.count(grid) for grid in order) or "1"
            loop = f"    for program in range(tl.program_id(0), {total}, tl.num_programs(0)):"
            lines = [loop, *(f"    {line}" for line in lines)]
        tiled = (*self.tiled.values(), *self.filling.values())
        mentioned = "\n".join([*lines, *(name for tile in tiled for name in tile.block)])
        constants: list[tuple[str, int | Size]] = []
        for number, axis in enumerate(self.axes.axes):
            size = plan.sizes[number]
            if self.places.block(number) in mentioned:
                whole = axis.kind in ("whole", "seen") and bool(size.names)
                constants.append((self.places.block(number), size if whole else choice.blocks[number]))
        constants += [("SPLIT", choice.split)] if choice.split > 1 else []
        if self.slice is not None:
            block = f"{self.places.block(self.slice)}_SLICE"
            constants += [(block, choice.blocks[self.slice] // choice.split), ("LOOKS", split.LOOKS)]
        constants += [("GROUP", choice.group)] if "GROUP" in mentioned else []
        parameters = [*(tile.name for tile in tiled), *(f"{name}_ptr" for name in buffers)]
        fixed = [f"{name}: tl.constexpr" for name in (*self.names.symbols, *(name for name, _ in constants))]
        head = f"def {plan.name}({', '.join([*parameters, *fixed])}):"
        symbols = tuple(self.names.symbols)
        return Written(("@triton.jit", head, *lines), tuple(buffers), symbols, tuple(constants), scratch, tiled)

    def _carried(self) -> Carried:
        return Carried(self.plan, self.peaks, self.state)

    def _step(self, value: int) -> Step | None:
        return self.kernel.body[value - self.first] if value >= self.first else None

    # Loads and stores ------------------------------------------------------------------------------------------------

    def _cuts(self, imap: Sequence[int | None], rank: int, loop: int | None) -> list[tuple[int | None, bool]]:
        return [(imap.index(dim) if dim in imap else None, dim == loop) for dim in range(rank)]

    def _loading(self, value: int, ahead: bool = False) -> str:
        """The expression that loads a tile; with `ahead` that of the next iteration."""
        view, load, rows = self.plan.sources[value], self.kernel.loads[value], self.axes.rows[value]
        assert view is not None, "a number is not loaded"
        if value in self.tiled:
            return tma.copy(self.plan, self.places, value, self.tiled[value].name)
        parts = [self.places.address(view, rows, self._cuts(load.imap, len(rows), load.fmap), ahead)]
        mask = self.places.mask([row for row in rows if row], ahead=ahead)
        parts += [f"mask={mask}", "other=0.0"] if mask else []
        if self.choice.stream and may_stream(self.plan, value, self.choice.blocks):
            parts.append('eviction_policy="evict_first"')
        return f"tl.load({', '.join(parts)})"

    def _loaded(self, value: int, expression: str) -> None:
        view, rows = self.plan.sources[value], self.axes.rows[value]
        assert view is not None, "a number is not loaded"
        pads = tuple((axis, Pad.ZERO) for row in rows for axis in row if self._pads(axis))
        raw = self.out.say(view.buffer.lower(), expression)
        loaded = Value(rows, raw, raw, view.dtype, None, pads)
        if view.dtype != "fp32":
            source = raw
            if "math" in self.needs[value] and self._apart(value):
                source = self.out.say(f"{raw}_again", self._loading(value))
            wide = f"{source}.to(tl.float32)"
            loaded = replace(loaded, text=self.out.say(f"{raw}_wide", wide) if "math" in self.needs[value] else wide)
        elif self._apart(value):
            loaded = replace(loaded, text=self.out.say(f"{raw}_again", self._loading(value)))
        self.values[value] = loaded

    def _apart(self, value: int) -> bool:
        """Whether a tile is loaded once for products and once for the rest."""
        pipelined = self.phases[value] is Phase.VARYING and self.choice.stages > 1
        return self.choice.again and pipelined and {"dot", "math"} <= self.needs[value]

    def _pads(self, axis: int) -> bool:
        ahead = self.choice.prefetch and axis == self.axes.step
        return ahead or self.plan.pads(axis, self.choice.blocks[axis])

    def _store(self, place: int, value: Value) -> None:
        store = self.kernel.stores[place]
        joined = _joins(self._step(store.source))
        view = contiguous(self.outputs[place], self.plan.dtypes[place], self.out_sizes[place])
        cuts = self._cuts(store.omap, len(value.rows), None)
        if joined:
            axis = self._step(store.source).axes[0]  # type: ignore[union-attr]
            cuts[axis] = (cuts[axis][0], True)
        if value.turned:
            view = replace(view, rows=tuple(view.rows[dim] for dim in value.turned))
            cuts = [cuts[dim] for dim in value.turned]
        dtype = self.plan.dtypes[place]
        made = value.text
        if value.raw and value.dtype == dtype:
            made = value.raw
        elif value.number is None and dtype != "fp32":
            made = f"{operand(value.text)}.to({TL[dtype]})"
        if place in self.filling and not joined and not value.turned and value.number is None:
            corner = ", ".join(tma.stored_coordinates(self.plan, self.places, place, self.out_sizes[place]))
            self.out(f"{self.filling[place].name}.store([{corner}], {made})")
            return
        self.filling.pop(place, None)
        address = self.places.address(view, value.rows, cuts)
        mask = self.places.mask(value.present)
        self.out(f"tl.store({address}, {made}{f', mask={mask}' if mask else ''})")

    # Steps -----------------------------------------------------------------------------------------------------------

    def _make(self, value: int) -> None:
        step = self._step(value)
        if step is None:
            number = self.plan.numbers[value]
            if number is not None:
                self.values[value] = Value(self.axes.rows[value], text.number(number), number=number)
            elif self.needs[value]:
                self._loaded(value, self._loading(value))
            return
        assert isinstance(step, Op), "accumulators are gathered"
        operands = [self.values[source] for source in step.operands if source in self.values]
        rows = self.axes.rows[value]
        match OPERATORS[step.operator].kind:
            case "constant":
                number = float(step.values[0])
                self.values[value] = Value((), text.number(number), number=number)
            case "element-wise":
                self.values[value] = self._elementwise(step, rows, operands)
            case "contraction":
                self.values[value] = self._product(value, rows, *map(self._solid, operands))
            case "reduction":
                self.values[value] = self._reduced(step, operands[0])
            case "window":
                self.values[value] = self._pooled(value)
            case _:
                self.values[value] = self._viewed(value, step, rows, operands[0])

    def _held(self, number: float) -> float:
        """A constant as it is. Raises `Unnamed` where it would be another for other extents."""
        if self.fixed is not None and number not in self.fixed:
            raise Unnamed
        return number

    def _solid(self, x: Value) -> Value:
        """A constant that fills a tile, as a tile."""
        if x.number is None or not x.present:
            return x
        self._held(x.number)
        made = f"tl.full({self.places.shape(x.present)}, {x.text}, tl.float32)"
        pads = tuple((axis, Pad.FINITE) for row in x.rows for axis in row if self._pads(axis))
        return replace(x, text=made, number=None, pads=pads)

    def _elementwise(self, op: Op, rows: Rows, operands: list[Value]) -> Value:
        known = [x.number for x in operands if x.number is not None]
        if len(known) == len(operands):
            number = text.folded(op, [self._held(x) for x in known])
            return Value(rows, text.number(number), number=number)
        parts = [spread(x, rows) for x in operands]
        if len(parts) == 1:
            pads = tuple((axis, text.pad_of_unary(op, pad)) for axis, pad in operands[0].pads)
            if op.operator == "cast":
                return Value(rows, parts[0], pads=pads)
            return Value(rows, self.out.say(WORDS[op.operator], text.unary(op, parts[0])), pads=pads)
        pads = pads_of(op.operator, operands[0], operands[1])
        expression = self._mean(op, operands)
        if not expression:
            for number in known:
                self._held(number)
            expression = text.binary(op.operator, *parts)
        return Value(rows, self.out.say(WORDS[op.operator], expression), pads=pads)

    def _mean(self, op: Op, operands: Sequence[Value]) -> str:
        """A sum over n elements times 1/n is a mean whatever n is: the size is named instead of its number."""
        pairs = list(zip(operands, op.operands, strict=True))
        for x, y in {"mul": (pairs, pairs[::-1]), "div": (pairs,)}.get(op.operator, ()):
            size, parts = self.sums[x[1]] or (ONE, 1)
            number = y[0].number
            if size.names and parts == 1 and number == (1.0 / size.number if op.operator == "mul" else size.number):
                return f"{x[0].text} / {self.names.size(size)}"
        return ""

    def _reduced(self, op: Op, x: Value) -> Value:
        how = "sum" if op.operator == "sum" else "max"
        rows = tuple(() if dim in op.axes else row for dim, row in enumerate(x.rows))
        made = folded(self.places, self._solid(x), op.axes, how)
        axes = [axis for dim in op.axes for axis in x.rows[dim]]
        pads = tuple((axis, pad) for axis, pad in x.pads if axis not in axes)
        if made == x.text:
            return Value(rows, made, number=x.number, pads=pads)
        return Value(rows, self.out.say(WORDS[op.operator], made), pads=pads)

    def _viewed(self, value: int, op: Op, rows: Rows, x: Value) -> Value:
        if op.operator == "permute" and not any(value in step.operands for step in self.kernel.body):
            # Where its elements go in memory is all that changes.
            return replace(x, turned=tuple(op.axes.index(dim) for dim in range(len(op.axes))))
        made = replace(x, rows=rows)
        call = viewed(self.places, op, x, rows) if x.number is None else ""
        if not call:
            return made
        said = ""
        if x.raw and self.needs[value] & {"dot", "store"}:
            said = self.out.say(WORDS[op.operator], call.format(operand(x.raw)))
            if "math" not in self.needs[value]:
                wide = said if x.dtype == "fp32" else f"{said}.to(tl.float32)"
                return replace(made, raw=said, text=wide)
        wide = self.out.say(WORDS[op.operator], call.format(operand(x.text)))
        return replace(made, raw=said, text=wide)

    # Windows ---------------------------------------------------------------------------------------------------------

    def _pooled(self, value: int) -> Value:
        """What windows see of all their taps."""
        windows = Windows(self.plan, self.choice, self.places, self.names, self.out, value)
        rows = self.axes.rows[value]
        return Value(rows, windows.all(), pads=self._any(rows))

    def _walk(self) -> None:
        """All places along the first dimension of the windows, one after another."""
        (value,) = {view.value for view in self.axes.views}
        windows = Windows(self.plan, self.choice, self.places, self.names, self.out, value)
        before = self.out
        for other in range(value):
            self._make(other)
        queues = windows.begin()
        line = windows.line()
        windows.out = self.out = Lines(self.names)
        rows = self.axes.rows[value]
        self.values[value] = Value(rows, windows.next(queues), pads=self._any(rows))
        for other in range(value + 1, len(self.phases)):
            self._make(other)
        for place, store in enumerate(self.kernel.stores):
            self._store(place, self.values[store.source])
        windows.shift(queues)
        before(line)
        before.made += [f"    {line}" for line in self.out.made]
        self.out = before

    # Products --------------------------------------------------------------------------------------------------------

    def _product(self, value: int, rows: Rows, left: Value, right: Value) -> Value:
        if self._fused(value):
            # Its accumulator adds it.
            return Value(rows, "")
        step = self._step(value)
        assert step is not None, "loads are no products"
        fast = self.plan.dots(step)
        made = (
            dot(self.places, step, rows, left, right, "", self.tf32) if fast else thin(self.places, rows, left, right)
        )
        return Value(rows, self.out.say("product", made), pads=product_pads(left, right))

    def _fused(self, value: int) -> bool:
        """Whether a product is added to its accumulator at once."""
        step = self._step(value)
        if not isinstance(step, Op) or step.operator != "matmul" or not self.plan.dots(step):
            return False
        readers = [other for other in self.kernel.body if value in other.operands]
        only = readers[0] if len(readers) == 1 else None
        return isinstance(only, Accumulate) and only.how == "sum" and not only.axes

    # The loop --------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        gathers = [(v, s) for v, s in enumerate(self.kernel.body, self.first) if isinstance(s, Accumulate)]
        for value, step in gathers:
            self._begin(value, step)
        streamed = self._streamed()
        line = self._range()
        coming = self._first_loads(streamed)
        before = self.out
        inner = self.out = Lines(self.names)
        for value in streamed:
            self._loaded(value, coming[value])
        self._next_loads(streamed, coming)
        for value in range(len(self.phases)):
            made = self._step(value)
            if isinstance(made, Accumulate):
                self._gather(value, made)
            elif self.phases[value] is Phase.VARYING and value not in streamed:
                self._make(value)
        before(line)
        before.made += [f"    {line}" for line in (*self.places.moving.made, *inner.made)]
        self.out = before

    def _range(self) -> str:
        """The loop's head; what it needs to know is written before it."""
        axis = self.axes.step
        if axis is None:
            return f"for step in range({self.names.size(self.plan.loop)}):"
        name, block, size = self.plan.names[axis], self.places.block(axis), self.names.size(self.plan.sizes[axis])
        share = ""
        if self.choice.split > 1:
            self.out(f"SHARE: tl.constexpr = tl.cdiv(tl.cdiv({size}, SPLIT), {block}) * {block}")
            share = "part"
        elif (shares := self.plan.shares(axis)) > 1:
            self.out(f"SHARE: tl.constexpr = tl.cdiv({size}, {shares})")
            share = self.places.ids[self.axes.axes[axis].grid or 0]
        if not share:
            return f"for {name}_start in range(0, {size}, {block}):"
        self.out(f"{name}_first = {share} * SHARE")
        self.out(f"{name}_stop = tl.minimum({name}_first + SHARE, {size})")
        return f"for {name}_start in range({name}_first, {name}_stop, {block}):"

    def _streamed(self) -> list[int]:
        """Loads that are started an iteration early."""
        if not self.choice.prefetch or self.axes.step is None:
            return []
        return [v for v in range(self.first) if self.phases[v] is Phase.VARYING and self.needs[v]
                and all(len(row) == 1 for row in self.axes.rows[v] if row)]  # fmt: skip

    def _first_loads(self, streamed: list[int]) -> dict[int, str]:
        if not streamed:
            return {}
        axis = self.axes.step
        assert axis is not None, "what is streamed has a loop along an axis"
        name, shared = self.plan.names[axis], self.choice.split > 1 or self.plan.shares(axis) > 1
        self._ahead(f"{name}_first + " if shared else "", axis)
        return {v: self.out.say(f"next_{self._buffer(v)}", self._loading(v, ahead=True)) for v in streamed}

    def _next_loads(self, streamed: list[int], coming: dict[int, str]) -> None:
        axis = self.axes.step
        if not streamed or axis is None:
            return
        self._ahead(f"{self.plan.names[axis]}_start + {self.places.block(axis)} + ", axis)
        for value in streamed:
            self.out(f"{coming[value]} = {self._loading(value, ahead=True)}")

    def _ahead(self, start: str, axis: int) -> None:
        shared = self.choice.split > 1 or self.plan.shares(axis) > 1
        stop = f"{self.plan.names[axis]}_stop" if shared else self.names.size(self.plan.sizes[axis])
        self.out(f"ahead = {start}tl.arange(0, {self.places.block(axis)})")
        self.out(f"ahead_inside = ahead < {stop}")

    def _buffer(self, value: int) -> str:
        view = self.plan.sources[value]
        return view.buffer.lower() if view is not None else ""

    def _begin(self, value: int, step: Accumulate) -> None:
        """What is carried over the loop, before it; and what it is called after it."""
        if step.how == "concat":
            return
        scores = step.operands[0]
        rows = self.axes.rows[value]
        if step.how == "rescale" and scores not in self.peaks:
            self.peaks[scores] = self._carry("peaks", (*self.axes.rows[scores][:-1], ()), LOW)
        if step.how == "max" and self._is_peak(step):
            if scores not in self.peaks:
                self.peaks[scores] = self._carry("peaks", rows, LOW)
            self.state[value] = self.peaks[scores]
        else:
            product = isinstance(made := self._step(scores), Op) and made.operator == "matmul"
            word = {"sum": "products" if product else "sums", "max": "peaks"}.get(step.how, "")
            word = word or ("mixed" if len(step.operands) == 2 else "weights")
            self.state[value] = self._carry(word, rows, LOW if step.how == "max" else "0.0")
        self.values[value] = Value(rows, self.state[value])

    def _carry(self, word: str, rows: Rows, value: str) -> str:
        present = [row for row in rows if row]
        if not present:
            return self.out.say(word, f"tl.full((), {value}, tl.float32)")
        shape = self.places.shape(present)
        return self.out.say(
            word, f"tl.zeros({shape}, tl.float32)" if value == "0.0" else f"tl.full({shape}, {value}, tl.float32)"
        )

    def _is_peak(self, step: Accumulate) -> bool:
        """Whether a maximum is the running maximum of scores."""
        scores = step.operands[0]
        last = (len(self.axes.rows[scores]) - 1,)
        steps = [s for s in self.kernel.body if isinstance(s, Accumulate) and s.how == "rescale"]
        return step.axes == last and any(s.operands[0] == scores for s in steps)

    def _gather(self, value: int, step: Accumulate) -> None:
        source = step.operands[0]
        x = self.values[source]
        if step.how == "concat":
            for place, store in enumerate(self.kernel.stores):
                if store.source == value:
                    self._store(place, replace(x, rows=self.axes.rows[value]))
            return
        state, old = self.state[value], self.values[value]
        pads = tuple((axis, pad) for axis, pad in x.pads if any(axis in row for row in old.rows))
        if step.how == "rescale":
            self._rescale(value, step, x, state)
            self.values[value] = replace(old, pads=self._any(old.rows))
        elif step.how == "max":
            if not self._is_peak(step):
                self.out(f"{state} = tl.maximum({state}, {folded(self.places, x, step.axes, 'max')})")
            finite = tuple((axis, max(pad, Pad.FINITE)) for axis, pad in pads)
            self.values[value] = replace(old, pads=finite)
        elif self._fused(source):
            product = self._step(source)
            assert product is not None, "loads are no products"
            left, right = (self._solid(self.values[o]) for o in product.operands)
            self.out(f"{state} = {dot(self.places, product, x.rows, left, right, state, self.tf32)}")
            self.values[value] = replace(old, pads=product_pads(left, right))
        else:
            self.out(f"{state} += {folded(self.places, x, step.axes, 'sum')}")
            self.values[value] = replace(old, pads=pads)

    def _any(self, rows: Rows) -> Pads:
        return tuple((axis, Pad.ANY) for row in rows for axis in row if self._pads(axis))

    def _rescale(self, value: int, step: Accumulate, scores: Value, state: str) -> None:
        """One iteration of online softmax: what was added shrinks by exp(m - m'), where m' is the new maximum."""
        weights, shrink = self._weights(step.operands[0], scores)
        rows = self.axes.rows[value]
        factor = spread(Value((*scores.rows[:-1], ()), shrink), rows)
        if len(step.operands) == 1:
            self.out(f"{state} = {state} * {factor} + {folded(self.places, weights, (len(scores.rows) - 1,), 'sum')}")
            return
        values = self._solid(self.values[step.operands[1]])
        if self.plan.dots(step):
            into = f"{state} * {factor}"
            self.out(f"{state} = {dot(self.places, step, rows, weights, values, into, self.tf32)}")
        else:
            self.out(f"{state} = {state} * {factor} + {thin(self.places, rows, weights, values)}")

    def _weights(self, source: int, scores: Value) -> tuple[Value, str]:
        if source in self.weights:
            return self.weights[source]
        peaks, last = self.peaks[source], len(scores.rows) - 1
        loose = [axis for axis in scores.rows[last] if scores.pad(axis) is not None]
        made = kept(self.places, scores, scores.text, loose, LOW)
        if made != scores.text:
            made = self.out.say("scores", made)
        whole = replace(scores, text=made, raw="", pads=tuple(p for p in scores.pads if p[0] not in loose))
        new = self.out.say(f"new_{peaks}", f"tl.maximum({peaks}, {folded(self.places, whole, (last,), 'max')})")
        # Of a row that had nothing but -inf so far every weight is 0, not exp(-inf + inf).
        finite = self.out.say(f"finite_{peaks}", f"tl.where({new} == {LOW}, 0.0, {new})")
        shrink = self.out.say("shrink", f"tl.exp({peaks} - {finite})")
        top = spread(Value((*scores.rows[:-1], ()), finite), scores.rows)
        e = self.out.say("e", f"tl.exp({made} - {top})")
        self.out(f"{peaks} = {new}")
        pads = tuple((axis, Pad.ZERO if axis in loose else Pad.ANY) for axis, _ in scores.pads)
        self.weights[source] = Value(scores.rows, e, pads=pads), shrink
        return self.weights[source]


def _joins(step: Step | None) -> bool:
    return isinstance(step, Accumulate) and step.how == "concat"
