"""A syntax tree with its scopes, and where each expression's value may come from.

Names are followed through imports, assignments, parameters, containers and return values, without running anything.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tilesmith.bench.forbidden import starred, words

NODES = 100_000
"""More than any kernel has; so the time that a screening takes has a bound."""
DEPTH = 100
"""Steps that a name is followed from alias to alias; no honest one takes ten."""
STEPS = 300_000
"""Steps of following in all."""

PASSERS = frozenset(
    f"builtins.{name}" for name in ("next", "max", "min", "iter", "reversed", "sorted", "filter")
) | words(
    "copy.copy copy.deepcopy functools.reduce functools.partial typing.cast inspect.unwrap contextlib.nullcontext"
    " contextlib.closing itertools.chain itertools.cycle itertools.repeat weakref.ref weakref.proxy"
)
"""Functions that may hand back what they are given."""
GETTERS = words("operator.attrgetter operator.itemgetter")
_BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("__") or name == "__import__")
CLASS_OF = "the class of a value"
NO_ORIGIN: frozenset[str] = frozenset()


class TooMuch(Exception):
    """The source is too large to be read in bounded time; the message says of what it has too much."""


@dataclass(eq=False, slots=True)
class Value:
    """What a name is bound to: an expression, an item of one, or what a function of the source returns."""

    node: ast.AST
    scope: Scope
    item: bool = False


Binding = str | Value | None
"""A path from an import; a value to be followed; or something of the source's own."""


