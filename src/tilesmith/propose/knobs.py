"""The constants of a candidate that may be turned without changing what it computes, and how far.

A tile size reaches a kernel as a constexpr, from a literal at the launch, a constant of the function or the module, a
default of the signature, or a `triton.Config`. It may be turned where the kernel adapts: a loop steps by it, or the
grid is computed from it. A size that must span a whole row is none of these and is left alone.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from tilesmith.propose.program import MEMORY, Edit, Jit, Program, Site, named, names

SCRATCH = "partials"
"""The name of the buffer between the two kernels of a split sum: it holds whole tiles and needs no mask."""

Role = Literal["grid", "loop", "split"]
"""grid: programs cover tiles of this size; loop: a loop steps by it; split: so many programs share one loop."""


@dataclass(frozen=True)
class Knob:
    """One tunable integer: every literal that has to change with it."""

    parameter: str
    kernel: Jit
    roles: frozenset[Role]
    nodes: tuple[ast.Constant, ...]

    @cached_property
    def value(self) -> int:
        return int(str(self.nodes[0].value))

    def scaled(self, program: Program, numerator: int, denominator: int = 1) -> tuple[Edit, ...] | None:
        """Multiply all by a fraction; None where one of them would not stay a whole number above zero."""
        edits = []
        for node in self.nodes:
            old = int(str(node.value))
            new, rest = divmod(old * numerator, denominator)
            if rest or new < 1:
                return None
            edits.append(program.replace(node, str(new)))
        return tuple(edits)


@lru_cache(maxsize=64)
def knobs(program: Program) -> tuple[Knob, ...]:
    """The tile sizes and split counts that can be turned, in the order of the kernels' parameters."""
    found: dict[tuple[int, ...], Knob] = {}
    spoilt: set[tuple[int, ...]] = set()
    for kernel in program.kernels:
        sites = [site for site in program.sites if site.kernel is kernel]
        for parameter in kernel.parameters:
            if parameter not in kernel.constexprs or not (nodes := _literals(program, kernel, sites, parameter)):
                continue
            roles = _roles(program, kernel, parameter)
            if roles & {"grid", "split"}:
                follows = [_grid_follows(program, site, parameter, nodes) for site in sites]
                if any(extra is None for extra in follows):
                    roles = frozenset()
                nodes = tuple({id(n): n for n in (*nodes, *(n for extra in follows for n in extra or ()))}.values())
            key = tuple(sorted(program.start(node) for node in nodes))
            # A literal that also feeds a parameter that may not change may not change either.
            if not roles and not _harmless(program, kernel, parameter):
                spoilt.add(key)
            elif key in found:
                found[key] = Knob(found[key].parameter, found[key].kernel, found[key].roles | roles, nodes)
            elif roles:
                found[key] = Knob(parameter, kernel, roles, nodes)
    spoilt_nodes = {start for key in spoilt for start in key}
    return tuple(knob for key, knob in found.items() if not spoilt_nodes & set(key) and _powers(knob))


def may_become(program: Program, knob: Knob, factor: int) -> bool:
    """Whether a tile may grow by `factor`: every access along it is masked, or its size is a multiple of the new tile.

    Shrinking is always safe: powers of two divide what a greater one divided.
    """
    if knob.roles == {"split"}:
        return True
    fed = [
        (kernel, parameter)
        for kernel in program.kernels
        for parameter in kernel.constexprs
        for site in program.sites
        if site.kernel is kernel and any(node in knob.nodes for node in _literals(program, kernel, [site], parameter))
    ]
    return bool(fed) and all(
        masked(program, kernel, name) or _divides(program, kernel, name, factor) for kernel, name in fed
    )


@lru_cache(maxsize=256)
def masked(program: Program, kernel: Jit, parameter: str) -> bool:
    """Whether every access whose address runs along a tile of this size has a mask that does, too."""
    tainted = along(program, kernel, parameter)
    for call in program.calls(kernel.node, *MEMORY):
        if any(name.startswith(SCRATCH) for name in names(call.args[0])):
            continue
        if names(call.args[0]) & tainted or _ranges(program, call.args[0], parameter):
            mask = mask_of(program, call)
            if mask is None or not (names(mask) & tainted or _ranges(program, mask, parameter)):
                return False
    return True


