"""Triton IR as values: functions, their regions, operations and types. What cannot be read is left out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache

_SIGNATURE = re.compile(
    r"^\s*tt\.func (public|private) @([^\s(]+)\((.*)\)(?:\s*->.*?)?\s*(?:attributes.*)?\{", re.MULTILINE
)
_PARAMETER = re.compile(r'%([\w.$-]+): (!?[\w.]+(?:<[^%]*?>)?(?=[\s,)]|$))[^%]*?(?:loc\("([^"]+)"|(?=, %)|$)')
_LINE = re.compile(r"(?:(%[^=]*?) = )?\"?([a-z_]\w*(?:\.\w+)+)\"?(.*)")
NAME = re.compile(r"%[\w.$-]+(?:#\d+)?")
_BRACES = re.compile(r"<?\{[^{}]*\}>?")
_SHAPED = re.compile(r"(?:tensor|tensordesc)<(?:tensor<)?((?:\d+x)*)([^,>]+)")
FOR = re.compile(r"(%\S+) = (%\S+) to (%\S+) step (%\S+)")
PAIRS = re.compile(r"(%[\w.$-]+) = (%[\w.$-]+(?:#\d+)?)")
_BLOCK = re.compile(r"\^(\w+)(?:\((.*)\))?:")
TARGET = re.compile(r"\^(\w+)(?:\(([^:)]*))?")
_SIZES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "index": 8}


@dataclass(frozen=True, slots=True)
class Type:
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
class Op:
    name: str
    results: tuple[str, ...]
    operands: tuple[str, ...]
    attributes: str
    text: str
    types: tuple[Type, ...]
    """Those that the line names, in order; the last one is the result's, or the operands' where they are one."""
    regions: list[Region] = field(default_factory=list)

    @property
    def type(self) -> Type:
        return self.types[-1] if self.types else Type((), "")


@dataclass(slots=True)
class Region:
    arguments: tuple[str, ...] = ()
    ops: list[Op] = field(default_factory=list)
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
class Function:
    public: bool
    parameters: tuple[tuple[str, str, str], ...]
    """The name in the IR, the name in the source, the type."""
    body: Region


@lru_cache(maxsize=64)
def parse(ttir: str) -> dict[str, Function]:
    functions: dict[str, Function] = {}
    stack: list[tuple[Op, Region]] = []
    for raw in ttir.splitlines():
        line = raw.strip()
        if not line or line.startswith(("#", "//", "module", "builtin.module")):
            continue
        if line.startswith("tt.func"):
            found = _SIGNATURE.match(raw)
            if found is None:
                continue
            body = Region()
            names = [("%" + match[0], match[2] or match[0], match[1]) for match in _PARAMETER.findall(found.group(3))]
            functions[found.group(2)] = Function(found.group(1) == "public", tuple(names), body)
            stack = [(Op("tt.func", (), (), "", "", ()), body)]
        elif stack:
            _parse_line(_without_location(line), stack)
    for function in functions.values():
        _finish(function.body)
    return functions


def parameters(ttir: str) -> tuple[tuple[str, str], ...] | None:
    """Names and types of the kernel's parameters that the compiler kept, in order; None where no kernel is found.

    A tensor descriptor of the host stands as itself and then as integers: of the same name, or "name.shape.0" ...
    """
    found = _SIGNATURE.search(ttir)
    return _parameters(found.group(3)) if found and found.group(1) == "public" else None


def _without_location(line: str) -> str:
    """Only block arguments have a location before their end."""
    return re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", line)


def _parse_line(line: str, stack: list[tuple[Op, Region]]) -> None:
    op, region = stack[-1]
    if line.startswith("}"):
        _finish(region)
        stack.pop()
        if line.endswith("{"):  # "} else {", "} do {", "}, {"
            op.regions.append(Region())
            stack.append((op, op.regions[-1]))
        elif line != "}":  # "}) : (tensor<4xf32>) -> f32", "} {tt.num_stages = 3 : i32}"
            op.attributes += "".join(_BRACES.findall(line))
            op.types = op.types or _types(_BRACES.sub("", line))
    elif line.startswith("^"):
        if found := _BLOCK.match(line):
            arguments = tuple(NAME.findall(found.group(2) or ""))
            if not region.ops and not region.blocks:
                region.arguments = arguments
            region.blocks[found.group(1)] = len(region.ops)
            region.block_arguments[found.group(1)] = arguments
    elif found := _LINE.match(line):
        made = _op(found.group(1) or "", found.group(2), found.group(3))
        region.ops.append(made)
        if line.endswith("{"):
            made.regions.append(Region())
            stack.append((made, made.regions[0]))


def _op(results: str, name: str, text: str) -> Op:
    attributes = "".join(_BRACES.findall(text))
    plain = _BRACES.sub("", text)
    before, _, after = plain.partition(" : ")
    names: list[str] = []
    for result in filter(None, (part.strip() for part in results.split(","))):
        stem, _, count = result.partition(":")
        names += [f"{stem}#{n}" for n in range(int(count))] if count else [stem]
    return Op(name, tuple(names), tuple(NAME.findall(before)), attributes, plain, _types(after))


def _types(text: str) -> tuple[Type, ...]:
    """Every type in a line's tail, in order."""
    made = []
    for part in re.findall(r"(?:!tt\.)?(?:tensor|tensordesc|ptr)<[^ ]*>|\b(?:bf|[if])\d+\w*|\bindex\b", text):
        if found := _SHAPED.match(part.removeprefix("!tt.")):
            shape = tuple(int(size) for size in found.group(1).split("x") if size)
            made.append(Type(shape, found.group(2)))
        else:
            made.append(Type((), part))
    return tuple(made)


def _finish(region: Region) -> None:
    products = {op.results[0] for op in region.ops if op.name == "arith.mulf" and op.results}
    sums = (op for op in region.ops if op.name in ("arith.addf", "arith.subf"))
    region.fused = frozenset(name for op in sums for name in op.operands if name in products)
    region.inner = not any(_loops(op) for op in region.ops)


def _loops(op: Op) -> bool:
    return op.name in ("scf.for", "scf.while") or any(_loops(each) for region in op.regions for each in region.ops)


def _parameters(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((given or name, kind) for name, kind, given in _PARAMETER.findall(text))
