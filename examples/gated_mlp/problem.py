"""The gated half of an MLP: silu(X @ A) * (X @ B)."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 1
ROWS = 8 * BATCH
K = 4096
N = 4096


class Model(nn.Module):
    def forward(self, X: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return F.silu(X @ A) * (X @ B)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, K), torch.randn(K, N), torch.randn(K, N)]


def get_init_inputs() -> list[int]:
    return []
