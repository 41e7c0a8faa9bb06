"""Small modules that stand for what people compile; each with its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Norm, attention, residual, norm, gated MLP, residual."""

    def __init__(self, width: int = 32, heads: int = 2, inner: int = 48) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (
            each(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.between(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Twice(nn.Module):
    """Two layers of one form, with an operator between them that µGraphs have not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Layer(), Layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.cumsum(self.first(x), 1))


class Views(nn.Module):
    """Results that are views: of inputs, of each other, and laid out otherwise than a kernel would."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        both = (x * y).transpose(0, 1)
        low, high = both.chunk(2, dim=-1)
        return both, low.contiguous(), x.view(-1), high + 1, both.contiguous().view(-1), y


class Constants(nn.Module):
    """A table of its own, numbers, and a dtype on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 24).view(2, 12))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float64) * self.table + torch.tensor([2.0])
        return (wide / wide.square().mean(-1, keepdim=True).sqrt()).to(torch.float32) * 3


class Normal(nn.Module):
    """Calls that take several operators, and one with a dropout that is off."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.one = nn.LayerNorm(16), nn.Dropout(0.5), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.drop(functional.gelu(self.one(self.norm(x)))), -1) @ x.mT


class Pooled(nn.Module):
    """A convolution in channels-last, and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(torch.relu(self.turn(x)), 2) * 2 + 1


Case = tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]

CASES: dict[str, Case] = {
    "layer": (Layer, lambda: (torch.randn(2, 8, 32),)),
    "twice": (Twice, lambda: (torch.randn(2, 8, 32),)),
    "views": (Views, lambda: (torch.randn(4, 6), torch.randn(4, 6))),
    "constants": (Constants, lambda: (torch.randn(2, 12),)),
    "normal": (Normal, lambda: (torch.randn(3, 8, 16),)),
    "pooled": (Pooled, lambda: (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),)),
    "strided": (Normal, lambda: (torch.randn(3, 16, 8).transpose(1, 2),)),
}


def made(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    module, inputs = case
    return module().eval(), inputs()
