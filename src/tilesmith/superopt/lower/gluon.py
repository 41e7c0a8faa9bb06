"""A kernel as Gluon source, its warps with different work: one copies tiles, groups of others multiply them.

The warp that copies walks over the same tiles and iterations as those that multiply. A stage of a ring is copied to
once everyone has multiplied what was there, and multiplied once its bytes have come: two barriers a stage, whose
phase is the parity of how often the ring was gone round. Two groups of four warps have half of a tile's rows each, and
multiply in turns. Eight warps in one group let the products of an iteration run while they start those of the next, and
free a stage one iteration later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from tilesmith.core.graph import Accumulate, Op
from tilesmith.core.graph_check import Phase
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower import tma
from tilesmith.superopt.lower.axes import Row, Rows
from tilesmith.superopt.lower.emit import Emitter, Written
from tilesmith.superopt.lower.options import Choice, grid_order
from tilesmith.superopt.lower.places import Lines, Names, Places, operand
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.program import Launch
from tilesmith.superopt.lower.sizes import Size
from tilesmith.superopt.lower.specialize import COPIER_REGISTERS, extents, group_registers, products
from tilesmith.superopt.lower.text import TL

GL: dict[Dtype, str] = {"fp32": "gl.float32", "fp16": "gl.float16", "bf16": "gl.bfloat16"}
IMPORTS = """
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
""".strip().split("\n")
SIGMOID = """
# One instruction each for the exponential and the reciprocal, which a division is not: nothing else runs meanwhile.
power = tl.exp2(-1.4426950408889634 * x)
return gl.inline_asm_elementwise(
    "rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], dtype=gl.float32, is_pure=True, pack=1
)
""".strip().split("\n")


def specialized(launch: Launch, choice: Choice, tf32: bool, fixed: frozenset[Fraction] | None) -> Written:
    """The source of one kernel that `may_specialize`; see `emit.written`."""
    return _Specialized(launch, choice, tf32, fixed).run()


class _Layouts(Places):
    """Places whose vectors lie as a product's rows and columns do. A group of warps has some of the rows."""

    def __init__(self, plan: Plan, choice: Choice, names: Names, rows: int) -> None:
        super().__init__(plan, choice, names)
        self.rows_axis = rows

    def vector(self, row: Row) -> str:
        if row in self._vectors:
            return self._vectors[row]
        (axis,) = row
        rows = axis == self.rows_axis
        extent, first = ("OWN_ROWS", "part * OWN_ROWS + ") if rows else (self.block(axis), "")
        name = self.plan.names[axis]
        layout = f"gl.SliceLayout({1 if rows else 0}, PRODUCT)"
        self.head(f"{name} = {self._start(axis)}{first}gl.arange(0, {extent}, layout={layout})")
        self._vectors[row] = name
        return name

    def inside(self, row: Row, axis: int) -> str | None:
        if not self.plan.pads(axis, self.choice.blocks[axis]):
            return None
        if (row, axis) not in self._insides:
            name = f"{self.vector(row)}_inside"
            self.head(f"{name} = {self.vector(row)} < {self.names.size(self.plan.sizes[axis])}")
            self._insides[row, axis] = name
        return self._insides[row, axis]


