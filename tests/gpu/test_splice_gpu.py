"""A module on a GPU: what is replaced is right and was measured to be faster, and the next start searches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tilesmith
from tilesmith.bench.gpus import find
from tilesmith.splice.contest import contest, faster
from tilesmith.splice.explanation import Explanation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not find(), reason="this machine has no NVIDIA GPU"),
    # Inductor's own, when it is first imported.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(1024)
        self.gate, self.up = (nn.Linear(1024, 2048, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return nn.functional.silu(self.gate(y)) * self.up(y)


def started(cache: Path) -> Explanation:
    torch.manual_seed(0)
    torch.compiler.reset()
    module, x = Mlp().eval().half().cuda(), torch.randn(16, 1024, device="cuda", dtype=torch.float16)
    compiled = tilesmith.compile(module, budget_seconds=60, cache=cache)
    with torch.no_grad():
        got = compiled(x).double()
        truth = module.double()(x.double())
    torch.testing.assert_close(got, truth, rtol=0, atol=0.02 * truth.std().item())
    return compiled.explain()


def test_what_is_replaced_was_measured_to_be_faster(tmp_path: Path) -> None:
    first = started(tmp_path / "cache")
    (graph,) = first.graphs
    assert graph.search_seconds > 0
    for part in graph.parts:
        assert not part.found.cached
        if part.found.evidence is None:
            assert part.found.reason
            continue
        timing = part.found.evidence.measured
        assert timing is not None
        assert faster(timing)
        assert part.found.evidence.baseline in ("torch.compile", "eager")
        assert part.found.evidence.checks > 100
    second = started(tmp_path / "cache")
    assert second.graphs[0].search_seconds == 0
    assert all(part.found.cached for part in second.graphs[0].parts)
    assert second.replaced == first.replaced


PART = """
import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x0):
        return x0 * 2


def get_inputs():
    return [torch.randn(4096, 4096)]


def get_init_inputs():
    return []
"""

SLOWER = """
import torch


def kernel_function(x0):
    return ((x0 + x0) * 0.5 * 2).clone()
"""


def test_what_is_slower_than_pytorch_is_not_faster() -> None:
    answer = contest(PART, SLOWER, find()[0], tf32=False)
    assert not isinstance(answer, str), answer
    baseline, timing = answer
    assert baseline in ("torch.compile", "eager")
    assert timing.rival_us is not None
    assert not faster(timing)


def test_what_fails_is_told() -> None:
    answer = contest(PART, SLOWER.replace("x0 + x0", "x0.nothing()"), find()[0], tf32=False)
    assert isinstance(answer, str)
    assert "could not be timed against torch.compile: AttributeError" in answer
