"""A linear layer with a low-rank adapter: X @ W + (X @ A) @ B."""

import torch
from torch import nn

BATCH = 1
ROWS = 16 * BATCH
K = 256
N = 4096
RANK = 16


class Model(nn.Module):
    def forward(self, X: torch.Tensor, W: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return X @ W + (X @ A) @ B


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, K), torch.randn(K, N), torch.randn(K, RANK), torch.randn(RANK, N)]


def get_init_inputs() -> list[int]:
    return []
