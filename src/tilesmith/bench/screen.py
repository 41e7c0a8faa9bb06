"""What a candidate's syntax tree shows of tampering, before anything runs.

It follows names to where they come from: imports, assignments, parameters, containers, return values. What is reached
through an import belongs to others, and a candidate may read it and call it but not change it; a few doors lead out of
every fence, and it may not name them at all. Who does the arithmetic is no question for this file. What is decided only
at run time is `guard`'s.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SOURCE_CHARACTERS = 1 << 20
NODES = 100_000
"""More than any kernel has; so the time that a screening takes has a bound."""
DEPTH = 100
"""Steps that a name is followed from alias to alias; no honest one takes ten."""
STEPS = 300_000
"""Steps of following in all."""

MISCHIEF = _words(
    """
    _ctypes _posixsubprocess _thread _socket _winapi _xxsubinterpreters _testcapi _testinternalcapi asyncio asyncore
    atexit bdb cProfile cffi code codeop concurrent copyreg crypt ctypes curses dbm ensurepip faulthandler
    fcntl ftplib gc http imaplib imp linecache marshal mmap multiprocessing nntplib pdb pickle pickletools poplib posix
    profile pty readline resource runpy sched select selectors shelve shutil signal site smtplib socket socketserver
    sqlite3 ssl subprocess syslog telnetlib tempfile termios tkinter trace tracemalloc tty urllib venv webbrowser
    wsgiref xmlrpc zipimport
    """
)
"""Modules of the standard library that a kernel has no honest use for."""
LIBRARIES = _words("torch triton numpy einops packaging tqdm typing_extensions")
"""The modules beyond the standard library that a candidate may import."""
PARTS = _words(
    """
    numpy.ctypeslib numpy.distutils numpy.f2py torch._C._dynamo torch._dynamo torch._inductor torch._subclasses
    torch.autograd.profiler torch.cuda.cudart torch.cuda.memory.change_current_allocator torch.cuda.profiler
    torch.from_file torch._C.PyTorchFileReader
    torch._C.PyTorchFileWriter torch.hub torch.jit.load torch.jit.save torch.load torch.multiprocessing
    torch.jit.fork torch.ops.load_library torch.classes.load_library torch.overrides torch.package torch.profiler
    torch.save torch.serialization torch.utils._python_dispatch torch.utils._pytree torch.utils.benchmark
    torch.utils.collect_env torch.utils.cpp_extension torch.utils.swap_tensors torch._register_device_module torch._ops
    triton._C triton.backends.nvidia triton.profiler triton.runtime.build triton.runtime.cache
    triton.runtime.interpreter triton.tools.build_extern triton.tools.compile triton.tools.disasm triton.tools.link
    unittest.mock torch.distributed.TCPStore torch.distributed.FileStore torch.distributed.HashStore
    torch.distributed.PrefixStore torch.distributed.Store torch.distributed.init_process_group
    torch.distributed.init_device_mesh torch.distributed.device_mesh torch.distributed.distributed_c10d
    torch.distributed.elastic torch.distributed.launch torch.distributed.launcher torch.distributed.new_group
    torch.distributed.rendezvous torch.distributed.rpc torch.distributed.run torch._C._distributed_c10d
    """
)
"""Parts of what may be imported that start processes, load code, write files or switch the judge's instruments."""
HARMLESS_PARTS = _words(
    """
    torch._C._dynamo.guards torch._dynamo.disable torch._dynamo.testing torch._inductor.runtime
    torch.profiler.record_function torch.autograd.profiler.record_function
    """
)

