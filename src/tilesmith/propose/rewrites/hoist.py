"""Give every constant of a launch a name in the host code, so that a rewrite can write it into more than one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tilesmith.propose.program import Edit, Jit, Program, Site, parse


def hoisted(program: Program) -> Iterator[tuple[Program, Jit, Site, tuple[str, ...]]]:
    """Every kernel with one plain launch, in a program where its literals are named: also the grid, as host text.

    `kernel[(cdiv(M, 128),)](x, BLOCK=128)` becomes `BLOCK = 128` and `kernel[(cdiv(M, BLOCK),)](x, BLOCK=BLOCK)`.
    A literal of the grid follows where it stands for one tile only; a kernel where that is unclear is left out.
    """
    for kernel in program.kernels:
        site = program.only_site(kernel)
        if site is None or kernel.autotune is not None or not isinstance(site.statement, ast.Expr):
            continue
        if not program.own_line(site.statement) or (source := _named(program, site)) is None:
            continue
        again = parse(source, program.launches, program.multiprocessors)
        twin = next(k for k in again.kernels if k.name == kernel.name)
        launch = again.only_site(twin)
        elements = again.grid(launch) if launch else None
        if launch is not None and elements is not None:
            yield again, twin, launch, tuple(again.text(element) for element in elements)


def _named(program: Program, site: Site) -> str | None:
    elements = program.grid(site)
    if elements is None:
        return None
    locals_: dict[str, str] = {}
    lines: list[str] = []
    edits: list[Edit] = []
    literals: list[tuple[str, object]] = []
    for parameter in site.kernel.parameters:
        if parameter not in site.kernel.constexprs:
            continue
        given = site.argument(parameter)
        value = given or site.kernel.default(parameter)
        if isinstance(value, ast.Constant) and isinstance(value.value, int):
            name = program.fresh(parameter, site.host)
            locals_[parameter] = name
            literals.append((parameter, value.value))
            lines.append(f"{name} = {program.text(value)}")
            edits.append(program.replace(given, name) if given else program.append(site.call, f"{parameter}={name}"))
        elif value is not None:
            locals_[parameter] = f"({program.text(value)})" if isinstance(value, ast.BinOp) else program.text(value)
    texts = []
    for element in elements:
        changes = []
        for node in ast.walk(element):
            match node:
                case ast.Subscript(slice=ast.Constant(value=str() as key)):
                    if key not in locals_:
                        return None
                    changes.append(program.replace(node, locals_[key]))
                case ast.Call(func=ast.Attribute(attr="cdiv"), args=[_, ast.Constant(value=size) as literal]):
                    twins = [parameter for parameter, value in literals if value == size]
                    if len(twins) > 1:
                        return None
                    changes += [program.replace(literal, locals_[twins[0]])] if twins else []
        texts.append(program.excerpt(program.start(element), program.end(element), changes))
    # Appended keywords share one place: they must arrive in order, as one edit.
    grid = program.replace(site.grid, f"({', '.join(texts)},)")
    return program.apply([grid, *edits, program.before(site.statement, lines)])
