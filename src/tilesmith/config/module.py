"""What a module defines at its top level, read from its syntax tree alone."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilesmith.config.text import TextFaultError


@dataclass(frozen=True, slots=True)
class Module:
    """Top-level names, also those bound inside `if`, `try`, `with`, `match` and loops, by how they are bound."""

    defined: frozenset[str]
    """By `def` and `class`."""
    assigned: frozenset[str]
    imported: frozenset[str]
    """`*` stands for whatever a star import brings."""

    def has(self, name: str) -> bool:
        """Whether the name is bound, as far as the source can tell."""
        return bool({name, "*"} & self.imported) or name in self.defined | self.assigned


def parse_module(text: str) -> Module:
    """Raises `TextFaultError` for a coding line that is not UTF-8 and for a syntax error, which it places."""
    try:
        # Where a coding line names another encoding, Python would read another text than we do.
        encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)
    except SyntaxError:
        encoding = "an unknown encoding"
    if encoding != "utf-8":
        raise TextFaultError(f"declares {encoding} in its coding line; save it as UTF-8 and remove that line")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        raise TextFaultError(f"has a syntax error in line {error.lineno or 1}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise TextFaultError("is nested too deeply to be parsed; simplify its expressions") from None
    defined: set[str] = set()
    assigned: set[str] = set()
    imported: set[str] = set()
    for statement in _statements(tree.body):
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                imported.update((alias.asname or alias.name).partition(".")[0] for alias in names)
            case ast.Assign(targets=targets):
                assigned.update(name for target in targets for name in _names(target))
            case ast.AnnAssign(target=target, value=ast.expr()) | ast.AugAssign(target=target):
                assigned.update(_names(target))
    return Module(frozenset(defined), frozenset(assigned), frozenset(imported))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            for inner in getattr(statement, field, ()):
                yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler | ast.match_case) else [inner])


def _names(target: ast.expr) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
