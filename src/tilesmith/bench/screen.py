"""What a candidate's syntax tree shows of tampering, before anything runs.

Names are followed to where they come from (`reading`). What is reached through an import belongs to others, and a
candidate may read it and call it but not change it; a few doors lead out of every fence, and it may not name them at
all. Who does the arithmetic is no question for this file. What is decided only at run time is `guard`'s.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable

from tilesmith.bench.forbidden import (
    ALLOWED,
    HARMLESS_VARIABLES,
    LIBRARIES,
    STANDARD,
    refused_import,
    refused_name,
    words,
)
from tilesmith.bench.reading import CLASS_OF, NO_ORIGIN, Reading, Scope, TooMuch, Value

SOURCE_CHARACTERS = 1 << 20
CALLS_OUT = words("__import__ eval exec compile exit quit breakpoint input SystemExit help")
HIDDEN = words("__builtins__ __loader__ __spec__ __build_class__")
ESCAPES = words(
    """
    f_back f_locals f_globals f_builtins f_code f_trace tb_frame gi_frame gi_code cr_frame cr_code ag_frame ag_code
    __globals__ __closure__ __code__ __builtins__ __subclasses__ __mro__ __bases__ __base__ __loader__ __spec__
    __import__ __getattribute__ __reduce__ __reduce_ex__ __kwdefaults__ __defaults__ cell_contents _getframe
    _current_frames settrace setprofile addaudithook _exit mro _write_file _set_from_file _new_with_file
    _new_shared_cuda _new_shared_fd_cpu _share_cuda_ _share_fd_cpu_ _share_filename_cpu_ share_memory_ _weak_ref
    _new_with_weak_ptr
    """
)
"""Names that lead from any object to frames, code, other classes, foreign memory or out of the process."""
SET_BY_NOBODY = words("__class__ __bases__ __code__ __defaults__ __kwdefaults__ __globals__")
CODE_FACTS = words("co_argcount co_varnames co_name co_filename co_firstlineno co_kwonlyargcount")
MODULE_DUNDERS = words("__all__ __version__ __author__ __doc__ __license__ __copyright__ __date__")
MUTATORS = words(
    """
    append appendleft extend insert update setdefault clear pop popitem remove discard __setitem__
    __delitem__ __setattr__ __delattr__ __ior__ __iadd__
    """
)
WRITERS = words("setitem delitem iadd ior iconcat __setitem__ __delitem__ __setattr__ __delattr__")

SETTER = re.compile(
    r"torch\.(\w+\.)*(_?set_(?!grad_enabled|printoptions|device\b|rng_state|$)\w+|enable_(?!grad)\w+"
    r"|use_deterministic\w*|preferred_\w+|register_module_\w+|\w+_enabled_set)"
    r"|triton\.knobs\..*|triton\.runtime\.driver\.(driver\.)?(re)?set_active"
)
"""Functions that change a setting of the whole process."""
PLACES = re.compile(r"/(proc|dev|sys)(/|$)(?!null$)")
SECRET = re.compile(
    r"(?!(TRITON|TORCH|CUDA|NVIDIA|PYTORCH)_)\w*(KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE)\w*", re.IGNORECASE
)
NAMED = {
    "builtins.getattr": 1,
    "builtins.setattr": 1,
    "builtins.delattr": 1,
    "operator.attrgetter": 0,
    "importlib.import_module": 0,
}
"""Functions that take the name of an attribute or a module, and where."""
DECODERS = words("decode fromhex b64decode b32decode a85decode unhexlify a2b_hex translate decompress chr maketrans")
"""What turns into a name what does not read like one."""
OTHERS_OPERATORS = re.compile(r"(aten|prims|prim|quantized|c10d\w*)(::.*)?$")


def screen(source: str) -> str | None:
    """The reason for rejecting a source by its syntax tree, or None. Executes nothing.

    Bounded in time and depth: a source that is too long or nested too deeply is a reason, too. One that cannot be
    parsed is not: whoever loads it says so better.
    """
    if len(source) > SOURCE_CHARACTERS:
        return f"it is longer than {SOURCE_CHARACTERS} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    except (RecursionError, MemoryError):
        return "it is nested too deeply to be read"
    try:
        reading = Reading(tree)
        for node, scope in reading.places:
            reason = _fault(reading, node, scope)
            if reason is not None:
                line = getattr(node, "lineno", None)
                return reason if line is None else f"{reason} (line {line})"
    except TooMuch as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply to be read"
    return None


def _fault(reading: Reading, node: ast.AST, scope: Scope) -> str | None:
    """The reason for rejecting what stands at one node, or None."""
    match node:
        case ast.Import():
            return _first(refused_import(alias.name) for alias in node.names)
        case ast.ImportFrom():
            return _import_from(node)
        case ast.Name():
            return _name(reading, node, scope)
        case ast.Attribute():
            return _attribute(reading, node, scope)
        case ast.Subscript() if not isinstance(node.ctx, ast.Load):
            return _written(reading, node, scope)
        case ast.Call():
            return _call(reading, node, scope)
        case ast.Constant(value=str() as text):
            if PLACES.match(text):
                return f"it names {text}"
            return f"it names {text!r}" if text in ESCAPES | HIDDEN and text != "mro" else None
        case ast.BinOp(op=ast.Add()) | ast.JoinedStr():
            whole = reading.text(node, scope)
            if whole is not None and (whole in ESCAPES | HIDDEN or PLACES.match(whole)):
                return f"it puts together the name {whole!r}"
    return None


def _import_from(node: ast.ImportFrom) -> str | None:
    if node.level or node.module is None:
        return "it imports from a package around it, which it has not"
    if any(alias.name == "*" for alias in node.names):
        if node.module.partition(".")[0] in ALLOWED:
            return f"it imports everything from {node.module}"
        return refused_import(node.module)
    return _first(
        reason for alias in node.names if (reason := refused_import(f"{node.module}.{alias.name}")) is not None
    )


def _name(reading: Reading, node: ast.Name, scope: Scope) -> str | None:
    if node.id in HIDDEN:
        return f"it uses {node.id}"
    if not isinstance(node.ctx, ast.Load):
        home = scope.elsewhere.get(node.id, scope)
        dunder = node.id.startswith("__") and node.id.endswith("__")
        if dunder and home is reading.module and node.id not in MODULE_DUNDERS:
            return f"it sets {node.id}"
        return None
    return _use(reading, node, scope)


def _attribute(reading: Reading, node: ast.Attribute, scope: Scope) -> str | None:
    if not isinstance(node.ctx, ast.Load):
        if node.attr in SET_BY_NOBODY:
            return f"it sets the {node.attr} of an object"
        return _written(reading, node, scope)
    if node.attr in ESCAPES and not _harmless_escape(reading, node):
        return f"it uses {node.attr}"
    if node.attr in ("__setattr__", "__delattr__") and not _is_called(reading, node):
        return f"it hands {node.attr} on"
    if node.attr == "ctypes":
        return "it uses ctypes"
    return _use(reading, node, scope)


def _harmless_escape(reading: Reading, node: ast.Attribute) -> bool:
    """Whether the name leads nowhere after all: a function's own argument names."""
    parent = reading.parents.get(node)
    return node.attr == "__code__" and isinstance(parent, ast.Attribute) and parent.attr in CODE_FACTS


