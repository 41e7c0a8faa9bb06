"""The table: every rewrite by name, with the technique that it adds. Append-only: journals hold the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tilesmith.propose.program import Program
from tilesmith.propose.rewrites import grid, loads, loops, options, prefetch, split, tiles


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One way to change a kernel that keeps what it computes.

    `variants` yields whole sources, the most promising first, and nothing where its precondition (its docstring) does
    not hold. `technique` names the entry of the taxonomy that it adds or tunes; None where it is in none.
    """

    name: str
    technique: str | None
    variants: Callable[[Program], Iterator[str]]


TABLE: tuple[Rewrite, ...] = (
    Rewrite("more_programs", None, tiles.more_programs),
    Rewrite("fewer_programs", "register_block", tiles.fewer_programs),
    Rewrite("longer_steps", "register_block", tiles.longer_steps),
    Rewrite("shorter_steps", None, tiles.shorter_steps),
    Rewrite("trade_tiles", "register_block", tiles.trade_tiles),
    Rewrite("more_splits", None, tiles.more_splits),
    Rewrite("fewer_splits", None, tiles.fewer_splits),
    Rewrite("split_atomics", "atomic_sums", split.split_atomics),
    Rewrite("split_partials", "partial_sums", split.split_partials),
    Rewrite("warps", None, options.warps),
    Rewrite("stages", "pipelined_loop", options.stages),
    Rewrite("pipeline", "pipelined_loop", loops.pipeline),
    Rewrite("unroll", "unrolled_loop", loops.unroll),
    Rewrite("reduce_once", "register_block", loops.reduce_once),
    Rewrite("evict_first", None, loads.evict_first),
    Rewrite("evict_last", None, loads.evict_last),
    Rewrite("unmask", None, loads.unmask),
    Rewrite("vector_hints", "wide_loads", loads.vector_hints),
    Rewrite("swap_axes", "grid_order", grid.swap_axes),
    Rewrite("group_programs", "grid_order", grid.group_programs),
    Rewrite("persistent", "persistent_grid", grid.persistent),
    Rewrite("autotune", "tuned_configs", options.autotune),
    Rewrite("prefetch", "pipelined_loop", prefetch.prefetch),
)
