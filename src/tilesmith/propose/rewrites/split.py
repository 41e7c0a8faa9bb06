"""Sharing one long sum out among several programs.

A kernel of the form `prologue; for k in range(...): accumulate; epilogue` becomes one whose programs take every
SPLITS-th iteration. What joins their sums depends on the epilogue:

atomics   the epilogue is linear in the sums (it casts, reshapes and stores them), so each program adds its part to a
          float32 buffer of zeros, which the host casts into the result;
partials  any epilogue: each program writes its sums to scratch, whole tiles that need no mask, and a second kernel of
          the old grid adds them up and runs the epilogue.

Iterations are dealt out one by one and not in runs, so that any number of splits is right for any length and the
programs of one sum read neighbouring memory.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilesmith.propose.knobs import SCRATCH, bounds, mask_of, program_ids, program_range
from tilesmith.propose.program import Edit, Jit, Program, Site, assignments, named, names
from tilesmith.propose.rewrites.grid import prepended
from tilesmith.propose.rewrites.hoist import hoisted
from tilesmith.propose.rewrites.loops import zeros

MOST_SPLITS = 256
INDEXABLE = 1 << 31
"""Scratch is addressed with 32-bit offsets."""


@dataclass(frozen=True)
class _Sum:
    """What a split needs to know of a kernel."""

    program: Program
    kernel: Jit
    site: Site
    loop: ast.For
    elements: tuple[str, ...]
    """The old grid, as host text."""
    sums: tuple[str, ...]
    shapes: tuple[tuple[ast.expr, ...], ...]
    inductions: tuple[ast.AugAssign, ...]

    @property
    def prologue(self) -> tuple[ast.stmt, ...]:
        return self.kernel.body[: self.kernel.body.index(self.loop)]

    @property
    def epilogue(self) -> tuple[ast.stmt, ...]:
        return self.kernel.body[self.kernel.body.index(self.loop) + 1 :]


def split_atomics(program: Program) -> Iterator[str]:
    for found in _sums(program):
        if (stores := _linear_stores(found)) is not None:
            for count in _counts(found):
                yield _with_atomics(found, stores, count)


def split_partials(program: Program) -> Iterator[str]:
    for found in _sums(program):
        for count in _counts(found):
            if (source := _with_partials(found, count)) is not None:
                yield source


def _sums(program: Program) -> Iterator[_Sum]:
    if program.module("torch") is None:
        return
    for spelled, kernel, site, elements in hoisted(program):
        loops = [statement for statement in kernel.body if isinstance(statement, ast.For)]
        if loops and len(elements) <= 2 and (found := _sum(spelled, kernel, site, loops[-1], elements)) is not None:
            yield found


def _sum(program: Program, kernel: Jit, site: Site, loop: ast.For, elements: tuple[str, ...]) -> _Sum | None:
    limits = bounds(loop)
    if limits is None or not program_range(program, loop) or loop.orelse or kernel.body[-1] is loop:
        return None
    before = kernel.body[: kernel.body.index(loop)]
    after = kernel.body[kernel.body.index(loop) + 1 :]
    numbered = program_ids(program, kernel)
    if any(part is not None and (names(part) & numbered or any(program.calls(part, "program_id"))) for part in limits):
        return None
    if any(isinstance(node, ast.Return) for node in ast.walk(kernel.node)) or _writes((*before, loop)):
        return None
    if {name for name, _ in kernel.assigned} & set(kernel.parameters):
        return None
    carried = _carried(program, kernel, loop)
    if carried is None:
        return None
    sums, shapes, inductions = carried
    inside = {name for name, _ in assignments(loop)}
    if names(*after) & (inside - set(sums)) or not sums or not names(*after) & set(sums):
        return None
    return _Sum(program, kernel, site, loop, elements, sums, shapes, inductions)


def _writes(statements: Sequence[ast.stmt]) -> bool:
    """Whether statements touch memory other than by loads."""
    return any(
        isinstance(node, ast.Attribute) and (node.attr == "store" or node.attr.startswith("atomic"))
        for statement in statements
        for node in ast.walk(statement)
    )


_Carried = tuple[tuple[str, ...], tuple[tuple[ast.expr, ...], ...], tuple[ast.AugAssign, ...]]


def _carried(program: Program, kernel: Jit, loop: ast.For) -> _Carried | None:
    """What one iteration hands to the next: (sums, their shapes, pointers that advance by a fixed step).

    None where it hands on anything else, or where an iteration looks at a sum.
    """
    inside = [target for target, _ in assignments(loop)]
    sums: dict[str, tuple[ast.expr, ...]] = {}
    moving: dict[str, ast.AugAssign] = {}
    for statement in loop.body:
        match statement:
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value) if name not in names(value):
                if (start := zeros(program, kernel, loop, name)) is not None:
                    sums[name] = start[1]
                elif not names(value) & set(inside):
                    moving[name] = statement
                else:
                    return None
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _adds(program, value, name):
                if (start := zeros(program, kernel, loop, name)) is None:
                    return None
                sums[name] = start[1]
            case ast.Assign(targets=[ast.Name()]) | ast.Expr(value=ast.Constant()):
                pass
            case _:
                return None
    if any(inside.count(name) != 1 for name in (*sums, *moving)):
        return None
    # A name that is read before this iteration sets it comes from the iteration before.
    ready = set(names(loop.target)) | set(moving)
    for statement in loop.body:
        updated = {target for target, _ in assignments(statement)}
        reads = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        if any(reads.count(name) > (isinstance(statement, ast.Assign) and name in updated) for name in sums):
            return None
        if set(reads) & (set(inside) - ready - set(sums)):
            return None
        ready |= updated
    return tuple(sums), tuple(sums.values()), tuple(moving.values())


def _adds(program: Program, value: ast.expr, name: str) -> bool:
    """Whether a value is the sum so far plus something: `acc + e`, `tl.dot(a, b, acc)`, `tl.fma(a, b, acc)`."""
    match value:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (named(left) == name) != (named(right) == name)
        case ast.Call(args=args, keywords=keywords) if program.is_tl(value, "dot", "fma"):
            given = [*args[2:3], *(k.value for k in keywords if k.arg == "acc")]
            return len(given) == 1 and named(given[0]) == name
    return False


def _counts(found: _Sum) -> tuple[int, ...]:
    """Splits to try: while multiprocessors idle first the count that fills them; at most one an iteration."""
    program, kernel = found.program, found.kernel
    limits = bounds(found.loop)
    most = MOST_SPLITS
    if limits is not None:
        values = [program.value(part, kernel) if part is not None else None for part in limits]
        first, last, stride = values[0] or 0, values[1], values[2] if limits[2] is not None else 1
        if last is not None and stride:
            most = min(most, (last - first) // stride)
    running = program.programs(kernel)
    enough = 4
    if running is not None and running < program.multiprocessors:
        enough = 2
        while running * enough < program.multiprocessors:
            enough *= 2
    return tuple(count for count in dict.fromkeys((enough, enough * 2, enough * 4, 2, 4, 8)) if count <= most)


def _dealt(found: _Sum, part: str, splits: str) -> list[Edit]:
    """Edits after which program `part` of `splits` takes every `splits`-th iteration."""
    program = found.program
    tl = program.tl
    axis = len(found.elements)
    lines = [f"{part} = {tl}.program_id({axis})"]
    edits = []
    for induction in found.inductions:
        target, advance = named(induction.target), program.text(induction.value)
        lines.append(f"{target} += {part} * ({advance})")
        edits.append(program.replace(induction.value, f"{splits} * ({advance})"))
    first, stop, step = bounds(found.loop) or (None, found.loop.iter, None)
    lower = f"{part} * {_factor(program, step)}" if step is not None else part
    if first is not None and not (isinstance(first, ast.Constant) and first.value == 0):
        lower = f"{program.text(first)} + {lower}"
    stride = f"{splits} * {_factor(program, step)}" if step is not None else splits
    if isinstance(found.loop.iter, ast.Call):
        arguments = found.loop.iter.args
        edits.append(
            Edit(program.start(arguments[0]), program.end(arguments[-1]), f"{lower}, {program.text(stop)}, {stride}")
        )
    return [program.before(found.loop, lines), *edits]


def _factor(program: Program, expression: ast.expr) -> str:
    text = program.text(expression)
    return text if isinstance(expression, ast.Name | ast.Constant) else f"({text})"


def _relaunched(found: _Sum, splits: str) -> Edit:
    return found.program.replace(found.site.grid, f"({', '.join((*found.elements, splits))})")


# Atomics


def _linear_stores(found: _Sum) -> list[tuple[ast.Call, list[ast.Call]]] | None:
    """The epilogue's stores, each with the casts on the way; None where it is not linear in the sum."""
    program = found.program
    if len(found.sums) != 1:
        return None
    tainted = set(found.sums)
    casts: list[ast.Call] = []
    stores: list[ast.Call] = []
    for statement in found.epilogue:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if names(value) & tainted:
                    if not _linear(program, value, tainted, casts):
                        return None
                    tainted.add(name)
                elif name in tainted:
                    return None
            case ast.Expr(value=ast.Call(args=[address, value, *_]) as call) if program.is_tl(call, "store"):
                if names(address) & tainted or not _linear(program, value, tainted, casts):
                    return None
                if (mask := mask_of(program, call)) is not None and names(mask) & tainted:
                    return None
                stores.append(call)
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                return None
    loaded = frozenset[str]().union(
        *(program.bases(found.kernel, call.args[0]) for call in program.calls(found.kernel.node, "load"))
    )
    for store in stores:
        targets = program.bases(found.kernel, store.args[0])
        if len(targets) != 1 or targets & loaded:
            return None
        if not isinstance(found.site.argument(next(iter(targets))), ast.Name):
            return None
    return [(store, casts) for store in stores] or None


