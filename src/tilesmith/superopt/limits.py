"""How a search goes about: space, oracle, order, workers and budget. What it may build is `core.graph.Limits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import DEFAULT
from tilesmith.core.graph import Limits


@dataclass(frozen=True, slots=True)
class Plan:
    """None means no limit. Seconds count from the start of the search."""

    space: Literal["symbolic", "concrete"] = "symbolic"
    rules: Literal["code", "paper"] = "code"
    """Of the concrete space: as the published code has them, or as the paper has them where the code falls short."""
    oracle: Literal["table", "z3", "egraph"] = "table"
    oracle_cache: Literal["none", "thread", "shared"] = "thread"
    """Where answers of z3 are kept."""
    oracle_every: int = 1
    """The oracle is asked for each that many levels of a block, or of the kernels."""
    oracle_effort: int = 80_000
    """z3's resource limit of one query; what it does not decide within it is pruned, as published."""
    schedule: Literal["static", "openmp", "mpi"] = "openmp"
    """static: work split once and dealt out. openmp: threads that take work from each other. mpi: ranks that do too."""
    order: Literal["dfs", "bfs"] = "dfs"
    frontier_bytes: int = 64 << 20
    """What breadth-first search keeps at most, all workers together; what does not fit is searched depth-first."""
    pull: Literal["tickets", "requests"] = "tickets"
    """How ranks get work: by a counter that they share, or by asking the first rank."""
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
    """Raises `OptionError` for limits within which nothing can be found, a budget of nothing, or what a space lacks."""
    concrete = plan.space == "concrete"
    for name, value, least, most in (
        ("kernel-ops", limits.kernel_ops, 1, 12 if concrete else 64),
        ("graph-defined-kernels", limits.graph_defined_kernels, 1, 3 if concrete else 8),
        ("block-ops", limits.block_ops, 2, 24 if concrete else 32),
        ("inputs", limits.inputs, 1, 6 if concrete else 16),
        ("outputs", limits.outputs, 1, 2),
        ("threads", plan.threads, 1, 1024),
        ("keep", plan.keep, 1, 100_000),
        ("oracle-every", plan.oracle_every, 1, 64),
    ):
        if not least <= value <= most:
            raise OptionError(f"--{name} is {value}; the {plan.space} space takes {least} to {most}.")
    if plan.seconds is not None and not plan.seconds > 0:
        raise OptionError(f"--budget-seconds is {plan.seconds}; give more than 0.")
    if plan.max_graphs is not None and plan.max_graphs < 1:
        raise OptionError(f"--max-graphs is {plan.max_graphs}; give at least 1.")
    if lacking := _lacking(plan):
        raise OptionError(lacking)


def _lacking(plan: Plan) -> str:
    """What the space of a plan does not have, in one sentence; empty where it has everything."""
    if plan.oracle == "egraph":
        return "--oracle egraph is for cross-checks of single queries, not for searches; give table or z3."
    if plan.space == "concrete":
        if plan.kernels != "listing":
            return f"--kernels {plan.kernels} is of the symbolic space; leave out --space concrete."
        if plan.oracle == "table" and plan.oracle_cache != "thread":
            return "--oracle-cache keeps the answers of --oracle z3; the table needs none."
        return ""
    for flag, default in (("oracle", "table"), ("oracle_cache", "thread"), ("oracle_every", 1), ("rules", "code")):
        if (chosen := getattr(plan, flag)) != default:
            name = flag.replace("_", "-")
            return f"--{name} {chosen} is of the concrete space; add --space concrete, or leave it out."
    if plan.order != "dfs" and plan.kernels == "closure":
        return "--order is of the listing: the closure goes by rounds; leave it out."
    return ""