ALLOWED = {
    "os": """
        path environ getenv cpu_count sched_getaffinity getcwd getpid sep linesep name fspath PathLike devnull curdir
        pardir extsep makedirs mkdir listdir scandir
    """,
    "sys": """
        version version_info maxsize platform byteorder implementation float_info int_info hash_info hexversion flags
        getsizeof getrecursionlimit intern stdout stderr exc_info
    """,
    "threading": "Lock RLock local get_ident",
    "importlib": "metadata import_module util.find_spec resources",
}
"""Of these modules, all that a candidate may use."""
REFUSED = {
    "inspect": """
        currentframe stack trace getouterframes getinnerframes getframeinfo getclosurevars getgeneratorlocals
        getcoroutinelocals getasyncgenlocals getmodule modulesbyfile
    """,
    "traceback": "walk_stack walk_tb extract_stack print_stack format_stack clear_frames",
    "types": "CodeType CellType FrameType TracebackType",
    "weakref": "finalize getweakrefs",
    "timeit": "timeit repeat Timer main",
    "doctest": "testmod testfile run_docstring_examples",
    "operator": "methodcaller",
    "typing": "get_type_hints ForwardRef",
    "logging": "setLoggerClass setLogRecordFactory config currentframe",
    "warnings": "showwarning formatwarning",
    "io": "open_code",
}
"""Of these modules, what a candidate may not use."""
_ALLOWED = {module: _words(names) for module, names in ALLOWED.items()}
_REFUSED = {module: _words(names) for module, names in REFUSED.items()}

SMUGGLED = _words(
    """
    os sys ctypes subprocess gc inspect importlib builtins threading socket multiprocessing pickle marshal atexit shutil
    tempfile mmap thread posix linecache
    """
)
"""Modules that others hold as attributes, perhaps after an underscore: `torch.os` is `os`, whatever the way to it."""

CALLS_OUT = _words("__import__ eval exec compile exit quit breakpoint input SystemExit help")
HIDDEN = _words("__builtins__ __loader__ __spec__ __build_class__")
ESCAPES = _words(
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
SET_BY_NOBODY = _words("__class__ __bases__ __code__ __defaults__ __kwdefaults__ __globals__")
CODE_FACTS = _words("co_argcount co_varnames co_name co_filename co_firstlineno co_kwonlyargcount")
MODULE_DUNDERS = _words("__all__ __version__ __author__ __doc__ __license__ __copyright__ __date__")
MUTATORS = _words(
    """
    append appendleft extend insert update setdefault clear pop popitem remove discard __setitem__
    __delitem__ __setattr__ __delattr__ __ior__ __iadd__
    """
)
WRITERS = _words("setitem delitem iadd ior iconcat __setitem__ __delitem__ __setattr__ __delattr__")

SETTER = re.compile(
    r"torch\.(\w+\.)*(_?set_(?!grad_enabled|printoptions|device\b|rng_state|$)\w+|enable_(?!grad)\w+"
    r"|use_deterministic\w*|preferred_\w+|register_module_\w+|\w+_enabled_set)"
    r"|triton\.knobs\..*|triton\.runtime\.driver\.(driver\.)?(re)?set_active"
)
"""Functions that change a setting of the whole process."""
PRIVATE = re.compile(
    r"torch\._C\..*([dD]ispatch|[mM]ode|[gG]uard|[dD]isable|[eE]xclude|[iI]nclude|[hH]ook|_set[_A-Z]|_push|_pop)"
)
"""Functions of torch's core that switch what watches operators."""
STORAGE = re.compile(r"torch\..*(_new_shared|_share_|_weak_ptr|from_data_pointer|_new_using|\.from_file|share_memory)")
"""Ways to memory that no tensor of the candidate owns, and to files past Python's own functions."""
PLACES = re.compile(r"/(proc|dev|sys)(/|$)(?!null$)")
SECRET = re.compile(
    r"(?!(TRITON|TORCH|CUDA|NVIDIA|PYTORCH)_)\w*(KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE)\w*", re.IGNORECASE
)
PASSERS = frozenset(
    f"builtins.{name}" for name in ("next", "max", "min", "iter", "reversed", "sorted", "filter")
) | _words(
    "copy.copy copy.deepcopy functools.reduce functools.partial typing.cast inspect.unwrap contextlib.nullcontext"
    " contextlib.closing itertools.chain itertools.cycle itertools.repeat weakref.ref weakref.proxy"
)
"""Functions that may hand back what they are given."""
NAMED = {
    "builtins.getattr": 1,
    "builtins.setattr": 1,
    "builtins.delattr": 1,
    "operator.attrgetter": 0,
    "importlib.import_module": 0,
}
"""Functions that take the name of an attribute or a module, and where."""
DECODERS = _words("decode fromhex b64decode b32decode a85decode unhexlify a2b_hex translate decompress chr maketrans")
"""What turns into a name what does not read like one."""
GETTERS = _words("operator.attrgetter operator.itemgetter")
HARMLESS_VARIABLES = re.compile(
    r"TRITON_PRINT_\w+|ENABLE_TMA|CUDA_LAUNCH_BLOCKING|CUDA_DEVICE_MAX_CONNECTIONS|TORCH_CUDA_ARCH_LIST|TORCH_LOGS"
    r"|TOKENIZERS_PARALLELISM|OMP_NUM_THREADS|MKL_NUM_THREADS|NCCL_\w+"
)
"""Variables of the environment that a candidate may set: they change what is printed, or nothing here."""
OTHERS_OPERATORS = re.compile(r"(aten|prims|prim|quantized|c10d\w*)(::.*)?$")

_BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("__") or name == "__import__")
_STANDARD = sys.stdlib_module_names
CLASS_OF = "the class of a value"
NO_ORIGIN: frozenset[str] = frozenset()


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
        reading = _Reading(tree)
        for node, scope in reading.places:
            reason = _fault(reading, node, scope)
            if reason is not None:
                line = getattr(node, "lineno", None)
                return reason if line is None else f"{reason} (line {line})"
    except _TooMuch as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply to be read"
    return None


