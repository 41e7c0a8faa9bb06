"""RMS norm, then a linear layer: rms(X) @ W."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 1
ROWS = 2 * BATCH
K = 4096
N = 6144


class Model(nn.Module):
    def forward(self, X: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(X, (X.shape[-1],), eps=1e-5) @ W


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, K), torch.randn(K, N)]


def get_init_inputs() -> list[int]:
    return []
