"""Where the elements of a tile lie: programs, index vectors, masks and addresses of one kernel, as text.

Vectors are written where they are first needed: before everything, or at the head of the loop where they move with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tilesmith.superopt.lower.axes import Row, Rows
from tilesmith.superopt.lower.options import Choice, grid_order
from tilesmith.superopt.lower.plan import Plan, blocks_text
from tilesmith.superopt.lower.sizes import ONE, Piece, Size, View, product

INT32 = 1 << 31
"""Offsets from here on need 64 bits."""


class Names:
    """Names that are taken, and sizes that are used."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.symbols: dict[str, None] = {}

    def new(self, wanted: str) -> str:
        name, count = wanted, 2
        while name in self.taken:
            name, count = f"{wanted}{count}", count + 1
        self.taken.add(name)
        return name

    def size(self, size: Size) -> str:
        """A size as an operand. Its names become parameters of the kernel."""
        self.symbols |= dict.fromkeys(size.names)
        return size.atom


@dataclass(slots=True)
class Lines:
    """Statements, some of them indented."""

    names: Names
    made: list[str] = field(default_factory=list)
    indent: int = 0

    def __call__(self, line: str) -> None:
        self.made.append("    " * self.indent + line)

    def say(self, word: str, expression: str) -> str:
        """A statement that gives a value a name like `word`; that name."""
        name = self.names.new(word)
        self(f"{name} = {expression}")
        return name


