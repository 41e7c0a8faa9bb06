"""A transformer layer through `tilesmith.compile`: what it calls, what was replaced, and by what.

    python examples/compile_transformer.py                  on a GPU where there is one
    TRITON_INTERPRET=1 python examples/compile_transformer.py --estimates
                                                            without: kernels accepted on estimates, and interpreted

The second start finds what the first one found in the cache, and searches nothing.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tilesmith


class Layer(nn.Module):
    """Norm, attention, residual, norm, gated MLP, residual."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = self.split(self.query(y)), self.split(self.key(y)), self.split(self.value(y))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.between(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--layers", type=int, default=2, help="of one form: their parts are searched once")
    options.add_argument("--budget-seconds", type=float, default=120.0)
    options.add_argument("--estimates", action="store_true", help="without a GPU; needs TRITON_INTERPRET=1")
    given = options.parse_args()

    gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    width, heads, inner, tokens = (512, 8, 1408, 256) if gpu else (32, 2, 64, 16)
    model = nn.Sequential(*(Layer(width, heads, inner) for _ in range(given.layers))).eval()
    x = torch.randn(1, tokens, width)
    if gpu:
        model, x = model.half().cuda(), x.half().cuda()

    compiled = tilesmith.compile(model, budget_seconds=given.budget_seconds, estimates=given.estimates)
    with torch.no_grad():
        began = time.perf_counter()
        y = compiled(x)
        print(f"first call: {time.perf_counter() - began:.1f} s")
        print(f"largest difference from PyTorch: {(y - model(x)).abs().max().item():.2g}\n")
    print(compiled.explain())


if __name__ == "__main__":
    main()
