"""What one program of a kernel does, read from its Triton IR.

An abstract interpretation. Scalars are computed for a few program ids; of a tensor only what decides traffic is kept:
an integer tensor as base plus a step for each dimension, a pointer tensor as the argument that it points into plus
such offsets, a mask as the share of its elements that are true. Loops are not unrolled: a body is evaluated for its
first, middle and last iterations and counts for as many as there are.

Nothing here fails on IR that it does not know: an unknown operation yields an unknown value, and whatever had to be
assumed stands in `Work.notes`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

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
    functions = _parse(ttir)
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


def parameters(ttir: str) -> tuple[tuple[str, str], ...] | None:
    """Names and types of the kernel's parameters that the compiler kept, in order; None where no kernel is found.

    A tensor descriptor of the host stands as itself and then as integers: of the same name, or "name.shape.0" ...
    """
    found = _SIGNATURE.search(ttir)
    return _parameters(found.group(3)) if found and found.group(1) == "public" else None


# Parsing -------------------------------------------------------------------------------------------------------------

_SIGNATURE = re.compile(
    r"^\s*tt\.func (public|private) @([^\s(]+)\((.*)\)(?:\s*->.*?)?\s*(?:attributes.*)?\{", re.MULTILINE
)
_PARAMETER = re.compile(r'%([\w.$-]+): (!?[\w.]+(?:<[^%]*?>)?(?=[\s,)]|$))[^%]*?(?:loc\("([^"]+)"|(?=, %)|$)')
_LINE = re.compile(r"(?:(%[^=]*?) = )?\"?([a-z_]\w*(?:\.\w+)+)\"?(.*)")
_NAME = re.compile(r"%[\w.$-]+(?:#\d+)?")
_BRACES = re.compile(r"<?\{[^{}]*\}>?")
_SHAPED = re.compile(r"(?:tensor|tensordesc)<(?:tensor<)?((?:\d+x)*)([^,>]+)")
_FOR = re.compile(r"(%\S+) = (%\S+) to (%\S+) step (%\S+)")
_PAIRS = re.compile(r"(%[\w.$-]+) = (%[\w.$-]+(?:#\d+)?)")
_BLOCK = re.compile(r"\^(\w+)(?:\((.*)\))?:")
_TARGET = re.compile(r"\^(\w+)(?:\(([^:)]*))?")
_SIZES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "index": 8}


@dataclass(frozen=True, slots=True)
class _Type:
    shape: tuple[int, ...]
    """() of a scalar."""
    element: str

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def tensor(self) -> bool:
        return bool(self.shape)

    @property
    def integer(self) -> bool:
        return self.element[:1] == "i" and not self.pointer

    @property
    def pointer(self) -> bool:
        return "ptr" in self.element

    @property
    def size(self) -> int:
        """Bytes of an element, or of what it points to."""
        plain = self.element.partition("ptr<")[2] or self.element
        known = re.match(r"(?:bf|[if])\d+|index", plain)
        name = known.group() if known else "i32"
        return _SIZES.get(name, 1 if name.startswith("f8") else 4)


@dataclass(slots=True)
class _Op:
    name: str
    results: tuple[str, ...]
    operands: tuple[str, ...]
    attributes: str
    text: str
    types: tuple[_Type, ...]
    """Those that the line names, in order; the last one is the result's, or the operands' where they are one."""
    regions: list[_Region] = field(default_factory=list)

    @property
    def type(self) -> _Type:
        return self.types[-1] if self.types else _Type((), "")


@dataclass(slots=True)
class _Region:
    arguments: tuple[str, ...] = ()
    ops: list[_Op] = field(default_factory=list)
    blocks: dict[str, int] = field(default_factory=dict)
    """Labels by the index of the operation that follows them, where a region has several blocks."""
    block_arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fused: frozenset[str] = frozenset()
    """Products whose only purpose is the sum that they fuse with."""
    inner: bool = True
    """Holds no loop."""

    def length(self, label: str) -> int:
        """Operations of one block."""
        begin = self.blocks[label]
        return min([end for end in self.blocks.values() if end > begin], default=len(self.ops)) - begin


@dataclass(slots=True)
class _Function:
    public: bool
    parameters: tuple[tuple[str, str, str], ...]
    """The name in the IR, the name in the source, the type."""
    body: _Region


@lru_cache(maxsize=64)
def _parse(ttir: str) -> dict[str, _Function]:
    functions: dict[str, _Function] = {}
    stack: list[tuple[_Op, _Region]] = []
    for raw in ttir.splitlines():
        line = raw.strip()
        if not line or line.startswith(("#", "//", "module", "builtin.module")):
            continue
        if line.startswith("tt.func"):
            found = _SIGNATURE.match(raw)
            if found is None:
                continue
            body = _Region()
            names = [("%" + match[0], match[2] or match[0], match[1]) for match in _PARAMETER.findall(found.group(3))]
            functions[found.group(2)] = _Function(found.group(1) == "public", tuple(names), body)
            stack = [(_Op("tt.func", (), (), "", "", ()), body)]
        elif stack:
            _parse_line(_without_location(line), stack)
    for function in functions.values():
        _finish(function.body)
    return functions


def _without_location(line: str) -> str:
    """Only block arguments have a location before their end."""
    return re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", line)


def _parse_line(line: str, stack: list[tuple[_Op, _Region]]) -> None:
    op, region = stack[-1]
    if line.startswith("}"):
        _finish(region)
        stack.pop()
        if line.endswith("{"):  # "} else {", "} do {", "}, {"
            op.regions.append(_Region())
            stack.append((op, op.regions[-1]))
        elif line != "}":  # "}) : (tensor<4xf32>) -> f32", "} {tt.num_stages = 3 : i32}"
            op.attributes += "".join(_BRACES.findall(line))
            op.types = op.types or _types(_BRACES.sub("", line))
    elif line.startswith("^"):
        if found := _BLOCK.match(line):
            arguments = tuple(_NAME.findall(found.group(2) or ""))
            if not region.ops and not region.blocks:
                region.arguments = arguments
            region.blocks[found.group(1)] = len(region.ops)
            region.block_arguments[found.group(1)] = arguments
    elif found := _LINE.match(line):
        made = _op(found.group(1) or "", found.group(2), found.group(3))
        region.ops.append(made)
        if line.endswith("{"):
            made.regions.append(_Region())
            stack.append((made, made.regions[0]))


def _op(results: str, name: str, text: str) -> _Op:
    attributes = "".join(_BRACES.findall(text))
    plain = _BRACES.sub("", text)
    before, _, after = plain.partition(" : ")
    names: list[str] = []
    for result in filter(None, (part.strip() for part in results.split(","))):
        stem, _, count = result.partition(":")
        names += [f"{stem}#{n}" for n in range(int(count))] if count else [stem]
    return _Op(name, tuple(names), tuple(_NAME.findall(before)), attributes, plain, _types(after))


def _types(text: str) -> tuple[_Type, ...]:
    """Every type in a line's tail, in order."""
    made = []
    for part in re.findall(r"(?:!tt\.)?(?:tensor|tensordesc|ptr)<[^ ]*>|\b(?:bf|[if])\d+\w*|\bindex\b", text):
        if found := _SHAPED.match(part.removeprefix("!tt.")):
            shape = tuple(int(size) for size in found.group(1).split("x") if size)
            made.append(_Type(shape, found.group(2)))
        else:
            made.append(_Type((), part))
    return tuple(made)