@dataclass(eq=False, slots=True)
class Scope:
    parent: Scope | None
    is_class: bool = False
    names: dict[str, list[Binding]] = field(default_factory=dict)
    elsewhere: dict[str, Scope] = field(default_factory=dict)
    """Names that `global` or `nonlocal` sends to another scope."""
    first: str | None = None
    """The first parameter of a method: `self` or `cls`."""

    def bind(self, name: str, binding: Binding) -> None:
        self.elsewhere.get(name, self).names.setdefault(name, []).append(binding)

    def find(self, name: str) -> list[Binding] | None:
        scope: Scope | None = self.elsewhere.get(name, self)
        while scope is not None:
            if name in scope.names and (scope is self or not scope.is_class):
                return scope.names[name]
            scope = scope.parent
        return None


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Reading:
    """A syntax tree with its scopes, and where each expression's value may come from."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope(None)
        self.places: list[tuple[ast.AST, Scope]] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.returns: dict[ast.AST, list[Value]] = {}
        self.methods: dict[str, list[Function]] = {}
        self.bodies: dict[ast.AST, Scope] = {}
        self.attributes: dict[str, list[Binding]] = {}
        """What the source hangs on its own objects, by the attribute's name."""
        self._known: dict[tuple[ast.AST, bool], frozenset[str]] = {}
        self._open: set[tuple[ast.AST, bool]] = set()
        self._cuts = 0
        self._steps = 0
        self._read(tree)
        self._pass_arguments()

    # Reading: one walk, no recursion, so that depth costs nothing.

    def _read(self, tree: ast.Module) -> None:
        stack: list[tuple[ast.AST, Scope, ast.AST | None]] = [(tree, self.module, None)]
        while stack:
            node, scope, function = stack.pop()
            self.places.append((node, scope))
            if len(self.places) > NODES:
                raise TooMuch(f"it has more than {NODES} syntax nodes")
            children = list(self._enter(node, scope, function))
            for child, _, _ in children:
                self.parents[child] = node
            stack.extend(reversed(children))

    def _enter(
        self, node: ast.AST, scope: Scope, function: ast.AST | None
    ) -> Iterator[tuple[ast.AST, Scope, ast.AST | None]]:
        """Bind what the node binds; its children, each with its scope."""
        inner = scope
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                inner = self._function(node, scope)
                body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
                outside: list[ast.AST] = [node.args]
                if not isinstance(node, ast.Lambda):
                    outside += [*node.decorator_list, *([node.returns] if node.returns else [])]
                yield from ((child, scope, function) for child in outside)
                yield from ((child, inner, node) for child in body)
                return
            case ast.ClassDef():
                scope.bind(node.name, Value(node, scope))
                inner = Scope(scope, is_class=True)
                yield from ((child, scope, function) for child in (*node.bases, *node.keywords, *node.decorator_list))
                yield from ((child, inner, None) for child in node.body)
                return
            case ast.If(test=test) if _is_main(test):
                # A candidate is never run as a program: tests and benchmarks under this line stay asleep.
                yield from ((child, scope, function) for child in (test, *node.orelse))
                return
            case ast.Import():
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self._name(scope, alias.asname or top, alias.name if alias.asname else top)
            case ast.ImportFrom():
                for alias in node.names:
                    names = starred(str(node.module)) if alias.name == "*" else [alias.asname or alias.name]
                    for name in names:
                        self._name(scope, name, f"{node.module}.{name if alias.name == '*' else alias.name}")
            case ast.Global():
                scope.elsewhere.update(dict.fromkeys(node.names, self.module))
            case ast.Nonlocal():
                outer = scope.parent
                while outer is not None and outer.is_class:
                    outer = outer.parent
                scope.elsewhere.update(dict.fromkeys(node.names, outer or self.module))
            case ast.Assign():
                for target in node.targets:
                    self._bind(target, Value(node.value, scope), scope)
            case ast.AnnAssign() | ast.NamedExpr() if node.value is not None:
                self._bind(node.target, Value(node.value, scope), scope)
            case ast.AugAssign():
                self._bind(node.target, Value(node.value, scope), scope)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                self._bind(node.target, Value(node.iter, scope, item=True), scope)
            case ast.withitem() if node.optional_vars is not None:
                self._bind(node.optional_vars, Value(node.context_expr, scope), scope)
            case ast.ExceptHandler() if node.name:
                scope.bind(node.name, None)
            case ast.Match():
                for case in node.cases:
                    for pattern in ast.walk(case.pattern):
                        if isinstance(pattern, (ast.MatchAs, ast.MatchStar)) and pattern.name:
                            scope.bind(pattern.name, Value(node.subject, scope))
            case ast.Return() | ast.Yield() if function is not None and node.value is not None:
                self.returns.setdefault(function, []).append(Value(node.value, scope))
        yield from ((child, inner, function) for child in ast.iter_child_nodes(node))

    def _function(self, node: Function, scope: Scope) -> Scope:
        inner = Scope(scope)
        self.bodies[node] = inner
        arguments = [*node.args.posonlyargs, *node.args.args]
        for argument in [*arguments, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]:
            if argument is not None:
                inner.bind(argument.arg, None)
        for argument, default in zip(reversed(arguments), reversed(node.args.defaults), strict=False):
            inner.bind(argument.arg, Value(default, scope))
        for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                inner.bind(argument.arg, Value(value, scope))
        if isinstance(node, ast.Lambda):
            self.returns[node] = [Value(node.body, inner)]
        else:
            scope.bind(node.name, Value(node, scope))
            if scope.is_class:
                self.methods.setdefault(node.name, []).append(node)
                inner.first = arguments[0].arg if arguments else None
        return inner

    def _name(self, scope: Scope, name: str, binding: Binding) -> None:
        scope.bind(name, binding)
        if scope.is_class:
            self.attributes.setdefault(name, []).append(binding)

    def _bind(self, target: ast.AST, value: Value, scope: Scope) -> None:
        match target:
            case ast.Name():
                self._name(scope, target.id, value)
            case ast.Attribute():
                self.attributes.setdefault(target.attr, []).append(value)
            case ast.Starred():
                self._bind(target.value, value, scope)
            case ast.Tuple() | ast.List():
                whole = value.node
                if isinstance(whole, (ast.Tuple, ast.List)) and not value.item and len(whole.elts) == len(target.elts):
                    for part, element in zip(target.elts, whole.elts, strict=True):
                        self._bind(part, Value(element, value.scope), scope)
                else:
                    for part in target.elts:
                        self._bind(part, Value(whole, value.scope, item=True), scope)

    def _pass_arguments(self) -> None:
        """Bind the parameters of the source's functions to what its calls pass."""
        for node, scope in self.places:
            if not isinstance(node, ast.Call):
                continue
            self._pass_fields(node, scope)
            for function in self._callees(node, scope):
                arguments = [*function.args.posonlyargs, *function.args.args]
                if not isinstance(node.func, ast.Lambda) and self._is_method(function):
                    arguments = arguments[1:]
                inner = self.bodies[function]
                for argument, value in zip(arguments, node.args, strict=False):
                    inner.bind(argument.arg, Value(value, scope))
                if function.args.vararg is not None:
                    rest = ast.Tuple(node.args[len(arguments) :], ast.Load())
                    inner.bind(function.args.vararg.arg, Value(rest, scope))
                if function.args.kwarg is not None:
                    values = ast.Tuple([keyword.value for keyword in node.keywords], ast.Load())
                    inner.bind(function.args.kwarg.arg, Value(values, scope))
                for keyword in node.keywords:
                    if keyword.arg is not None and keyword.arg in inner.names:
                        inner.bind(keyword.arg, Value(keyword.value, scope))

    def _pass_fields(self, call: ast.Call, scope: Scope) -> None:
        """Arguments by which a call may set the fields of an object, as data classes and namespaces do."""
        for keyword in call.keywords:
            if keyword.arg is not None:
                self.attributes.setdefault(keyword.arg, []).append(Value(keyword.value, scope))
        for each in self._bound_nodes(call.func, scope):
            if isinstance(each, ast.ClassDef):
                fields = [part.target for part in each.body if isinstance(part, ast.AnnAssign)]
                for target, value in zip(fields, call.args, strict=False):
                    if isinstance(target, ast.Name):
                        self.attributes.setdefault(target.id, []).append(Value(value, scope))

    def _is_method(self, function: Function) -> bool:
        return any(function in each for each in self.methods.values())

    def _bound_nodes(self, node: ast.AST, scope: Scope) -> list[ast.AST]:
        """What of the source a name stands for: functions and classes."""
        bindings = scope.find(node.id) if isinstance(node, ast.Name) else None
        return [binding.node for binding in bindings or () if isinstance(binding, Value) and not binding.item]

    def is_plain(self, call: ast.Call, scope: Scope) -> bool:
        """Whether what becomes of a call's arguments is followed here."""
        known = {"builtins.getattr", "builtins.hasattr", "builtins.print"}
        called = self.origins(call.func, scope)
        return bool(self._callees(call, scope)) or (bool(called) and called <= known)

    def _callees(self, call: ast.Call, scope: Scope) -> Iterable[Function]:
        """The source's own functions that a call may call, by name."""
        if isinstance(call.func, ast.Attribute):
            return self.methods.get(call.func.attr, ())
        if isinstance(call.func, ast.Lambda):
            return (call.func,)
        found: list[Function] = []
        for node in self._bound_nodes(call.func, scope):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                found.append(node)
            elif isinstance(node, ast.ClassDef):
                starts = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
                found.extend(starts)
        return found

    # Following values to imports.

    def origins(self, node: ast.AST, scope: Scope, depth: int = 0) -> frozenset[str]:
        """Paths from imports or built-in names that the expression's value may be; nothing for the source's own."""
        return self._followed(Value(node, scope), depth)

    def _followed(self, value: Value, depth: int) -> frozenset[str]:
        """The origins of a value, each computed once; a circle of names adds nothing to itself."""
        key = (value.node, value.item)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            self._cuts += 1
            return NO_ORIGIN
        self._steps += 1
        if depth > DEPTH or self._steps > STEPS:
            raise TooMuch("its names lead from one to another too often to be followed")
        cuts = self._cuts
        self._open.add(key)
        follow = self._items if value.item else self._origins
        found = frozenset(follow(value.node, value.scope, depth + 1))
        self._open.discard(key)
        if self._cuts == cuts or not self._open:
            self._known[key] = found
        return found

    def _bound(self, bindings: Iterable[Binding], depth: int) -> Iterator[str]:
        for binding in bindings:
            if isinstance(binding, str):
                yield binding
            elif binding is not None:
                yield from self._followed(binding, depth)

    def _origins(self, node: ast.AST, scope: Scope, depth: int) -> Iterator[str]:
        match node:
            case ast.Name():
                bindings = scope.find(node.id)
                if bindings is not None:
                    yield from self._bound(bindings, depth)
                elif node.id in _BUILTINS:
                    yield f"builtins.{node.id}"
            case ast.Attribute():
                bases = self.origins(node.value, scope, depth)
                yield from (f"{base}.{node.attr}" for base in bases)
                if node.attr == "__class__" and not _is_first(node.value, scope):
                    yield CLASS_OF
                if not bases:
                    yield from self._bound(self.attributes.get(node.attr, ()), depth)
            case ast.Subscript():
                yield from self._followed(Value(node.value, scope, item=True), depth)
            case ast.IfExp():
                yield from self.origins(node.body, scope, depth)
                yield from self.origins(node.orelse, scope, depth)
            case ast.BoolOp():
                for value in node.values:
                    yield from self.origins(value, scope, depth)
            case ast.NamedExpr() | ast.Await() | ast.Starred():
                yield from self.origins(node.value, scope, depth)
            case ast.Call():
                yield from self._result(node, scope, depth)

    def _items(self, node: ast.AST, scope: Scope, depth: int) -> Iterator[str]:
        """What an item of the expression's value may be; of a nested container, also the items of its items."""
        parts: list[ast.expr] = []
        wholes: list[ast.expr] = []
        match node:
            case ast.Tuple() | ast.List() | ast.Set():
                parts = node.elts
            case ast.Dict():
                parts = node.values
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                parts = [node.elt]
            case ast.Call(func=ast.Attribute(value=base, attr="values" | "items" | "get" | "copy" | "pop")):
                wholes = [base]
            case ast.Call(
                func=ast.Name(id="list" | "tuple" | "iter" | "reversed" | "set" | "zip" | "enumerate" | "dict")
            ):
                wholes = [*node.args, *(keyword.value for keyword in node.keywords)]
            case ast.BinOp():
                wholes = [node.left, node.right]
            case ast.Name():
                for binding in scope.find(node.id) or ():
                    if isinstance(binding, Value):
                        yield from self._followed(Value(binding.node, binding.scope, item=True), depth)
        for part in parts:
            yield from self.origins(part, scope, depth)
            if isinstance(part, (ast.Tuple, ast.List, ast.Dict)):
                wholes = [*wholes, part]
        for whole in wholes:
            yield from self._followed(Value(whole, scope, item=True), depth)
        # What the environment holds are strings.
        yield from (f"{base}[]" for base in self.origins(node, scope, depth) if base != "os.environ")

    def _result(self, call: ast.Call, scope: Scope, depth: int) -> Iterator[str]:
        """What a call may give: only what leads to things that others own, not what others make."""
        for function in self._callees(call, scope):
            for value in self.returns.get(function, ()):
                yield from self._followed(value, depth)
        match call.func:
            case ast.Attribute(
                value=container, attr="pop" | "popleft" | "popitem" | "get" | "setdefault" | "__getitem__"
            ):
                yield from self._followed(Value(container, scope, item=True), depth)
            case ast.Call(func=maker) if self.origins(maker, scope, depth) & GETTERS:
                for argument in call.args:
                    yield from (f"{origin}.?" for origin in self.origins(argument, scope, depth))
        for path in self.origins(call.func, scope, depth):
            if path in PASSERS:
                for argument in call.args:
                    yield from self.origins(argument, scope, depth)
                    yield from self._followed(Value(argument, scope, item=True), depth)
            match path, call.args:
                case "builtins.getattr", [base, name, *_]:
                    text = self.text(name, scope)
                    for origin in self.origins(base, scope, depth):
                        yield f"{origin}.{text if text is not None else '?'}"
                case "builtins.vars", [base]:
                    yield from (f"{origin}.__dict__" for origin in self.origins(base, scope, depth))
                case "builtins.type", [base] if not _is_first(base, scope):
                    yield CLASS_OF
                case "importlib.import_module", [name, *_]:
                    text = self.text(name, scope)
                    yield text if text is not None else "importlib.import_module.?"

    # Texts that are known without running anything.

    def text(self, node: ast.AST, scope: Scope, depth: int = 0) -> str | None:
        """The string that an expression gives, where the source alone tells."""
        if depth > DEPTH:
            return None
        match node:
            case ast.Constant(value=str() as value):
                return value
            case ast.Constant(value=bytes() as value):
                return value.decode("latin-1")
            case ast.BinOp(op=ast.Add()):
                left, right = self.text(node.left, scope, depth + 1), self.text(node.right, scope, depth + 1)
                return None if left is None or right is None else left + right
            case ast.JoinedStr():
                return self._joined("", node.values, scope, depth)
            case ast.FormattedValue(format_spec=None):
                return self.text(node.value, scope, depth + 1)
            case ast.Name():
                bindings = scope.find(node.id) or []
                if len(bindings) == 1 and isinstance(bindings[0], Value) and not bindings[0].item:
                    return self.text(bindings[0].node, bindings[0].scope, depth + 1)
            case ast.Subscript(value=base, slice=ast.Slice(lower=None, upper=None, step=ast.UnaryOp())):
                whole = self.text(base, scope, depth + 1)
                return None if whole is None else whole[::-1]
            case ast.Call(func=ast.Attribute(value=base, attr="join"), args=[ast.List() | ast.Tuple() as parts]):
                between = self.text(base, scope, depth + 1)
                return None if between is None else self._joined(between, parts.elts, scope, depth)
            case ast.Call(func=ast.Attribute(value=base, attr="lower" | "strip" | "decode" | "casefold" as method)):
                whole = self.text(base, scope, depth + 1)
                return whole if whole is None or method == "decode" else str(getattr(whole, method)())
            case ast.Call(func=ast.Attribute(value=base, attr="replace"), args=[old, new]):
                texts = [self.text(part, scope, depth + 1) for part in (base, old, new)]
                return texts[0].replace(texts[1], texts[2]) if all(texts[:2]) and texts[2] is not None else None  # type: ignore[union-attr, arg-type]
            case ast.Call(func=ast.Name(id="chr"), args=[ast.Constant(value=int() as code)]):
                return chr(code) if 0 <= code < 0x110000 else None
        return None

    def _joined(self, between: str, parts: list[ast.expr], scope: Scope, depth: int) -> str | None:
        texts = [self.text(part, scope, depth + 1) for part in parts]
        known = [text for text in texts if text is not None]
        return between.join(known) if len(known) == len(texts) else None

    def beginning(self, node: ast.AST, scope: Scope) -> str:
        """The part of a string expression's value that the source alone tells, from its start."""
        while True:
            known = self.text(node, scope)
            if known is not None:
                return known
            match node:
                case ast.BinOp(left=left):
                    node = left
                case ast.JoinedStr(values=[first, *_]):
                    node = first
                case _:
                    return ""


def _is_first(node: ast.AST, scope: Scope) -> bool:
    """Whether the expression is the `self` or `cls` of the method around it."""
    around: Scope | None = scope
    while around is not None:
        if around.first is not None:
            return isinstance(node, ast.Name) and node.id == around.first
        around = around.parent
    return False


def _is_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            pair = {ast.dump(left), ast.dump(right)}
            return pair == {ast.dump(ast.Name("__name__", ast.Load())), ast.dump(ast.Constant("__main__"))}
    return False
