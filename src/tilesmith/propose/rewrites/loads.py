"""Loads: what stays in the cache, masks that never cut anything off, and what the compiler may assume of offsets."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tilesmith.propose.knobs import bounds, extent, mask_of, program_ids
from tilesmith.propose.program import MEMORY, Edit, Jit, Program, named, names


def evict_first(program: Program) -> Iterator[str]:
    """Loads that only one program makes leave the cache first; all of a kernel's at once, then each alone."""
    for kernel in program.kernels:
        streamed, _ = _traffic(program, kernel)
        yield from _policies(program, streamed, "evict_first")


def evict_last(program: Program) -> Iterator[str]:
    """Loads that every program makes stay in the cache."""
    for kernel in program.kernels:
        _, shared = _traffic(program, kernel)
        yield from _policies(program, shared, "evict_last")


def _policies(program: Program, loads: Sequence[ast.Call], policy: str) -> Iterator[str]:
    # The hardware has no load with both a cache modifier and a policy.
    taken = {"eviction_policy", "cache_modifier"}
    free = [load for load in loads if not any(k.arg in taken for k in load.keywords)]
    edits = [program.append(load, f'eviction_policy="{policy}"') for load in free]
    if len(edits) > 1:
        yield program.apply(edits)
    for edit in edits:
        yield program.apply([edit])


def _traffic(program: Program, kernel: Jit) -> tuple[list[ast.Call], list[ast.Call]]:
    """The loads in a kernel's loops, or all where it has none: (those whose address depends on the program, others)."""
    tainted = program_ids(program, kernel)
    places: Sequence[ast.AST] = kernel.loops or (kernel.node,)
    loads = {id(call): call for place in places for call in program.calls(place, "load")}.values()
    streamed = [call for call in loads if names(call.args[0]) & tainted or any(program.calls(call, "program_id"))]
    return streamed, [call for call in loads if not any(call is other for other in streamed)]


def unmask(program: Program) -> Iterator[str]:
    """Drop the conditions of masks that hold for every element because the tile divides the size.

    A condition `offsets < size` holds where `offsets` are a tile's of a loop that stops at `size`, or of a grid axis
    that has exactly size / tile programs. Needs the launch: sizes and grid.
    """
    for kernel in program.kernels:
        if (launch := program.launch(kernel)) is None or program.only_site(kernel) is None:
            continue
        edits: list[Edit] = []
        for call in program.calls(kernel.node, *MEMORY):
            mask = mask_of(program, call)
            keyword = next((k for k in call.keywords if k.arg == "mask"), None)
            if mask is None or keyword is None:
                continue
            parts = _conjuncts(program, kernel, mask)
            needed = [part for part in parts if not _holds(program, kernel, part, launch.grid)]
            if len(needed) == len(parts):
                continue
            if needed:
                texts = [program.text(part) for part in needed]
                kept = texts[0] if len(texts) == 1 else " & ".join(f"({text})" for text in texts)
                edits.append(program.replace(mask, kept))
            else:
                fill = [k for k in call.keywords if k.arg == "other"]
                edits += [program.drop(call, k) for k in (keyword, *fill)]
        if edits:
            yield program.apply(edits)


def _conjuncts(program: Program, kernel: Jit, mask: ast.expr) -> list[ast.expr]:
    match mask:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return [*_conjuncts(program, kernel, left), *_conjuncts(program, kernel, right)]
    return [mask]


def _resolved(kernel: Jit, expression: ast.expr) -> ast.expr:
    """Through names with one value, and `[:, None]`; the variable of a loop stays."""
    variables = names(*(loop.target for loop in kernel.loops))
    for _ in range(8):
        match expression:
            case ast.Name(id=name):
                values = [value for target, value in kernel.assigned if target == name]
                if len(values) != 1 or name in variables:
                    return expression
                expression = values[0]
            case ast.Subscript(value=value):
                expression = value
            case _:
                return expression
    return expression


def _holds(program: Program, kernel: Jit, condition: ast.expr, grid: tuple[int, int, int]) -> bool:
    match _resolved(kernel, condition):
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return all(_holds(program, kernel, part, grid) for part in (left, right))
        case ast.Compare(left=left, ops=[ast.Lt()], comparators=[right]):
            return _within(program, kernel, _resolved(kernel, left), right, grid)
    return False