def _finish(region: _Region) -> None:
    products = {op.results[0] for op in region.ops if op.name == "arith.mulf" and op.results}
    sums = (op for op in region.ops if op.name in ("arith.addf", "arith.subf"))
    region.fused = frozenset(name for op in sums for name in op.operands if name in products)
    region.inner = not any(_loops(op) for op in region.ops)


def _loops(op: _Op) -> bool:
    return op.name in ("scf.for", "scf.while") or any(_loops(each) for region in op.regions for each in region.ops)


def _parameters(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((given or name, kind) for name, kind, given in _PARAMETER.findall(text))


# Values --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grid:
    """An integer tensor: base + the sum of index times step. None is unknown."""

    base: float | None
    steps: tuple[float | None, ...]
    shape: tuple[int, ...]

    @property
    def uniform(self) -> bool:
        return not any(self.steps) and None not in self.steps


@dataclass(frozen=True, slots=True)
class _Mask:
    share: float


@dataclass(frozen=True, slots=True)
class _Data:
    """What was loaded, or computed from it: unknown, and not there before its load ends."""


@dataclass(frozen=True, slots=True)
class _Address:
    """A pointer, or a tensor of pointers, into the tensor behind one argument. `offset` counts elements."""

    pointer: str
    offset: float | _Grid | _Data | None


_Value = float | _Grid | _Mask | _Address | _Data | None
"""Scalars are Python's numbers; None is unknown."""


def _grid(value: _Value, shape: tuple[int, ...]) -> _Grid | None:
    """A value as an integer tensor of this shape; an unknown scalar is a tensor of one unknown number."""
    if isinstance(value, _Grid):
        return value
    if isinstance(value, (int, float)):
        return _Grid(value, (0,) * len(shape), shape)
    return None


def _plus(one: _Value, two: _Value, shape: tuple[int, ...], sign: int = 1) -> _Value:
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return one + sign * two
    if isinstance(one, _Data) or isinstance(two, _Data):
        return _Data()
    a, b = _grid(one, shape), _grid(two, shape)
    if a is None or b is None or len(a.steps) != len(b.steps):
        return None
    base = None if a.base is None or b.base is None else a.base + sign * b.base
    pairs = zip(a.steps, b.steps, strict=True)
    return _Grid(base, tuple(None if p is None or q is None else p + sign * q for p, q in pairs), shape)


def _times(one: _Value, two: _Value, shape: tuple[int, ...]) -> _Value:
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return one * two
    a, b = _grid(one, shape), _grid(two, shape)
    if a is None or b is None:
        return None
    if not b.uniform:
        a, b = b, a
    if not b.uniform:
        return None
    c = b.base
    base = None if a.base is None or c is None else a.base * c
    return _Grid(
        base, tuple(step if step == 0 else None if c is None or step is None else step * c for step in a.steps), shape
    )


def _share(name: str, one: _Value, two: _Value, shape: tuple[int, ...]) -> _Value:
    """The share of elements for which a comparison of two integer tensors holds; all of them where that is unknown."""
    gap = _plus(one, two, shape, sign=-1)
    if not isinstance(gap, _Grid) or gap.base is None:
        return _Mask(1.0)
    varying = [(step, size) for step, size in zip(gap.steps, shape, strict=True) if step != 0]
    if name in ("eq", "ne"):
        equal = float(gap.base == 0) if not varying else 1.0 / max(size for _, size in varying)
        return _Mask(equal if name == "eq" else 1.0 - equal)
    if len(varying) > 1 or (varying and varying[0][0] is None):
        return _Mask(1.0)
    step, size = varying[0] if varying else (0, 1)
    first, step = gap.base, step or 0
    # gap < 0 and gap > 0 mirror each other; gap <= 0 is gap < 1.
    if name.endswith(("gt", "ge")):
        first, step = -first, -step
    if name.endswith(("le", "ge")):
        first -= 1
    if step == 0:
        return _Mask(float(first < 0))
    # Elements with first + i * step < 0.
    below = math.ceil(-first / step) if step > 0 else size - max(0, math.floor(first / -step) + 1)
    return _Mask(min(max(below, 0), size) / size)


def _advance(start: _Value, after: _Value, iterations: float) -> _Value:
    """A value that a loop carries, some iterations on, given what it is before and after the first one."""
    if start == after:
        return start
    if isinstance(start, _Address) and isinstance(after, _Address) and start.pointer == after.pointer:
        return replace(start, offset=_offset(_advance(start.offset, after.offset, iterations)))
    if isinstance(start, _Data) or isinstance(after, _Data):
        return _Data()
    if isinstance(start, (bool, _Mask)) or isinstance(after, (bool, _Mask)):
        return None
    if isinstance(start, (int, float)) and isinstance(after, (int, float)):
        return start + iterations * (after - start)
    if isinstance(start, _Grid) and isinstance(after, _Grid) and start.steps == after.steps:
        if start.base is None or after.base is None:
            return replace(start, base=None)
        return replace(start, base=start.base + iterations * (after.base - start.base))
    return None


def _offset(value: _Value) -> float | _Grid | _Data | None:
    return value if isinstance(value, (int, float, _Grid, _Data)) else None


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
    functions: Mapping[str, _Function],
    kernel: _Function,
    arguments: Mapping[str, object],
    grid: tuple[int, int, int],
    ids: tuple[int, int, int],
) -> _Tally:
    program = _Program(functions, grid, ids)
    values: dict[str, _Value] = {}
    for name, given, kind in kernel.parameters:
        scalar = arguments.get(given)
        if "ptr" in kind or "tensordesc" in kind:
            values[name] = _Address(given, 0)
        elif isinstance(scalar, (int, float)):
            values[name] = scalar
        else:
            values[name] = None
            if "." not in given and not any(given == other and "desc" in k for _, other, k in kernel.parameters):
                program.tally.notes[f"argument {given} is unknown"] = None
    program.region(kernel.body, values)
    return program.tally


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "andi": operator.and_,
    "ori": operator.or_,
    "xori": operator.xor,
    "shli": lambda a, b: a << min(b, 64),
    "shrsi": lambda a, b: a >> b,
    "shrui": lambda a, b: a >> b,
    "divsi": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "divui": lambda a, b: a // b,
    "floordivsi": lambda a, b: a // b,
    "ceildivsi": lambda a, b: -(-a // b),
    "ceildivui": lambda a, b: -(-a // b),
    "remsi": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
    "remui": lambda a, b: a % b,
}

_NUMBERS: dict[str, Callable[[float, float], float]] = {
    **dict.fromkeys(("minsi", "minui", "minimumf", "minnumf"), min),
    **dict.fromkeys(("maxsi", "maxui", "maximumf", "maxnumf"), max),
    **dict.fromkeys(("addi", "addf"), operator.add),
    **dict.fromkeys(("subi", "subf"), operator.sub),
    **dict.fromkeys(("muli", "mulf"), operator.mul),
    "divf": operator.truediv,
}

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    **dict.fromkeys(("eq", "oeq", "ueq"), operator.eq),
    **dict.fromkeys(("ne", "one", "une"), operator.ne),
    **dict.fromkeys(("slt", "ult", "olt"), operator.lt),
    **dict.fromkeys(("sle", "ule", "ole"), operator.le),
    **dict.fromkeys(("sgt", "ugt", "ogt"), operator.gt),
    **dict.fromkeys(("sge", "uge", "oge"), operator.ge),
}

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
        self, functions: Mapping[str, _Function], grid: tuple[int, int, int], ids: tuple[int, int, int]
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

    def region(self, region: _Region, values: dict[str, _Value]) -> list[_Value]:
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

    def branch(self, op: _Op, region: _Region, values: dict[str, _Value]) -> int:
        """Where a jump goes on; where that is unknown, to the longer side."""
        targets = _TARGET.findall(op.text)
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
        for name, source in zip(region.block_arguments[goal], _NAME.findall(given), strict=False):
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
        self, region: _Region, trips: float, body: Callable[[float, list[_Value]], list[_Value]], start: list[_Value]
    ) -> list[_Value]:
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
            state = [_advance(one, two, at) for one, two in zip(start, first, strict=True)] if at else start
            self.waiting = False
            with self.counting(weight):
                after = body(at, state)
            after = after if len(after) == len(start) else [None] * len(start)
            first = first if at else after
        if region.inner:
            self.tally.iterations += self.weight * trips
        self.in_loop, self.waiting = outer, False
        carried = [_advance(one, two, trips) for one, two in zip(start, first, strict=True)]
        return [last if value is None else value for value, last in zip(carried, after, strict=True)]

    def for_(self, op: _Op, values: dict[str, _Value]) -> list[_Value]:
        found = _FOR.search(op.text)
        pairs = _PAIRS.findall(op.text.partition("iter_args")[2])
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

        def body(at: float, state: list[_Value]) -> list[_Value]:
            numeric = isinstance(low, (int, float)) and isinstance(step, (int, float))
            values[index] = _plus(low, _times(int(at), step, ()), ()) if numeric else None
            values.update(zip((name for name, _ in pairs), state, strict=True))
            return self.region(region, values)

        return self.loop(region, trips, body, start)

    def while_(self, op: _Op, values: dict[str, _Value]) -> list[_Value]:
        """The trips of a while loop come from its condition, whose operands are taken to move evenly."""
        if len(op.regions) != 2:
            return [None] * len(op.results)
        before, after = op.regions
        pairs = _PAIRS.findall(op.text.partition(" : ")[0])
        start = [values.get(source) for _, source in pairs]
        carried = [name for name, _ in pairs]

        def test(state: list[_Value]) -> tuple[_Value, list[_Value]]:
            values.update(zip(carried, state, strict=True))
            condition, *passed = self.region(before, values) or [None]
            return condition, passed

        def body(_: float, state: list[_Value]) -> list[_Value]:
            values.update(zip(after.arguments, test(state)[1], strict=False))
            return self.region(after, values)

        with self.counting(0.0):
            condition, passed = test(start)
            second = body(0, start) if condition is None or condition else start
        second = second if len(second) == len(start) else [None] * len(start)

        def goes_on(at: int) -> bool:
            with self.counting(0.0):
                return bool(test([_advance(one, two, at) for one, two in zip(start, second, strict=True)])[0])

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

    def if_(self, op: _Op, values: dict[str, _Value]) -> list[_Value]:
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

    def call(self, op: _Op, values: dict[str, _Value]) -> list[_Value]:
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

    def op(self, op: _Op, region: _Region, values: dict[str, _Value]) -> None:
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

    def value(self, op: _Op, region: _Region, values: dict[str, _Value]) -> _Value:
        family, _, name = op.name.partition(".")
        operands = [values.get(operand) for operand in op.operands]
        if family == "tt" and (method := getattr(self, f"tt_{name}", None)) is not None:
            answer: _Value = method(op, operands)
            return answer
        if family == "arith":
            return self.arith(name, op, operands, region)
        if family == "math" or name in ("extern_elementwise", "precise_divf", "precise_sqrt", "fp_to_fp", "clampf"):
            self.lanes(op, name)
        return None

    def lanes(self, op: _Op, name: str, count: int | None = None) -> None:
        if not op.type.tensor and count is None:
            return
        amount = self.weight * (op.type.count if count is None else count)
        if op.type.integer:
            self.tally.alu += _INTEGER_COST * amount
            return
        self.tally.alu += _LANE_COSTS.get(name, 1.0) * amount
        if name not in _CASTS and name != "fp_to_fp":
            self.tally.flops += amount

    def arith(self, name: str, op: _Op, operands: list[_Value], region: _Region) -> _Value:
        if name == "constant":
            return _constant(op)
        if not (name == "mulf" and op.results[0] in region.fused):
            self.lanes(op, name)
        elif op.type.tensor:
            self.tally.flops += self.weight * op.type.count
        shape = op.type.shape
        if name in _CASTS:
            kept = operands[0] if operands else None
            return kept if op.types[0].integer or not shape or isinstance(kept, _Data) else None
        if name == "select" and len(operands) == 3:
            condition, one, two = operands
            if isinstance(condition, (int, float)):
                return one if condition else two
            return one if one == two else None
        if len(operands) != 2:
            return None
        one, two = operands
        if isinstance(one, _Data) or isinstance(two, _Data):
            return _Data()
        if name in ("cmpi", "cmpf"):
            words = op.text.replace(",", " ").split()
            kind = words[0] if words else ""
            if isinstance(one, (int, float)) and isinstance(two, (int, float)) and kind in _COMPARISONS:
                return _COMPARISONS[kind](one, two)
            return None if not shape else _share(kind, one, two, shape) if name == "cmpi" else _Mask(1.0)
        if isinstance(one, (int, float)) and isinstance(two, (int, float)):
            return _scalar(name, one, two)
        if isinstance(one, _Mask) or isinstance(two, _Mask):
            return _logic(name, one, two)
        if name in ("addi", "subi"):
            return _plus(one, two, shape, 1 if name == "addi" else -1) if shape else None
        if name == "muli":
            return _times(one, two, shape) if shape else None
        if name in ("remsi", "remui") and shape:
            return _wrapped(one, two)
        return None

    def tt_get_program_id(self, op: _Op, _: list[_Value]) -> _Value:
        return self.ids["xyz".index(op.text.split()[0])]

    def tt_get_num_programs(self, op: _Op, _: list[_Value]) -> _Value:
        return self.grid["xyz".index(op.text.split()[0])]

    def tt_make_range(self, op: _Op, _: list[_Value]) -> _Value:
        start = re.search(r"start = (-?\d+)", op.attributes)
        return _Grid(int(start.group(1)) if start else 0, (1,), op.type.shape)

    def tt_splat(self, op: _Op, operands: list[_Value]) -> _Value:
        (value,) = operands
        shape, zeros = op.type.shape, (0,) * len(op.type.shape)
        if isinstance(value, _Address):
            base = value.offset
            if isinstance(base, (_Data, _Grid)):
                return value
            return replace(value, offset=_Grid(base, zeros, shape))
        if isinstance(value, bool):
            return _Mask(float(value))
        if isinstance(value, _Data):
            return value
        if op.type.integer:
            return _Grid(value if isinstance(value, (int, float)) else None, zeros, shape)
        return None

    def reshaped(self, value: _Value, change: Callable[[_Grid], _Grid | None]) -> _Value:
        if isinstance(value, _Address) and isinstance(value.offset, _Grid):
            return replace(value, offset=change(value.offset))
        return change(value) if isinstance(value, _Grid) else value

    def tt_expand_dims(self, op: _Op, operands: list[_Value]) -> _Value:
        found = re.search(r"axis = (\d+)", op.attributes)
        axis = int(found.group(1)) if found else 0
        shape = op.type.shape
        return self.reshaped(operands[0], lambda g: _Grid(g.base, (*g.steps[:axis], 0, *g.steps[axis:]), shape))

    def tt_broadcast(self, op: _Op, operands: list[_Value]) -> _Value:
        return self.reshaped(operands[0], lambda g: replace(g, shape=op.type.shape))

    def tt_trans(self, op: _Op, operands: list[_Value]) -> _Value:
        found = re.search(r"order = array<i32: ([\d, ]+)>", op.attributes)
        order = [int(axis) for axis in found.group(1).split(",")] if found else []

        def permuted(grid: _Grid) -> _Grid | None:
            if len(order) != len(grid.steps):
                return None
            return _Grid(grid.base, tuple(grid.steps[axis] for axis in order), op.type.shape)

        return self.reshaped(operands[0], permuted)

    def tt_reshape(self, op: _Op, operands: list[_Value]) -> _Value:
        def kept(grid: _Grid) -> _Grid | None:
            return _Grid(grid.base, (0,) * len(op.type.shape), op.type.shape) if grid.uniform else None

        return self.reshaped(operands[0], kept)

    def tt_unsplat(self, _: _Op, operands: list[_Value]) -> _Value:
        value = operands[0]
        return value.base if isinstance(value, _Grid) and value.uniform else None

    def tt_bitcast(self, _: _Op, operands: list[_Value]) -> _Value:
        return operands[0]

    def tt_addptr(self, op: _Op, operands: list[_Value]) -> _Value:
        pointer, offset = operands
        if isinstance(pointer, _Address):
            shape = op.types[0].shape
            return replace(pointer, offset=_offset(_plus(pointer.offset, offset, shape)))
        return None

    def tt_make_tensor_descriptor(self, _: _Op, operands: list[_Value]) -> _Value:
        return _Address(operands[0].pointer, 0) if isinstance(operands[0], _Address) else None

    def tt_make_tensor_ptr(self, op: _Op, operands: list[_Value]) -> _Value:
        return self.tt_make_tensor_descriptor(op, operands)

    def tt_advance(self, _: _Op, operands: list[_Value]) -> _Value:
        return operands[0]

    # Memory ------------------------------------------------------------------

    def tt_load(self, op: _Op, operands: list[_Value]) -> _Value:
        kind = op.types[0] if op.types else op.type
        self.memory(operands[0], kind, operands[1] if len(operands) > 1 else None, "loaded")
        return _Data()

    def tt_store(self, op: _Op, operands: list[_Value]) -> _Value:
        kind = op.types[0] if op.types else op.type
        self.memory(operands[0], kind, operands[2] if len(operands) > 2 else None, "stored")
        return None

    def tt_descriptor_load(self, op: _Op, operands: list[_Value]) -> _Value:
        self.memory(operands[0], op.type, None, "loaded")
        return _Data()

    tt_descriptor_gather = tt_descriptor_load

    def tt_descriptor_store(self, op: _Op, operands: list[_Value]) -> _Value:
        self.memory(operands[0], op.type, None, "stored")
        return None

    tt_descriptor_scatter = tt_descriptor_store

    def tt_descriptor_reduce(self, op: _Op, operands: list[_Value]) -> _Value:
        self.atomic(operands[0], op.type, None)
        return None

    def tt_atomic_rmw(self, op: _Op, operands: list[_Value]) -> _Value:
        self.atomic(operands[0], op.type, operands[2] if len(operands) > 2 else None)
        return _Data()

    def tt_atomic_cas(self, op: _Op, operands: list[_Value]) -> _Value:
        self.atomic(operands[0], op.type, None)
        return _Data()

    def atomic(self, address: _Value, kind: _Type, mask: _Value) -> None:
        count = self.weight * kind.count * _true(mask)
        self.tally.access(self.name(address), atomics=count, atomic_bytes=count * kind.size)
        self.wait()

    def wait(self) -> None:
        if self.in_loop:
            self.tally.loop_rounds += self.weight
        else:
            self.tally.rounds += self.weight

    def memory(self, address: _Value, kind: _Type, mask: _Value, direction: Literal["loaded", "stored"]) -> None:
        true = _true(mask)
        offset = address.offset if isinstance(address, _Address) else None
        # A pointer that depends on loaded data waits for that data first.
        dependent = isinstance(offset, _Data)
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

    def name(self, address: _Value) -> str:
        if isinstance(address, _Address):
            return address.pointer
        self.tally.notes["a pointer could not be followed"] = None
        return "?"

    # Arithmetic of tensors ---------------------------------------------------

    def tt_dot(self, op: _Op, _: list[_Value]) -> _Value:
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

    def tt_reduce(self, op: _Op, _: list[_Value]) -> _Value:
        """Every element passes once; sums across lanes and warps come on top and are left out."""
        source = op.types[0] if op.types else op.type
        costly = [each for each in op.regions[0].ops if each.name.startswith(("arith.", "math."))] if op.regions else []
        amount = self.weight * source.count * len(costly)
        self.tally.alu += amount * (_INTEGER_COST if source.integer else 1.0)
        self.tally.flops += 0.0 if source.integer else amount
        return None

    tt_scan = tt_reduce


