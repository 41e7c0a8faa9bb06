"""Matrix-vector product: A @ x, with few rows and very long ones."""

import torch
from torch import nn

M = 2048
K = 1048576


class Model(nn.Module):
    def forward(self, A: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return A @ x


def get_inputs() -> list[torch.Tensor]:
    return [torch.rand(M, K), torch.rand(K, 1)]


def get_init_inputs() -> list[int]:
    return []
