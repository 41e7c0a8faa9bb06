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
from tilesmith.core.graph_check import Phase, promote
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower import text, tma
from tilesmith.superopt.lower.axes import Row, Rows
from tilesmith.superopt.lower.options import UNROLLED, Choice, grid_order, may_stream, slices
from tilesmith.superopt.lower.places import Lines, Names, Places, at, operand
from tilesmith.superopt.lower.plan import Plan, summed
from tilesmith.superopt.lower.sizes import ONE, Size, Unnamed, contiguous
from tilesmith.superopt.lower.text import TL, Pad
from tilesmith.superopt.lower.window_text import Windows
from tilesmith.superopt.lower.windows import walking

LOW = 'float("-inf")'
LOOKS = 64
"""How often a program looks whether the others of its tile have come: some tens of microseconds."""
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


@dataclass(frozen=True, slots=True)
class _Value:
    rows: Rows
    text: str
    """In float32, as an operand."""
    raw: str = ""
    """As it was loaded; empty for what is computed."""
    dtype: Dtype = "fp32"
    """Of `raw`."""
    number: float | None = None
    """Of a constant."""
    pads: tuple[tuple[int, Pad], ...] = ()
    """What lies beyond the elements, along every axis that may be padded."""
    turned: tuple[int, ...] = ()
    """Of what is only stored: for each dimension of `rows` and of the text which dimension of the value it is."""

    @property
    def present(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row)

    def pad(self, axis: int) -> Pad | None:
        return dict(self.pads).get(axis)


def written(
    plan: Plan,
    choice: Choice,
    outputs: Sequence[str],
    sizes: Sequence[tuple[Size, ...]],
    tf32: bool,
    fixed: frozenset[Fraction] | None = None,
) -> Written:
    """The source of one kernel whose stores fill the buffers `outputs` of extents `sizes`.

    Raises `Unnamed` for a constant that is not among the `fixed` ones and no mean's n, where those are given.
    """
    return Emitter(plan, choice, outputs, sizes, tf32, fixed).run()


