"""What studies of the search search: programs, with the space and the limits at which each takes seconds.

The published programs are exhausted within a millisecond in the symbolic space, too little to share out; there it is
programs of three kernels and more that need many cores, and in the concrete space all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilesmith.core.graph import Graph
from tilesmith.superopt.build import Program
from tilesmith.superopt.programs import (
    attention_output,
    gated_mlp,
    gqa,
    lora,
    norm_lora,
    norm_mlp,
    norm_transformer,
    qknorm_gqa,
    rmsnorm_linear,
)


@dataclass(frozen=True, slots=True)
class Workload:
    graph: Callable[[], Graph]
    options: tuple[str, ...]
    """Of `tilesmith superoptimize`."""


def small_product() -> Graph:
    """X @ W, of few grids: what z3 exhausts within seconds."""
    b = Program()
    x, w = b.input("X", (6, 64)), b.input("W", (64, 10))
    b.output(x @ w)
    return b.graph()


def concrete(ops: int, rules: str = "paper") -> tuple[str, ...]:
    return ("--space", "concrete", "--rules", rules, "--kernel-ops", "1", "--block-ops", str(ops))


def symbolic(kernels: int, ops: int) -> tuple[str, ...]:
    return ("--kernel-ops", str(kernels), "--graph-defined-kernels", str(kernels), "--block-ops", str(ops))


WORKLOADS: dict[str, Workload] = {
    "concrete/rmsnorm_linear": Workload(rmsnorm_linear, concrete(7)),
    "concrete/gated_mlp": Workload(gated_mlp, concrete(9)),
    "concrete/norm_transformer": Workload(norm_transformer, concrete(6)),
    "concrete/lora": Workload(lora, concrete(6)),
    "concrete/gqa": Workload(gqa, concrete(6)),
    "concrete/qknorm_gqa": Workload(qknorm_gqa, concrete(5)),
    "oracle/small_product": Workload(small_product, concrete(4)),
    # What is repeated, to see that who searches changes nothing.
    "concrete/small": Workload(rmsnorm_linear, concrete(6)),
    "symbolic/small": Workload(norm_mlp, symbolic(3, 8)),
    "symbolic/norm_lora": Workload(norm_lora, symbolic(4, 11)),
    "symbolic/norm_mlp": Workload(norm_mlp, symbolic(4, 11)),
    "symbolic/attention_output": Workload(attention_output, symbolic(4, 11)),
}
