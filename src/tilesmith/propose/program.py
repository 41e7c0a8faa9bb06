"""One parse of a candidate, and edits on its text.

Rewrites look at the syntax tree and splice the text: whatever they do not touch keeps its comments and its form.
Nothing here executes the candidate. What the tree does not say (sizes, grids) comes from the launches of its trial.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from tilesmith.core.profile import Launch

MEMORY = ("load", "store", "atomic_add")
"""Calls whose first argument is an address; a kernel that names that argument is left alone."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes [start, end) of the source become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, eq=False)
class Jit:
    """One `@triton.jit` function that the host code launches."""

    node: ast.FunctionDef
    constexprs: frozenset[str]
    autotune: ast.Call | None
    configs: tuple[ast.Call, ...]
    """The `triton.Config(...)` of its autotuner; empty where they are not written out as a list."""

    @property
    def name(self) -> str:
        return self.node.name

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(argument.arg for argument in self.node.args.args)

    @cached_property
    def body(self) -> tuple[ast.stmt, ...]:
        """The statements after the docstring."""
        first = self.node.body[0]
        documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        return tuple(self.node.body[1:] if documented else self.node.body)

    @cached_property
    def loops(self) -> tuple[ast.For, ...]:
        return tuple(node for node in ast.walk(self.node) if isinstance(node, ast.For))

    @cached_property
    def assigned(self) -> tuple[tuple[str, ast.expr], ...]:
        """Every assignment to a name, as (name, value); `x += e` counts as one to x of e."""
        return tuple(assignments(self.node))

    @cached_property
    def _inside(self) -> tuple[tuple[str, frozenset[int], frozenset[str]], ...]:
        """For every assignment the nodes and the names of its value."""
        return tuple((name, frozenset(map(id, ast.walk(value))), names(value)) for name, value in self.assigned)

    def derived(self, seeds: Iterable[ast.AST]) -> frozenset[str]:
        """Names whose value depends on one of the expressions `seeds`, through any chain of assignments."""
        marks = frozenset(map(id, seeds))
        found: set[str] = set()
        while True:
            more = {
                name for name, nodes, reads in self._inside if name not in found and (nodes & marks or reads & found)
            }
            if not more:
                return frozenset(found)
            found |= more

    def default(self, parameter: str) -> ast.expr | None:
        arguments = self.node.args
        values = dict(zip(reversed(self.parameters), reversed(arguments.defaults), strict=False))
        return values.get(parameter)


@dataclass(frozen=True, eq=False)
class Site:
    """One launch `kernel[grid](...)` in the host code."""

    call: ast.Call
    statement: ast.stmt
    host: ast.FunctionDef
    kernel: Jit
    grid: ast.expr

    @cached_property
    def arguments(self) -> tuple[tuple[str, ast.expr], ...]:
        """(parameter, expression) of everything that the call passes; launch options stand under their own names."""
        positional = zip(self.kernel.parameters, self.call.args, strict=False)
        keywords = ((keyword.arg, keyword.value) for keyword in self.call.keywords if keyword.arg)
        return (*positional, *keywords)

    def argument(self, name: str) -> ast.expr | None:
        return dict(self.arguments).get(name)