@lru_cache(maxsize=256)
def along(program: Program, kernel: Jit, parameter: str) -> frozenset[str]:
    """Names that hold a `tl.arange(0, parameter)` or what is computed from one."""
    return kernel.derived(_ranges(program, kernel.node, parameter))


def mask_of(program: Program, call: ast.Call) -> ast.expr | None:
    position = 1 if program.is_tl(call, "load") else 2
    if len(call.args) > position:
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == "mask"), None)


def program_ids(program: Program, kernel: Jit) -> frozenset[str]:
    """Names that depend on which program this is."""
    return kernel.derived(program.calls(kernel.node, "program_id"))


def bounds(loop: ast.For) -> tuple[ast.expr | None, ast.expr, ast.expr | None] | None:
    """(first, stop, step) of a loop over `range`; None where it is no such loop."""
    if not isinstance(loop.iter, ast.Call):
        return None
    match loop.iter.args:
        case [stop]:
            return None, stop, None
        case [first, stop]:
            return first, stop, None
        case [first, stop, step]:
            return first, stop, step
    return None


def _literals(program: Program, kernel: Jit, sites: list[Site], parameter: str) -> tuple[ast.Constant, ...]:
    """Where a parameter's value stands; () where it is not a literal everywhere."""
    if kernel.autotune is not None:
        values = [value for config in kernel.configs if (value := config_value(config, parameter)) is not None]
        if values and len(values) == len(kernel.configs):
            return tuple(values)
        if values:
            return ()
    found: dict[int, ast.Constant] = {}
    for site in sites:
        expression = site.argument(parameter) or kernel.default(parameter)
        node = program.literal(expression, site.host)
        if node is None:
            return ()
        found[id(node)] = node
    return tuple(found.values())


def config_value(config: ast.Call, name: str) -> ast.Constant | None:
    """The literal of one meta-parameter or launch option in a `triton.Config`."""
    pairs: list[tuple[ast.expr | None, ast.expr]] = []
    for argument in config.args[:1]:
        if isinstance(argument, ast.Dict):
            pairs += zip(argument.keys, argument.values, strict=True)
    for key, value in pairs:
        if isinstance(key, ast.Constant) and key.value == name and _whole(value):
            return value if isinstance(value, ast.Constant) else None
    for keyword in config.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant) and _whole(keyword.value):
            return keyword.value
    return None


def _whole(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool)


def _roles(program: Program, kernel: Jit, parameter: str) -> frozenset[Role]:
    roles: set[Role] = set()
    tainted = program_ids(program, kernel)
    ranged = bool(_ranges(program, kernel.node, parameter))
    for loop in kernel.loops:
        limits = bounds(loop)
        if limits is None or not program_range(program, loop):
            continue
        first, stop, step = limits
        if step is not None and parameter in names(step):
            shared = first is not None and bool(names(first) & tainted)
            if ranged:
                roles.add("loop")
            elif shared:
                roles.add("split")
        elif ranged and _counts(kernel, stop, parameter):
            roles.add("loop")
    if (
        ranged
        and "loop" not in roles
        and any(_strides(program, node, parameter, tainted) for node in ast.walk(kernel.node))
    ):
        roles.add("grid")
    return frozenset(roles)


def program_range(program: Program, loop: ast.For) -> bool:
    call = loop.iter
    return isinstance(call, ast.Call) and (named(call.func) == "range" or program.tl_name(call.func) == "range")


def _counts(kernel: Jit, stop: ast.expr, parameter: str) -> bool:
    """Whether a loop's bound is the number of tiles of this size: `cdiv(X, P)` or `X // P`, itself or by a name."""
    expression: ast.expr = stop
    if isinstance(stop, ast.Name):
        values = [value for name, value in kernel.assigned if name == stop.id]
        if len(values) != 1:
            return False
        expression = values[0]
    match expression:
        case ast.Call(func=ast.Attribute(attr="cdiv"), args=[_, by]):
            return named(by) == parameter
        case ast.BinOp(op=ast.FloorDiv(), right=by):
            return named(by) == parameter
    return False


def _strides(program: Program, node: ast.AST, parameter: str, tainted: frozenset[str]) -> bool:
    """Whether a node is the product of the parameter and something that depends on the program's number."""
    match node:
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            for one, other in ((left, right), (right, left)):
                if named(one) == parameter:
                    return bool(names(other) & tainted) or any(program.calls(other, "program_id"))
    return False