class Emitter:
    def __init__(
        self,
        plan: Plan,
        choice: Choice,
        outputs: Sequence[str],
        sizes: Sequence[tuple[Size, ...]],
        tf32: bool,
        fixed: frozenset[Fraction] | None,
    ) -> None:
        plan = walking(plan) if choice.walk else plan
        self.plan, self.choice, self.outputs, self.out_sizes, self.tf32 = plan, choice, outputs, sizes, tf32
        self.fixed = None if fixed is None else {float(value) for value in fixed}
        self.kernel, self.axes, self.phases = plan.kernel, plan.axes, plan.made.phases
        self.first = len(plan.kernel.loads)
        self.names = Names()
        self.places = self.tiles = Places(plan, choice, self.names)
        self.slice: int | None = None
        """The axis of which every program of a tile finishes a slice."""
        self.names.taken |= {"program", "part", "tile", "others", "step", "ahead", "ahead_inside", "across", "strip"}
        self.names.taken |= {
            "height",
            "other",
            "spots",
            "count_ptr",
            "ticket",
            "mark",
            "marks",
            "goal",
            "come",
            "looks",
            "turn",
            "own",
            "own_slices",
            "tl",
            "triton",
            "torch",
            "SPLIT",
            "GROUP",
            "SHARE",
        }
        self.out = Lines()
        self.values: dict[int, _Value] = {}
        self.state: dict[int, str] = {}
        """What an accumulator is carried in over the loop."""
        self.peaks: dict[int, str] = {}
        """By scores, their running maximum."""
        self.weights: dict[int, tuple[_Value, str]] = {}
        """By scores, exp(S - m) of this iteration and what shrinks what was added before."""
        self.tiled: dict[int, tma.Descriptor] = {}
        """By load, what it is copied through."""
        for value in tma.copied(plan) if choice.descriptors else ():
            name = self.names.new(f"{self._buffer(value)}_tiles")
            self.tiled[value] = tma.descriptor(plan, self.places, value, name)
        self.filling: dict[int, tma.Descriptor] = {}
        """By store, what is filled through one."""
        for place, name in enumerate(outputs if choice.descriptors and not choice.consumers else ()):
            if tma.may_store(plan, choice, place):
                tiles = self.names.new(f"{name}_tiles")
                made = tma.stored(plan, self.places, place, name, sizes[place], tiles)
                self.filling[place] = replace(made, dtype=None)
        self.needs = self._needs()
        self.sums = summed(plan)

    # What is needed where --------------------------------------------------------------------------------------------

    def _needs(self) -> dict[int, set[str]]:
        """For every value who reads it: products ("dot"), others ("math"), stores ("store"), and if in the loop."""
        needs: dict[int, set[str]] = {value: set() for value in range(len(self.phases))}
        for store in self.kernel.stores:
            needs[store.source].add("store")
        for value in range(len(self.phases) - 1, self.first - 1, -1):
            step = self.kernel.body[value - self.first]
            if isinstance(step, Op) and OPERATORS[step.operator].kind == "window":
                # It loads what it sees itself.
                continue
            inside = self.phases[value] is Phase.VARYING or isinstance(step, Accumulate) or "loop" in needs[value]
            for place, source in enumerate(step.operands):
                if isinstance(step, Op) and OPERATORS[step.operator].kind == "view":
                    needs[source] |= needs[value] - {"loop"}
                elif self.plan.dots(step) and (isinstance(step, Op) or place == 1):
                    needs[source].add("dot")
                else:
                    needs[source].add("math")
                if inside and self.phases[source] is not Phase.AFTER:
                    needs[source].add("loop")
        return needs

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
            self._together(self.slice)
        elif self.choice.split > 1:
            self._partials()
            self.out.indent = 1
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
        scratch = tuple(self._cells(rows) for rows in self._carried().values()) if choice.split > 1 else ()
        buffers += [_partials(place) for place in range(len(scratch))] + (["tickets"] if scratch else [])
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
            constants += [(block, choice.blocks[self.slice] // choice.split), ("LOOKS", LOOKS)]
        constants += [("GROUP", choice.group)] if "GROUP" in mentioned else []
        parameters = [*(tile.name for tile in tiled), *(f"{name}_ptr" for name in buffers)]
        fixed = [f"{name}: tl.constexpr" for name in (*self.names.symbols, *(name for name, _ in constants))]
        head = f"def {plan.name}({', '.join([*parameters, *fixed])}):"
        symbols = tuple(self.names.symbols)
        return Written(("@triton.jit", head, *lines), tuple(buffers), symbols, tuple(constants), scratch, tiled)

    def _step(self, value: int) -> Step | None:
        return self.kernel.body[value - self.first] if value >= self.first else None

    def _say(self, word: str, expression: str) -> str:
        name = self.names.new(word)
        self.out(f"{name} = {expression}")
        return name

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
        raw = self._say(view.buffer.lower(), expression)
        loaded = _Value(rows, raw, raw, view.dtype, None, pads)
        if view.dtype != "fp32":
            source = raw
            if "math" in self.needs[value] and self._apart(value):
                source = self._say(f"{raw}_again", self._loading(value))
            wide = f"{source}.to(tl.float32)"
            loaded = replace(loaded, text=self._say(f"{raw}_wide", wide) if "math" in self.needs[value] else wide)
        elif self._apart(value):
            loaded = replace(loaded, text=self._say(f"{raw}_again", self._loading(value)))
        self.values[value] = loaded

    def _apart(self, value: int) -> bool:
        """Whether a tile is loaded once for products and once for the rest."""
        pipelined = self.phases[value] is Phase.VARYING and self.choice.stages > 1
        return self.choice.again and pipelined and {"dot", "math"} <= self.needs[value]

    def _pads(self, axis: int) -> bool:
        ahead = self.choice.prefetch and axis == self.axes.step
        return ahead or self.plan.pads(axis, self.choice.blocks[axis])

    def _store(self, place: int, value: _Value) -> None:
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
                self.values[value] = _Value(self.axes.rows[value], text.number(number), number=number)
            elif self.needs[value]:
                self._loaded(value, self._loading(value))
            return
        assert isinstance(step, Op), "accumulators are gathered"
        operands = [self.values[source] for source in step.operands if source in self.values]
        rows = self.axes.rows[value]
        match OPERATORS[step.operator].kind:
            case "constant":
                number = float(step.values[0])
                self.values[value] = _Value((), text.number(number), number=number)
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

    def _solid(self, x: _Value) -> _Value:
        """A constant that fills a tile, as a tile."""
        if x.number is None or not x.present:
            return x
        self._held(x.number)
        made = f"tl.full({self.places.shape(x.present)}, {x.text}, tl.float32)"
        pads = tuple((axis, Pad.FINITE) for row in x.rows for axis in row if self._pads(axis))
        return replace(x, text=made, number=None, pads=pads)

    def _elementwise(self, op: Op, rows: Rows, operands: list[_Value]) -> _Value:
        known = [x.number for x in operands if x.number is not None]
        if len(known) == len(operands):
            number = text.folded(op, [self._held(x) for x in known])
            return _Value(rows, text.number(number), number=number)
        parts = [self._spread(x, rows) for x in operands]
        if len(parts) == 1:
            pads = tuple((axis, text.pad_of_unary(op, pad)) for axis, pad in operands[0].pads)
            if op.operator == "cast":
                return _Value(rows, parts[0], pads=pads)
            return _Value(rows, self._say(WORDS[op.operator], text.unary(op, parts[0])), pads=pads)
        pads = self._pads_of(op.operator, operands[0], operands[1])
        expression = self._mean(op, operands)
        if not expression:
            for number in known:
                self._held(number)
            expression = text.binary(op.operator, *parts)
        return _Value(rows, self._say(WORDS[op.operator], expression), pads=pads)

    def _pads_of(self, operator: str, x: _Value, y: _Value) -> tuple[tuple[int, Pad], ...]:
        axes = dict.fromkeys(axis for axis, _ in (*x.pads, *y.pads))
        return tuple((axis, text.pad_of_binary(operator, x.pad(axis), y.pad(axis))) for axis in axes)

    def _mean(self, op: Op, operands: Sequence[_Value]) -> str:
        """A sum over n elements times 1/n is a mean whatever n is: the size is named instead of its number."""
        pairs = list(zip(operands, op.operands, strict=True))
        for x, y in {"mul": (pairs, pairs[::-1]), "div": (pairs,)}.get(op.operator, ()):
            size, parts = self.sums[x[1]] or (ONE, 1)
            number = y[0].number
            if size.names and parts == 1 and number == (1.0 / size.number if op.operator == "mul" else size.number):
                return f"{x[0].text} / {self.names.size(size)}"
        return ""

    def _spread(self, value: _Value, rows: Rows) -> str:
        """A value's text with the dimensions of a result that it broadcasts to."""
        present = [place for place, row in enumerate(rows) if row]
        lead = len(rows) - len(value.rows)
        own = [place + lead for place, row in enumerate(value.rows) if row]
        if not own or own == present:
            return value.text
        return f"{operand(value.text)}[{', '.join(':' if place in own else 'None' for place in present)}]"

    def _reduced(self, op: Op, x: _Value) -> _Value:
        how = "sum" if op.operator == "sum" else "max"
        rows = tuple(() if dim in op.axes else row for dim, row in enumerate(x.rows))
        folded = self._folded(self._solid(x), op.axes, how)
        axes = [axis for dim in op.axes for axis in x.rows[dim]]
        pads = tuple((axis, pad) for axis, pad in x.pads if axis not in axes)
        if folded == x.text:
            return _Value(rows, folded, number=x.number, pads=pads)
        return _Value(rows, self._say(WORDS[op.operator], folded), pads=pads)

    def _folded(self, x: _Value, dims: Sequence[int], how: str) -> str:
        """The sum or maximum over dimensions, of elements only."""
        safe = {None, Pad.ZERO} if how == "sum" else {None}
        loose = [axis for dim in dims for axis in x.rows[dim] if x.pad(axis) not in safe]
        made = self._kept(x, x.text, loose, "0.0" if how == "sum" else LOW)
        present = [dim for dim, row in enumerate(x.rows) if row]
        for dim in sorted((dim for dim in dims if x.rows[dim]), reverse=True):
            made = f"tl.{how}({made}, axis={present.index(dim)})"
        return made

    def _kept(self, x: _Value, source: str, axes: Sequence[int], other: str) -> str:
        """A value with `other` beyond its elements along some axes."""
        mask = self.places.mask(x.present, axes) if axes else ""
        return f"tl.where({mask}, {source}, {other})" if mask else source

    def _viewed(self, value: int, op: Op, rows: Rows, x: _Value) -> _Value:
        if op.operator == "permute" and not any(value in step.operands for step in self.kernel.body):
            # Where its elements go in memory is all that changes.
            return replace(x, turned=tuple(op.axes.index(dim) for dim in range(len(op.axes))))
        made = replace(x, rows=rows)
        call = self._view(op, x, made) if x.number is None else ""
        if not call:
            return made
        said = ""
        if x.raw and self.needs[value] & {"dot", "store"}:
            said = self._say(WORDS[op.operator], call.format(operand(x.raw)))
            if "math" not in self.needs[value]:
                wide = said if x.dtype == "fp32" else f"{said}.to(tl.float32)"
                return replace(made, raw=said, text=wide)
        wide = self._say(WORDS[op.operator], call.format(operand(x.text)))
        return replace(made, raw=said, text=wide)

    def _view(self, op: Op, x: _Value, made: _Value) -> str:
        """How a tile is seen otherwise; empty where it is the same."""
        before, after = x.present, made.present
        if op.operator == "permute":
            moved = [axis for axis in op.axes if x.rows[axis]]
            order = [sorted(moved).index(axis) for axis in moved]
            if order == sorted(order):
                return ""
            return "tl.trans({})" if order == [1, 0] else f"tl.permute({{}}, ({', '.join(map(str, order))}))"
        if before == after:
            return ""
        if op.operator == "reshape":
            return f"tl.reshape({{}}, {self.places.shape(after)})"
        if not before:
            return f"tl.full({self.places.shape(after)}, 1.0, tl.float32) * {{}}"
        return f"tl.broadcast_to({self._spread(replace(x, text='{}'), made.rows)}, {self.places.shape(after)})"

    # Windows ---------------------------------------------------------------------------------------------------------

    def _pooled(self, value: int) -> _Value:
        """What windows see of all their taps."""
        windows = Windows(self.plan, self.choice, self.places, self.names, self.out, value)
        rows = self.axes.rows[value]
        return _Value(rows, windows.all(), pads=self._any(rows))

    def _walk(self) -> None:
        """All places along the first dimension of the windows, one after another."""
        (value,) = {view.value for view in self.axes.views}
        windows = Windows(self.plan, self.choice, self.places, self.names, self.out, value)
        before = self.out
        for other in range(value):
            self._make(other)
        queues = windows.begin()
        line = windows.line()
        windows.out = self.out = Lines()
        rows = self.axes.rows[value]
        self.values[value] = _Value(rows, windows.next(queues), pads=self._any(rows))
        for other in range(value + 1, len(self.phases)):
            self._make(other)
        for place, store in enumerate(self.kernel.stores):
            self._store(place, self.values[store.source])
        windows.shift(queues)
        before(line)
        before.made += [f"    {line}" for line in self.out.made]
        self.out = before

    # Products --------------------------------------------------------------------------------------------------------

    def _product(self, value: int, rows: Rows, left: _Value, right: _Value) -> _Value:
        if self._fused(value):
            # Its accumulator adds it.
            return _Value(rows, "")
        step = self._step(value)
        assert step is not None, "loads are no products"
        dot = self.plan.dots(step)
        made = self._dot(step, rows, left, right, "") if dot else self._thin(rows, left, right)
        return _Value(rows, self._say("product", made), pads=self._product_pads(left, right))

    def _product_pads(self, left: _Value, right: _Value) -> tuple[tuple[int, Pad], ...]:
        made = self._pads_of("mul", left, right)
        return tuple((axis, pad) for axis, pad in made if axis not in left.rows[-1])

    def _thin(self, rows: Rows, left: _Value, right: _Value) -> str:
        """A product of which an extent is 1: element by element, then a sum."""
        wide: Rows = (*rows[:-1], left.rows[-1], rows[-1])
        x = replace(left, rows=(*left.rows, ()))
        y = replace(right, rows=(*right.rows[:-2], (), *right.rows[-2:]))
        made = f"{self._spread(x, wide)} * {self._spread(y, wide)}"
        if not left.rows[-1]:
            return made
        return self._folded(_Value(wide, made, pads=self._pads_of("mul", left, right)), (len(rows) - 1,), "sum")

    def _dot(self, step: Step, rows: Rows, left: _Value, right: _Value, into: str) -> str:
        """A matrix product on the matrix units, added to `into` where there is such."""
        tiles = [self.plan.made.tiles[source] for source in step.operands]
        # The weights of a softmax are at most 1: the values' dtype holds them.
        dtype = tiles[1].dtype if isinstance(step, Accumulate) else promote(tiles)
        x, y = self._factor(left, dtype, right, -1), self._factor(right, dtype, left, -2)
        batch = [row for row in rows[:-2] if row]
        if batch:
            x, y = self._batched(left, x, rows, batch), self._batched(right, y, rows, batch)
        more = [f'input_precision="{"tf32" if self.tf32 else "ieee"}"'] if dtype == "fp32" else []
        if len(batch) < 2:
            return f"tl.dot({', '.join([x, y, *([into] if into else []), *more])})"
        made = f"tl.reshape(tl.dot({', '.join([x, y, *more])}), {self.places.shape([row for row in rows if row])})"
        return f"{into} + {made}" if into else made

    def _factor(self, value: _Value, dtype: Dtype, other: _Value, inner: int) -> str:
        """An operand of a product in its dtype, with nothing that counts beyond the elements of the inner dimension."""
        source = value.raw if value.raw and value.dtype == dtype else value.text
        if source is value.text and dtype != "fp32":
            source = f"{operand(source)}.to({TL[dtype]})"
        # Zero times what is finite is zero.
        loose = [a for a, pad in value.pads if a in value.rows[inner] and self._counts(pad, other.pad(a), inner)]
        return self._kept(value, source, loose, "0.0")

    def _counts(self, pad: Pad, other: Pad | None, inner: int) -> bool:
        if pad is Pad.FINITE:
            # One of both must be zero: the left one is made so.
            return other is not Pad.ZERO and inner == -1
        return pad is Pad.ANY

    def _batched(self, value: _Value, source: str, rows: Rows, batch: list[Row]) -> str:
        """An operand with every batch dimension, joined to one."""
        tail = value.rows[-2:]
        full: Rows = (*rows[:-2], *tail)
        spread = self._spread(replace(value, text=source), full)
        if [row for row in value.rows[:-2] if row] != batch:
            spread = f"tl.broadcast_to({spread}, {self.places.shape([row for row in full if row])})"
        if len(batch) == 1:
            return spread
        joined = tuple(axis for row in batch for axis in row)
        return f"tl.reshape({spread}, {self.places.shape([joined, *tail])})"

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
        inner = self.out = Lines()
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
        return {v: self._say(f"next_{self._buffer(v)}", self._loading(v, ahead=True)) for v in streamed}

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
            self.peaks.setdefault(scores, "")
            self.peaks[scores] = self.peaks[scores] or self._carry("peaks", rows, LOW)
            self.state[value] = self.peaks[scores]
        else:
            product = isinstance(made := self._step(scores), Op) and made.operator == "matmul"
            word = {"sum": "products" if product else "sums", "max": "peaks"}.get(step.how, "")
            word = word or ("mixed" if len(step.operands) == 2 else "weights")
            self.state[value] = self._carry(word, rows, LOW if step.how == "max" else "0.0")
        self.values[value] = _Value(rows, self.state[value])

    def _carry(self, word: str, rows: Rows, value: str) -> str:
        present = [row for row in rows if row]
        if not present:
            return self._say(word, f"tl.full((), {value}, tl.float32)")
        shape = self.places.shape(present)
        return self._say(
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
        state, kept = self.state[value], replace(self.values[value])
        pads = tuple((axis, pad) for axis, pad in x.pads if any(axis in row for row in kept.rows))
        if step.how == "rescale":
            self._rescale(value, step, x, state)
            self.values[value] = replace(kept, pads=self._any(kept.rows))
        elif step.how == "max":
            if not self._is_peak(step):
                self.out(f"{state} = tl.maximum({state}, {self._folded(x, step.axes, 'max')})")
            finite = tuple((axis, max(pad, Pad.FINITE)) for axis, pad in pads)
            self.values[value] = replace(kept, pads=finite)
        elif self._fused(source):
            product = self._step(source)
            assert product is not None, "loads are no products"
            left, right = (self._solid(self.values[o]) for o in product.operands)
            self.out(f"{state} = {self._dot(product, x.rows, left, right, state)}")
            self.values[value] = replace(kept, pads=self._product_pads(left, right))
        else:
            self.out(f"{state} += {self._folded(x, step.axes, 'sum')}")
            self.values[value] = replace(kept, pads=pads)

    def _any(self, rows: Rows) -> tuple[tuple[int, Pad], ...]:
        return tuple((axis, Pad.ANY) for row in rows for axis in row if self._pads(axis))

    def _rescale(self, value: int, step: Accumulate, scores: _Value, state: str) -> None:
        """One iteration of online softmax: what was added shrinks by exp(m - m'), where m' is the new maximum."""
        weights, shrink = self._weights(step.operands[0], scores)
        rows = self.axes.rows[value]
        factor = self._spread(_Value((*scores.rows[:-1], ()), shrink), rows)
        if len(step.operands) == 1:
            self.out(f"{state} = {state} * {factor} + {self._folded(weights, (len(scores.rows) - 1,), 'sum')}")
            return
        values = self._solid(self.values[step.operands[1]])
        if self.plan.dots(step):
            if sum(1 for row in rows[:-2] if row) < 2:
                self.out(f"{state} = {self._dot(step, rows, weights, values, f'{state} * {factor}')}")
            else:
                self.out(f"{state} = {state} * {factor} + {self._dot(step, rows, weights, values, '')}")
        else:
            self.out(f"{state} = {state} * {factor} + {self._thin(rows, weights, values)}")

    def _weights(self, source: int, scores: _Value) -> tuple[_Value, str]:
        if source in self.weights:
            return self.weights[source]
        peaks, last = self.peaks[source], len(scores.rows) - 1
        loose = [axis for axis in scores.rows[last] if scores.pad(axis) is not None]
        kept = self._kept(scores, scores.text, loose, LOW)
        if kept != scores.text:
            kept = self._say("scores", kept)
        whole = replace(scores, text=kept, raw="", pads=tuple(p for p in scores.pads if p[0] not in loose))
        new = self._say(f"new_{peaks}", f"tl.maximum({peaks}, {self._folded(whole, (last,), 'max')})")
        # Of a row that had nothing but -inf so far every weight is 0, not exp(-inf + inf).
        finite = self._say(f"finite_{peaks}", f"tl.where({new} == {LOW}, 0.0, {new})")
        shrink = self._say("shrink", f"tl.exp({peaks} - {finite})")
        top = self._spread(_Value((*scores.rows[:-1], ()), finite), scores.rows)
        e = self._say("e", f"tl.exp({kept} - {top})")
        self.out(f"{peaks} = {new}")
        pads = tuple((axis, Pad.ZERO if axis in loose else Pad.ANY) for axis, _ in scores.pads)
        self.weights[source] = _Value(scores.rows, e, pads=pads), shrink
        return self.weights[source]

    # Split loops -----------------------------------------------------------------------------------------------------

    def _carried(self) -> dict[str, Rows]:
        """What is carried over the loop, by name."""
        made = {peaks: (*self.axes.rows[scores][:-1], ()) for scores, peaks in self.peaks.items()}
        return made | {name: self.axes.rows[value] for value, name in self.state.items() if name not in made}

    def _partials(self) -> None:
        """Every program of a tile leaves what it has; the last to arrive puts it together and goes on."""
        out, carried = self.out, self._carried()
        spots = self._left(carried)
        out('if tl.atomic_add(tickets_ptr + tile, 1, sem="acq_rel") == SPLIT - 1:')
        out.indent = 1
        for name, rows in carried.items():
            shape = self.places.shape([row for row in rows if row]) if any(rows) else "()"
            out(f"{name} = tl.full({shape}, {LOW if name in self._maxima() else '0.0'}, tl.float32)")
        # The loads of an unrolled loop wait together.
        out(f"for other in {'tl.static_range' if self.choice.split <= UNROLLED else 'range'}(SPLIT):")
        out.indent = 2
        parts = {}
        for place, name in enumerate(carried):
            address = self._spot(place, carried[name], spots[name], "other")
            parts[name] = self._say(f"part_{name}", self._fetched(address, carried[name]))
        self._put_together(carried, parts)

    def _left(self, carried: dict[str, Rows]) -> dict[str, str]:
        """Leave what this program has where the others of its tile find it."""
        spots = {name: self._spots(rows) for name, rows in carried.items()}
        for place, (name, rows) in enumerate(carried.items()):
            mask = self.places.mask([row for row in rows if row])
            address = self._spot(place, rows, spots[name], "part")
            self.out(f"tl.store({address}, {name}{f', mask={mask}' if mask else ''})")
        # All warps have stored before the ticket is drawn.
        self.out("tl.debug_barrier()")
        return spots

    def _fetched(self, address: str, rows: Rows) -> str:
        mask = self.places.mask([row for row in rows if row])
        return f'tl.load({address}{f", mask={mask}, other=0.0" if mask else ""}, cache_modifier=".cg")'

    def _together(self, axis: int) -> None:
        """Every program of a tile leaves what it has, waits a little for the others, and adds a slice of the tile.

        SPLIT programs come in every call, so that the count needs no reset. Whoever has not seen all others after LOOKS
        looks marks its slice with this call's goal and counts once more: either all have come by then, or the last to
        come finds the mark and takes the slice. So nothing depends on programs running at once, and where they do, the
        last reads all marks at once and goes on as the others.
        """
        out, carried = self.out, self._carried()
        self._left(carried)
        out("count_ptr = tickets_ptr + tile * (SPLIT + 1)")
        out('ticket = tl.atomic_add(count_ptr, 1, sem="acq_rel")')
        out("goal = ticket - ticket % SPLIT + SPLIT")
        out("come = ticket + 1")
        out("looks = 0")
        out("while (come != goal) & (looks < LOOKS):")
        out('    come = tl.atomic_add(count_ptr, 0, sem="acquire")')
        out("    looks += 1")
        out("if come != goal:")
        out("    tl.atomic_xchg(count_ptr + 1 + part, goal)")
        out('    come = tl.atomic_add(count_ptr, 0, sem="acq_rel")')
        out("own_slices = tl.where(come == goal, 1, 0)")
        out("if ticket + 1 == goal:")
        out('    marks = tl.load(count_ptr + 1 + tl.arange(0, SPLIT), cache_modifier=".cg")')
        out("    own_slices = tl.where(tl.max(tl.where(marks == goal, 1, 0), axis=0) > 0, SPLIT, 1)")
        out("for turn in range(0, own_slices):")
        out("    own = (part + turn) % SPLIT")
        out("    mark = goal")
        out("    if turn > 0:")
        out('        mark = tl.load(count_ptr + 1 + own, cache_modifier=".cg")')
        out("    if mark == goal:")
        self.places = self.tiles.sliced(axis, "own")
        self.out = Lines()
        new = {name: self.names.new(f"own_{name}") for name in carried}
        self.peaks = {scores: new[name] for scores, name in self.peaks.items()}
        self.state = {value: new[name] for value, name in self.state.items()}
        for value, name in self.state.items():
            self.values[value] = replace(self.values[value], text=name)
        own = {new[name]: rows for name, rows in carried.items()}
        for name, rows in own.items():
            shape = self.places.shape([row for row in rows if row]) if any(rows) else "()"
            self.out(f"{name} = tl.full({shape}, {LOW if name in self._maxima() else '0.0'}, tl.float32)")
        spots = {name: self._spots(rows) for name, rows in own.items()}
        self.out("for other in tl.static_range(SPLIT):")
        self.out.indent = 1
        parts = {}
        for place, (name, rows) in enumerate(own.items()):
            address = self._spot(place, rows, spots[name], "other")
            parts[name] = self._say(f"part_{name}", self._fetched(address, rows))
        self._put_together(own, parts)
        self.out.indent = 0

    def _maxima(self) -> set[str]:
        most = {self.state[v] for v, s in enumerate(self.kernel.body, self.first)
                if isinstance(s, Accumulate) and s.how == "max"}  # fmt: skip
        return most | set(self.peaks.values())

    def _put_together(self, carried: dict[str, Rows], parts: dict[str, str]) -> None:
        out, done = self.out, set(self.peaks.values())
        for scores, peaks in self.peaks.items():
            rescaled = [v for v, s in enumerate(self.kernel.body, self.first)
                        if isinstance(s, Accumulate) and s.how == "rescale" and s.operands[0] == scores]  # fmt: skip
            new = self._say(f"new_{peaks}", f"tl.maximum({peaks}, {parts[peaks]})")
            # A share without elements has a maximum of -inf, and nothing to add.
            old = self._say("shrink", f"tl.where({peaks} == {new}, 1.0, tl.exp({peaks} - {new}))")
            own = self._say("own_shrink", f"tl.where({parts[peaks]} == {new}, 1.0, tl.exp({parts[peaks]} - {new}))")
            rows: Rows = carried[peaks]
            for value in rescaled:
                name = self.state[value]
                before, after = (self._spread(_Value(rows, factor), carried[name]) for factor in (old, own))
                out(f"{name} = {name} * {before} + {parts[name]} * {after}")
                done.add(name)
            out(f"{peaks} = {new}")
        for name in carried:
            if name not in done and name in self._maxima():
                out(f"{name} = tl.maximum({name}, {parts[name]})")
            elif name not in done:
                out(f"{name} += {parts[name]}")

    def _spots(self, rows: Rows) -> str:
        """Where the elements of a tile lie in a buffer of its own."""
        present = [row for row in rows if row]
        terms = []
        for place, row in enumerate(present):
            inner = " * ".join(self.tiles.shape([other])[1:-2] for other in present[place + 1 :])
            width = self.places.shape([row])[1:-2]
            first = f"own * {width} + " if row == (self.slice,) and self.places is not self.tiles else ""
            index = at(f"({first}tl.arange(0, {width}))" if first else f"tl.arange(0, {width})", place, len(present))
            terms.append(f"{index} * {inner}" if inner else index)
        return self._say("spots", " + ".join(terms)) if terms else ""

    def _cells(self, rows: Rows) -> str:
        """How many elements a program holds of a value."""
        return " * ".join(self.tiles.block(axis) for row in rows for axis in row) or "1"

    def _spot(self, place: int, rows: Rows, spots: str, part: str) -> str:
        base = f"{_partials(place)}_ptr + (tile * SPLIT + {part})"
        return f"{base} * ({self._cells(rows)}) + {spots}" if spots else base


def _partials(place: int) -> str:
    return "partials" if not place else f"partials{place + 1}"


def _joins(step: Step | None) -> bool:
    return isinstance(step, Accumulate) and step.how == "concat"