def _within(program: Program, kernel: Jit, offsets: ast.expr, size: ast.expr, grid: tuple[int, int, int]) -> bool:
    """Whether `offsets < size` for every element of every program and iteration."""
    terms = [_resolved(kernel, term) for term in _terms(size, ast.Sub)]
    moved = terms[1:]
    total = program.value(_terms(size, ast.Sub)[0], kernel)
    parts = [_resolved(kernel, term) for term in _terms(offsets, ast.Add)]
    ranges = [part for part in parts if program.is_tl(part, "arange")]
    starts = [part for part in parts if not program.is_tl(part, "arange")] + moved
    if total is None or len(ranges) != 1 or len(starts) != 1:
        return False
    arange = ranges[0]
    if not isinstance(arange, ast.Call) or len(arange.args) != 2:
        return False
    tile = program.value(arange.args[1], kernel)
    if tile is None or total % tile:
        return False
    return _loop_start(program, kernel, starts[0], tile, total) or _grid_start(
        program, kernel, starts[0], tile, total, grid
    )


def _terms(expression: ast.expr, operator: type[ast.operator]) -> list[ast.expr]:
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, operator):
        return [*_terms(expression.left, operator), expression.right]
    return [expression]


def _loop_start(program: Program, kernel: Jit, start: ast.expr, tile: int, total: int) -> bool:
    """`k` of `for k in range(0, total, tile)`, or `k * tile` of `for k in range(total / tile)`."""
    scaled = _factors(program, kernel, start, tile)
    for loop in kernel.loops:
        limits = bounds(loop)
        if limits is None or extent(program, kernel, loop) != total:
            continue
        stepped = limits[2] is not None and program.value(limits[1], kernel) == total
        variable = named(start) if stepped else scaled
        if variable is None or variable != named(loop.target):
            continue
        if not stepped:
            return program.value(limits[1], kernel) == total // tile
        first, _, step = limits
        return _multiple(program, kernel, first, tile) and _multiple(program, kernel, step, tile)
    return False


def _multiple(program: Program, kernel: Jit, expression: ast.expr | None, tile: int) -> bool:
    """Whether an expression is a multiple of a tile: a number, a product with the tile, or a sum of these."""
    if expression is None:
        return True
    value = program.value(expression, kernel)
    if value is not None:
        return value % tile == 0
    match expression:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return all(_multiple(program, kernel, part, tile) for part in (left, right))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return any(_multiple(program, kernel, part, tile) for part in (left, right))
    return False


def _factors(program: Program, kernel: Jit, start: ast.expr, tile: int) -> str | None:
    """x of `x * tile`."""
    match start:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            for one, other in ((left, right), (right, left)):
                if program.value(one, kernel) == tile and isinstance(other, ast.Name):
                    return other.id
    return None


def _grid_start(
    program: Program, kernel: Jit, start: ast.expr, tile: int, total: int, grid: tuple[int, int, int]
) -> bool:
    """`program_id(axis) * tile` of a grid with total / tile programs along that axis."""
    match start:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            for one, other in ((left, right), (right, left)):
                source = _resolved(kernel, other)
                if program.value(one, kernel) != tile or not isinstance(source, ast.Call):
                    continue
                if program.is_tl(source, "program_id"):
                    axis = axis_of(source)
                    return axis is not None and grid[axis] * tile == total
    return False


def axis_of(call: ast.Call) -> int | None:
    """The axis of a `tl.program_id` or `tl.num_programs`; 0 where none is given."""
    values = [*call.args, *(k.value for k in call.keywords if k.arg == "axis")]
    if not values:
        return 0
    value = values[0].value if isinstance(values[0], ast.Constant) else None
    return value if isinstance(value, int) and 0 <= value <= 2 else None


def vector_hints(program: Program) -> Iterator[str]:
    """Say that a tile's offsets are contiguous and start at a multiple of its size: wider loads and stores.

    For `start * P + tl.arange(0, P)`, and for `k + tl.arange(0, P)` where k steps by P.
    """
    for kernel in program.kernels:
        edits = []
        for node in ast.walk(kernel.node):
            if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add):
                continue
            match node.right, node.left:
                case (ast.Call(args=[_, ast.Name(id=tile)]) as arange, start) | (
                    start,
                    ast.Call(args=[_, ast.Name(id=tile)]) as arange,
                ) if program.is_tl(arange, "arange"):
                    if _aligned(kernel, start, tile) and not _hinted(program, kernel, node):
                        text = program.text(node)
                        tl = program.tl
                        edits.append(
                            program.replace(node, f"{tl}.max_contiguous({tl}.multiple_of({text}, {tile}), {tile})")
                        )
        if edits:
            yield program.apply(edits)


def _aligned(kernel: Jit, start: ast.expr, tile: str) -> bool:
    match start:
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            return tile in (named(left), named(right))
        case ast.Name(id=name):
            for loop in kernel.loops:
                limits = bounds(loop)
                if named(loop.target) == name and limits is not None:
                    first, _, step = limits
                    aligned = first is None or (isinstance(first, ast.Constant) and first.value == 0)
                    return aligned and step is not None and named(step) == tile
    return False


def _hinted(program: Program, kernel: Jit, node: ast.expr) -> bool:
    return any(call.args[0] is node for call in program.calls(kernel.node, "multiple_of") if call.args)
