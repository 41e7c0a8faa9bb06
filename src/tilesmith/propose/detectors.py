"""What compiled code, launches and syntax tree show of a kernel's techniques, each read by one function.

Nothing depends on the names that an author chose or on comments. A detector that finds nothing says no: in doubt a
kernel has a technique less.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from math import prod

from tilesmith.propose.knobs import mask_of
from tilesmith.propose.program import MEMORY, Jit, Program, named, names

Detector = Callable[[Program], bool]

FUNCTIONS = frozenset(
    {"abs", "cos", "div_rn", "erf", "exp", "exp2", "log", "log2", "maximum", "minimum", "relu", "rsqrt", "sigmoid"}
    | {"silu", "sin", "softmax", "sqrt", "tanh", "where"}
)
"""Element-wise work on what a loop computed."""


def _compiled(*features: str) -> Detector:
    """Some launch's code holds one of these; see `Launch.features`."""
    return lambda program: any(feature in launch.features for launch in program.launches for feature in features)


@lru_cache(maxsize=64)
def _functions(program: Program) -> tuple[Jit, ...]:
    """Every kernel, and every function for kernels: those too that no rewrite understands."""
    known = {id(kernel.node): kernel for kernel in program.kernels}
    return tuple(
        known.get(id(node)) or Jit(node, frozenset(), None, ())
        for node in ast.walk(program.tree)
        if isinstance(node, ast.FunctionDef) and any(_last(decorator) == "jit" for decorator in node.decorator_list)
    )


def _last(decorator: ast.expr) -> str | None:
    """ "jit" for `triton.jit`, `jit` and either with arguments."""
    inner = decorator.func if isinstance(decorator, ast.Call) else decorator
    return inner.attr if isinstance(inner, ast.Attribute) else named(inner)


def _language(program: Program) -> bool:
    return program.module("triton.language") is not None


def _calls(program: Program, *wanted: str) -> bool:
    return any(any(program.calls(function.node, *wanted)) for function in _tl(program))


def _tl(program: Program) -> tuple[Jit, ...]:
    """The functions whose calls into `tl` can be told."""
    return _functions(program) if _language(program) else ()


def _gluon(*attributes: str) -> Detector:
    """A name of Gluon's language, as `gl.allocate_shared_memory`."""

    def seen(program: Program) -> bool:
        alias = program.module("triton.experimental.gluon.language")
        return alias is not None and any(
            isinstance(node, ast.Attribute) and node.attr in attributes and ast.unparse(node.value) == alias
            for node in ast.walk(program.tree)
        )

    return seen


def _any(*detectors: Detector) -> Detector:
    return lambda program: any(detector(program) for detector in detectors)


def _partial_sums(program: Program) -> bool:
    """One launch stores to a tensor of the host that a later one loads."""
    written: set[str] = set()
    for site in sorted(program.sites, key=lambda s: s.call.lineno):
        for kind in ("load", "store"):
            touched = {
                name
                for call in program.calls(site.kernel.node, kind)
                for parameter in program.bases(site.kernel, call.args[0])
                if (argument := site.argument(parameter)) is not None
                for name in names(argument)
            }
            if kind == "load" and touched & written:
                return True
            if kind == "store":
                written |= touched
    return False


def _persistent(program: Program) -> bool:
    """A loop that starts at the program's number and goes in steps of the number of programs."""
    return any(_strides(program, function) for function in _tl(program))


def _strides(program: Program, function: Jit) -> bool:
    own = {name for name, value in function.assigned if program.is_tl(value, "program_id")}
    total = {name for name, value in function.assigned if program.is_tl(value, "num_programs")}

    def starts(node: ast.expr) -> bool:
        return named(node) in own or program.is_tl(node, "program_id")

    def steps(node: ast.expr) -> bool:
        if named(node) in total or program.is_tl(node, "num_programs"):
            return True
        launch = program.launch(function)
        return launch is not None and prod(launch.grid) > 1 and program.value(node, function) == prod(launch.grid)

    for node in ast.walk(function.node):
        match node:
            case ast.For(iter=ast.Call(args=[first, _, step, *_])) if starts(first) and steps(step):
                return True
            case ast.While(body=body) if any(
                isinstance(inner, ast.AugAssign) and named(inner.target) in own and steps(inner.value)
                for statement in body
                for inner in ast.walk(statement)
            ):
                return True
    return False