def refused_import(module: str) -> str | None:
    """The reason for rejecting the import of a module or of a name from one, by its dotted name, or None."""
    top = module.partition(".")[0]
    if top == "tilesmith":
        return f"it imports {module}, which belongs to the judge"
    if top in MISCHIEF or (top.startswith("_") and top in _STANDARD and top != "__future__"):
        return f"it imports {top}"
    if top not in _STANDARD and top not in LIBRARIES:
        return f"it imports {top}, which is neither the framework nor the standard library"
    return refused_name(module)


def refused_name(path: str) -> str | None:
    """The reason for rejecting the use of what a dotted path from an import leads to, or None."""
    path = path.replace("[]", "")
    top, _, rest = path.partition(".")
    parts = rest.split(".") if rest else []
    if any(part.lstrip("_") in SMUGGLED for part in parts):
        return f"it uses {path}"
    if top in _ALLOWED and parts and not _allows(_ALLOWED[top], rest):
        return f"it uses {path}"
    if top in _REFUSED and parts and (parts[0] in _REFUSED[top] or parts[0] == "?"):
        return f"it uses {path}"
    heads = {".".join(path.split(".")[:end]) for end in range(2, len(parts) + 2)}
    if heads & HARMLESS_PARTS or any(name.startswith(f"{path}.") for name in HARMLESS_PARTS):
        return None
    if heads & PARTS:
        return f"it uses {path}"
    if PRIVATE.match(path) or STORAGE.match(path):
        return f"it uses {path}"
    return None


def _allows(names: frozenset[str], rest: str) -> bool:
    """Whether one of the names is the path, an inner part of it, or what it is on the way to."""
    return any(f"{rest}.".startswith(f"{name}.") or name.startswith(f"{rest}.") for name in names)


class _TooMuch(Exception):
    """The source is too large to be read in bounded time; the message says of what it has too much."""


@dataclass(eq=False, slots=True)
class _Value:
    """What a name is bound to: an expression, an item of one, or what a function of the source returns."""

    node: ast.AST
    scope: _Scope
    item: bool = False


_Binding = str | _Value | None
"""A path from an import; a value to be followed; or something of the source's own."""