def _written(reading: Reading, node: ast.Attribute | ast.Subscript, scope: Scope) -> str | None:
    """The reason for rejecting an assignment to, or the deletion of, what stands at the node."""
    verb = "deletes" if isinstance(node.ctx, ast.Del) else "replaces"
    for base in sorted(reading.origins(node.value, scope)):
        if base == "os.environ" and isinstance(node, ast.Subscript):
            continue
        if base.endswith(CLASS_OF):
            return f"it {verb} what belongs to the class of a value"
        return f"it {verb} {base}.{node.attr}" if isinstance(node, ast.Attribute) else f"it {verb} an item of {base}"
    return None


def _use(reading: Reading, node: ast.Name | ast.Attribute, scope: Scope) -> str | None:
    """The reason for rejecting the use of what a name or an attribute gives, or None."""
    parent = reading.parents.get(node)
    for path in sorted(reading.origins(node, scope)):
        top, _, name = path.partition(".")
        if top == "builtins" and name:
            if name in CALLS_OUT:
                return f"it uses {name}"
            if name.startswith("__") and name != "__import__":
                return f"it uses builtins.{name}"
            if name in ("setattr", "delattr") and not _is_called(reading, node):
                return f"it hands {name} on"
            continue
        if (
            (path in ALLOWED or path == "builtins")
            and isinstance(parent, ast.Call)
            and not reading.is_plain(parent, scope)
        ):
            return f"it hands {path} on"
        if path == "os.environ":
            reason = _environment(reading, node, parent, scope)
        elif path in ("sys.stdout", "sys.stderr"):
            said = isinstance(parent, ast.Attribute) and parent.attr in ("write", "flush", "isatty", "writable")
            reason = None if said or isinstance(parent, ast.keyword) else f"it takes hold of {path}"
        elif ".__dict__" in path:
            reason = f"it uses {path}"
        else:
            reason = refused_name(path) if top in STANDARD or top in LIBRARIES else None
        if reason is not None:
            return reason
    return None


