"""What one program of a kernel does, read from its Triton IR.

An abstract interpretation over `abstract` values, for a few program ids. Loops are not unrolled: a body is evaluated
for its first, middle and last iterations and counts for as many as there are.

Nothing here fails on IR that it does not know: an unknown operation yields an unknown value, and whatever had to be
assumed stands in `Work.notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from tilesmith.bench.abstract import (
    COMPARISONS,
    Address,
    Data,
    Grid,
    Mask,
    Value,
    advanced,
    as_offset,
    compared,
    logic,
    plus,
    scalar,
    times,
    true_share,
    wrapped,
)
from tilesmith.bench.triton_ir import FOR, NAME, PAIRS, TARGET, Function, Op, Region, Type, parse

DotKind = Literal["fp16", "tf32", "fp8"]


@dataclass(frozen=True, slots=True)
class Access:
    """What one program does to the tensor behind one pointer argument, in bytes; masked elements do not count."""

    pointer: str
    loaded: float = 0.0
    stored: float = 0.0
    moved: float = 0.0
    """Loaded and stored in whole sectors of 32 bytes, which is what caches move: more where steps are wide."""
    atomics: float = 0.0
    """Elements that are read, changed and written as one."""
    atomic_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Dot:
    """Matrix products of one shape and type."""

    kind: DotKind
    m: int
    n: int
    k: int
    count: float

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k * self.count


@dataclass(frozen=True, slots=True)
class Work:
    """What a program does, on average over the grid."""

    accesses: tuple[Access, ...] = ()
    dots: tuple[Dot, ...] = ()
    alu: float = 0.0
    """Operations of one lane outside the matrix units; a transcendental one counts as many as the time it takes."""
    flops: float = 0.0
    """Floating-point operations outside the matrix units, a transcendental one counting once."""
    rounds: float = 0.0
    """Times that a program outside loops waits for memory: loads that stand together wait together, atomics apart."""
    loop_rounds: float = 0.0
    """The same within innermost loops, where a pipeline can overlap them."""
    iterations: float = 0.0
    """Of all innermost loops together."""
    stages: int | None = None
    """The pipeline depth that a loop asks for itself; None where none does."""
    imbalance: float = 1.0
    """The longest program's work over the average, of the programs that were looked at."""
    notes: tuple[str, ...] = ()
    """What was assumed."""

    @property
    def loaded(self) -> float:
        return sum(access.loaded for access in self.accesses)

    @property
    def stored(self) -> float:
        return sum(access.stored for access in self.accesses)

    @property
    def moved(self) -> float:
        return sum(access.moved for access in self.accesses)

    @property
    def dot_flops(self) -> float:
        return sum(dot.flops for dot in self.dots)


def work(ttir: str, arguments: Mapping[str, object], grid: tuple[int, int, int]) -> Work:
    """The average program of a launch.

    `arguments` are the launch's scalars by parameter name; what is no number counts as unknown. At most six programs
    are evaluated; the last one, which may be ragged, counts once.
    """
    functions = parse(ttir)
    kernel = next((function for function in functions.values() if function.public), None)
    if kernel is None:
        return Work(notes=("no kernel was found in the IR",))
    tallies = [(_evaluate(functions, kernel, arguments, grid, ids), weight) for ids, weight in _samples(grid)]
    total = _Tally()
    for tally, weight in tallies:
        total.add(tally, weight)
    sizes = [tally.size for tally, _ in tallies]
    imbalance = max(sizes) / total.size if total.size else 1.0
    return replace(total.work(), imbalance=max(1.0, imbalance))