@dataclass(frozen=True, eq=False)
class Program:
    """A candidate's source, its tree, its kernels and their launches."""

    source: str
    tree: ast.Module
    kernels: tuple[Jit, ...]
    sites: tuple[Site, ...]
    launches: tuple[Launch, ...]
    modules: tuple[tuple[str, str], ...]
    """(module, the name it is imported as)."""
    multiprocessors: int
    """Of the GPU that the candidate is for."""

    @cached_property
    def data(self) -> bytes:
        return self.source.encode()

    @cached_property
    def lines(self) -> tuple[int, ...]:
        starts = [0]
        for line in self.data.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return tuple(starts)

    @cached_property
    def tl(self) -> str:
        return dict(self.modules)["triton.language"]

    def module(self, name: str) -> str | None:
        return dict(self.modules).get(name)

    # Text

    def start(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> int:
        return self.lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def text(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> str:
        return self.data[self.start(node) : self.end(node)].decode()

    def replace(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> Edit:
        return Edit(self.start(node), self.end(node), text)

    def before(self, statement: ast.stmt, lines: Iterable[str]) -> Edit:
        """Lines, in the statement's indentation, ahead of it."""
        start = self.start(statement)
        indent = " " * statement.col_offset
        return Edit(start, start, "".join(f"{line}\n{indent}" for line in lines))

    def after(self, statement: ast.stmt, lines: Iterable[str]) -> Edit:
        end = self.end(statement)
        indent = " " * statement.col_offset
        return Edit(end, end, "".join(f"\n{indent}{line}" for line in lines))

    def append(self, call: ast.Call, argument: str) -> Edit:
        """One more keyword argument at the end of a call."""
        close = self.end(call) - 1
        last = max([self.end(call.func) + 1, *map(self.end, call.args), *map(self.end, call.keywords)])
        # What follows the last argument: parentheses around it, a comma, blanks; with a comment the comma goes first.
        rest = self.data[last:close]
        if b"#" in rest:
            return Edit(last, last, f", {argument}")
        place = last + len(rest.rstrip())
        separator = "" if not (call.args or call.keywords) else " " if rest.rstrip().endswith(b",") else ", "
        return Edit(place, place, f"{separator}{argument}")

    def drop(self, call: ast.Call, keyword: ast.keyword) -> Edit:
        """The call without one of its keywords: also without the comma and blanks before it."""
        start = self.start(keyword)
        floor = self.end(call.func)
        end = self.end(keyword)
        while start > floor and self.data[start - 1 : start] in b" \t\r\n":
            start -= 1
        if self.data[start - 1 : start] == b",":
            start -= 1
        else:
            while self.data[end : end + 1] in b" ,\n" and end < self.end(call) - 1:
                end += 1
        return Edit(start, end, "")

    def own_line(self, statement: ast.stmt) -> bool:
        """Whether nothing but blanks stands before the statement on its line."""
        return not self.data[self.lines[statement.lineno - 1] : self.start(statement)].strip()

    def apply(self, edits: Iterable[Edit]) -> str:
        """The source after all edits. They may not overlap; insertions at one place keep their order."""
        return self.excerpt(0, len(self.data), edits)

    def excerpt(self, start: int, end: int, edits: Iterable[Edit] = ()) -> str:
        """Bytes [start, end) after those of the edits that fall into them."""
        pieces: list[bytes] = []
        position = start
        for edit in sorted(edits, key=lambda e: (e.start, e.end)):
            if not start <= edit.start <= edit.end <= end:
                continue
            if edit.start < position:
                raise ValueError(f"edits overlap at byte {edit.start}")
            pieces += [self.data[position : edit.start], edit.text.encode()]
            position = edit.end
        return b"".join([*pieces, self.data[position:end]]).decode()

    def fresh(self, name: str, scope: ast.AST | None = None) -> str:
        """A name that the scope (None: the whole source) does not use, and no global has; `name` where that is free."""
        nodes = list(ast.walk(scope or self.tree))
        used = {named(node) for node in nodes} | {target for target, _ in toplevel(self.tree)}
        used |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        used |= {node.name for node in (*nodes, *self.tree.body) if isinstance(node, ast.FunctionDef)}
        return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 100))) if n not in used)

    # Meaning

    def calls(self, node: ast.AST, *names: str) -> Iterator[ast.Call]:
        """Calls of `tl.<name>` inside a node."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and self.is_tl(inner, *names):
                yield inner

    def is_tl(self, node: ast.AST, *names: str) -> bool:
        return isinstance(node, ast.Call) and self.tl_name(node.func) in names

    def tl_name(self, node: ast.AST) -> str | None:
        """ "float32" for `tl.float32`."""
        return node.attr if isinstance(node, ast.Attribute) and named(node.value) == self.tl else None

    def launch(self, kernel: Jit) -> Launch | None:
        return next((launch for launch in self.launches if launch.kernel == kernel.name), None)

    def only_site(self, kernel: Jit) -> Site | None:
        sites = [site for site in self.sites if site.kernel is kernel]
        return sites[0] if len(sites) == 1 else None

    def programs(self, kernel: Jit) -> int | None:
        launch = self.launch(kernel)
        return prod(launch.grid) if launch else None

    def bases(self, kernel: Jit, address: ast.expr) -> frozenset[str]:
        """The pointer parameters that an address starts from."""
        launch = self.launch(kernel)
        found: set[str] = set()
        seen: set[str] = set()
        todo: list[ast.expr] = [address]
        while todo:
            match todo.pop():
                case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
                    todo += [left, right]
                case ast.Subscript(value=value):
                    todo.append(value)
                case ast.Call(args=[first, *_]):
                    todo.append(first)
                case ast.Name(id=name) if name not in seen:
                    seen.add(name)
                    if name in kernel.parameters:
                        known = launch.argument(name) if launch else None
                        if known is None or (isinstance(known, str) and "[" in known):
                            found.add(name)
                    todo += [value for target, value in kernel.assigned if target == name]
        return frozenset(found)

    def value(self, expression: ast.expr, kernel: Jit, depth: int = 32) -> int | None:
        """What an integer expression of a kernel is at its launch; None where the launch does not say.

        `depth` bounds the names and operators on the way: names of a loop can go round in circles.
        """
        if depth == 0:
            return None
        match expression:
            case ast.Constant(value=int() as number) if not isinstance(number, bool):
                return number
            case ast.Name(id=name):
                if (launch := self.launch(kernel)) and isinstance(known := launch.argument(name), int):
                    return known
                if name in kernel.parameters:
                    default = kernel.default(name)
                    return self.value(default, kernel, depth - 1) if default else None
                values = [value for target, value in kernel.assigned if target == name]
                return self.value(values[0], kernel, depth - 1) if len(values) == 1 else None
            case ast.BinOp(left=left, op=operator, right=right):
                a, b = self.value(left, kernel, depth - 1), self.value(right, kernel, depth - 1)
                if a is None or b is None:
                    return None
                match operator:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                    case ast.FloorDiv():
                        return a // b if b else None
            case ast.Call(func=ast.Attribute(attr="cdiv"), args=[over, by]):
                a, b = self.value(over, kernel, depth - 1), self.value(by, kernel, depth - 1)
                return -(-a // b) if a is not None and b else None
        return None

    def bindings(self, name: str, host: ast.FunctionDef) -> tuple[ast.expr, ...]:
        """What a name of the host code is bound to, in its function or else in the module; () where that is unclear."""
        local = [value for target, value in assignments(host) if target == name]
        rebound = any(
            isinstance(node, ast.AugAssign | ast.For) and name in {named(n) for n in ast.walk(node.target)}
            for node in ast.walk(host)
        )
        if local or rebound:
            return () if rebound else tuple(local)
        arguments = host.args
        names = [argument.arg for argument in arguments.args]
        if name in names:
            defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
            return (defaults[name],) if name in defaults else ()
        return tuple(value for target, value in toplevel(self.tree) if target == name)

    def literal(self, expression: ast.expr | None, host: ast.FunctionDef) -> ast.Constant | None:
        """The integer literal that an expression of the host code comes down to."""
        for _ in range(8):
            match expression:
                case ast.Constant(value=int() as number) if not isinstance(number, bool):
                    return expression
                case ast.Name(id=name):
                    bound = self.bindings(name, host)
                    if len(bound) != 1:
                        return None
                    expression = bound[0]
                case ast.Call(args=[inner]) if self.is_tl(expression, "constexpr"):
                    expression = inner
                case _:
                    return None
        return None

    def grid(self, site: Site) -> tuple[ast.expr, ...] | None:
        """The elements of a launch's grid; None where it is not written as a tuple."""
        expression = site.grid
        if isinstance(expression, ast.Name):
            bound = self.bindings(expression.id, site.host)
            inner = [n for n in ast.walk(site.host) if isinstance(n, ast.FunctionDef) and n.name == expression.id]
            if len(bound) == 1:
                expression = bound[0]
            elif len(inner) == 1 and len(inner[0].body) == 1 and isinstance(inner[0].body[0], ast.Return):
                expression = inner[0].body[0].value or expression
        if isinstance(expression, ast.Lambda):
            expression = expression.body
        return tuple(expression.elts) if isinstance(expression, ast.Tuple | ast.List) else None

    def expanded(self, expression: ast.AST, host: ast.FunctionDef) -> tuple[ast.AST, ...]:
        """Every node of a host expression, with those of what its names are bound to."""
        found: list[ast.AST] = []
        todo: list[ast.AST] = [expression]
        seen: set[str] = set()
        while todo:
            for node in ast.walk(todo.pop()):
                found.append(node)
                name = named(node)
                if name and name not in seen:
                    seen.add(name)
                    bound = self.bindings(name, host)
                    todo += bound if len(bound) == 1 else ()
        return tuple(found)