def _ranges(program: Program, node: ast.AST, parameter: str) -> tuple[ast.Call, ...]:
    return tuple(c for c in program.calls(node, "arange") if len(c.args) == 2 and named(c.args[1]) == parameter)


def _grid_follows(
    program: Program, site: Site, parameter: str, nodes: tuple[ast.Constant, ...]
) -> tuple[ast.Constant, ...] | None:
    """The literals of the grid that must change with a tile; None where the grid does not depend on the tile."""
    elements = program.grid(site)
    if elements is None:
        return None
    inside = [node for element in elements for node in program.expanded(element, site.host)]
    for node in inside:
        if node in nodes:
            return ()
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == parameter:
            return ()
    twins = [
        node.args[1]
        for node in inside
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cdiv"
        if len(node.args) == 2 and isinstance(node.args[1], ast.Constant) and node.args[1].value == nodes[0].value
    ]
    rivals = [p for p, value in site.arguments if isinstance(value, ast.Constant) and value.value == nodes[0].value]
    if len(twins) == 1 and len(rivals) <= 1 and len(nodes) == 1:
        return tuple(twins)
    return None


def _divides(program: Program, kernel: Jit, parameter: str, factor: int) -> bool:
    """Whether what a tile steps over is known to be a multiple of the tile made `factor` times as large."""
    site = program.only_site(kernel)
    tile = program.value(ast.Name(parameter), kernel)
    if tile is None or site is None:
        return False
    tile *= factor
    for loop in kernel.loops:
        limits = bounds(loop)
        if limits is None or parameter not in names(loop.iter) | frozenset(
            name for inner in names(loop.iter) for target, v in kernel.assigned if target == inner for name in names(v)
        ):
            continue
        span = extent(program, kernel, loop)
        if span is None or span % tile:
            return False
    if "grid" in _roles(program, kernel, parameter):
        launch = program.launch(kernel)
        elements = program.grid(site)
        if launch is None or elements is None:
            return False
        nodes = _literals(program, kernel, [site], parameter)
        axes = [
            axis
            for axis, element in enumerate(elements)
            if any(
                node in nodes
                or (
                    isinstance(node, ast.Subscript)
                    and isinstance(node.slice, ast.Constant)
                    and node.slice.value == parameter
                )
                or (isinstance(node, ast.Constant) and node.value == nodes[0].value)
                for node in program.expanded(element, site.host)
            )
        ]
        if len(axes) != 1 or launch.grid[axes[0]] % factor or _product(elements[axes[0]]):
            return False
    return True


def _product(element: ast.expr) -> bool:
    """Whether a grid element counts the tiles of more than one axis."""
    return any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) for node in ast.walk(element))


def extent(program: Program, kernel: Jit, loop: ast.For) -> int | None:
    """What a loop runs over, in elements: X of `range(0, X, P)` and of `range(cdiv(X, P))`."""
    limits = bounds(loop)
    if limits is None:
        return None
    _, stop, step = limits
    if step is not None and not (isinstance(stop, ast.Call) and "cdiv" in ast.unparse(stop.func)):
        return program.value(stop, kernel)
    expression: ast.expr = stop
    if isinstance(stop, ast.Name):
        values = [value for name, value in kernel.assigned if name == stop.id]
        expression = values[0] if len(values) == 1 else stop
    match expression:
        case ast.Call(func=ast.Attribute(attr="cdiv"), args=[over, _]):
            return program.value(over, kernel)
        case ast.BinOp(left=over, op=ast.FloorDiv()):
            return program.value(over, kernel)
    return program.value(stop, kernel)


def _harmless(program: Program, kernel: Jit, parameter: str) -> bool:
    """Whether no address of this kernel runs along a tile of this size."""
    tainted = along(program, kernel, parameter)
    return not any(
        names(call.args[0]) & tainted or _ranges(program, call.args[0], parameter)
        for call in program.calls(kernel.node, *MEMORY)
    )


def _powers(knob: Knob) -> bool:
    return all(int(str(node.value)) & (int(str(node.value)) - 1) == 0 for node in knob.nodes)


def launch_option(program: Program, site: Site, name: str) -> ast.Constant | None:
    return program.literal(site.argument(name), site.host)
