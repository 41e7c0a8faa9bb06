"""Max pooling over volumes: windows of 3, stride 2, padding 1, dilation 3."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 16
CHANNELS = 32
DEPTH = 128
HEIGHT = 128
WIDTH = 128


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool3d(x, 3, stride=2, padding=1, dilation=3)


def get_inputs() -> list[torch.Tensor]:
    return [torch.rand(BATCH, CHANNELS, DEPTH, HEIGHT, WIDTH)]


def get_init_inputs() -> list[int]:
    return []