def parse(source: str, launches: Sequence[Launch] = (), multiprocessors: int = 132) -> Program:
    """Parse a candidate. Raises SyntaxError for what is not Python."""
    tree = ast.parse(source)
    modules = tuple(_modules(tree))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    triton = dict(modules).get("triton", "triton")
    jits = (
        {node.name: jit for node in functions if (jit := _jit(node, triton))}
        if "triton.language" in dict(modules)
        else {}
    )
    sites = tuple(_sites(tree, jits))
    launched = {site.kernel.name for site in sites}
    kernels = tuple(jit for name, jit in jits.items() if name in launched)
    return Program(source, tree, kernels, sites, tuple(launches), modules, multiprocessors)


def named(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def names(*nodes: ast.AST) -> frozenset[str]:
    """The names that stand in some nodes."""
    return frozenset(inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name))


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of every assignment inside a node; targets of a tuple get their own value where there is one."""
    for inner in ast.walk(node):
        match inner:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _paired(target, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, value
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                yield name, value
            case ast.For(target=target, iter=value):
                yield from _paired(target, value)


def toplevel(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from assignments(statement)


def _paired(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case ast.Tuple(elts=left), ast.Tuple(elts=right) if len(left) == len(right):
            for one, other in zip(left, right, strict=True):
                yield from _paired(one, other)
        case ast.Tuple(elts=left), _:
            for one in left:
                yield from _paired(one, value)


def _modules(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        match node:
            case ast.Import(names=aliases):
                yield from ((alias.name, alias.asname or alias.name) for alias in aliases)
            case ast.ImportFrom(module=str() as module, names=aliases):
                yield from ((f"{module}.{alias.name}", alias.asname or alias.name) for alias in aliases)


def _jit(node: ast.FunctionDef, triton: str) -> Jit | None:
    """None for what is no kernel, and for one whose decorators are not understood."""
    autotune = None
    plain = False
    for decorator in node.decorator_list:
        text = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if text in (f"{triton}.jit", "jit"):
            plain = True
        elif text == f"{triton}.autotune" and isinstance(decorator, ast.Call):
            autotune = decorator
        else:
            return None
    arguments = node.args
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
    named_addresses = any(ast.unparse(call.func).rpartition(".")[2] in MEMORY and not call.args for call in calls)
    unusual = arguments.kwonlyargs or arguments.posonlyargs or arguments.vararg or arguments.kwarg
    if not plain or not arguments.args or named_addresses or unusual:
        return None
    constexprs = frozenset(a.arg for a in arguments.args if a.annotation and "constexpr" in ast.unparse(a.annotation))
    return Jit(node, constexprs, autotune, _configs(autotune))


def _bindable(call: ast.Call) -> bool:
    """Whether it can be seen which argument is which: no `*` and no `**`."""
    return not any(isinstance(a, ast.Starred) for a in call.args) and all(k.arg for k in call.keywords)


def _configs(autotune: ast.Call | None) -> tuple[ast.Call, ...]:
    if autotune is None:
        return ()
    values = [keyword.value for keyword in autotune.keywords if keyword.arg == "configs"] or autotune.args[:1]
    if len(values) != 1 or not isinstance(values[0], ast.List):
        return ()
    calls = [e for e in values[0].elts if isinstance(e, ast.Call) and ast.unparse(e.func).endswith("Config")]
    return tuple(calls) if len(calls) == len(values[0].elts) else ()


def _sites(tree: ast.Module, jits: dict[str, Jit]) -> Iterator[Site]:
    seen: set[int] = set()
    for host in ast.walk(tree):
        if not isinstance(host, ast.FunctionDef) or host.name in jits:
            continue
        for statement in ast.walk(host):
            if not isinstance(statement, ast.Expr | ast.Assign):
                continue
            match statement.value:
                case ast.Call(func=ast.Subscript(value=ast.Name(id=name), slice=grid)) as call if (
                    name in jits and id(call) not in seen and _bindable(call)
                ):
                    seen.add(id(call))
                    yield Site(call, statement, host, jits[name], grid)
