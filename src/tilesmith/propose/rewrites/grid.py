"""The grid: which tile a program takes, in which order, and how many it takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tilesmith.propose.program import Edit, Jit, Program, Site
from tilesmith.propose.rewrites.hoist import hoisted
from tilesmith.propose.rewrites.loads import axis_of


def swap_axes(program: Program) -> Iterator[str]:
    """Exchange the first two axes of the grid, on both sides: neighbours in time share the other operand."""
    for kernel, elements, ids in _gridded(program):
        if len(elements) < 2 or _idle(program, kernel):
            continue
        counts = [(call, axis_of(call)) for call in program.calls(kernel.node, "num_programs")]
        if any(axis is None for _, axis in counts):
            continue
        edits = [
            program.replace(call, f"{program.text(call.func)}({(1, 0, 2)[axis]})")
            for call, axis in (*ids, *counts)
            if axis is not None
        ]
        first, second = (program.text(element) for element in elements[:2])
        edits += [program.replace(elements[0], second), program.replace(elements[1], first)]
        yield program.apply(edits)


def group_programs(program: Program) -> Iterator[str]:
    """Walk a two-dimensional grid in bands of 8 (or 4, 16) rows, so that running programs share tiles in the cache."""
    for kernel, elements, ids in _gridded(program):
        if len(elements) != 2 or any(program.calls(kernel.node, "swizzle2d")) or {axis for _, axis in ids} != {0, 1}:
            continue
        if _idle(program, kernel) or any(program.calls(kernel.node, "num_programs")):
            continue
        tl = program.tl
        row, column = program.fresh("row"), program.fresh("column")
        edits = [program.replace(call, (row, column)[axis]) for call, axis in ids]
        for size in (8, 4, 16):
            grid = ", ".join(f"{tl}.{what}({axis})" for what in ("program_id", "num_programs") for axis in (0, 1))
            line = f"{row}, {column} = {tl}.swizzle2d({grid}, {size})"
            yield program.apply([*edits, program.before(kernel.body[0], [line])])


def persistent(program: Program) -> Iterator[str]:
    """As many programs as the GPU runs at once, each of which loops over tiles.

    Only where the launch had more programs than multiprocessors, and no program ends early.
    """
    for spelled, kernel, site, texts in hoisted(program):
        count = spelled.programs(kernel)
        ids = _numbers(spelled, kernel, len(texts))
        if not ids or count is None or count <= spelled.multiprocessors:
            continue
        if any(isinstance(node, ast.Return) for node in ast.walk(kernel.node)) or not _indentable(spelled, kernel):
            continue
        if {name for name, _ in kernel.assigned} & set(kernel.parameters):
            continue
        if any(spelled.calls(kernel.node, "num_programs")):
            continue
        tl = spelled.tl
        tile = spelled.fresh("tile")
        sizes = [spelled.fresh(f"tiles_{axis}") for axis in range(len(texts))]
        total = " * ".join(sizes)
        loop = f"for {tile} in {tl}.range({tl}.program_id(0), {total}, {tl}.num_programs(0)):"
        edits = [spelled.replace(call, _axis(tile, sizes, axis)) for call, axis in ids]
        edits.append(spelled.before(kernel.body[0], [loop]))
        edits += _indented(spelled, kernel)
        edits += prepended(spelled, kernel, site, sizes, sizes)
        edits.append(
            spelled.before(site.statement, [f"{size} = {text}" for size, text in zip(sizes, texts, strict=True)])
        )
        for each in (1, 2, 4):
            grid = spelled.replace(site.grid, f"(min({spelled.multiprocessors * each}, {total}),)")
            yield spelled.apply([*edits, grid])


def prepended(program: Program, kernel: Jit, site: Site, parameters: list[str], values: list[str]) -> list[Edit]:
    """New parameters ahead of all others, and their values in the launch: there is always room in front."""
    arguments = kernel.node.args.args
    edits = []
    start = program.start(arguments[0])
    edits.append(Edit(start, start, "".join(f"{parameter}, " for parameter in parameters)))
    given = [*map(program.start, site.call.args), *map(program.start, site.call.keywords)]
    start = min(given, default=program.end(site.call) - 1)
    edits.append(Edit(start, start, "".join(f"{value}, " for value in values)))
    return edits


def _axis(tile: str, sizes: list[str], axis: int) -> str:
    behind = " * ".join(sizes[:axis])
    quotient = f"{tile} // ({behind})" if behind else tile
    return f"({quotient} % {sizes[axis]})" if axis < len(sizes) - 1 else f"({quotient})"


def _gridded(program: Program) -> Iterator[tuple[Jit, tuple[ast.expr, ...], list[tuple[ast.Call, int]]]]:
    """Kernels with one launch, a grid that is written out, and all their `program_id` calls with plain axes."""
    for kernel in program.kernels:
        site = program.only_site(kernel)
        elements = program.grid(site) if site else None
        if site is None or elements is None:
            continue
        ids = _numbers(program, kernel, len(elements))
        shared = isinstance(site.grid, ast.Name) and _uses(site) > 1
        if ids and not shared:
            yield kernel, elements, ids


def _numbers(program: Program, kernel: Jit, axes: int) -> list[tuple[ast.Call, int]]:
    """All `program_id` calls with their axes; none where one of them has no plain axis of the grid."""
    ids = [(call, axis_of(call)) for call in program.calls(kernel.node, "program_id")]
    plain = [(call, axis) for call, axis in ids if axis is not None and axis < axes]
    return plain if len(plain) == len(ids) else []


def _uses(site: Site) -> int:
    """How often the host code reads the name of this launch's grid."""
    grid = site.grid.id if isinstance(site.grid, ast.Name) else None
    return sum(
        isinstance(node, ast.Name) and node.id == grid and isinstance(node.ctx, ast.Load)
        for node in ast.walk(site.host)
    )


def _idle(program: Program, kernel: Jit) -> bool:
    """Whether only one axis of the grid has more than one program: the order of the axes changes nothing."""
    launch = program.launch(kernel)
    return launch is not None and sum(size > 1 for size in launch.grid[:2]) < 2


def _indentable(program: Program, kernel: Jit) -> bool:
    """No text of the body spans lines inside a string, and every statement has its own line."""
    strings = [n for s in kernel.body for n in ast.walk(s) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return all(node.lineno == node.end_lineno for node in strings) and all(program.own_line(s) for s in kernel.body)


def _indented(program: Program, kernel: Jit) -> list[Edit]:
    first, last = kernel.body[0].lineno, kernel.body[-1].end_lineno or kernel.body[-1].lineno
    places = [program.start(kernel.body[0]), *(program.lines[line - 1] for line in range(first + 1, last + 1))]
    return [Edit(place, place, "    ") for place in places]