@dataclass(eq=False, slots=True)
class _Scope:
    parent: _Scope | None
    is_class: bool = False
    names: dict[str, list[_Binding]] = field(default_factory=dict)
    elsewhere: dict[str, _Scope] = field(default_factory=dict)
    """Names that `global` or `nonlocal` sends to another scope."""
    first: str | None = None
    """The first parameter of a method: `self` or `cls`."""

    def bind(self, name: str, binding: _Binding) -> None:
        self.elsewhere.get(name, self).names.setdefault(name, []).append(binding)

    def find(self, name: str) -> list[_Binding] | None:
        scope: _Scope | None = self.elsewhere.get(name, self)
        while scope is not None:
            if name in scope.names and (scope is self or not scope.is_class):
                return scope.names[name]
            scope = scope.parent
        return None


_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class _Reading:
    """A syntax tree with its scopes, and where each expression's value may come from."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = _Scope(None)
        self.places: list[tuple[ast.AST, _Scope]] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.returns: dict[ast.AST, list[_Value]] = {}
        self.methods: dict[str, list[_Function]] = {}
        self.bodies: dict[ast.AST, _Scope] = {}
        self.attributes: dict[str, list[_Binding]] = {}
        """What the source hangs on its own objects, by the attribute's name."""
        self._known: dict[tuple[ast.AST, bool], frozenset[str]] = {}
        self._open: set[tuple[ast.AST, bool]] = set()
        self._cuts = 0
        self._steps = 0
        self._read(tree)
        self._pass_arguments()

    # Reading: one walk, no recursion, so that depth costs nothing.

    def _read(self, tree: ast.Module) -> None:
        stack: list[tuple[ast.AST, _Scope, ast.AST | None]] = [(tree, self.module, None)]
        while stack:
            node, scope, function = stack.pop()
            self.places.append((node, scope))
            if len(self.places) > NODES:
                raise _TooMuch(f"it has more than {NODES} syntax nodes")
            children = list(self._enter(node, scope, function))
            for child, _, _ in children:
                self.parents[child] = node
            stack.extend(reversed(children))

    def _enter(
        self, node: ast.AST, scope: _Scope, function: ast.AST | None
    ) -> Iterator[tuple[ast.AST, _Scope, ast.AST | None]]:
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
                scope.bind(node.name, _Value(node, scope))
                inner = _Scope(scope, is_class=True)
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
                    names = _starred(str(node.module)) if alias.name == "*" else [alias.asname or alias.name]
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
                    self._bind(target, _Value(node.value, scope), scope)
            case ast.AnnAssign() | ast.NamedExpr() if node.value is not None:
                self._bind(node.target, _Value(node.value, scope), scope)
            case ast.AugAssign():
                self._bind(node.target, _Value(node.value, scope), scope)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                self._bind(node.target, _Value(node.iter, scope, item=True), scope)
            case ast.withitem() if node.optional_vars is not None:
                self._bind(node.optional_vars, _Value(node.context_expr, scope), scope)
            case ast.ExceptHandler() if node.name:
                scope.bind(node.name, None)
            case ast.Match():
                for case in node.cases:
                    for pattern in ast.walk(case.pattern):
                        if isinstance(pattern, (ast.MatchAs, ast.MatchStar)) and pattern.name:
                            scope.bind(pattern.name, _Value(node.subject, scope))
            case ast.Return() | ast.Yield() if function is not None and node.value is not None:
                self.returns.setdefault(function, []).append(_Value(node.value, scope))
        yield from ((child, inner, function) for child in ast.iter_child_nodes(node))

    def _function(self, node: _Function, scope: _Scope) -> _Scope:
        inner = _Scope(scope)
        self.bodies[node] = inner
        arguments = [*node.args.posonlyargs, *node.args.args]
        for argument in [*arguments, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]:
            if argument is not None:
                inner.bind(argument.arg, None)
        for argument, default in zip(reversed(arguments), reversed(node.args.defaults), strict=False):
            inner.bind(argument.arg, _Value(default, scope))
        for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                inner.bind(argument.arg, _Value(value, scope))
        if isinstance(node, ast.Lambda):
            self.returns[node] = [_Value(node.body, inner)]
        else:
            scope.bind(node.name, _Value(node, scope))
            if scope.is_class:
                self.methods.setdefault(node.name, []).append(node)
                inner.first = arguments[0].arg if arguments else None
        return inner

    def _name(self, scope: _Scope, name: str, binding: _Binding) -> None:
        scope.bind(name, binding)
        if scope.is_class:
            self.attributes.setdefault(name, []).append(binding)

    def _bind(self, target: ast.AST, value: _Value, scope: _Scope) -> None:
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
                        self._bind(part, _Value(element, value.scope), scope)
                else:
                    for part in target.elts:
                        self._bind(part, _Value(whole, value.scope, item=True), scope)

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
                    inner.bind(argument.arg, _Value(value, scope))
                if function.args.vararg is not None:
                    rest = ast.Tuple(node.args[len(arguments) :], ast.Load())
                    inner.bind(function.args.vararg.arg, _Value(rest, scope))
                if function.args.kwarg is not None:
                    values = ast.Tuple([keyword.value for keyword in node.keywords], ast.Load())
                    inner.bind(function.args.kwarg.arg, _Value(values, scope))
                for keyword in node.keywords:
                    if keyword.arg is not None and keyword.arg in inner.names:
                        inner.bind(keyword.arg, _Value(keyword.value, scope))

    def _pass_fields(self, call: ast.Call, scope: _Scope) -> None:
        """Arguments by which a call may set the fields of an object, as data classes and namespaces do."""
        for keyword in call.keywords:
            if keyword.arg is not None:
                self.attributes.setdefault(keyword.arg, []).append(_Value(keyword.value, scope))
        for each in self._bound_nodes(call.func, scope):
            if isinstance(each, ast.ClassDef):
                fields = [part.target for part in each.body if isinstance(part, ast.AnnAssign)]
                for target, value in zip(fields, call.args, strict=False):
                    if isinstance(target, ast.Name):
                        self.attributes.setdefault(target.id, []).append(_Value(value, scope))

    def _is_method(self, function: _Function) -> bool:
        return any(function in each for each in self.methods.values())

    def _bound_nodes(self, node: ast.AST, scope: _Scope) -> list[ast.AST]:
        """What of the source a name stands for: functions and classes."""
        bindings = scope.find(node.id) if isinstance(node, ast.Name) else None
        return [binding.node for binding in bindings or () if isinstance(binding, _Value) and not binding.item]

    def is_plain(self, call: ast.Call, scope: _Scope) -> bool:
        """Whether what becomes of a call's arguments is followed here."""
        known = {"builtins.getattr", "builtins.hasattr", "builtins.print"}
        called = self.origins(call.func, scope)
        return bool(self._callees(call, scope)) or (bool(called) and called <= known)

    def _callees(self, call: ast.Call, scope: _Scope) -> Iterable[_Function]:
        """The source's own functions that a call may call, by name."""
        if isinstance(call.func, ast.Attribute):
            return self.methods.get(call.func.attr, ())
        if isinstance(call.func, ast.Lambda):
            return (call.func,)
        found: list[_Function] = []
        for node in self._bound_nodes(call.func, scope):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                found.append(node)
            elif isinstance(node, ast.ClassDef):
                starts = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
                found.extend(starts)
        return found

    # Following values to imports.

    def origins(self, node: ast.AST, scope: _Scope, depth: int = 0) -> frozenset[str]:
        """Paths from imports or built-in names that the expression's value may be; nothing for the source's own."""
        return self._followed(_Value(node, scope), depth)

    def _followed(self, value: _Value, depth: int) -> frozenset[str]:
        """The origins of a value, each computed once; a circle of names adds nothing to itself."""
        key = (value.node, value.item)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            self._cuts += 1
            return NO_ORIGIN
        self._steps += 1
        if depth > DEPTH or self._steps > STEPS:
            raise _TooMuch("its names lead from one to another too often to be followed")
        cuts = self._cuts
        self._open.add(key)
        follow = self._items if value.item else self._origins
        found = frozenset(follow(value.node, value.scope, depth + 1))
        self._open.discard(key)
        if self._cuts == cuts or not self._open:
            self._known[key] = found
        return found

    def _bound(self, bindings: Iterable[_Binding], depth: int) -> Iterator[str]:
        for binding in bindings:
            if isinstance(binding, str):
                yield binding
            elif binding is not None:
                yield from self._followed(binding, depth)

    def _origins(self, node: ast.AST, scope: _Scope, depth: int) -> Iterator[str]:
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
                yield from self._followed(_Value(node.value, scope, item=True), depth)
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

    def _items(self, node: ast.AST, scope: _Scope, depth: int) -> Iterator[str]:
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
                    if isinstance(binding, _Value):
                        yield from self._followed(_Value(binding.node, binding.scope, item=True), depth)
        for part in parts:
            yield from self.origins(part, scope, depth)
            if isinstance(part, (ast.Tuple, ast.List, ast.Dict)):
                wholes = [*wholes, part]
        for whole in wholes:
            yield from self._followed(_Value(whole, scope, item=True), depth)
        # What the environment holds are strings.
        yield from (f"{base}[]" for base in self.origins(node, scope, depth) if base != "os.environ")

    def _result(self, call: ast.Call, scope: _Scope, depth: int) -> Iterator[str]:
        """What a call may give: only what leads to things that others own, not what others make."""
        for function in self._callees(call, scope):
            for value in self.returns.get(function, ()):
                yield from self._followed(value, depth)
        match call.func:
            case ast.Attribute(
                value=container, attr="pop" | "popleft" | "popitem" | "get" | "setdefault" | "__getitem__"
            ):
                yield from self._followed(_Value(container, scope, item=True), depth)
            case ast.Call(func=maker) if self.origins(maker, scope, depth) & GETTERS:
                for argument in call.args:
                    yield from (f"{origin}.?" for origin in self.origins(argument, scope, depth))
        for path in self.origins(call.func, scope, depth):
            if path in PASSERS:
                for argument in call.args:
                    yield from self.origins(argument, scope, depth)
                    yield from self._followed(_Value(argument, scope, item=True), depth)
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

    def text(self, node: ast.AST, scope: _Scope, depth: int = 0) -> str | None:
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
                if len(bindings) == 1 and isinstance(bindings[0], _Value) and not bindings[0].item:
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

    def _joined(self, between: str, parts: list[ast.expr], scope: _Scope, depth: int) -> str | None:
        texts = [self.text(part, scope, depth + 1) for part in parts]
        known = [text for text in texts if text is not None]
        return between.join(known) if len(known) == len(texts) else None

    def beginning(self, node: ast.AST, scope: _Scope) -> str:
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


