"""A whole graph by the clock: what is slower is said, and nothing of the caller's changes."""

from __future__ import annotations

import time

import torch

from tilesmith.splice.explanation import GraphReport
from tilesmith.splice.whole import CALLS, ROUNDS, Whole, clocked


def test_each_is_called_as_often_and_the_generator_stays() -> None:
    counts = {"own": 0, "original": 0}

    def own(x: torch.Tensor) -> torch.Tensor:
        counts["own"] += 1
        time.sleep(0.002)
        return x + torch.rand_like(x)

    def original(x: torch.Tensor) -> torch.Tensor:
        counts["original"] += 1
        return x

    state = torch.get_rng_state()
    made = clocked(own, original, [torch.ones(4)])
    assert torch.equal(torch.get_rng_state(), state)
    assert counts == {"own": ROUNDS * CALLS, "original": ROUNDS * CALLS}
    assert made.own_us >= 2000
    assert made.slower
    assert not Whole(made.original_us, made.own_us).slower


def test_what_is_slower_says_what_helps() -> None:
    report = GraphReport("fp16 1x256x512", whole=Whole(289.0, 205.0))
    assert "as a whole: 289" in str(report)
    assert 'rest="cudagraphs"' in str(report)
    assert "cudagraphs" not in str(GraphReport("fp16 1x256x512", whole=Whole(205.0, 289.0)))