def _linear(program: Program, value: ast.expr, tainted: set[str], casts: list[ast.Call]) -> bool:
    """Whether a value is a sum, cast, reshaped, reduced or scaled; collects the casts."""
    match value:
        case ast.Name(id=name):
            return name in tainted
        case ast.Call(func=ast.Attribute(value=inner, attr="to"), args=[_]):
            casts.append(value)
            return _linear(program, inner, tainted, casts)
        case ast.Call(args=[inner, *rest]) if program.is_tl(value, "reshape", "trans", "expand_dims", "sum", "ravel"):
            return not names(*rest) & tainted and _linear(program, inner, tainted, casts)
        case ast.Subscript(value=inner, slice=index):
            return not names(index) & tainted and _linear(program, inner, tainted, casts)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            if not names(right) & tainted:
                return _linear(program, left, tainted, casts)
            return not names(left) & tainted and _linear(program, right, tainted, casts)
    return False


def _with_atomics(found: _Sum, stores: list[tuple[ast.Call, list[ast.Call]]], count: int) -> str:
    program, site = found.program, found.site
    part, splits = program.fresh("part"), program.fresh("SPLITS")
    torch = program.module("torch")
    edits = [*_dealt(found, part, splits), _relaunched(found, splits)]
    edits += prepended(program, found.kernel, site, [f"{splits}: {program.tl}.constexpr"], [splits])
    host = [f"{splits} = {count}"]
    back = []
    buffers: dict[str, str] = {}
    for store, casts in stores:
        edits.append(program.replace(store.func, f"{program.tl}.atomic_add"))
        edits.append(program.append(store, 'sem="relaxed"'))
        for keyword in store.keywords:
            if keyword.arg != "mask":
                edits.append(program.drop(store, keyword))
        for cast in casts:
            if isinstance(cast.func, ast.Attribute):
                dot = program.data.index(b".", program.end(cast.func.value))
                edits.append(Edit(dot, program.end(cast), ""))
        (parameter,) = program.bases(found.kernel, store.args[0])
        if parameter not in buffers:
            argument = site.argument(parameter)
            result = named(argument) if argument else None
            buffer = program.fresh("sums" if not buffers else f"sums_{len(buffers)}")
            buffers[parameter] = buffer
            host.append(f"{buffer} = {torch}.zeros_like({result}, dtype={torch}.float32)")
            back.append(f"{result}.copy_({buffer})")
            if argument is not None:
                edits.append(program.replace(argument, buffer))
    edits += [program.before(site.statement, host), program.after(site.statement, back)]
    return program.apply({(edit.start, edit.end, edit.text): edit for edit in edits}.values())