# Counting ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What has been counted so far of one program, or summed over several."""

    accesses: dict[str, Access] = field(default_factory=dict)
    dots: dict[tuple[DotKind, int, int, int], float] = field(default_factory=dict)
    alu: float = 0.0
    flops: float = 0.0
    rounds: float = 0.0
    loop_rounds: float = 0.0
    iterations: float = 0.0
    stages: int | None = None
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def size(self) -> float:
        """One number for how long a program is, to compare programs of one kernel."""
        moved = sum(access.moved + access.atomic_bytes for access in self.accesses.values())
        flops = sum(2.0 * m * n * k * count for (_, m, n, k), count in self.dots.items())
        return moved + flops / 256 + self.alu / 8

    def access(self, pointer: str, **amounts: float) -> None:
        old = self.accesses.get(pointer) or Access(pointer)
        self.accesses[pointer] = replace(old, **{name: getattr(old, name) + more for name, more in amounts.items()})

    def add(self, other: _Tally, weight: float) -> None:
        for access in other.accesses.values():
            amounts = ("loaded", "stored", "moved", "atomics", "atomic_bytes")
            self.access(access.pointer, **{name: weight * getattr(access, name) for name in amounts})
        for shape, count in other.dots.items():
            self.dots[shape] = self.dots.get(shape, 0.0) + weight * count
        for name in ("alu", "flops", "rounds", "loop_rounds", "iterations"):
            setattr(self, name, getattr(self, name) + weight * getattr(other, name))
        self.stages = self.stages or other.stages
        self.notes.update(other.notes)

    def work(self) -> Work:
        return Work(
            accesses=tuple(self.accesses.values()),
            dots=tuple(Dot(*shape, count) for shape, count in self.dots.items()),
            alu=self.alu,
            flops=self.flops,
            rounds=self.rounds,
            loop_rounds=self.loop_rounds,
            iterations=self.iterations,
            stages=self.stages,
            notes=tuple(self.notes),
        )