class Places:
    """Everything that an address or a mask is made of."""

    def __init__(self, plan: Plan, choice: Choice, names: Names) -> None:
        self.plan, self.choice, self.names = plan, choice, names
        self.head, self.moving = Lines(names), Lines(names)
        self._vectors: dict[Row, str] = {}
        self._within: dict[tuple[Row, int], str] = {}
        self._insides: dict[tuple[Row, int], str] = {}
        self.ids: list[str] = []
        """For every axis of the grid the number of this program's part."""
        self._slice: tuple[int, str] | None = None
        self._whole = ""
        """How long the tiles are that slices are cut from."""
        for name in plan.names:
            names.taken |= {name, f"{name}_inside"}

    def sliced(self, axis: int, own: str) -> Places:
        """The same for slice number `own` of the tiles along an axis, which gets a name of its own."""
        names = tuple(f"{name}_slice" if n == axis else name for n, name in enumerate(self.plan.names))
        made = Places(replace(self.plan, names=names), self.choice, self.names)
        made.ids, made._slice, made._whole = self.ids, (axis, own), self.block(axis)
        made._vectors = {row: name for row, name in self._vectors.items() if axis not in row}
        made._within = {key: name for key, name in self._within.items() if axis not in key[0]}
        made._insides = {key: name for key, name in self._insides.items() if axis not in key[0]}
        return made

    def block(self, axis: int) -> str:
        return f"BLOCK_{self.plan.names[axis].upper()}"

    def shape(self, rows: Sequence[Row]) -> str:
        inner = ", ".join(blocks_text(self.plan, row) for row in rows)
        return f"({inner},)" if len(rows) == 1 else f"({inner})"

    # Programs --------------------------------------------------------------------------------------------------------

    def count(self, grid: int) -> str:
        """How many parts a grid axis has."""
        axis = self.plan.axes.grid[grid]
        if axis is not None:
            return f"tl.cdiv({self.names.size(self.plan.sizes[axis])}, {self.block(axis)})"
        return self.names.size(self.plan.counts[grid])

    def programs(self) -> None:
        """Which part of every grid axis this program has."""
        plan, out, order = self.plan, self.head, grid_order(self.plan, self.choice.order)
        self.ids = ["0"] * len(plan.kernel.grid)
        for grid in order:
            axis = plan.axes.grid[grid]
            shared = any(a.kind == "span" and a.grid == grid for a in plan.axes.axes)
            word = f"{plan.names[axis]}_tile" if axis is not None else "share" if shared else "batch"
            self.ids[grid] = self.names.new(word)
        split = self.choice.split > 1
        if not self.choice.programs and (order or split):
            out("program = tl.program_id(0)")
        rest = "program"
        if split:
            out("part = program % SPLIT")
            out("tile = program // SPLIT")
            rest = "tile"
        if self.choice.group and len(order) == 2:
            self._grouped(rest, *order)
            return
        for number, grid in enumerate(order):
            last = number == len(order) - 1
            out(f"{self.ids[grid]} = {rest}{'' if last else f' % {self.count(grid)}'}")
            if not last:
                out(f"others = {rest} // {self.count(grid)}")
                rest = "others"

    def _grouped(self, rest: str, first: int, second: int) -> None:
        out = self.head
        out(f"across = {self.count(first)}")
        # GROUP parts of one axis go together with all of the other: what they read stays in the second-level cache.
        out(f"strip = {rest} // (GROUP * across)")
        out(f"height = tl.minimum({self.count(second)} - strip * GROUP, GROUP)")
        out(f"{self.ids[second]} = strip * GROUP + {rest} % (GROUP * across) % height")
        out(f"{self.ids[first]} = {rest} % (GROUP * across) // height")

    # Vectors and masks -----------------------------------------------------------------------------------------------

    def _lines(self, row: Row) -> Lines:
        return self.moving if self.plan.axes.step in row else self.head

    def vector(self, row: Row) -> str:
        """The positions along a row: in the whole axis, if it is one that programs or iterations cut into tiles."""
        if row in self._vectors:
            return self._vectors[row]
        out = self._lines(row)
        if len(row) > 1:
            name = self.names.new("_".join(self.plan.names[axis] for axis in row))
            out(f"{name} = tl.arange(0, {blocks_text(self.plan, row)})")
        else:
            name = self.plan.names[row[0]]
            out(f"{name} = {self._start(row[0])}tl.arange(0, {self.block(row[0])})")
        self._vectors[row] = name
        return name

    def _start(self, axis: int) -> str:
        kind = self.plan.axes.axes[axis].kind
        if kind == "tiles":
            tile = self.ids[self.plan.axes.axes[axis].grid or 0]
            if self._slice is not None and self._slice[0] == axis:
                return f"{tile} * {self._whole} + {self._slice[1]} * {self.block(axis)} + "
            return "" if tile == "0" else f"{tile} * {self.block(axis)} + "
        return f"{self.plan.names[axis]}_start + " if kind in ("steps", "span") else ""

    def start(self, axis: int) -> str:
        """Where this program's tile along an axis begins, in this iteration."""
        return self._start(axis).removesuffix(" + ") or "0"

    def within(self, row: Row, axis: int) -> str:
        """The positions along one axis of a row."""
        if len(row) == 1:
            return self.vector(row)
        if (row, axis) not in self._within:
            places = self.vector(row)
            inner = blocks_text(self.plan, row[row.index(axis) + 1 :])
            index = f"{places} // ({inner})" if " " in inner else f"{places} // {inner}" if inner else places
            if row.index(axis):
                index = f"{index} % {self.block(axis)}"
            name = self.names.new(f"{self.plan.names[axis]}_in_{places}")
            self._lines(row)(f"{name} = {self._start(axis)}{index}")
            self._within[row, axis] = name
        return self._within[row, axis]

    def inside(self, row: Row, axis: int) -> str | None:
        """Which positions along an axis of a row are elements; None where all are."""
        if not self.plan.pads(axis, self.choice.blocks[axis]):
            return None
        if (row, axis) not in self._insides:
            index, size, shares = self.within(row, axis), self.plan.sizes[axis], self.plan.shares(axis)
            limit = f"{self.plan.names[axis]}_stop" if shares > 1 else self.names.size(size)
            name = f"{index}_inside"
            test = f"{index} < {limit}"
            if size.names:
                sliced = self._slice is not None and self._slice[0] == axis
                tile = self._whole if sliced else self.block(axis)
                whole = f"({shares} * {tile})" if shares > 1 else tile
                full = f"tl.full(({blocks_text(self.plan, row)},), True, tl.int1)"
                test = f"{test} if {self.names.size(size)} % {whole} else {full}"
            self._lines(row)(f"{name} = {test}")
            self._insides[row, axis] = name
        return self._insides[row, axis]

    def mask(self, rows: Sequence[Row], only: Sequence[int] | None = None, ahead: bool = False) -> str:
        """Which elements of a tile are; along some of its axes only, or in the next iteration."""
        made = []
        for place, row in enumerate(rows):
            for axis in row:
                if ahead and axis == self.plan.axes.step:
                    made.append(at("ahead_inside", place, len(rows)))
                elif (only is None or axis in only) and (name := self.inside(row, axis)) is not None:
                    made.append(at(name, place, len(rows)))
        return " & ".join(made)

    # Addresses -------------------------------------------------------------------------------------------------------

    def index(self, row: Row, grid: int | None, loop: bool, ahead: bool = False) -> str:
        """Where a tile's elements lie along a dimension of the tensor: a vector, or one number for an extent of 1.

        `grid` and `loop` cut the dimension.
        """
        if not row:
            name = "0" if grid is None else self.ids[grid]
            if not loop or self.plan.loop == ONE:
                return name
            return "step" if name == "0" else f"{name} * {self.names.size(self.plan.loop)} + step"
        lead = self.plan.axes.axes[row[0]]
        if ahead and row[0] == self.plan.axes.step:
            return "ahead"
        index = self.within(row, row[0])
        if lead.kind == "part":
            start = self.index((), grid, loop)
            index = index if start == "0" else f"{operand(start)} * {lead.tile} + {index}"
        for axis in row[1:]:
            index = f"{operand(index)} * {self.names.size(self.plan.sizes[axis])} + {self.within(row, axis)}"
        return index

    def address(
        self,
        view: View,
        rows: Rows,
        cuts: Sequence[tuple[int | None, bool]],
        ahead: bool = False,
        spots: Mapping[int, str] = MappingProxyType({}),
    ) -> str:
        """The pointers to the elements of a tile of `view` along `rows`, whose dimensions are cut so.

        `spots` says of some dimensions where the elements lie.
        """
        rank = sum(1 for row in rows if row)
        span = 1 + sum((p.size.number - 1) * p.stride.number for row in view.rows for p in row)
        longest = max((p.stride.number for row in view.rows for p in row), default=0) if span >= INT32 else -1
        terms = [f"{view.buffer}_ptr", *([str(view.offset)] if view.offset else [])]
        place = 0
        for dim, (pieces, row, (grid, loop)) in enumerate(zip(view.rows, rows, cuts, strict=True)):
            index = (spots.get(dim) or self.index(row, grid, loop, ahead)) if pieces else "0"
            if index != "0":
                index = at(operand(index), place, rank) if row and rank > 1 else index
                terms.append(self._offset(index, pieces, longest))
            place += bool(row)
        return " + ".join(term for term in terms if term)

    def _offset(self, index: str, pieces: Sequence[Piece], longest: int) -> str:
        terms = []
        for place, piece in enumerate(pieces):
            part = operand(index)
            inner = product(p.size for p in pieces[place + 1 :])
            if place < len(pieces) - 1:
                part = f"({part} // {self.names.size(inner)})"
            if place:
                part = f"({part} % {self.names.size(piece.size)})"
            if piece.stride.number == 0:
                continue
            if piece.stride.number * piece.size.number >= INT32 or piece.stride.number == longest:
                part = f"{part}.to(tl.int64)"
            single = len(pieces) == 1 and part == operand(index)
            if piece.stride == ONE:
                terms.append(index if single else part)
            else:
                terms.append(f"{part} * {self.names.size(piece.stride)}")
        return " + ".join(terms)


def at(name: str, place: int, rank: int) -> str:
    """A vector as one dimension of a tensor."""
    if rank == 1:
        return name
    return f"{name}[{', '.join(':' if other == place else 'None' for other in range(rank))}]"


def operand(expression: str) -> str:
    """An expression that a method, an index or an operator may follow."""
    plain = expression.replace("_", "a").replace(".", "a").isalnum()
    return expression if plain or _closed(expression) else f"({expression})"


def _closed(expression: str) -> bool:
    """Whether an expression is one call, one index or one pair of parentheses."""
    depth = 0
    for place, letter in enumerate(expression):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and letter in " +-*/%&<" and place:
            return False
    return expression[-1] in ")]"
