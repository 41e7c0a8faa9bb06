"""Options of a launch: warps, stages, and a choice among several that the kernel makes for itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tilesmith.propose.knobs import config_value, launch_option
from tilesmith.propose.program import Edit, Jit, Program, Site

DEFAULT_WARPS = 4
DEFAULT_STAGES = 3


def warps(program: Program) -> Iterator[str]:
    """Twice and half as many warps, then the far ones; of an autotuned kernel in every configuration."""
    for kernel in program.kernels:
        current = _current(program, kernel, "num_warps", DEFAULT_WARPS)
        for wanted in (current * 2, current // 2, current * 4, current // 4, 4):
            if 1 <= wanted <= 16 and wanted != current:
                yield from _set(program, kernel, "num_warps", wanted)


def stages(program: Program) -> Iterator[str]:
    """More and fewer stages of the pipeline; only where there is a loop to pipeline."""
    for kernel in program.kernels:
        if not kernel.loops:
            continue
        current = _current(program, kernel, "num_stages", DEFAULT_STAGES)
        for wanted in (current + 1, current + 2, current - 1, current - 2):
            if 1 <= wanted <= 6:
                yield from _set(program, kernel, "num_stages", wanted)


def autotune(program: Program) -> Iterator[str]:
    """Let Triton choose warps and stages when the kernel first runs.

    Not where a kernel adds to memory or reads what it writes: the tuner runs it many times.
    """
    triton = program.module("triton")
    for kernel in program.kernels:
        site = program.only_site(kernel)
        if site is None or triton is None or kernel.autotune or not _repeatable(program, kernel):
            continue
        current = _current(program, kernel, "num_warps", DEFAULT_WARPS)
        depths = (2, 3, 4) if kernel.loops else (DEFAULT_STAGES,)
        rows = [
            f"        {triton}.Config({{}}, num_warps={count}, num_stages={depth}),"
            for count in sorted({max(1, current // 2), current, min(16, current * 2)})
            for depth in depths
        ]
        decorator = "\n".join([f"@{triton}.autotune(", "    configs=[", *rows, "    ],", "    key=[],", ")", ""])
        line = program.lines[kernel.node.decorator_list[0].lineno - 1]
        options = [k for k in site.call.keywords if k.arg in ("num_warps", "num_stages")]
        yield program.apply([Edit(line, line, decorator), *(program.drop(site.call, option) for option in options)])


def _repeatable(program: Program, kernel: Jit) -> bool:
    if any(
        isinstance(call.func, ast.Attribute) and call.func.attr.startswith("atomic")
        for call in ast.walk(kernel.node)
        if isinstance(call, ast.Call)
    ):
        return False
    stored = set().union(*(program.bases(kernel, call.args[0]) for call in program.calls(kernel.node, "store")))
    loaded = set().union(*(program.bases(kernel, call.args[0]) for call in program.calls(kernel.node, "load")))
    return not stored & loaded


def _current(program: Program, kernel: Jit, option: str, default: int) -> int:
    if kernel.configs:
        values = [v.value for config in kernel.configs if (v := config_value(config, option)) is not None]
        return int(str(values[0])) if values else default
    for site in program.sites:
        if site.kernel is kernel and (node := launch_option(program, site, option)) is not None:
            return int(str(node.value))
    return default


def _set(program: Program, kernel: Jit, option: str, wanted: int) -> Iterator[str]:
    if kernel.autotune is not None:
        if len(kernel.configs) == 1:
            yield program.apply([_option(program, kernel.configs[0], option, wanted)])
        return
    edits = [edit for site in program.sites if site.kernel is kernel for edit in _at(program, site, option, wanted)]
    if edits:
        yield program.apply({edit.start: edit for edit in edits}.values())


def _at(program: Program, site: Site, option: str, wanted: int) -> Iterator[Edit]:
    if site.argument(option) is None:
        yield _option(program, site.call, option, wanted)
    elif node := launch_option(program, site, option):
        yield program.replace(node, str(wanted))


def _option(program: Program, call: ast.Call, option: str, wanted: int) -> Edit:
    """Warps stand before stages, so that two orders of rewriting end in one source."""
    for keyword in call.keywords:
        if keyword.arg == option:
            return program.replace(keyword.value, str(wanted))
    later = [k for k in call.keywords if k.arg == "num_stages"]
    if option == "num_warps" and later:
        start = program.start(later[0])
        return Edit(start, start, f"{option}={wanted}, ")
    return program.append(call, f"{option}={wanted}")
