"""A whole transformer layer: norm, attention, residual, norm, gated MLP, residual."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 1
TOKENS = 256
WIDTH = 512
HEADS = 8
HEAD_DIM = 64
INNER = 1408


def rms(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=1e-5)


class Model(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        # The layer is the same in every process, whatever was drawn before.
        generator = torch.Generator(device="cpu").manual_seed(0)

        def weight(rows: int, columns: int) -> nn.Parameter:
            drawn = torch.randn(rows, columns, generator=generator, device="cpu")
            return nn.Parameter(drawn / rows**0.5)

        self.query = weight(width, heads * head_dim)
        self.key = weight(width, heads * head_dim)
        self.value = weight(width, heads * head_dim)
        self.output = weight(heads * head_dim, width)
        self.gate = weight(width, inner)
        self.up = weight(width, inner)
        self.down = weight(inner, width)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        def split(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(x @ self.query), split(x @ self.key), split(x @ self.value)
        weights = torch.softmax((q @ k.mT) / q.shape[-1] ** 0.5, dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2) @ self.output

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        return (F.silu(x @ self.gate) * (x @ self.up)) @ self.down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(rms(x))
        return x + self.mlp(rms(x))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, TOKENS, WIDTH)]


def get_init_inputs() -> list[int]:
    return [WIDTH, HEADS, HEAD_DIM, INNER]
