"""The published programs, blocks of a transformer and a whole layer, as kernel graphs without torch."""

from __future__ import annotations

from collections.abc import Callable

from tilesmith.core.graph import Graph
from tilesmith.superopt.build import Expression, Program


def rmsnorm_linear(batch: int = 1, k: int = 4096, n: int = 6144) -> Graph:
    """rms(X) @ W."""
    b = Program()
    x, w = b.input("X", (2 * batch, k)), b.input("W", (k, n))
    b.output(b.rms_norm(x) @ w)
    return b.graph()


def gated_mlp(batch: int = 1, k: int = 4096, n: int = 4096) -> Graph:
    """silu(X @ A) * (X @ B)."""
    b = Program()
    x, left, right = b.input("X", (8 * batch, k)), b.input("A", (k, n)), b.input("B", (k, n))
    b.output(b.silu(x @ left) * (x @ right))
    return b.graph()


def gqa(batch: int = 1, rows: int = 256, keys: int = 4096, dim: int = 64) -> Graph:
    """softmax(Q @ K / 16) @ V, without the shift by the maximum."""
    b = Program()
    q, k = b.input("Q", (2 * batch, rows, dim)), b.input("K", (2 * batch, dim, keys))
    v = b.input("V", (2 * batch, keys, dim))
    e = b.exp((q @ k) / 16)
    b.output((e / b.sum(e, 2)) @ v)
    return b.graph()


def qknorm_gqa(batch: int = 1, rows: int = 256, keys: int = 4096, dim: int = 64) -> Graph:
    """softmax(rms(Q) @ rms(K).mT / 16) @ V, without the shift by the maximum."""
    b = Program()
    q = b.input("Q", (2 * batch, rows, dim))
    k, v = b.input("K", (2 * batch, keys, dim)), b.input("V", (2 * batch, keys, dim))
    e = b.exp((b.rms_norm(q) @ b.transpose(b.rms_norm(k))) / 16)
    b.output((e / b.sum(e, 2)) @ v)
    return b.graph()


def lora(batch: int = 1, k: int = 256, n: int = 4096, rank: int = 16) -> Graph:
    """X @ W + (X @ A) @ B."""
    b = Program()
    x, w = b.input("X", (16 * batch, k)), b.input("W", (k, n))
    left, right = b.input("A", (k, rank)), b.input("B", (rank, n))
    b.output(x @ w + (x @ left) @ right)
    return b.graph()


def norm_transformer(batch: int = 1, width: int = 4096) -> Graph:
    """rms(X + a * (rms(H) + X))."""
    b = Program()
    h, x, a = (b.input(name, (8 * batch, width)) for name in "HXa")
    b.output(b.rms_norm(x + a * (b.rms_norm(h) + x)))
    return b.graph()


def fused_gate_up(rows: int = 512, hidden: int = 3072, inner: int = 24576) -> Graph:
    """gelu(x @ Wg.T) * (x @ Wu.T)."""
    b = Program()
    x = b.input("x", (rows, hidden), "bf16")
    gate, up = b.input("Wg", (inner, hidden), "bf16"), b.input("Wu", (inner, hidden), "bf16")
    b.output(b.gelu(x @ b.transpose(gate)) * (x @ b.transpose(up)))
    return b.graph()


def norm_lora(rows: int = 16, k: int = 256, n: int = 4096, rank: int = 16) -> Graph:
    """rms(X) @ W + (rms(X) @ A) @ B."""
    b = Program()
    x, w = b.input("X", (rows, k)), b.input("W", (k, n))
    left, right = b.input("A", (k, rank)), b.input("B", (rank, n))
    normed = b.rms_norm(x)
    b.output(normed @ w + (normed @ left) @ right)
    return b.graph()


def norm_mlp(rows: int = 16, width: int = 1024, inner: int = 2816, residual: bool = True) -> Graph:
    """X + (silu(rms(X) @ G) * (rms(X) @ U)) @ D."""
    b = Program()
    x, gate, up = b.input("X", (rows, width)), b.input("G", (width, inner)), b.input("U", (width, inner))
    down = b.input("D", (inner, width))
    normed = b.rms_norm(x)
    made = (b.silu(normed @ gate) * (normed @ up)) @ down
    b.output(x + made if residual else made)
    return b.graph()


def attention_output(rows: int = 256, keys: int = 4096, dim: int = 64) -> Graph:
    """(softmax(Q @ K / 8) @ V) @ O, without the shift by the maximum."""
    b = Program()
    q, k, v = b.input("Q", (rows, dim)), b.input("K", (dim, keys)), b.input("V", (keys, dim))
    e = b.exp((q @ k) / 8)
    b.output(((e / b.sum(e, 1)) @ v) @ b.input("O", (dim, 4 * dim)))
    return b.graph()


def attention_block(rows: int = 256, keys: int = 256, width: int = 512, dim: int = 64) -> Graph:
    """X + (softmax(rms(X) @ Q @ K) @ V) @ O, without the shift by the maximum."""
    b = Program()
    x, query = b.input("X", (rows, width)), b.input("Q", (width, dim))
    k, v, output = b.input("K", (dim, keys)), b.input("V", (keys, dim)), b.input("O", (dim, width))
    e = b.exp((b.rms_norm(x) @ query) @ k)
    b.output(x + ((e / b.sum(e, 1)) @ v) @ output)
    return b.graph()


def transformer_layer(
    batch: int = 1, tokens: int = 256, width: int = 512, heads: int = 8, dim: int = 64, inner: int = 1408
) -> Graph:
    """Norm, q/k/v projections, attention by heads, output projection, residual, norm, gated MLP, residual."""
    b = Program()
    x = b.input("x", (batch, tokens, width))
    query, key, value = (b.input(name, (width, heads * dim)) for name in ("query", "key", "value"))
    output = b.input("output", (heads * dim, width))
    gate, up = b.input("gate", (width, inner)), b.input("up", (width, inner))
    down = b.input("down", (inner, width))

    def split(y: Expression) -> Expression:
        return b.permute(b.reshape(y, batch, tokens, heads, dim), 0, 2, 1, 3)

    normed = b.rms_norm(x)
    q, k, v = split(normed @ query), split(normed @ key), split(normed @ value)
    weights = b.softmax((q @ b.transpose(k)) / dim**0.5)
    mixed = b.reshape(b.permute(weights @ v, 0, 2, 1, 3), batch, tokens, heads * dim)
    h = x + mixed @ output
    normed = b.rms_norm(h)
    b.output(h + (b.silu(normed @ gate) * (normed @ up)) @ down)
    return b.graph()


PROGRAMS: dict[str, Callable[[], Graph]] = {
    "rmsnorm_linear": rmsnorm_linear,
    "gated_mlp": gated_mlp,
    "gqa": gqa,
    "qknorm_gqa": qknorm_gqa,
    "lora": lora,
    "norm_transformer": norm_transformer,
    "fused_gate_up": fused_gate_up,
    "transformer_layer": transformer_layer,
}
"""At the sizes of the benchmarks, batch 1."""
