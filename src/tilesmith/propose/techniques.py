"""Which techniques a kernel uses: one bit an entry of an append-only taxonomy.

What the compiled code shows is read from it, the rest from the syntax tree. No bit depends on names or comments, and
none asks a model.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from tilesmith.core.profile import Launch
from tilesmith.core.trial import Trial
from tilesmith.propose.diagnose import multiprocessors
from tilesmith.propose.knobs import knobs, mask_of
from tilesmith.propose.program import MEMORY, Jit, Program, names, parse


@dataclass(frozen=True, slots=True)
class Technique:
    """`seen` tells whether a candidate uses it, from its parse and its launches."""

    name: str
    description: str
    seen: Callable[[Program], bool]


@dataclass(frozen=True, slots=True)
class TechniqueVector:
    """The techniques that a candidate uses, in the order of the taxonomy.

    Names and not positions: a vector that was recorded before the taxonomy grew stays comparable.
    """

    names: tuple[str, ...]

    @property
    def bits(self) -> tuple[bool, ...]:
        return tuple(technique.name in self.names for technique in TECHNIQUES)


def vector(trial: Trial) -> TechniqueVector:
    """The techniques of a trial's candidate; none for a source that is not Python."""
    return _vector(trial.candidate.source, trial.launches, multiprocessors(trial))


@lru_cache(maxsize=4096)
def _vector(source: str, launches: tuple[Launch, ...], count: int) -> TechniqueVector:
    try:
        program = parse(source, launches, count)
    except SyntaxError:
        return TechniqueVector(())
    return TechniqueVector(tuple(technique.name for technique in TECHNIQUES if technique.seen(program)))


def _compiled(*features: str) -> Callable[[Program], bool]:
    return lambda program: any(feature in launch.features for launch in program.launches for feature in features)


def _calls(program: Program, *wanted: str) -> bool:
    return any(True for kernel in program.kernels for _ in program.calls(kernel.node, *wanted))


def _partial_sums(program: Program) -> bool:
    """One launch stores to a tensor of the host that a later one loads."""
    written: set[str] = set()
    for site in sorted(program.sites, key=lambda s: s.call.lineno):
        for kind, check in (("load", True), ("store", False)):
            touched = {
                name
                for call in program.calls(site.kernel.node, kind)
                for parameter in program.bases(site.kernel, call.args[0])
                if (argument := site.argument(parameter)) is not None
                for name in names(argument)
            }
            if check and touched & written:
                return True
            written |= set() if check else touched
    return False


def _persistent(program: Program) -> bool:
    """A loop that goes from the program's number in steps of the number of programs."""
    return any(
        isinstance(loop.iter, ast.Call)
        and any(program.calls(loop.iter, "program_id"))
        and any(program.calls(loop.iter, "num_programs"))
        for kernel in program.kernels
        for loop in kernel.loops
    )


def _loop_option(option: str, least: int) -> Callable[[Program], bool]:
    def seen(program: Program) -> bool:
        return any(
            keyword.arg == option and isinstance(keyword.value, ast.Constant) and int(str(keyword.value.value)) >= least
            for kernel in program.kernels
            for loop in kernel.loops
            if isinstance(loop.iter, ast.Call)
            for keyword in loop.iter.keywords
        )

    return seen


def _pipelined(program: Program) -> bool:
    return _loop_option("num_stages", 2)(program) or any(
        launch.stages >= 2 and "cp.async" in launch.features for launch in program.launches
    )


def _unrolled(program: Program) -> bool:
    return _loop_option("loop_unroll_factor", 2)(program) or _calls(program, "static_range")


def _register_block(program: Program) -> bool:
    """A grid tile of at most 32 with a step of at least 1024."""
    turned = knobs(program)
    small = any("grid" in knob.roles and knob.value <= 32 for knob in turned)
    return small and any("loop" in knob.roles and knob.value >= 1024 for knob in turned)


def _masked(program: Program) -> bool:
    return any(
        mask_of(program, call) is not None for kernel in program.kernels for call in program.calls(kernel.node, *MEMORY)
    )


def _grid_order(program: Program) -> bool:
    """The tile comes from the program's number by division, or from `tl.swizzle2d`."""
    if _calls(program, "swizzle2d"):
        return True
    for kernel in program.kernels:
        ids = kernel.derived(program.calls(kernel.node, "program_id"))
        divided = [
            node
            for node in ast.walk(kernel.node)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and names(node) & ids
        ]
        if divided and not _persistent(program):
            return True
    return False


def _wide_sums(program: Program) -> bool:
    """16-bit tensors in, float32 accumulators within."""
    narrow = any(
        isinstance(value, str) and value.startswith(("fp16[", "bf16["))
        for launch in program.launches
        for _, value in launch.arguments
    )
    return narrow and any(_float32(program, kernel) for kernel in program.kernels)


def _float32(program: Program, kernel: Jit) -> bool:
    return any(program.tl_name(node) == "float32" for node in ast.walk(kernel.node))


def _fused_epilogue(program: Program) -> bool:
    """A kernel with a loop applies a function to what the loop computed before it stores it."""
    functions = {"exp", "exp2", "sigmoid", "tanh", "erf", "sqrt", "rsqrt", "maximum", "where", "log", "div_rn"}
    for kernel in program.kernels:
        loops = [index for index, statement in enumerate(kernel.body) if isinstance(statement, ast.For)]
        for statement in kernel.body[loops[-1] + 1 :] if loops else ():
            called = {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
            divided = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(statement))
            if called & functions or divided:
                return True
    return False


def _tuned(program: Program) -> bool:
    return any(len(kernel.configs) > 1 for kernel in program.kernels)


TECHNIQUES: tuple[Technique, ...] = (
    Technique("partial_sums", "a sum is split over programs and a second kernel adds the parts", _partial_sums),
    Technique("atomic_sums", "programs add to memory that they share", _compiled("atomic")),
    Technique("matrix_units", "products run on the matrix units", _compiled("mma", "wgmma")),
    Technique("pipelined_loop", "loads run ahead of the iteration that uses them", _pipelined),
    Technique("async_copy", "memory is copied without passing through registers", _compiled("cp.async", "tma")),
    Technique("bulk_copy", "whole tiles are fetched by the tensor memory accelerator", _compiled("tma")),
    Technique("persistent_grid", "as many programs as fit, each looping over tiles", _persistent),
    Technique("wide_loads", "device memory is read 128 bits at a time", _compiled("vector128")),
    Technique("register_block", "few rows and long steps: the tile lives in registers", _register_block),
    Technique("masked_edges", "loads or stores are masked", _masked),
    Technique("wide_sums", "16-bit operands, 32-bit accumulators", _wide_sums),
    Technique("warp_roles", "some warps load while others compute", _loop_option("warp_specialize", 1)),
    Technique("program_cluster", "programs share memory in clusters", _compiled("cluster")),
    Technique("grid_order", "tiles are taken in an order of the kernel's own", _grid_order),
    Technique("fused_epilogue", "element-wise work follows a loop in its own kernel", _fused_epilogue),
    Technique("unrolled_loop", "a loop is unrolled by request", _unrolled),
    Technique("cache_hints", "loads say what should stay in the cache", _compiled("evict_first", "evict_last")),
    Technique("tuned_configs", "several configurations, the fastest chosen at the first call", _tuned),
)
"""Append-only: recorded vectors name these."""