def _fault(reading: _Reading, node: ast.AST, scope: _Scope) -> str | None:
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
        if node.module.partition(".")[0] in _ALLOWED:
            return f"it imports everything from {node.module}"
        return refused_import(node.module)
    return _first(
        reason for alias in node.names if (reason := refused_import(f"{node.module}.{alias.name}")) is not None
    )


def _name(reading: _Reading, node: ast.Name, scope: _Scope) -> str | None:
    if node.id in HIDDEN:
        return f"it uses {node.id}"
    if not isinstance(node.ctx, ast.Load):
        home = scope.elsewhere.get(node.id, scope)
        dunder = node.id.startswith("__") and node.id.endswith("__")
        if dunder and home is reading.module and node.id not in MODULE_DUNDERS:
            return f"it sets {node.id}"
        return None
    return _use(reading, node, scope)


def _attribute(reading: _Reading, node: ast.Attribute, scope: _Scope) -> str | None:
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


def _harmless_escape(reading: _Reading, node: ast.Attribute) -> bool:
    """Whether the name leads nowhere after all: a function's own argument names."""
    parent = reading.parents.get(node)
    return node.attr == "__code__" and isinstance(parent, ast.Attribute) and parent.attr in CODE_FACTS


def _written(reading: _Reading, node: ast.Attribute | ast.Subscript, scope: _Scope) -> str | None:
    """The reason for rejecting an assignment to, or the deletion of, what stands at the node."""
    verb = "deletes" if isinstance(node.ctx, ast.Del) else "replaces"
    for base in sorted(reading.origins(node.value, scope)):
        if base == "os.environ" and isinstance(node, ast.Subscript):
            continue
        if base.endswith(CLASS_OF):
            return f"it {verb} what belongs to the class of a value"
        return f"it {verb} {base}.{node.attr}" if isinstance(node, ast.Attribute) else f"it {verb} an item of {base}"
    return None


