"""Programs that a parallel search is measured with, each with limits at which it takes long enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tilesmith.core.graph import Graph
from tilesmith.superopt.programs import attention_block, gated_mlp, norm_lora, norm_mlp
from tilesmith.superopt.workloads import Workload, concrete, symbolic

PROGRAMS: dict[str, Callable[[], Graph]] = {
    "attention_block": attention_block,
    "norm_mlp_down": partial(norm_mlp, 256, 512, 1024, residual=False),
    "norm_lora": partial(norm_lora, 256, 512, 1024),
}


def workload(name: str) -> Workload:
    """`norm_lora/7/7`: a program, its kernels, the operators of each. `concrete/10`: the gated MLP in the concrete
    space under the rules of the paper, of so many operators. Raises `ValueError` for any other name.
    """
    match name.split("/"):
        case ["concrete", operators] if operators.isdigit():
            return Workload(gated_mlp, concrete(int(operators)))
        case [program, kernels, operators] if program in PROGRAMS and kernels.isdigit() and operators.isdigit():
            return Workload(PROGRAMS[program], symbolic(int(kernels), int(operators)))
    raise ValueError(
        f"{name} is no workload: PROGRAM/KERNELS/OPERATORS of {', '.join(PROGRAMS)}, or concrete/OPERATORS"
    )


LONG = ("attention_block/6/7", "norm_lora/7/7", "norm_mlp_down/7/7", "concrete/10")
"""Ten seconds and more on one thread."""
