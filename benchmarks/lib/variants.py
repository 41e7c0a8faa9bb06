"""Many kernels that differ as tuning makes them differ: one start kernel with other tiles, warps and stages."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import product

from lib.answer import ROOT
from tilesmith.config import load_problem
from tilesmith.core.problem import Problem

SHARED_BYTES = 220 * 1024
"""Less than one program may have on an H200; larger variants do not compile."""


@dataclass(frozen=True, slots=True)
class Variant:
    source: str
    block_n: int
    block_k: int
    warps: int
    stages: int


def problem() -> Problem:
    return load_problem(ROOT / "examples" / "gated_mlp")


def variants(count: int, warps: tuple[int, ...] = (4, 8), stages: tuple[int, ...] = (2, 3, 4, 5)) -> list[Variant]:
    """The same ones every time, in an order without a trend."""
    start = problem().start or ""
    shapes = [
        shape
        for shape in product((32, 64, 128, 256), (32, 64, 128, 256), warps, stages)
        if _shared_bytes(*shape) <= SHARED_BYTES
    ]
    random.Random(0).shuffle(shapes)
    if count > len(shapes):
        raise ValueError(f"there are only {len(shapes)} variants")
    return [Variant(_variant(start, *shape), *shape) for shape in shapes[:count]]


def _shared_bytes(block_n: int, block_k: int, _warps: int, stages: int) -> int:
    """Of two float16 tiles of the weights and one of 16 rows of the input, a stage."""
    return (2 * block_n + 16) * block_k * 2 * stages


def _variant(start: str, block_n: int, block_k: int, warps: int, stages: int) -> str:
    tiles = f"BLOCK_M, BLOCK_N, BLOCK_K = 16, {block_n}, {block_k}"
    source, tiled = re.subn(r"BLOCK_M, BLOCK_N, BLOCK_K = 16, 64, 64", tiles, start)
    options = f"BLOCK_K=BLOCK_K, num_warps={warps}, num_stages={stages})"
    source, launched = re.subn(r"BLOCK_K=BLOCK_K\)", options, source)
    assert (tiled, launched) == (1, 1)
    return source
