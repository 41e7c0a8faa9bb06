"""Load the next iteration's tiles into registers while this one computes.

What the compiler's own pipeline does through shared memory, written out. It pays where the pipeline does not reach, or
where a load needs what an asynchronous copy drops: an eviction policy.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import islice

from tilesmith.propose.knobs import bounds, mask_of, program_range
from tilesmith.propose.program import Edit, Jit, Program, assignments, named, names, parse
from tilesmith.propose.rewrites.loads import evict_first


def prefetch(program: Program) -> Iterator[str]:
    """Double buffering in registers: once as it is, once with the streamed loads marked to leave the cache first.

    Needs a loop whose loads depend on the loop variable and on nothing that an earlier iteration computed.
    """
    for kernel in program.kernels:
        for loop in kernel.body:
            if isinstance(loop, ast.For) and (source := _prefetched(program, kernel, loop)) is not None:
                marked = evict_first(parse(source, program.launches, program.multiprocessors))
                yield from islice(marked, 1)
                yield source


def _prefetched(program: Program, kernel: Jit, loop: ast.For) -> str | None:
    limits = bounds(loop)
    variable = named(loop.target)
    if limits is None or variable is None or not program_range(program, loop) or loop.orelse:
        return None
    if isinstance(loop.iter, ast.Call) and loop.iter.keywords:
        return None
    fetched = _fetched(program, loop)
    if fetched is None:
        return None
    rest = [statement for statement in loop.body if statement not in fetched]
    set_early = {name for statement in fetched for name, _ in assignments(statement)}
    handed = sorted(set_early & names(*rest))
    after = kernel.body[kernel.body.index(loop) + 1 :]
    if not handed or not rest or set_early & names(*after) or not all(map(program.own_line, loop.body)):
        return None
    first, stop, step = limits
    start = f"({program.text(first)})" if first is not None else "0"
    later = program.fresh(f"{variable}_next")
    ahead = {name: program.fresh(f"{name}_next") for name in sorted(set_early)}
    end = program.text(stop)
    bounded = f"({later} < {end})"
    known = first is None or isinstance(first, ast.Constant)
    before = [_copy(program, s, {variable: start}, None if known else f"({start} < {end})") for s in fetched]
    coming = [_copy(program, statement, {variable: later, **ahead}, bounded) for statement in fetched]
    indent = "\n" + " " * loop.body[0].col_offset
    body = [
        f"{later} = {variable} + {program.text(step) if step is not None else '1'}",
        *coming,
        *(program.text(statement) for statement in rest),
        *(f"{name} = {ahead[name]}" for name in handed),
    ]
    whole = Edit(program.start(loop.body[0]), program.end(loop.body[-1]), indent.join(body))
    return program.apply([program.before(loop, before), whole])


def _fetched(program: Program, loop: ast.For) -> list[ast.stmt] | None:
    """The loads of a loop and what of its body they depend on, in order; None where that cannot be moved ahead."""
    inside = [target for target, _ in assignments(loop)]
    wanted: set[str] = set()
    fetched: list[ast.stmt] = []
    for statement in reversed(loop.body):
        loads = any(True for _ in program.calls(statement, "load"))
        targets = {name for name, _ in assignments(statement)}
        if not loads and not targets & wanted:
            continue
        # A load inside a larger expression would carry its consumer ahead with it.
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if inside.count(name) == 1 and _plain(
                value, name
            ):
                fetched.append(statement)
                wanted |= names(value)
            case _:
                return None
    ready = names(loop.target)
    for statement in fetched[::-1]:
        if names(statement) & set(inside) - ready - {name for name, _ in assignments(statement)}:
            return None
        ready |= {name for name, _ in assignments(statement)}
    return fetched[::-1] if any(True for s in fetched for _ in program.calls(s, "load")) else None


def _plain(value: ast.expr, name: str) -> bool:
    return name not in names(value) and not any(
        isinstance(node, ast.Attribute) and (node.attr in ("dot", "store") or node.attr.startswith("atomic"))
        for node in ast.walk(value)
    )


def _copy(program: Program, statement: ast.stmt, renamed: Mapping[str, str], condition: str | None) -> str:
    """A statement's text with other names, and with a condition added to the masks of its loads."""
    edits = [
        program.replace(node, renamed[node.id])
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and node.id in renamed
    ]
    for call in program.calls(statement, "load") if condition is not None else ():
        if (mask := mask_of(program, call)) is None:
            edits.append(program.append(call, f"mask={condition}"))
        else:
            edits.append(Edit(program.start(mask), program.start(mask), "("))
            edits.append(Edit(program.end(mask), program.end(mask), f") & {condition}"))
    # A name can begin or end where a mask does: the opening parenthesis goes first, the condition last.
    ordered = sorted(edits, key=lambda e: (e.start, e.end, e.text != "("))
    return program.excerpt(program.start(statement), program.end(statement), ordered)
