"""Programs that a parallel search is measured with, each with limits at which it takes long enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilesmith.core.graph import Graph
from tilesmith.superopt.build import Program
from tilesmith.superopt.programs import gated_mlp


@dataclass(frozen=True, slots=True)
class Workload:
    graph: Callable[[], Graph]
    options: tuple[str, ...]
    """Of `tilesmith superoptimize`."""
    ranks: bool = True
    """Whether ranks can share it."""


def attention_block() -> Graph:
    """Norm, queries, attention to keys and values that are there, the projection of its output, and the residual."""
    b = Program()
    x, wq = b.input("x", (256, 512)), b.input("wq", (512, 64))
    k, v, wo = b.input("k", (64, 256)), b.input("v", (256, 64)), b.input("wo", (64, 512))
    e = b.exp((b.rms_norm(x) @ wq) @ k)
    b.output(x + ((e / b.sum(e, 1)) @ v) @ wo)
    return b.graph()


def norm_mlp_down() -> Graph:
    """Norm, gate and up projections, and the down projection."""
    b = Program()
    x, w = b.input("x", (256, 512)), b.input("w", (512, 1024))
    u, d = b.input("u", (512, 1024)), b.input("d", (1024, 256))
    n = b.rms_norm(x)
    b.output((b.silu(n @ w) * (n @ u)) @ d)
    return b.graph()


def norm_lora() -> Graph:
    """Norm and a linear layer with a low-rank addition."""
    b = Program()
    x, w = b.input("x", (256, 512)), b.input("w", (512, 1024))
    p, q = b.input("p", (512, 16)), b.input("q", (16, 1024))
    n = b.rms_norm(x)
    b.output(n @ w + (n @ p) @ q)
    return b.graph()


PROGRAMS = {"attention_block": attention_block, "norm_mlp_down": norm_mlp_down, "norm_lora": norm_lora}


def workload(name: str) -> Workload:
    """`norm_lora/5/8`: a program, its kernels, the operators of each. `concrete/10`: the gated MLP in the concrete
    space under the rules of the paper, of so many operators. Raises `ValueError` for any other name.
    """
    match name.split("/"):
        case ["concrete", operators] if operators.isdigit():
            limits = ("--space", "concrete", "--rules", "paper", "--kernel-ops", "1", "--block-ops", operators)
            return Workload(gated_mlp, limits, ranks=False)
        case [program, kernels, operators] if program in PROGRAMS and kernels.isdigit() and operators.isdigit():
            limits = ("--graph-defined-kernels", kernels, "--block-ops", operators)
            return Workload(PROGRAMS[program], limits)
    raise ValueError(
        f"{name} is no workload: PROGRAM/KERNELS/OPERATORS of {', '.join(PROGRAMS)}, or concrete/OPERATORS"
    )


LONG = ("norm_lora/5/8", "attention_block/5/8", "norm_mlp_down/5/9", "concrete/10")
"""Ten seconds and more on one thread."""