def _environment(reading: Reading, node: ast.AST, parent: ast.AST | None, scope: Scope) -> str | None:
    match parent:
        case ast.Attribute(attr="get"):
            call = reading.parents.get(parent)
            return _variable(reading, call.args, scope) if isinstance(call, ast.Call) else "it reads the environment"
        case ast.Subscript(ctx=ast.Load(), slice=key) if parent.value is node:
            return _variable(reading, [key], scope)
        case ast.Subscript(ctx=ast.Store(), slice=key) if parent.value is node:
            return _setting(reading, key, scope)
        case ast.Attribute(attr="setdefault"):
            call = reading.parents.get(parent)
            key = call.args[0] if isinstance(call, ast.Call) and call.args else parent
            return _setting(reading, key, scope)
        case ast.Subscript() | ast.Attribute(attr="update" | "pop" | "clear" | "__setitem__"):
            return "it changes the environment"
        case ast.Compare(ops=[ast.In() | ast.NotIn()]) if parent.left is not node:
            return None
        case ast.Assign() | ast.NamedExpr() | ast.AnnAssign():
            return None
    return "it reads the whole environment"


def _setting(reading: Reading, key: ast.AST, scope: Scope) -> str | None:
    """The reason for rejecting the setting of a variable; a few steer nothing that anyone relies on."""
    name = reading.text(key, scope)
    return None if name is not None and HARMLESS_VARIABLES.fullmatch(name) else "it changes the environment"


def _variable(reading: Reading, arguments: list[ast.expr], scope: Scope) -> str | None:
    """The reason for rejecting the reading of a variable of the environment; computed names are found by their text."""
    name = reading.text(arguments[0], scope) if arguments else None
    if name is not None:
        return f"it reads {name} from the environment" if SECRET.fullmatch(name) else None
    for node, _ in reading.places:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SECRET.fullmatch(node.value):
            return f"it may read {node.value} from the environment"
    return None


def _call(reading: Reading, node: ast.Call, scope: Scope) -> str | None:
    return (
        _first(_called(reading, node, scope, path) for path in sorted(reading.origins(node.func, scope)))
        or _mutation(reading, node, scope)
        or _put_together(reading, node, scope)
    )


def _disguised(node: ast.AST, scope: Scope) -> bool:
    """Whether a name is decoded from something that hides it."""
    seen: set[ast.AST] = {node}
    waiting: list[tuple[ast.AST, Scope]] = [(node, scope)]
    while waiting:
        whole, home = waiting.pop()
        for part in ast.walk(whole):
            if isinstance(part, ast.Attribute) and part.attr in DECODERS:
                return True
            if not isinstance(part, ast.Name):
                continue
            bindings = home.find(part.id)
            if bindings is None and part.id in DECODERS:
                return True
            for binding in bindings or ():
                if isinstance(binding, str) and binding.rpartition(".")[2] in DECODERS:
                    return True
                if isinstance(binding, Value) and binding.node not in seen:
                    seen.add(binding.node)
                    waiting.append((binding.node, binding.scope))
    return False


