"""Tile sizes and split counts: single steps, long jumps, and trades of one tile against another."""

from __future__ import annotations

from collections.abc import Iterator

from tilesmith.propose.knobs import Knob, Role, knobs, may_become
from tilesmith.propose.program import Edit, Program

SMALLEST_DOT = 16
"""`tl.dot` takes no operand with a smaller side."""
LARGEST_TILE = 1 << 16
"""Elements of one side; greater ones fit no register file."""


def more_programs(program: Program) -> Iterator[str]:
    """Smaller tiles of the grid. While multiprocessors idle, the first jump is the one that fills them."""
    for divisor in _jumps(program):
        yield from _turned(program, "grid", 1, divisor)


def fewer_programs(program: Program) -> Iterator[str]:
    """Greater tiles of the grid: more reuse of what a program loads."""
    for factor in (2, 4):
        yield from _turned(program, "grid", factor)


def longer_steps(program: Program) -> Iterator[str]:
    """Greater tiles of a loop: more bytes in flight, fewer iterations."""
    for factor in (4, 2, 8, 16):
        yield from _turned(program, "loop", factor)


def shorter_steps(program: Program) -> Iterator[str]:
    """Smaller tiles of a loop: fewer registers and less shared memory."""
    for divisor in (2, 4):
        yield from _turned(program, "loop", 1, divisor)


def more_splits(program: Program) -> Iterator[str]:
    """More programs a sum; only where a loop is shared out already."""
    for factor in (2, 4):
        yield from _turned(program, "split", factor)


def fewer_splits(program: Program) -> Iterator[str]:
    """Fewer programs a sum: fewer partial sums to add up."""
    for divisor in (2, 4):
        yield from _turned(program, "split", 1, divisor)


def trade_tiles(program: Program) -> Iterator[str]:
    """Turn two sizes of one kernel at once, against each other: tiles of the same area in another shape."""
    all_knobs = knobs(program)
    pairs = [
        (small, large)
        for role in ("loop", "grid", "split")
        for small in all_knobs
        for large in all_knobs
        if small is not large and role in large.roles and "split" not in small.roles and small.kernel is large.kernel
        if not (small.roles == large.roles == {"loop"})
    ]
    for divisor, factor in ((8, 8), (4, 4), (2, 2), (16, 16), (32, 16), (8, 2), (2, 8)):
        for small, large in pairs:
            less = _change(program, small, 1, divisor)
            more = _change(program, large, factor, 1)
            if less and more:
                yield program.apply((*less, *more))


def _jumps(program: Program) -> tuple[int, ...]:
    known = [count for kernel in program.kernels if (count := program.programs(kernel))]
    if not known or min(known) >= program.multiprocessors:
        return (2, 4, 8)
    enough = 1
    while min(known) * enough < program.multiprocessors:
        enough *= 2
    return tuple(dict.fromkeys((enough, enough * 2, enough * 4, 2, 4, 8)))


def _turned(program: Program, role: Role, factor: int, divisor: int = 1) -> Iterator[str]:
    for knob in knobs(program):
        if role in knob.roles and (edits := _change(program, knob, factor, divisor)):
            yield program.apply(edits)


def _change(program: Program, knob: Knob, factor: int, divisor: int) -> tuple[Edit, ...] | None:
    sizes = [int(str(node.value)) * factor // divisor for node in knob.nodes]
    tile = "split" not in knob.roles
    floor = SMALLEST_DOT if tile and any(program.calls(knob.kernel.node, "dot")) else 1
    if min(sizes) < floor or max(sizes) > LARGEST_TILE:
        return None
    if factor > divisor and not may_become(program, knob, factor // divisor):
        return None
    return knob.scaled(program, factor, divisor)
