"""Loops: how deep they are pipelined, how far they are unrolled, and where their sums are reduced."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tilesmith.propose.knobs import bounds, program_range
from tilesmith.propose.program import Jit, Program, named, names


def pipeline(program: Program) -> Iterator[str]:
    """Ask for loads that run ahead by 2 to 5 iterations, of every load of the loop, also outside of dots."""
    for depth in (3, 4, 2, 5):
        yield from _ranged(program, "num_stages", depth)


def unroll(program: Program) -> Iterator[str]:
    """Ask for 2 to 8 iterations in one."""
    for factor in (4, 2, 8):
        yield from _ranged(program, "loop_unroll_factor", factor)


def _ranged(program: Program, option: str, wanted: int) -> Iterator[str]:
    for kernel in program.kernels:
        for loop in kernel.loops:
            call = loop.iter
            if not isinstance(call, ast.Call) or not program_range(program, loop) or not _innermost(loop):
                continue
            given = [keyword for keyword in call.keywords if keyword.arg == option]
            if not given:
                edits = [program.append(call, f"{option}={wanted}")]
                if isinstance(call.func, ast.Name):
                    edits.append(program.replace(call.func, f"{program.tl}.range"))
                yield program.apply(edits)
            elif isinstance(given[0].value, ast.Constant) and given[0].value.value != wanted:
                yield program.apply([program.replace(given[0].value, str(wanted))])


def _innermost(loop: ast.For) -> bool:
    return not any(isinstance(node, ast.For) for statement in loop.body for node in ast.walk(statement))


def reduce_once(program: Program) -> Iterator[str]:
    """Sum across threads once, after the loop, instead of in every iteration.

    `acc += tl.sum(e, axis=1)` in a loop that steps by P becomes `acc += e` on a tile of P columns and one `tl.sum`
    behind the loop. Needs an accumulator that starts as a vector of zeros and that nothing else in the loop touches.
    """
    for kernel in program.kernels:
        for loop in kernel.body:
            if isinstance(loop, ast.For) and program_range(program, loop):
                yield from _reduced(program, kernel, loop)


def _reduced(program: Program, kernel: Jit, loop: ast.For) -> Iterator[str]:
    tile = _tile(program, kernel, loop)
    if tile is None:
        return
    edits = []
    after = []
    for statement in loop.body:
        match statement:
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=ast.Call(args=[inner, *rest]) as call):
                axis = rest[0] if rest else next((k.value for k in call.keywords if k.arg == "axis"), None)
                others = [s for s in loop.body if s is not statement and name in names(s)]
                start = zeros(program, kernel, loop, name)
                if not program.is_tl(call, "sum") or not isinstance(axis, ast.Constant) or others or start is None:
                    continue
                shape, extents = start
                if len(extents) != 1 or axis.value not in (0, 1):
                    continue
                rows = program.text(extents[0])
                both = (rows, tile) if axis.value == 1 else (tile, rows)
                edits += [program.replace(shape, f"({', '.join(both)})"), program.replace(call, program.text(inner))]
                after.append(f"{name} = {program.tl}.sum({name}, axis={axis.value})")
    if edits:
        yield program.apply([*edits, program.after(loop, after)])


def _tile(program: Program, kernel: Jit, loop: ast.For) -> str | None:
    """The constexpr that a loop steps by and whose `tl.arange` its body, or what it needs, contains."""
    limits = bounds(loop)
    if limits is None:
        return None
    ranged = {named(call.args[1]) for call in program.calls(kernel.node, "arange") if len(call.args) == 2}
    inside = names(loop.iter) | names(*(value for target, value in kernel.assigned if target in names(loop.iter)))
    found = [p for p in kernel.parameters if p in kernel.constexprs and p in ranged and p in inside]
    return found[0] if len(found) == 1 else None


def zeros(program: Program, kernel: Jit, loop: ast.For, name: str) -> tuple[ast.expr, tuple[ast.expr, ...]] | None:
    """(shape, its elements) of a float32 accumulator that a kernel sets to zeros ahead of a loop of its body."""
    before = kernel.body[: kernel.body.index(loop)]
    values = [value for statement in before for target, value in _flat(statement) if target == name]
    if not values or not isinstance(values[-1], ast.Call):
        return None
    call = values[-1]
    arguments = [*call.args, *(k.value for k in call.keywords if k.arg in ("shape", "value", "dtype"))]
    if program.is_tl(call, "full"):
        if len(arguments) != 3 or not isinstance(arguments[1], ast.Constant) or arguments[1].value != 0:
            return None
        arguments = [arguments[0], arguments[2]]
    elif not program.is_tl(call, "zeros"):
        return None
    if len(arguments) != 2 or program.tl_name(arguments[1]) != "float32":
        return None
    shape = arguments[0]
    return (shape, tuple(shape.elts)) if isinstance(shape, ast.Tuple | ast.List) else None


def _flat(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match statement:
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            yield name, value
