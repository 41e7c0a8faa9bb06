"""Module constants of a problem, overridden in its source. Standard library only: child processes use it too."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

from tilesmith.core.errors import ProblemError
from tilesmith.core.problem import Constant


def apply_constants(source: str, overrides: Mapping[str, Constant]) -> str:
    """The source with every top-level assignment to a name in `overrides` followed by one of the new value.

    The second assignment stands on the line where the first ends (`K = 4096; K = 64  # columns`), so that line
    numbers stay, and whatever the module computes from the constant later follows it. That holds for every form:
    `A = B = 3`, `M, N = 3, 4`, `K: int = 3`, `K *= 2`, and inside `if`, `try`, `with` and loops.
    Raises `ProblemError` for a source that does not parse and for a name that it does not assign.
    """
    if not overrides:
        return source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProblemError(f"The problem's source does not parse, so its constants cannot be set: {error}.") from error
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", source)
    missing = set(overrides)
    inserts: list[tuple[int, int, str]] = []
    for statement in _statements(tree.body):
        names = sorted(_targets(statement) & overrides.keys())
        missing.difference_update(names)
        text = "".join(f"; {name} = {_literal(overrides[name])}" for name in names)
        if text:
            inserts.append((statement.end_lineno or 0, statement.end_col_offset or 0, text))
    if missing:
        raise ProblemError(f"The problem assigns no top-level constant named {', '.join(sorted(missing))}.")
    for number, column, text in reversed(inserts):
        # Columns of the syntax tree count bytes of UTF-8.
        line = lines[number - 1].encode()
        lines[number - 1] = (line[:column] + text.encode() + line[column:]).decode()
    return "".join(lines)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The simple statements that run at module level, in order."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        yield statement
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            for inner in getattr(statement, field, ()):
                yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler | ast.match_case) else [inner])


def _targets(statement: ast.stmt) -> set[str]:
    """The names that an assignment binds."""
    targets: list[ast.expr] = []
    match statement:
        case ast.Assign():
            targets = statement.targets
        case ast.AnnAssign(value=ast.expr()) | ast.AugAssign():
            targets = [statement.target]
    names = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def _literal(value: Constant) -> str:
    return f'float("{value}")' if isinstance(value, float) and not math.isfinite(value) else repr(value)
