"""Programs of several kernels that a parallel search is measured with."""

from __future__ import annotations

from tilesmith.core.graph import Graph
from tilesmith.superopt.build import Program


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


WORKLOADS = {"attention_block": attention_block, "norm_mlp_down": norm_mlp_down, "norm_lora": norm_lora}