class _Specialized(Emitter):
    def __init__(self, launch: Launch, choice: Choice, tf32: bool, fixed: frozenset[Fraction] | None) -> None:
        super().__init__(launch, choice, tf32, fixed)
        plan = self.plan
        found, made = extents(plan), products(plan)
        assert found is not None, "the kernel may be specialized"
        assert made is not None, "the kernel may be specialized"
        self.rows, self.columns, self.depth = found
        self.products = made
        self.names.taken |= {"gl", "gluon", "mbarrier", "part", "stage", "turn", "came", "free", "own", "total"}
        self.names.taken |= {"STAGES", "OWN_ROWS", "PRODUCT", "BOTH"}
        self.layouts = _Layouts(plan, choice, self.names, self.rows)
        self.places = self.tiles = self.layouts
        self.tiled = {v: replace(t, dtype=plan.made.tiles[v].dtype) for v, t in self.tiled.items()}
        self.rings = {v: self.names.new(f"{self._buffer(v)}_ring") for v in self.tiled if not self._beside(v)}
        if choice.wide:
            self.rings |= dict.fromkeys((p.right for p in made), self.names.new("both_ring"))
        self.filled = tuple(self._filled(place) for place in range(len(plan.kernel.stores)))
        self.kept = tuple(self.names.new(f"{name.lower()}_kept") for name in self.outputs)

    def _beside(self, value: int) -> bool:
        """Whether a tile lies beside another, so that both are one operand."""
        return self.choice.wide and value in {product.right for product in self.products}

    def _filled(self, place: int) -> tma.Descriptor:
        buffer = self.outputs[place]
        name = self.names.new(f"{buffer}_tiles")
        made = tma.stored(self.plan, self.places, place, buffer, self.out_sizes[place], name)
        whole = self.places.block(self.rows)
        return replace(made, block=tuple("OWN_ROWS" if block == whole else block for block in made.block))

    # The functions ---------------------------------------------------------------------------------------------------

    def run(self) -> Written:
        self.places.programs()
        where, self.places.head = self.places.head.made, Lines(self.names)
        order = grid_order(self.plan, self.choice.order)
        total = " * ".join(self.places.count(grid) for grid in order) or "1"
        tiles = f"for program in range(gl.program_id(0), {total}, gl.num_programs(0)):"
        name, depth, block = self.plan.names[self.depth], self.plan.sizes[self.depth], self.places.block(self.depth)
        walk = f"for {name}_start in range(0, {self.names.size(depth)}, {block}):"
        copies = ["turn = 0", tiles, *_in(where), f"    {walk}", *_in(self._copies(), 2)]
        multiplies = self._multiplies(tiles, where, walk)
        loaded = [view.buffer for v, view in enumerate(self.plan.sources) if view is not None and v not in self.tiled]
        buffers = tuple(dict.fromkeys(loaded))
        return self._functions(copies, multiplies, buffers)

    def _functions(self, copies: list[str], multiplies: list[str], buffers: tuple[str, ...]) -> Written:
        plan, choice = self.plan, self.choice
        tiled = (*self.tiled.values(), *self.filled)
        mentioned = "\n".join([*copies, *multiplies, *(name for tile in tiled for name in tile.block)])
        constants: list[tuple[str, int | Size]] = [
            (self.places.block(number), choice.blocks[number])
            for number in range(len(plan.axes.axes))
            if self.places.block(number) in mentioned
        ]
        constants += [("OWN_ROWS", choice.blocks[self.rows] // choice.consumers), ("STAGES", choice.stages)]
        constants += [("GROUP", choice.group)] if "GROUP" in mentioned else []
        symbols = tuple(self.names.symbols)
        fixed = [*symbols, *(name for name, _ in constants)]
        pointers = [f"{name}_ptr" for name in buffers]
        sources, rings = [tile.name for tile in self.tiled.values()], list(dict.fromkeys(self.rings.values()))
        targets, kept = [tile.name for tile in self.filled], list(self.kept)
        for_copies = [*sources, *rings, "came", "free", *fixed]
        for_products = [*targets, *pointers, *rings, *kept, "came", "free", *fixed]
        lines = _function(f"{plan.name}_copies", for_copies, fixed, copies)
        if any("tl.sigmoid(" in line for line in multiplies):
            lines += _function(f"{plan.name}_sigmoid", ["x"], [], SIGMOID)
            multiplies = [line.replace("tl.sigmoid(", f"{plan.name}_sigmoid(") for line in multiplies]
        lines += _function(f"{plan.name}_products", ["part", *for_products], ["part", *fixed], multiplies)
        body = self._shared()
        each = group_registers(choice)
        work = [(f"{plan.name}_products", [str(part), *for_products]) for part in range(choice.consumers)]
        work.append((f"{plan.name}_copies", for_copies))
        body += ["gl.warp_specialize(", "    ["]
        for function, arguments in work:
            body += ["        (", f"            {function},", f"            ({', '.join(arguments)}),", "        ),"]
        own = choice.warps // choice.consumers
        others = choice.consumers - 1
        body += ["    ],", f"    {[own] * others + [1]},", f"    {[each] * others + [COPIER_REGISTERS]},", ")"]
        lines += _function(plan.name, [*sources, *targets, *pointers, *fixed], fixed, body)
        return Written(tuple(lines), buffers, symbols, tuple(constants), (), tiled, (f"num_warps={own}",))

    def _shared(self) -> list[str]:
        """Rings, what waits to be stored, and barriers."""
        made = [self._allocated(self.rings[v], tile, "STAGES") for v, tile in self.tiled.items() if not self._beside(v)]
        if self.choice.wide:
            tile = self.tiled[self.products[0].right]
            rows, depth = tile.block
            both = replace(tile, block=(f"{len(self.products)} * {rows}", depth))
            made.append(self._allocated(self.rings[self.products[0].right], both, "STAGES"))
        for kept, tile in zip(self.kept, self.filled, strict=True):
            made.append(self._allocated(kept, tile, str(self.choice.consumers)))
        barriers = "gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())"
        made += [f"came = {barriers}", f"free = {barriers}"]
        made += ["for stage in gl.static_range(STAGES):", "    mbarrier.init(came.index(stage), count=1)"]
        made += [f"    mbarrier.init(free.index(stage), count={self.choice.consumers})", "fence_async_shared()"]
        return made

    def _allocated(self, name: str, tile: tma.Descriptor, count: str) -> str:
        shape = ", ".join((count, *tile.block))
        return f"{name} = gl.allocate_shared_memory({tile.name}.dtype, [{shape}], {tile.name}.layout)"

    # Copies ----------------------------------------------------------------------------------------------------------

    def _copies(self) -> list[str]:
        made = ["stage = turn % STAGES", "mbarrier.wait(free.index(stage), turn // STAGES % 2 ^ 1)"]
        sizes = " + ".join(f"{tile.name}.block_type.nbytes" for tile in self.tiled.values())
        made.append(f"mbarrier.expect(came.index(stage), {sizes})")
        for value, tile in self.tiled.items():
            corner = ", ".join(tma.coordinates(self.plan, self.places, value))
            into = f"{self.rings[value]}.index(stage)"
            if self._beside(value):
                place = [product.right for product in self.products].index(value)
                into += f".slice({place} * {tile.block[0]}, {tile.block[0]})"
            made.append(f"tma.async_copy_global_to_shared({tile.name}, [{corner}], came.index(stage), {into})")
        return [*made, "turn += 1"]

    # Products --------------------------------------------------------------------------------------------------------

    def _multiplies(self, tiles: str, where: list[str], walk: str) -> list[str]:
        """What a group of warps does, tile after tile."""
        own = self.choice.warps // self.choice.consumers
        columns = self.places.block(self.columns)
        layout = "gl.NVMMADistributedLayout([3, 0], [{}, 1], [16, {}, 16])"
        made = [f"PRODUCT: gl.constexpr = {layout.format(own, columns)}"]
        for product in self.products:
            step = self._step(product.value)
            assert isinstance(step, Accumulate), "a product is gathered"
            self._begin(product.value, step)
        sums = list(dict.fromkeys(self.state[product.value] for product in self.products))
        begun, parts = self.out.made, ""
        if self.choice.wide:
            both = self.names.new("both")
            wide = f"{len(sums)} * {columns}"
            made.append(f"BOTH: gl.constexpr = {layout.format(own, wide)}")
            begun = [f"{both} = gl.zeros((OWN_ROWS, {wide}), gl.float32, BOTH)"]
            parts = f"{', '.join(sums)} = {both}.reshape((OWN_ROWS, {len(sums)}, {columns})).permute((0, 2, 1)).split()"
        running = [both] if self.choice.wide else sums
        made += ["turn = 0", tiles, *_in(where), *_in(begun), f"    {walk}", *_in(self._iteration(running), 2)]
        if self.choice.consumers == 1:
            made += _in([self._waited(0, running), "mbarrier.arrive(free.index((turn + STAGES - 1) % STAGES))"])
        if self.choice.wide:
            made += _in(
                [parts, *(f"{name} = gl.convert_layout({name}, PRODUCT, assert_trivial=True)" for name in sums)]
            )
        return [*made, *_in(self._epilogue()), "tma.store_wait(0)"]

    def _carry(self, word: str, rows: Rows, value: str) -> str:
        del rows, value
        columns = self.places.block(self.columns)
        return self.out.say(word, f"gl.zeros((OWN_ROWS, {columns}), gl.float32, PRODUCT)")

    def _waited(self, running: int, sums: list[str]) -> str:
        names = ", ".join(sums)
        return f"{names} = warpgroup_mma_wait({running}, ({names}{',' if len(sums) == 1 else ''}))"

    def _iteration(self, sums: list[str]) -> list[str]:
        start = f"{self.plan.names[self.depth]}_start"
        made = ["stage = turn % STAGES", "mbarrier.wait(came.index(stage), turn // STAGES % 2)"]
        for product, name in zip(self.products, sums, strict=False):
            left, right = self._left(product.left), self._right(product.right)
            made.append(f"{name} = warpgroup_mma({left}, {right}, {name}, is_async=True)")
        if self.choice.consumers > 1:
            # Another group multiplies meanwhile.
            return [*made, self._waited(0, sums), "mbarrier.arrive(free.index(stage))", "turn += 1"]
        # What was multiplied in the iteration before is done.
        made += [self._waited(len(sums), sums)]
        return [*made, f"mbarrier.arrive(free.index((turn + STAGES - 1) % STAGES), pred={start} > 0)", "turn += 1"]

    def _left(self, value: int) -> str:
        tile, rows = self._staged(value)
        turned = rows[0] != (self.rows,)
        own = self.choice.consumers > 1
        tile += ".slice(part * OWN_ROWS, OWN_ROWS)" if own else ""
        return f"{tile}.permute((1, 0))" if turned else tile

    def _right(self, value: int) -> str:
        tile, rows = self._staged(value)
        return f"{tile}.permute((1, 0))" if rows[0] == (self.columns,) else tile

    def _staged(self, value: int) -> tuple[str, list[Row]]:
        """One stage of a ring as a matrix, and the axes of its dimensions."""
        block = self.tiled[value].block
        tile = f"{self.rings[value]}.index(stage)"
        if len(block) > 2:
            tile += f".reshape(({', '.join(name for name in block if name != '1')}))"
        return tile, [row for row in self.axes.rows[value] if row]

    # After the loop --------------------------------------------------------------------------------------------------

    def _epilogue(self) -> list[str]:
        self.out = Lines(self.names)
        for value, phase in enumerate(self.phases):
            if phase is Phase.INVARIANT or (phase is Phase.AFTER and isinstance(self._step(value), Op)):
                self._make(value)
        waits = Lines(self.names)
        before, self.out = self.out, waits
        self.out("tma.store_wait(0)")
        for place, store in enumerate(self.kernel.stores):
            self._keep(place, store.source)
        return [*self.places.head.made, *before.made, *waits.made]

    def _loading(self, value: int, ahead: bool = False) -> str:
        return super()._loading(value, ahead).replace("tl.load(", "gl.load(", 1)

    def _keep(self, place: int, source: int) -> None:
        """A tile as it is stored: through shared memory, while the next tile is begun."""
        value, dtype = self.values[source], self.plan.dtypes[place]
        made = value.text if dtype == "fp32" else f"{operand(value.text)}.to({TL[dtype]})"
        part = "part" if self.choice.consumers > 1 else "0"
        tile = f"{self.kept[place]}.index({part})"
        block = self.filled[place].block
        flat = f"{tile}.reshape(({', '.join(b for b in block if b != '1')}))" if len(block) > 2 else tile
        self.out(f"{flat}.store({made})")
        self.out("fence_async_shared()")
        corner = tma.stored_coordinates(self.plan, self.places, place, self.out_sizes[place])
        whole = self.places.start(self.rows)
        if self.choice.consumers > 1:
            corner = [f"{where} + part * OWN_ROWS" if where == whole else where for where in corner]
        self.out(f"tma.async_copy_shared_to_global({self.filled[place].name}, [{', '.join(corner)}], {tile})")


def _in(lines: Sequence[str], depth: int = 1) -> list[str]:
    return [f"{'    ' * depth}{line}" for line in lines]


def _function(name: str, parameters: Sequence[str], constants: Sequence[str], body: Sequence[str]) -> list[str]:
    marked = [f"{p}: gl.constexpr" if p in constants else p for p in parameters]
    gap = ["", ""] if name.endswith(("_copies", "_sigmoid", "_products")) else []
    return ["@gluon.jit", f"def {name}({', '.join(marked)}):", *_in(body), *gap]