# Partial sums and a second kernel


def _with_partials(found: _Sum, count: int) -> str | None:
    program, site, kernel = found.program, found.site, found.kernel
    tl, torch = program.tl, program.module("torch")
    part, splits, scratch = program.fresh("part"), program.fresh("SPLITS"), program.fresh(SCRATCH)
    tile, tiles, finish = program.fresh("tile"), program.fresh("tiles"), program.fresh(f"{kernel.name}_finish")
    device = _device(found)
    areas = [_host_area(found, shape) for shape in found.shapes]
    if device is None or None in areas or not _scratch_fits(found, count):
        return None

    axes = range(len(found.elements))
    count_text = " * ".join(f"{tl}.num_programs({axis})" for axis in axes)
    number = f"{tl}.program_id(0)" + (f" + {tl}.program_id(1) * {tl}.num_programs(0)" if len(axes) == 2 else "")
    place = [f"{tiles} = {count_text}", f"{tile} = {number}"]
    cells = _cells(found, splits, scratch, part, tile, tiles)

    begin, end = program.start(found.epilogue[0]), program.end(kernel.body[-1])
    indent = " " * found.loop.col_offset
    store = [f"{tl}.store({cell}, {name})" for name, cell in cells]
    edits = [*_dealt(found, part, splits), _relaunched(found, splits)]
    edits.append(Edit(begin, end, f"\n{indent}".join([*place, *store])))
    new = [scratch, f"{splits}: {tl}.constexpr"]
    edits += prepended(program, kernel, site, new, [scratch, splits])

    header = program.excerpt(program.start(kernel.node), program.start(kernel.node.body[0]))
    header = header.replace(f"def {kernel.name}(", f"def {finish}({', '.join(new)}, ", 1).replace(", \n", ",\n")
    kept = [f"{indent}{program.text(statement)}" for statement in _needed(found)]
    adds = [f"{indent}    {name} += {tl}.load({cell})" for name, cell in cells]
    loop = [f"{indent}{line}" for line in place] + [f"{indent}for {part} in range({splits}):", *adds]
    ending = f"{indent}{program.excerpt(begin, end)}"
    decorator = program.text(kernel.node.decorator_list[0])
    second = "\n".join(["", "", "", f"@{decorator}", header.rstrip("\n"), *kept, *loop, ending])
    edits.append(Edit(end, end, second))

    host = [f"{splits} = {count}"]
    cells_count = " + ".join(area for area in areas if area is not None)
    programs = " * ".join(f"({element})" for element in found.elements)
    host.append(
        f"{scratch} = {torch}.empty({splits} * {programs} * ({cells_count}), dtype={torch}.float32, device={device})"
    )
    grid = f"({', '.join(found.elements)},)"
    arguments = program.excerpt(program.end(site.call.func), program.end(site.call))
    call = f"{finish}[{grid}]({scratch}, {splits}, {arguments[1:].lstrip()}"
    edits += [program.before(site.statement, host), program.after(site.statement, [call])]
    return program.apply(edits)