def _samples(grid: tuple[int, int, int]) -> Iterator[tuple[tuple[int, int, int], float]]:
    """Program ids and their weights, which sum to 1."""
    x, y, _ = grid
    programs = math.prod(grid)
    if programs <= 6:
        chosen = dict.fromkeys(range(programs), 1 / programs)
    else:
        # Mirrored pairs answer exactly for work that grows evenly along any dimension; the golden section spreads
        # them over all dimensions, where even parts of a power of two would not.
        half = [int(programs * (pair * 0.6180339887 % 1)) for pair in (1, 2)]
        inside = {number for one in half for number in (one, programs - 1 - one)} - {0, programs - 1}
        chosen = dict.fromkeys(sorted(inside), (1 - 2 / programs) / len(inside))
        chosen |= {0: 1 / programs, programs - 1: 1 / programs}
    for number, weight in chosen.items():
        yield (number % x, number // x % y, number // (x * y)), weight


def _evaluate(
    functions: Mapping[str, Function],
    kernel: Function,
    arguments: Mapping[str, object],
    grid: tuple[int, int, int],
    ids: tuple[int, int, int],
) -> _Tally:
    program = _Program(functions, grid, ids)
    values: dict[str, Value] = {}
    for name, given, kind in kernel.parameters:
        scalar = arguments.get(given)
        if "ptr" in kind or "tensordesc" in kind:
            values[name] = Address(given, 0)
        elif isinstance(scalar, (int, float)):
            values[name] = scalar
        else:
            values[name] = None
            if "." not in given and not any(given == other and "desc" in k for _, other, k in kernel.parameters):
                program.tally.notes[f"argument {given} is unknown"] = None
    program.region(kernel.body, values)
    return program.tally


_CASTS = frozenset({"extsi", "extui", "trunci", "index_cast", "index_castui", "bitcast"}) | frozenset(
    {"sitofp", "uitofp", "fptosi", "fptoui", "extf", "truncf"}
)

_LANE_COSTS = {
    # The unit for special functions has an eighth of the lanes' rate; what is not one instruction there adds some.
    **dict.fromkeys(("exp2", "rsqrt", "log2", "tanh"), 8.0),
    **dict.fromkeys(("exp", "log", "sqrt"), 10.0),
    **dict.fromkeys(("sin", "cos"), 16.0),
    **dict.fromkeys(("divf", "precise_divf", "precise_sqrt"), 10.0),
    **dict.fromkeys(("erf", "extern_elementwise"), 25.0),
    **dict.fromkeys(("remf", "powf"), 40.0),
    "truncf": 0.5,
}
_INTEGER_COST = 0.25
"""Neighbouring elements share most of the arithmetic on their indices."""

_BREAKS = frozenset(
    {"tt.reduce", "tt.scan", "tt.dot", "tt.dot_scaled", "tt.atomic_rmw", "tt.atomic_cas", "gpu.barrier"}
)
"""Loads on either side of these wait apart."""

_MOST_TRIPS = 1 << 31


class _Program:
    """One program on its way through a kernel."""

    def __init__(
        self, functions: Mapping[str, Function], grid: tuple[int, int, int], ids: tuple[int, int, int]
    ) -> None:
        self.functions = functions
        self.grid = grid
        self.ids = ids
        self.tally = _Tally()
        self.weight = 1.0
        self.in_loop = False
        self.waiting = False
        self.depth = 0

    # Control -----------------------------------------------------------------

    def region(self, region: Region, values: dict[str, Value]) -> list[Value]:
        """Evaluates a region; the operands of what ends it."""
        at, steps = 0, 0
        while at < len(region.ops) and steps <= 2 * len(region.ops):
            op = region.ops[at]
            at, steps = at + 1, steps + 1
            if op.name in ("scf.yield", "tt.return", "scf.condition", "tt.reduce.return", "tt.scan.return"):
                return [values.get(name) for name in op.operands]
            if op.name in ("cf.br", "cf.cond_br"):
                at = self.branch(op, region, values)
            else:
                self.op(op, region, values)
        return []

    def branch(self, op: Op, region: Region, values: dict[str, Value]) -> int:
        """Where a jump goes on; where that is unknown, to the longer side."""
        targets = TARGET.findall(op.text)
        names = [label for label, _ in targets if label in region.blocks]
        if not names:
            return len(region.ops)
        goal = names[0]
        if op.name == "cf.cond_br" and len(names) == 2:
            condition = values.get(op.operands[0])
            if isinstance(condition, (int, float)):
                goal = names[0] if condition else names[1]
            else:
                self.tally.notes["a branch depends on data: the longer side is assumed"] = None
                goal = max(names, key=region.length)
        given = dict(targets).get(goal, "")
        for name, source in zip(region.block_arguments[goal], NAME.findall(given), strict=False):
            values[name] = values.get(source)
        return region.blocks[goal]

    @contextmanager
    def counting(self, weight: float) -> Iterator[None]:
        outer, self.weight = self.weight, self.weight * weight
        try:
            yield
        finally:
            self.weight = outer

    def loop(
        self, region: Region, trips: float, body: Callable[[float, list[Value]], list[Value]], start: list[Value]
    ) -> list[Value]:
        """Counts `trips` passes of a body by its first, middle and last, and answers what the loop carries out."""
        if trips < 1:
            return start
        outer, self.in_loop = self.in_loop, region.inner
        inside = [(trips - 1) / 2] if region.inner else [(trips - 1) / 4, 3 * (trips - 1) / 4]
        after = start
        samples = [(0.0, 1.0)]
        if trips > 1:
            samples.append((trips - 1, 1.0))
        if trips > 2:
            samples[1:1] = [(float(math.floor(at)), (trips - 2) / len(inside)) for at in inside]
        first = start
        for at, weight in samples:
            state = [advanced(one, two, at) for one, two in zip(start, first, strict=True)] if at else start
            self.waiting = False
            with self.counting(weight):
                after = body(at, state)
            after = after if len(after) == len(start) else [None] * len(start)
            first = first if at else after
        if region.inner:
            self.tally.iterations += self.weight * trips
        self.in_loop, self.waiting = outer, False
        carried = [advanced(one, two, trips) for one, two in zip(start, first, strict=True)]
        return [last if value is None else value for value, last in zip(carried, after, strict=True)]

    def for_(self, op: Op, values: dict[str, Value]) -> list[Value]:
        found = FOR.search(op.text)
        pairs = PAIRS.findall(op.text.partition("iter_args")[2])
        start = [values.get(source) for _, source in pairs]
        if found is None:
            self.tally.notes["a loop could not be read: left out"] = None
            return [None] * len(op.results)
        index, *bounds = found.groups()
        low, high, step = (values.get(name) for name in bounds)
        trips: float = 1
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and isinstance(step, (int, float)) and step:
            trips = max(0, math.ceil((high - low) / step))
        else:
            self.tally.notes["the trips of a loop depend on data: one is assumed"] = None
        if stages := re.search(r"tt\.num_stages = (\d+)", op.attributes):
            self.tally.stages = max(self.tally.stages or 0, int(stages.group(1)))
        region = op.regions[0]

        def body(at: float, state: list[Value]) -> list[Value]:
            numeric = isinstance(low, (int, float)) and isinstance(step, (int, float))
            values[index] = plus(low, times(int(at), step, ()), ()) if numeric else None
            values.update(zip((name for name, _ in pairs), state, strict=True))
            return self.region(region, values)

        return self.loop(region, trips, body, start)

    def while_(self, op: Op, values: dict[str, Value]) -> list[Value]:
        """The trips of a while loop come from its condition, whose operands are taken to move evenly."""
        if len(op.regions) != 2:
            return [None] * len(op.results)
        before, after = op.regions
        pairs = PAIRS.findall(op.text.partition(" : ")[0])
        start = [values.get(source) for _, source in pairs]
        carried = [name for name, _ in pairs]

        def test(state: list[Value]) -> tuple[Value, list[Value]]:
            values.update(zip(carried, state, strict=True))
            condition, *passed = self.region(before, values) or [None]
            return condition, passed

        def body(_: float, state: list[Value]) -> list[Value]:
            values.update(zip(after.arguments, test(state)[1], strict=False))
            return self.region(after, values)

        with self.counting(0.0):
            condition, passed = test(start)
            second = body(0, start) if condition is None or condition else start
        second = second if len(second) == len(start) else [None] * len(start)

        def goes_on(at: int) -> bool:
            with self.counting(0.0):
                return bool(test([advanced(one, two, at) for one, two in zip(start, second, strict=True)])[0])

        trips = 1
        if not isinstance(condition, (int, float)):
            self.tally.notes["a loop waits for data: one pass is assumed"] = None
        elif not condition:
            trips = 0
        elif start == second or goes_on(_MOST_TRIPS):
            self.tally.notes["a loop has no end that can be seen: one pass is assumed"] = None
        else:
            low, high = 0, _MOST_TRIPS
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if goes_on(middle) else (low, middle)
            trips = high
        final = self.loop(after, trips, body, start)
        with self.counting(0.0):
            return test(final)[1] if final else passed

    def if_(self, op: Op, values: dict[str, Value]) -> list[Value]:
        condition = values.get(op.operands[0]) if op.operands else None
        if isinstance(condition, (int, float)):
            chosen = op.regions[:1] if condition else op.regions[1:2]
            return self.region(chosen[0], values) if chosen else []
        self.tally.notes["a condition depends on data: both sides count half"] = None
        answers = []
        for region in op.regions:
            with self.counting(0.5):
                answers.append(self.region(region, values))
        same = len(answers) == 2 and len(answers[0]) == len(answers[1])
        return [one if one == two else None for one, two in zip(*answers, strict=True)] if same else []

    def call(self, op: Op, values: dict[str, Value]) -> list[Value]:
        named = re.search(r"@([^\s(]+)", op.text)
        callee = self.functions.get(named.group(1).strip('"')) if named else None
        if callee is None or self.depth > 8:
            self.tally.notes["a called function could not be read: left out"] = None
            return [None] * len(op.results)
        given = zip((name for name, _, _ in callee.parameters), op.operands, strict=False)
        self.depth += 1
        answer = self.region(callee.body, {name: values.get(source) for name, source in given})
        self.depth -= 1
        return answer

    # Operations --------------------------------------------------------------

    def op(self, op: Op, region: Region, values: dict[str, Value]) -> None:
        """Evaluates one operation: counts what it costs and binds its results."""
        match op.name:
            case "scf.for":
                answer = self.for_(op, values)
            case "scf.while":
                answer = self.while_(op, values)
            case "scf.if":
                answer = self.if_(op, values)
            case "tt.call":
                answer = self.call(op, values)
            case _:
                if op.name in _BREAKS:
                    self.waiting = False
                answer = [self.value(op, region, values)]
        missing = [None] * (len(op.results) - len(answer))
        values.update(zip(op.results, [*answer, *missing], strict=False))

    def value(self, op: Op, region: Region, values: dict[str, Value]) -> Value:
        family, _, name = op.name.partition(".")
        operands = [values.get(operand) for operand in op.operands]
        if family == "tt" and (method := getattr(self, f"tt_{name}", None)) is not None:
            answer: Value = method(op, operands)
            return answer
        if family == "arith":
            return self.arith(name, op, operands, region)
        if family == "math" or name in ("extern_elementwise", "precise_divf", "precise_sqrt", "fp_to_fp", "clampf"):
            self.lanes(op, name)
        return None

    def lanes(self, op: Op, name: str, count: int | None = None) -> None:
        if not op.type.tensor and count is None:
            return
        amount = self.weight * (op.type.count if count is None else count)
        if op.type.integer:
            self.tally.alu += _INTEGER_COST * amount
            return
        self.tally.alu += _LANE_COSTS.get(name, 1.0) * amount
        if name not in _CASTS and name != "fp_to_fp":
            self.tally.flops += amount

    def arith(self, name: str, op: Op, operands: list[Value], region: Region) -> Value:
        if name == "constant":
            return _constant(op)
        if not (name == "mulf" and op.results[0] in region.fused):
            self.lanes(op, name)
        elif op.type.tensor:
            self.tally.flops += self.weight * op.type.count
        shape = op.type.shape
        if name in _CASTS:
            kept = operands[0] if operands else None
            return kept if op.types[0].integer or not shape or isinstance(kept, Data) else None
        if name == "select" and len(operands) == 3:
            condition, one, two = operands
            if isinstance(condition, (int, float)):
                return one if condition else two
            return one if one == two else None
        if len(operands) != 2:
            return None
        one, two = operands
        if isinstance(one, Data) or isinstance(two, Data):
            return Data()
        if name in ("cmpi", "cmpf"):
            words = op.text.replace(",", " ").split()
            kind = words[0] if words else ""
            if isinstance(one, (int, float)) and isinstance(two, (int, float)) and kind in COMPARISONS:
                return COMPARISONS[kind](one, two)
            return None if not shape else compared(kind, one, two, shape) if name == "cmpi" else Mask(1.0)
        if isinstance(one, (int, float)) and isinstance(two, (int, float)):
            return scalar(name, one, two)
        if isinstance(one, Mask) or isinstance(two, Mask):
            return logic(name, one, two)
        if name in ("addi", "subi"):
            return plus(one, two, shape, 1 if name == "addi" else -1) if shape else None
        if name == "muli":
            return times(one, two, shape) if shape else None
        if name in ("remsi", "remui") and shape:
            return wrapped(one, two)
        return None

    def tt_get_program_id(self, op: Op, _: list[Value]) -> Value:
        return self.ids["xyz".index(op.text.split()[0])]

    def tt_get_num_programs(self, op: Op, _: list[Value]) -> Value:
        return self.grid["xyz".index(op.text.split()[0])]

    def tt_make_range(self, op: Op, _: list[Value]) -> Value:
        start = re.search(r"start = (-?\d+)", op.attributes)
        return Grid(int(start.group(1)) if start else 0, (1,), op.type.shape)

    def tt_splat(self, op: Op, operands: list[Value]) -> Value:
        (value,) = operands
        shape, zeros = op.type.shape, (0,) * len(op.type.shape)
        if isinstance(value, Address):
            base = value.offset
            if isinstance(base, (Data, Grid)):
                return value
            return replace(value, offset=Grid(base, zeros, shape))
        if isinstance(value, bool):
            return Mask(float(value))
        if isinstance(value, Data):
            return value
        if op.type.integer:
            return Grid(value if isinstance(value, (int, float)) else None, zeros, shape)
        return None

    def reshaped(self, value: Value, change: Callable[[Grid], Grid | None]) -> Value:
        if isinstance(value, Address) and isinstance(value.offset, Grid):
            return replace(value, offset=change(value.offset))
        return change(value) if isinstance(value, Grid) else value

    def tt_expand_dims(self, op: Op, operands: list[Value]) -> Value:
        found = re.search(r"axis = (\d+)", op.attributes)
        axis = int(found.group(1)) if found else 0
        shape = op.type.shape
        return self.reshaped(operands[0], lambda g: Grid(g.base, (*g.steps[:axis], 0, *g.steps[axis:]), shape))

    def tt_broadcast(self, op: Op, operands: list[Value]) -> Value:
        return self.reshaped(operands[0], lambda g: replace(g, shape=op.type.shape))

    def tt_trans(self, op: Op, operands: list[Value]) -> Value:
        found = re.search(r"order = array<i32: ([\d, ]+)>", op.attributes)
        order = [int(axis) for axis in found.group(1).split(",")] if found else []

        def permuted(grid: Grid) -> Grid | None:
            if len(order) != len(grid.steps):
                return None
            return Grid(grid.base, tuple(grid.steps[axis] for axis in order), op.type.shape)

        return self.reshaped(operands[0], permuted)

    def tt_reshape(self, op: Op, operands: list[Value]) -> Value:
        def kept(grid: Grid) -> Grid | None:
            return Grid(grid.base, (0,) * len(op.type.shape), op.type.shape) if grid.uniform else None

        return self.reshaped(operands[0], kept)

    def tt_unsplat(self, _: Op, operands: list[Value]) -> Value:
        value = operands[0]
        return value.base if isinstance(value, Grid) and value.uniform else None

    def tt_bitcast(self, _: Op, operands: list[Value]) -> Value:
        return operands[0]

    def tt_addptr(self, op: Op, operands: list[Value]) -> Value:
        pointer, offset = operands
        if isinstance(pointer, Address):
            shape = op.types[0].shape
            return replace(pointer, offset=as_offset(plus(pointer.offset, offset, shape)))
        return None

    def tt_make_tensor_descriptor(self, _: Op, operands: list[Value]) -> Value:
        return Address(operands[0].pointer, 0) if isinstance(operands[0], Address) else None

    def tt_make_tensor_ptr(self, op: Op, operands: list[Value]) -> Value:
        return self.tt_make_tensor_descriptor(op, operands)

    def tt_advance(self, _: Op, operands: list[Value]) -> Value:
        return operands[0]

    # Memory ------------------------------------------------------------------

    def tt_load(self, op: Op, operands: list[Value]) -> Value:
        kind = op.types[0] if op.types else op.type
        self.memory(operands[0], kind, operands[1] if len(operands) > 1 else None, "loaded")
        return Data()

    def tt_store(self, op: Op, operands: list[Value]) -> Value:
        kind = op.types[0] if op.types else op.type
        self.memory(operands[0], kind, operands[2] if len(operands) > 2 else None, "stored")
        return None

    def tt_descriptor_load(self, op: Op, operands: list[Value]) -> Value:
        self.memory(operands[0], op.type, None, "loaded")
        return Data()

    tt_descriptor_gather = tt_descriptor_load

    def tt_descriptor_store(self, op: Op, operands: list[Value]) -> Value:
        self.memory(operands[0], op.type, None, "stored")
        return None

    tt_descriptor_scatter = tt_descriptor_store

    def tt_descriptor_reduce(self, op: Op, operands: list[Value]) -> Value:
        self.atomic(operands[0], op.type, None)
        return None

    def tt_atomic_rmw(self, op: Op, operands: list[Value]) -> Value:
        self.atomic(operands[0], op.type, operands[2] if len(operands) > 2 else None)
        return Data()

    def tt_atomic_cas(self, op: Op, operands: list[Value]) -> Value:
        self.atomic(operands[0], op.type, None)
        return Data()

    def atomic(self, address: Value, kind: Type, mask: Value) -> None:
        count = self.weight * kind.count * true_share(mask)
        self.tally.access(self.name(address), atomics=count, atomic_bytes=count * kind.size)
        self.wait()

    def wait(self) -> None:
        if self.in_loop:
            self.tally.loop_rounds += self.weight
        else:
            self.tally.rounds += self.weight

    def memory(self, address: Value, kind: Type, mask: Value, direction: Literal["loaded", "stored"]) -> None:
        true = true_share(mask)
        offset = address.offset if isinstance(address, Address) else None
        # A pointer that depends on loaded data waits for that data first.
        dependent = isinstance(offset, Data)
        if direction == "loaded" and true and (not self.waiting or dependent):
            self.waiting = True
            self.wait()
        distinct, sectors = _footprint(offset, kind)
        amount = self.weight * true
        moved = amount * sectors
        if direction == "loaded":
            self.tally.access(self.name(address), loaded=amount * distinct, moved=moved)
        else:
            self.tally.access(self.name(address), stored=amount * distinct, moved=moved)

    def name(self, address: Value) -> str:
        if isinstance(address, Address):
            return address.pointer
        self.tally.notes["a pointer could not be followed"] = None
        return "?"

    # Arithmetic of tensors ---------------------------------------------------

    def tt_dot(self, op: Op, _: list[Value]) -> Value:
        if len(op.types) < 3:
            return None
        left, right = op.types[0], op.types[1]
        *batch, m, k = left.shape
        n, batches = right.shape[-1], math.prod(batch)
        kind, passes = _dot_kind(left.element, op.text)
        if kind is None:
            self.tally.alu += self.weight * batches * m * n * k
            self.tally.flops += 2 * self.weight * batches * m * n * k
        else:
            shape = (kind, m, n, k)
            self.tally.dots[shape] = self.tally.dots.get(shape, 0.0) + self.weight * batches * passes
        return None

    tt_dot_scaled = tt_dot

    def tt_reduce(self, op: Op, _: list[Value]) -> Value:
        """Every element passes once; sums across lanes and warps come on top and are left out."""
        source = op.types[0] if op.types else op.type
        costly = [each for each in op.regions[0].ops if each.name.startswith(("arith.", "math."))] if op.regions else []
        amount = self.weight * source.count * len(costly)
        self.tally.alu += amount * (_INTEGER_COST if source.integer else 1.0)
        self.tally.flops += 0.0 if source.integer else amount
        return None

    tt_scan = tt_reduce


def _footprint(offset: float | Grid | Data | None, kind: Type) -> tuple[float, float]:
    """Bytes that differ, and bytes of the 32-byte sectors that hold them, of one access to a whole tensor."""
    whole = float(kind.count * kind.size)
    if not isinstance(offset, Grid) or len(offset.steps) != len(kind.shape):
        return whole, max(whole, 32.0) if not kind.tensor else whole
    varying = [(step, size) for step, size in zip(offset.steps, kind.shape, strict=True) if step != 0 and size > 1]
    distinct = float(math.prod(size for _, size in varying) * kind.size)
    known = [(abs(step), size) for step, size in varying if step is not None]
    if len(known) < len(varying) or not known:
        return distinct, max(distinct, 32.0)
    step, size = min(known)
    # A run of neighbours along the narrowest step; each run begins its own sectors.
    run = step * kind.size * (size - 1) + kind.size
    sectors_of_run = min(float(size), max(1.0, run / 32))
    return distinct, 32.0 * sectors_of_run * (distinct / (size * kind.size))


def _dot_kind(element: str, text: str) -> tuple[DotKind | None, int]:
    """The matrix unit's type and how many products one takes; None for a dot on the lanes."""
    if element in ("f16", "bf16"):
        return "fp16", 1
    if element.startswith(("f8", "i8", "i4")) or "f8" in element:
        return "fp8", 1
    precision = re.search(r"inputPrecision = (\w+)", text)
    match precision.group(1) if precision else "ieee":
        case "tf32":
            return "tf32", 1
        case "tf32x3":
            return "tf32", 3
        case "bf16x3":
            return "fp16", 3
        case "bf16x6":
            return "fp16", 6
    return None, 1


def _constant(op: Op) -> Value:
    found = re.match(r"\s*(?:dense<)?(true|false|-?\d[\w.+-]*|-?0x\w+)", op.text)
    if found is None:
        return None
    text, kind = found.group(1), op.type
    if text in ("true", "false"):
        return Mask(float(text == "true")) if kind.tensor else text == "true"
    try:
        number: float = float(text) if "." in text else int(text, 0)
    except ValueError:
        return None
    if not kind.tensor:
        # Floats that have no decimal form are printed as their bits.
        return None if "0x" in text and not kind.integer else number
    return Grid(number, (0,) * len(kind.shape), kind.shape) if kind.integer else None