def _true(mask: _Value) -> float:
    if isinstance(mask, _Mask):
        return mask.share
    return float(bool(mask)) if isinstance(mask, (int, float)) else 1.0


def _footprint(offset: float | _Grid | _Data | None, kind: _Type) -> tuple[float, float]:
    """Bytes that differ, and bytes of the 32-byte sectors that hold them, of one access to a whole tensor."""
    whole = float(kind.count * kind.size)
    if not isinstance(offset, _Grid) or len(offset.steps) != len(kind.shape):
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


def _constant(op: _Op) -> _Value:
    found = re.match(r"\s*(?:dense<)?(true|false|-?\d[\w.+-]*|-?0x\w+)", op.text)
    if found is None:
        return None
    text, kind = found.group(1), op.type
    if text in ("true", "false"):
        return _Mask(float(text == "true")) if kind.tensor else text == "true"
    try:
        number: float = float(text) if "." in text else int(text, 0)
    except ValueError:
        return None
    if not kind.tensor:
        # Floats that have no decimal form are printed as their bits.
        return None if "0x" in text and not kind.integer else number
    return _Grid(number, (0,) * len(kind.shape), kind.shape) if kind.integer else None


def _scalar(name: str, one: float, two: float) -> _Value:
    try:
        if name in _NUMBERS:
            return _NUMBERS[name](one, two)
        if name in _INTEGERS:
            return _INTEGERS[name](int(one), int(two))
    except (ArithmeticError, ValueError):
        return None
    return None


def _logic(name: str, one: _Value, two: _Value) -> _Value:
    a, b = _true(one), _true(two)
    shares = {"andi": a * b, "ori": a + b - a * b, "xori": a + b - 2 * a * b}
    return _Mask(shares[name]) if name in shares else None


def _wrapped(one: _Value, two: _Value) -> _Value:
    """A remainder leaves alone what lies below the divisor; beyond it, the steps within a turn stay."""
    if not isinstance(one, _Grid) or not isinstance(two, _Grid) or not two.uniform or not two.base:
        return None
    if one.base is None or None in one.steps:
        return replace(one, base=None)
    return replace(one, base=float(one.base % two.base))