def _called(reading: Reading, node: ast.Call, scope: Scope, path: str) -> str | None:
    """The reason for rejecting a call of what the path leads to."""
    arguments = node.args
    if path in NAMED and any(_disguised(argument, scope) for argument in arguments[NAMED[path] :][:1]):
        return f"it hides the name that it hands to {path.rpartition('.')[2]}"
    first = reading.origins(arguments[0], scope) if arguments else NO_ORIGIN
    starred = any(isinstance(argument, ast.Starred) for argument in arguments[:2])
    match path:
        case "builtins.setattr" | "builtins.delattr":
            if starred:
                return f"it hides what {path.partition('.')[2]} changes"
            verb = "replaces" if path.endswith("setattr") else "deletes"
            what = (reading.text(arguments[1], scope) if len(arguments) > 1 else None) or "an attribute"
            if what in SET_BY_NOBODY:
                return f"it sets the {what} of an object"
            return _first(f"it {verb} {what} of {origin}" for origin in sorted(first))
        case "builtins.getattr" | "builtins.hasattr" if len(arguments) > 1:
            text = reading.text(arguments[1], scope)
            if text in ESCAPES | HIDDEN or (text in CALLS_OUT and "builtins" in first):
                return f"it uses {text}"
            for origin in sorted(first):
                reason = refused_name(f"{origin}.{text or '?'}") if not origin.startswith("builtins") else None
                if reason is not None or (text is None and origin.startswith("builtins")):
                    return reason or f"it looks up a name in {origin}"
        case "builtins.vars" if arguments:
            return _first(f"it opens the namespace of {origin}" for origin in sorted(first))
        case "builtins.globals" | "builtins.locals" | "builtins.vars":
            return _namespace(reading, node, scope, path.partition(".")[2])
        case "os.getenv":
            return _variable(reading, arguments, scope)
        case "importlib.import_module":
            name = reading.text(arguments[0], scope) if arguments else None
            return "it imports a module by a computed name" if name is None else refused_import(name)
        case "types.FunctionType" | "types.LambdaType" | "types.ModuleType":
            return f"it makes a {path.partition('.')[2]}"
        case "torch.library.Library" | "torch.library.impl" | "torch.library.define" | "torch.library.custom_op":
            return _operator(reading, arguments, scope)
        case "torch.library.register_kernel" | "torch.library.register_fake" | "torch.library.register_autograd":
            return _operator(reading, arguments, scope)
    if path.rpartition(".")[2] in WRITERS:
        return _first(f"it changes {origin}" for origin in sorted(first))
    if SETTER.fullmatch(path):
        return f"it changes a setting of the whole process with {path}"
    return None


def _operator(reading: Reading, arguments: list[ast.expr], scope: Scope) -> str | None:
    """The reason for rejecting the registration of an operator under this name."""
    name = reading.beginning(arguments[0], scope) if arguments else ""
    if OTHERS_OPERATORS.match(name):
        return f"it replaces an operator of {name.partition(':')[0]}"
    return None


def _namespace(reading: Reading, node: ast.Call, scope: Scope, name: str) -> str | None:
    """The module's own names may be looked up and set one by one, by a name that is no dunder."""
    parent = reading.parents.get(node)
    key: ast.AST | None = None
    match parent:
        case ast.Subscript(slice=key) if parent.value is node:
            pass
        case ast.Attribute(attr="get"):
            call = reading.parents.get(parent)
            key = call.args[0] if isinstance(call, ast.Call) and call.args else None
        case ast.Compare(ops=[ast.In() | ast.NotIn()]):
            return None
    beginning = reading.beginning(key, scope) if key is not None else ""
    if beginning and not beginning.startswith("_" * 2):
        return None
    return f"it opens its namespace with {name}()"


def _mutation(reading: Reading, node: ast.Call, scope: Scope) -> str | None:
    """The reason for rejecting a method call that changes what an import leads to."""
    if not isinstance(node.func, ast.Attribute):
        return None
    method, base = node.func.attr, node.func.value
    first = reading.origins(node.args[0], scope) if node.args else NO_ORIGIN
    for path in sorted(reading.origins(base, scope)):
        top, _, rest = path.partition(".")
        if path == "os.environ":
            continue
        if method in MUTATORS and top != "builtins" and rest and not rest.startswith("ops.") and not _is_class(path):
            return f"it changes {path} with {method}"
        if (method in MUTATORS | WRITERS) and (top in ("builtins", "operator", "collections") or _is_class(path)):
            for origin in sorted(first):
                return f"it changes {origin} with {method}"
    if method in WRITERS and method.startswith("__"):
        return _first(f"it changes {origin} with {method}" for origin in sorted(first))
    return None


def _put_together(reading: Reading, node: ast.Call, scope: Scope) -> str | None:
    whole = reading.text(node, scope)
    if whole is not None and (whole in ESCAPES | HIDDEN or PLACES.match(whole)):
        return f"it puts together the name {whole!r}"
    return None


def _is_class(path: str) -> bool:
    return path.rpartition(".")[2][:1].isupper()


def _is_called(reading: Reading, node: ast.AST) -> bool:
    parent = reading.parents.get(node)
    return isinstance(parent, ast.Call) and parent.func is node


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
