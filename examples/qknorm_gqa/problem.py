"""Group-query attention with normalised queries and keys: softmax(rms(Q) @ rms(K).mT / 16) @ V."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 1
GROUPS = 2 * BATCH
ROWS = 256
KEYS = 4096
DIM = 64


class Model(nn.Module):
    def forward(self, Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
        q = F.rms_norm(Q, (Q.shape[-1],), eps=1e-5)
        k = F.rms_norm(K, (K.shape[-1],), eps=1e-5)
        E = torch.exp((q @ k.mT) / 16)
        return (E / E.sum(2, keepdim=True)) @ V


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(GROUPS, ROWS, DIM), torch.randn(GROUPS, KEYS, DIM), torch.randn(GROUPS, KEYS, DIM)]


def get_init_inputs() -> list[int]:
    return []