def _cells(found: _Sum, splits: str, scratch: str, part: str, tile: str, tiles: str) -> list[tuple[str, str]]:
    """(sum, the addresses of its tile in the scratch): all tiles of one sum, then all of the next."""
    program = found.program
    tl = program.tl
    cells = []
    before: list[str] = []
    for name, shape in zip(found.sums, found.shapes, strict=True):
        sides = [program.text(side) for side in shape]
        area = " * ".join(sides)
        inside = f"{tl}.arange(0, {sides[0]})"
        if len(sides) == 2:
            inside = f"{inside}[:, None] * {sides[1]} + {tl}.arange(0, {sides[1]})[None, :]"
        offset = f"{splits} * {tiles} * ({' + '.join(before)}) + " if before else ""
        cells.append((name, f"{scratch} + {offset}({part} * {tiles} + {tile}) * ({area}) + {inside}"))
        before.append(area)
    return cells


def _host_area(found: _Sum, shape: tuple[ast.expr, ...]) -> str | None:
    """The elements of a sum's tile, as host text; None for a shape that the host cannot see or with a third side."""
    if not 1 <= len(shape) <= 2:
        return None
    texts = []
    for side in shape:
        if isinstance(side, ast.Constant):
            texts.append(found.program.text(side))
            continue
        name = named(side)
        if name is None or name not in found.kernel.constexprs:
            return None
        value = found.site.argument(name) or found.kernel.default(name)
        if value is None:
            return None
        texts.append(f"({found.program.text(value)})" if isinstance(value, ast.BinOp) else found.program.text(value))
    return " * ".join(texts)


def _scratch_fits(found: _Sum, count: int) -> bool:
    sides = [[found.program.value(side, found.kernel) or 128 for side in shape] for shape in found.shapes]
    cells = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sides)
    return count * (found.program.programs(found.kernel) or 1) * cells < INDEXABLE


def _device(found: _Sum) -> str | None:
    """Host text for the device of the result."""
    for call in found.program.calls(found.kernel.node, "store"):
        for parameter in sorted(found.program.bases(found.kernel, call.args[0])):
            argument = found.site.argument(parameter)
            if isinstance(argument, ast.Name):
                return f"{argument.id}.device"
    return None


def _needed(found: _Sum) -> list[ast.stmt]:
    """The statements of the prologue that the epilogue, or the start of a sum, depends on."""
    wanted = set(names(*found.epilogue)) | set(found.sums)
    kept: list[ast.stmt] = []
    for statement in reversed(found.prologue):
        targets = {name for name, _ in assignments(statement)}
        if not targets or targets & wanted:
            kept.append(statement)
            wanted |= names(statement)
    return kept[::-1]