def _use(reading: _Reading, node: ast.Name | ast.Attribute, scope: _Scope) -> str | None:
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
            (path in _ALLOWED or path == "builtins")
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
            reason = refused_name(path) if top in _STANDARD or top in LIBRARIES else None
        if reason is not None:
            return reason
    return None


def _environment(reading: _Reading, node: ast.AST, parent: ast.AST | None, scope: _Scope) -> str | None:
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


def _setting(reading: _Reading, key: ast.AST, scope: _Scope) -> str | None:
    """The reason for rejecting the setting of a variable; a few steer nothing that anyone relies on."""
    name = reading.text(key, scope)
    return None if name is not None and HARMLESS_VARIABLES.fullmatch(name) else "it changes the environment"


def _variable(reading: _Reading, arguments: list[ast.expr], scope: _Scope) -> str | None:
    """The reason for rejecting the reading of a variable of the environment; computed names are found by their text."""
    name = reading.text(arguments[0], scope) if arguments else None
    if name is not None:
        return f"it reads {name} from the environment" if SECRET.fullmatch(name) else None
    for node, _ in reading.places:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SECRET.fullmatch(node.value):
            return f"it may read {node.value} from the environment"
    return None


def _call(reading: _Reading, node: ast.Call, scope: _Scope) -> str | None:
    return (
        _first(_called(reading, node, scope, path) for path in sorted(reading.origins(node.func, scope)))
        or _mutation(reading, node, scope)
        or _put_together(reading, node, scope)
    )


