"""Two scenes of a search, complete enough to be asked about."""

from __future__ import annotations

from pathlib import Path

from tilesmith.core.gpu import TABLE
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.profile import KernelProfile, Launch, Profile
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Direction,
    Duplicate,
    Environment,
    Estimate,
    Failed,
    Timing,
    Trial,
    Wrong,
)
from tilesmith.propose.analysis import by_rules
from tilesmith.propose.history import history
from tilesmith.propose.prompts import Scene

EXAMPLES = Path(__file__).parents[3] / "examples"
H200 = TABLE["h200"]
TAXONOMY = (
    ("partial_sums", "a sum is split over programs and a second kernel adds the parts"),
    ("matrix_units", "products run on the matrix units"),
    ("masked_edges", "loads or stores are masked"),
    ("wide_sums", "16-bit operands, 32-bit accumulators"),
)
MATVEC = Problem(
    "matvec",
    (EXAMPLES / "matvec" / "problem.py").read_text(encoding="utf-8"),
    Settings("bf16", small={"M": 300, "K": 1000}),
)
START_LAUNCH = Launch(
    "matvec_kernel",
    (16, 1, 1),
    4,
    2,
    0,
    128,
    0,
    (("BLOCK_K", 256), ("BLOCK_M", 128), ("a_ptr", "bf16[2048, 1048576]"), ("x_ptr", "bf16[1048576, 1]")),
    frozenset({"vector128"}),
)
START_PROFILE = Profile(
    "estimate",
    "h200",
    (KernelProfile("matvec_kernel", 12840.0, "parallelism", 4.297e9, 4.328e9, 8.6e9, 0.0625, 0.06),),
)
START = Trial(
    Candidate((EXAMPLES / "matvec" / "kernel.py").read_text(encoding="utf-8"), "start"),
    Correct(Estimate(12840.0), 0.2),
    "f0",
    (START_LAUNCH,),
    START_PROFILE,
    environment=Environment("offline", "h200", None, None, "2.11.0", "3.6.0", "3.12.3"),
)


def tried(source: str, verdict: object, model: str = "anthropic:one", parent: str = "", fingerprint: str = "") -> Trial:
    """A trial of round 1, of START unless another parent is named."""
    candidate = Candidate(source, model, parent or START.candidate.id, Direction(1, 1, 1, model, 1))
    return Trial(candidate, verdict, fingerprint or None, round=1)  # type: ignore[arg-type]


SPLIT_SOURCE = """import torch
import triton
import triton.language as tl


@triton.jit
def part_kernel(a_ptr, x_ptr, p_ptr, K, STEP: tl.constexpr):
    '''A docstring with a fence:
```python
not code
```
    '''


def kernel_function(A, x):
    return A  # {{ not }} {% a template %}
"""
PART = Launch("part_kernel", (2048, 4, 1), 8, 3, 1024, 40, 0, (("STEP", 4096),), frozenset({"cp.async", "vector128"}))
SUM = Launch("sum_kernel", (8, 1, 1), 4, 2, 0, 24, 0)
COUNTED = (
    ("achieved_occupancy_pct", 74.1),
    ("bytes_used_per_loaded_sector", 32.0),
    ("dram_throughput_pct", 91.25),
    ("fma_pipe_pct", 12.5),
    ("l2_hit_pct", 2.04),
    ("l2_throughput_pct", 43.8),
    ("local_requests", 0.0),
    ("sm_active_pct", 98.4),
    ("stall_long_scoreboard_pct", 73.8),
    ("stall_short_scoreboard_pct", 6.1),
    ("tensor_pipe_pct", 0.0),
)
SPLIT_PROFILE = Profile(
    "ncu",
    "h200",
    (
        KernelProfile("part_kernel", 980.0, "dram", 4.297e9, 4.4e9, 8.6e9, 0.74, 7.76, COUNTED),
        KernelProfile("sum_kernel", 4.0, "parallelism", 4.0e4, 4.0e4, 8.2e3, 0.06, 0.01),
    ),
)
SPLIT = Trial(
    Candidate(SPLIT_SOURCE, "anthropic:one", START.candidate.id, Direction(1, 1, 1, "anthropic:one", 1)),
    Correct(Timing(988.0, 985.2, 990.9, 120, START.candidate.id, 12790.0, 12700.0, 12890.0), 0.2),
    "f1",
    (PART, SUM),
    round=1,
    environment=Environment("local", "h200", "NVIDIA H200", "580", "2.11.0+cu130", "3.6.0", "3.12.3"),
)
CHILDREN = (
    tried("slow", Correct(Timing(1101.0, 1100.0, 1102.0, 100), 0.3), "openai:two", SPLIT.candidate.id, "f2"),
    tried("same", Duplicate(SPLIT.candidate.id), "openai:two", SPLIT.candidate.id, "f1"),
    tried("bad 1", Failed("compile", "at 12:8: out of resource: shared memory"), "x:y", SPLIT.candidate.id),
    tried("bad 2", Failed("compile", "at 14:8: out of resource: shared memory"), "x:y", SPLIT.candidate.id),
    tried("bad 3", Wrong("output 0 differs in 3 of 2048 elements", 37.2), "x:y", SPLIT.candidate.id),
)
TRIALS = (START, SPLIT, *CHILDREN)
USED = {START.candidate.id: ("masked_edges", "wide_sums"), SPLIT.candidate.id: ("partial_sums", "wide_sums")}


def techniques(trial: Trial) -> tuple[str, ...]:
    return USED.get(trial.candidate.id, ())


def first_round(rank: int) -> Scene:
    """The start kernel, estimated; nothing was tried."""
    ranked = by_rules(START, START_PROFILE, H200, 3).bottlenecks
    return Scene(
        MATVEC,
        H200,
        START,
        START_PROFILE,
        ranked[rank - 1],
        rank,
        history(START, (START,), techniques),
        TAXONOMY,
        frozenset(techniques(START)),
        baseline_us=12840.0,
        measured=False,
    )


def later_round(rank: int) -> Scene:
    """A child of it, measured, with children of its own that went well and badly."""
    ranked = by_rules(SPLIT, SPLIT_PROFILE, H200, 3).bottlenecks
    return Scene(
        MATVEC,
        H200,
        SPLIT,
        SPLIT_PROFILE,
        ranked[rank - 1],
        rank,
        history(SPLIT, TRIALS, techniques),
        TAXONOMY,
        frozenset(techniques(START) + techniques(SPLIT)),
        baseline_us=12790.0,
        target_us=976.0,
    )