def _loop_option(option: str, least: int) -> Detector:
    def seen(program: Program) -> bool:
        return any(
            keyword.arg == option
            and isinstance(keyword.value, ast.Constant)
            and isinstance(keyword.value.value, int)
            and keyword.value.value >= least
            for function in _functions(program)
            for loop in function.loops
            if isinstance(loop.iter, ast.Call)
            for keyword in loop.iter.keywords
        )

    return seen


def _staged(program: Program) -> bool:
    return any(launch.stages >= 2 and launch.features & {"cp.async", "tma"} for launch in program.launches)


def _dot_operands(program: Program) -> bool:
    """Operands of plain matrix instructions reach the threads that need them through shared memory."""
    return any("mma" in launch.features and launch.shared_bytes > 0 for launch in program.launches)


def _register_block(program: Program) -> bool:
    """A kernel with a loop has tiles of at most 32 along one dimension and of at least 1024 along another."""
    for function in _tl(program):
        stops = [call.args[1] for call in program.calls(function.node, "arange") if len(call.args) == 2]
        sizes = [size for stop in stops if (size := program.value(stop, function)) is not None]
        if function.loops and sizes and min(sizes) <= 32 and max(sizes) >= 1024:
            return True
    return False


def _masked(program: Program) -> bool:
    checked = any(
        keyword.arg == "boundary_check"
        for function in _tl(program)
        for call in program.calls(function.node, "load", "store")
        for keyword in call.keywords
    )
    return checked or any(
        mask_of(program, call) is not None
        for function in _tl(program)
        for call in program.calls(function.node, *MEMORY)
    )


def _grid_order(program: Program) -> bool:
    """The tile comes from the program's number by a remainder, or from `tl.swizzle2d`."""
    if _calls(program, "swizzle2d"):
        return True
    if _persistent(program):
        return False
    for function in _tl(program):
        ids = function.derived(program.calls(function.node, "program_id"))
        if any(
            isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and names(node) & ids
            for node in ast.walk(function.node)
        ):
            return True
    return False


def _wide_sums(program: Program) -> bool:
    """Tensors of at most 16 bits in, float32 within."""
    narrow = any(
        isinstance(value, str) and value.startswith(("fp16[", "bf16[", "fp8"))
        for launch in program.launches
        for _, value in launch.arguments
    )
    return narrow and any(
        program.tl_name(node) == "float32" for function in _tl(program) for node in ast.walk(function.node)
    )


def _fused_epilogue(program: Program) -> bool:
    """A kernel with a loop applies a function to what the loop computed before it stores it."""
    return any(_epilogue(statement) for kernel in _functions(program) for statement in _after_loops(kernel))


def _after_loops(kernel: Jit) -> Iterator[ast.stmt]:
    loops = [index for index, statement in enumerate(kernel.body) if isinstance(statement, ast.For | ast.While)]
    yield from kernel.body[loops[-1] + 1 :] if loops else ()


def _epilogue(statement: ast.stmt) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in FUNCTIONS)
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
        for node in ast.walk(statement)
    )


def _tuned(program: Program) -> bool:
    """An autotuner, unless its list of configurations is written out and has one."""
    for node in ast.walk(program.tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and _last(call) == "autotune":
                lists = [keyword.value for keyword in call.keywords if keyword.arg == "configs"] or call.args[:1]
                if not (lists and isinstance(lists[0], ast.List) and len(lists[0].elts) <= 1):
                    return True
    return False


DETECTORS: Mapping[str, Detector] = {
    "partial_sums": _partial_sums,
    "atomic_sums": _compiled("atomic"),
    "matrix_units": _compiled("mma", "wgmma"),
    "pipelined_loop": _any(_loop_option("num_stages", 2), _staged),
    "async_copy": _compiled("cp.async", "tma"),
    "bulk_copy": _compiled("tma"),
    "shared_tiles": _any(_compiled("cp.async", "tma", "wgmma"), _dot_operands, _gluon("allocate_shared_memory")),
    "persistent_grid": _persistent,
    "wide_loads": _compiled("vector128"),
    "register_block": _register_block,
    "masked_edges": _masked,
    "wide_sums": _wide_sums,
    "warp_roles": _any(_loop_option("warp_specialize", 1), _gluon("warp_specialize")),
    "program_cluster": _compiled("cluster"),
    "grid_order": _grid_order,
    "fused_epilogue": _fused_epilogue,
    "unrolled_loop": _any(_loop_option("loop_unroll_factor", 2), lambda program: _calls(program, "static_range")),
    "cache_hints": _compiled("evict_first", "evict_last"),
    "tuned_configs": _tuned,
}
"""By the name that a taxonomy's `shows` gives. Not all are entries of the packaged one."""
