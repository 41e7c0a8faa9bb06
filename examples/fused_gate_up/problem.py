"""Gate and up projections with a GELU gate: gelu(x @ Wg.T) * (x @ Wu.T)."""

import torch
import torch.nn.functional as F
from torch import nn

ROWS = 512
HIDDEN = 3072
INNER = 24576


class Model(nn.Module):
    def forward(self, x: torch.Tensor, Wg: torch.Tensor, Wu: torch.Tensor) -> torch.Tensor:
        return F.gelu(x @ Wg.T, approximate="tanh") * (x @ Wu.T)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, HIDDEN), torch.randn(INNER, HIDDEN), torch.randn(INNER, HIDDEN)]


def get_init_inputs() -> list[int]:
    return []
