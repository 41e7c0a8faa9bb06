"""How a search goes about: space, order, workers and budget. What it may build is `core.graph.Limits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import DEFAULT
from tilesmith.core.graph import Limits


@dataclass(frozen=True, slots=True)
class Plan:
    """None means no limit. Seconds count from the start of the search."""

    space: Literal["symbolic"] = "symbolic"
    oracle: Literal["table"] = "table"
    schedule: Literal["static", "openmp", "mpi"] = "openmp"
    """static: work split once and dealt out. openmp: threads that take work from each other. mpi: ranks that do too."""
    order: Literal["dfs", "bfs"] = "dfs"
    frontier_bytes: int = 64 << 20
    """What breadth-first search keeps at most, of each worker; what does not fit is searched depth-first."""
    timeline: bool = False
    """Whether what each worker did when is recorded."""
    threads: int = 1
    kernels: Literal["listing", "closure"] = "listing"
    """listing: every program of so many kernels. closure: any number of kernels, and the cheapest derivations."""
    seed: int = 0
    seconds: float | None = None
    max_graphs: int | None = None
    keep: int = 32
    """How many graphs, the cheapest by estimate, are scheduled, verified and returned."""
    target: str = DEFAULT
    """The GPU that estimates are for."""


def checked(limits: Limits, plan: Plan) -> None:
    """Raises `OptionError` for limits within which nothing can be found, or a budget of nothing."""
    for name, value, least, most in (
        ("kernel-ops", limits.kernel_ops, 1, 64),
        ("graph-defined-kernels", limits.graph_defined_kernels, 1, 8),
        ("block-ops", limits.block_ops, 2, 32),
        ("inputs", limits.inputs, 1, 16),
        ("outputs", limits.outputs, 1, 2),
        ("threads", plan.threads, 1, 1024),
        ("keep", plan.keep, 1, 100_000),
    ):
        if not least <= value <= most:
            raise OptionError(f"--{name} is {value}; the symbolic space takes {least} to {most}.")
    if plan.seconds is not None and not plan.seconds > 0:
        raise OptionError(f"--budget-seconds is {plan.seconds}; give more than 0.")
    if plan.max_graphs is not None and plan.max_graphs < 1:
        raise OptionError(f"--max-graphs is {plan.max_graphs}; give at least 1.")
    if plan.schedule == "mpi":
        raise OptionError("--schedule mpi is not in the symbolic space; use openmp.")
    if plan.order != "dfs":
        raise OptionError(f"--order {plan.order} is not in the symbolic space; use dfs.")
    if plan.timeline:
        raise OptionError("--timeline is not in the symbolic space; leave it out.")