def _disguised(node: ast.AST, scope: _Scope) -> bool:
    """Whether a name is decoded from something that hides it."""
    seen: set[ast.AST] = {node}
    waiting: list[tuple[ast.AST, _Scope]] = [(node, scope)]
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
                if isinstance(binding, _Value) and binding.node not in seen:
                    seen.add(binding.node)
                    waiting.append((binding.node, binding.scope))
    return False


def _called(reading: _Reading, node: ast.Call, scope: _Scope, path: str) -> str | None:
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


def _operator(reading: _Reading, arguments: list[ast.expr], scope: _Scope) -> str | None:
    """The reason for rejecting the registration of an operator under this name."""
    name = reading.beginning(arguments[0], scope) if arguments else ""
    if OTHERS_OPERATORS.match(name):
        return f"it replaces an operator of {name.partition(':')[0]}"
    return None


def _namespace(reading: _Reading, node: ast.Call, scope: _Scope, name: str) -> str | None:
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


def _mutation(reading: _Reading, node: ast.Call, scope: _Scope) -> str | None:
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


def _put_together(reading: _Reading, node: ast.Call, scope: _Scope) -> str | None:
    whole = reading.text(node, scope)
    if whole is not None and (whole in ESCAPES | HIDDEN or PLACES.match(whole)):
        return f"it puts together the name {whole!r}"
    return None


def _starred(module: str) -> list[str]:
    """What a star import from the module may bring of what is refused."""
    parts = (part.rpartition(".") for part in PARTS)
    return [*_REFUSED.get(module, ()), *(name for home, _, name in parts if home == module)]


def _is_class(path: str) -> bool:
    return path.rpartition(".")[2][:1].isupper()


def _is_first(node: ast.AST, scope: _Scope) -> bool:
    """Whether the expression is the `self` or `cls` of the method around it."""
    around: _Scope | None = scope
    while around is not None:
        if around.first is not None:
            return isinstance(node, ast.Name) and node.id == around.first
        around = around.parent
    return False


def _is_called(reading: _Reading, node: ast.AST) -> bool:
    parent = reading.parents.get(node)
    return isinstance(parent, ast.Call) and parent.func is node


def _is_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            pair = {ast.dump(left), ast.dump(right)}
            return pair == {ast.dump(ast.Name("__name__", ast.Load())), ast.dump(ast.Constant("__main__"))}
    return False


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
