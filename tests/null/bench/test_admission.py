"""Sources as people write them, judged end to end: what is one kernel, what is another, and what a call launches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.bench.effort import Effort
from tilesmith.bench.offline import OfflineBench
from tilesmith.config import load_problem
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.trial import Candidate, Correct, Duplicate, Trial, Unchecked
from tilesmith.testing.bench import judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

pytestmark = pytest.mark.triton

EXAMPLES = Path(__file__).parents[3] / "examples"
EFFORT = Effort(capture_s=30.0, check_s=30.0, full_s=30.0, sets=1)


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(target("h200"), jobs=2, effort=EFFORT) as bench:
        yield bench


PLAIN = SAMPLES.correct
GRID = "(triton.cdiv(n, 256),)"
ARGUMENTS = "(x, y, z, n, BLOCK=256)"
LAUNCH = f"    scaled_sum[{GRID}]{ARGUMENTS}\n"
EMPTY = "    z = torch.empty_like(x)\n"
TUNED_LAUNCH = "    scaled_sum[lambda m: (triton.cdiv(n, m['BLOCK']),)](x, y, z, n)\n"


def edited(old: str, new: str, source: str = PLAIN) -> str:
    """The source with one place changed."""
    assert source.count(old) == 1
    return source.replace(old, new)


def launching(lines: str) -> str:
    return edited(LAUNCH, lines)


def decorated(decorator: str) -> str:
    """The kernel with its block size chosen by a decorator."""
    return edited("@triton.jit", f"{decorator}\n@triton.jit", launching(TUNED_LAUNCH))


def tuned(*configurations: tuple[int, int]) -> str:
    """Autotuned over pairs of a block size and a number of warps."""
    rows = [f"triton.Config({{'BLOCK': {block}}}, num_warps={warps})" for block, warps in configurations]
    return decorated(f"@triton.autotune(configs=[{', '.join(rows)}], key=['n'])")


MODEL = (
    PLAIN.split("def kernel_function")[0]
    + '''class ModelNew(torch.nn.Module):
    """The same call under the other entry point."""

    def forward(self, left, right):
        out = torch.empty_like(left)
        size = left.numel()
        scaled_sum[(triton.cdiv(size, 256),)](left, right, out, size, BLOCK=256)
        return out
'''
)

SAME = {
    "renamed": SAMPLES.renamed,
    "commented": SAMPLES.commented,
    "spaced": PLAIN.replace("    ", "\t").replace(" + at, ", "   +   at ,\n\t\t").replace("\n\n", "\n\n\n\n"),
    "documented": '"""What this is."""\n' + edited("    at = ", '    """What it does."""\n    at = '),
    "more in the file": PLAIN + "\nUNUSED = 3\n\n\ndef another():\n    return UNUSED\n",
    "by keyword": launching("    scaled_sum[[-(-n // 256)]](n=n, BLOCK=256, z_ptr=z, y_ptr=y, x_ptr=x)\n"),
    "defaults said": launching(f"    scaled_sum[{GRID}]{ARGUMENTS.replace('256', '256, num_warps=4, num_ctas=1')}\n"),
    "stages of no loop": launching(f"    scaled_sum[{GRID}]{ARGUMENTS.replace('256', '256, num_stages=5')}\n"),
    "a grid that is a function": launching(f"    scaled_sum[lambda m: (-(-n // m['BLOCK']), 1, 1)]{ARGUMENTS}\n"),
    "ModelNew": MODEL,
    "a heuristic": decorated("@triton.heuristics({'BLOCK': lambda a: 256 if a['n'] > 100 else 16})"),
    "one configuration": tuned((256, 4)),
    "memory that nobody uses": edited(EMPTY, f"{EMPTY}    torch.empty(10, device=x.device)\n"),
}

DIFFERENT = {
    "plain": PLAIN,
    "larger grid": launching(f"    scaled_sum[(triton.cdiv(n, 256) + 1,)]{ARGUMENTS}\n"),
    "second dimension": launching(f"    scaled_sum[(triton.cdiv(n, 256), 2)]{ARGUMENTS}\n"),
    "more warps": launching(f"    scaled_sum[{GRID}]{ARGUMENTS.replace('256', '256, num_warps=8')}\n"),
    "fewer registers": launching(f"    scaled_sum[{GRID}]{ARGUMENTS.replace('256', '256, maxnreg=32')}\n"),
    "larger block": PLAIN.replace("256", "512"),
    "other arithmetic": edited("2.0 * x + y", "3.0 * x + y"),
    "other scalar": launching(LAUNCH.replace("z, n,", "z, n - 1,")),
    "zeroed output": edited("empty_like", "zeros_like"),
    "zeros that nobody uses": edited(EMPTY, f"{EMPTY}    torch.zeros(10, device=x.device)\n"),
    "more zeros": edited(EMPTY, f"{EMPTY}    torch.zeros(20, device=x.device)\n"),
    "launched twice": launching(LAUNCH * 2),
    "swapped": launching(LAUNCH.replace("(x, y, z", "(y, x, z")),
    "one for both": launching(LAUNCH.replace("(x, y, z", "(x, x, z")),
    "part of a tensor": launching(LAUNCH.replace("(x, y, z", "(x, y.narrow(0, 16, n - 16), z")),
    "tuned": tuned((128, 4), (512, 8)),
    "tuned over one of them": tuned((128, 4)),
    "tuned over another": tuned((128, 4), (1024, 8)),
    "tuned over one more": tuned((128, 4), (512, 8), (1024, 8)),
}


def test_other_words_for_one_kernel_are_one_candidate(bench: OfflineBench) -> None:
    first, *others = judge(bench, PROBLEM, [PLAIN, *SAME.values()])
    assert isinstance(first.verdict, Correct)
    same = Duplicate(first.candidate.id)
    assert {name: trial.verdict for name, trial in zip(SAME, others, strict=True)} == dict.fromkeys(SAME, same)
    assert {trial.fingerprint for trial in others} == {first.fingerprint}


def test_what_reaches_the_device_makes_another(bench: OfflineBench) -> None:
    trials = dict(zip(DIFFERENT, judge(bench, PROBLEM, list(DIFFERENT.values())), strict=True))
    assert [name for name, trial in trials.items() if trial.fingerprint is None] == []
    assert [name for name, trial in trials.items() if isinstance(trial.verdict, Duplicate)] == []
    assert len({trial.fingerprint for trial in trials.values()}) == len(DIFFERENT)


def test_the_folder_does_not_count(bench: OfflineBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [here] = judge(bench, PROBLEM, [PLAIN])
    deep = tmp_path / "a folder" / ("x" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with OfflineBench(target("h200"), jobs=2, effort=EFFORT) as elsewhere:
        [there] = judge(elsewhere, replace(PROBLEM, name="another name"), [PLAIN])
    assert there.fingerprint == here.fingerprint


def test_the_target_counts(bench: OfflineBench) -> None:
    [here] = judge(bench, PROBLEM, [PLAIN])
    with OfflineBench(target("a100-80"), jobs=2, effort=EFFORT) as other:
        [there] = judge(other, PROBLEM, [PLAIN])
    assert there.fingerprint != here.fingerprint
    assert there.profile is not None
    assert there.profile.target == "a100-80"


def test_configurations_are_a_set(bench: OfflineBench) -> None:
    first, turned, repeated = judge(
        bench,
        PROBLEM,
        [tuned((128, 4), (512, 8)), tuned((512, 8), (128, 4)), tuned((512, 8), (128, 4), (512, 8))],
    )
    assert isinstance(first.verdict, Correct)
    assert turned.verdict == repeated.verdict == Duplicate(first.candidate.id)
    (launch,) = first.launches
    assert (launch.grid[0], launch.warps) in {(40, 4), (10, 8)}


# What a call launches -------------------------------------------------------------------------------------------------

HOST_DESCRIPTOR = """import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def through_descriptors(x, y, z, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK
    z.store([at], 2.0 * x.load([at]) + y.load([at]))


def kernel_function(x, y):
    z = torch.empty_like(x)
    n = x.numel()
    descriptors = [TensorDescriptor(tensor, [n], [1], [256]) for tensor in (x, y, z)]
    through_descriptors[(triton.cdiv(n, 256),)](*descriptors, BLOCK=256)
    return z
"""

DEVICE_DESCRIPTOR = """import torch
import triton
import triton.language as tl


@triton.jit
def makes_descriptors(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [n], [1], [BLOCK])
    y = tl.make_tensor_descriptor(y_ptr, [n], [1], [BLOCK])
    z = tl.make_tensor_descriptor(z_ptr, [n], [1], [BLOCK])
    at = tl.program_id(0) * BLOCK
    z.store([at], 2.0 * x.load([at]) + y.load([at]))


def allocate(size, alignment, stream):
    return torch.empty(size, device="cuda", dtype=torch.int8)


def kernel_function(x, y):
    triton.set_allocator(allocate)
    z = torch.empty_like(x)
    n = x.numel()
    makes_descriptors[(triton.cdiv(n, 256),)](x, y, z, n, BLOCK=256, num_warps=2)
    return z
"""

TWO_KERNELS = """import torch
import triton
import triton.language as tl


@triton.jit
def twice(x_ptr, t_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(t_ptr + at, 2.0 * tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def plus(t_ptr, y_ptr, z_ptr, n, part, BLOCK: tl.constexpr):
    at = (part * tl.num_programs(0) + tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(z_ptr + at, tl.load(t_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside), mask=inside)


def kernel_function(x, y):
    t, z = torch.empty_like(x), torch.empty_like(x)
    n = x.numel()
    twice[lambda m: (triton.cdiv(n, m["BLOCK"]),)](x, t, n, BLOCK=128, num_warps=1)
    for part in range(3):
        plus[(triton.cdiv(n, 3 * 64),)](t, y, z, n, part, BLOCK=64, num_warps=2)
    plus[(0,)](t, y, z, n, 3, BLOCK=64)
    return z
"""

THREE_DIMENSIONS = """import torch
import triton
import triton.language as tl


@triton.jit
def cube(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    y = tl.load(y_ptr + at, mask=at < n)
    tl.store(z_ptr + at, 2.0 * x + y, mask=at < n)


def kernel_function(x, y):
    z = torch.empty_like(x)
    cube[(2, 3, triton.cdiv(x.numel(), 6 * 64))](x, y, z, x.numel(), BLOCK=64)
    return z
"""

CALLS: dict[str, tuple[str, list[tuple[str, tuple[int, int, int], int]]]] = {
    # what; its source; kernel, grid and warps of each launch
    "a tuple": (PLAIN, [("scaled_sum", (20, 1, 1), 4)]),
    "two kernels, a function, a loop, an empty grid": (
        TWO_KERNELS,
        [("twice", (40, 1, 1), 1), *[("plus", (27, 1, 1), 2)] * 3],
    ),
    "three dimensions": (THREE_DIMENSIONS, [("cube", (2, 3, 14), 4)]),
    "descriptors made by the host": (HOST_DESCRIPTOR, [("through_descriptors", (20, 1, 1), 4)]),
    "descriptors made by the kernel": (DEVICE_DESCRIPTOR, [("makes_descriptors", (20, 1, 1), 2)]),
}


def test_launches_are_those_of_a_real_call(bench: OfflineBench) -> None:
    trials = dict(zip(CALLS, judge(bench, PROBLEM, [source for source, _ in CALLS.values()]), strict=True))
    seen = {name: [(each.kernel, each.grid, each.warps) for each in trial.launches] for name, trial in trials.items()}
    assert seen == {name: launches for name, (_, launches) in CALLS.items()}
    assert {name: type(trial.verdict) for name, trial in trials.items()} == dict.fromkeys(CALLS, Correct)
    for trial in trials.values():
        assert all(0 < launch.registers <= 255 and launch.spills == 0 for launch in trial.launches)
        assert trial.profile is not None
        assert len(trial.profile.kernels) == len(trial.launches)
    through_shared = [name for name, trial in trials.items() if any(each.shared_bytes for each in trial.launches)]
    assert through_shared == ["descriptors made by the host", "descriptors made by the kernel"]


def test_arguments_are_those_of_full_size(bench: OfflineBench) -> None:
    [trial] = judge(bench, PROBLEM, [PLAIN])
    (launch,) = trial.launches
    tensors = dict.fromkeys(("x_ptr", "y_ptr", "z_ptr"), "fp32[5000]")
    assert dict(launch.arguments) == {"BLOCK": 256, "n": 5000, **tensors}


STATEFUL = Problem(
    "affine",
    """import torch
from torch import nn

N = 3000


class Scale(nn.Module):
    def __init__(self, n, power):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(n))
        self.register_buffer("shift", torch.randn(n) ** power)


class Model(nn.Module):
    def __init__(self, n, power):
        super().__init__()
        self.inner = Scale(n, power)

    def forward(self, x):
        return x * self.inner.factor + self.inner.shift


def get_inputs():
    return [torch.randn(4, N)]


def get_init_inputs():
    return [N, 2]
""",
    Settings("bf16", small={"N": 200}),
)

AFFINE = """import torch
import triton
import triton.language as tl


@triton.jit
def affine(x_ptr, a_ptr, b_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + tl.program_id(0) * n + at, mask=inside).to(tl.float32)
    a = tl.load(a_ptr + at, mask=inside).to(tl.float32)
    b = tl.load(b_ptr + at, mask=inside).to(tl.float32)
    tl.store(y_ptr + tl.program_id(0) * n + at, (x * a + b).to(y_ptr.dtype.element_ty), mask=inside)


def kernel_function(x, *, inner_shift, inner_factor):
    y = torch.empty_like(x)
    rows, n = x.shape
    affine[(rows, triton.cdiv(n, 512))](x, inner_factor, inner_shift, y, n, BLOCK=512)
    return y
"""


def test_parameters_and_buffers_come_by_name(bench: OfflineBench) -> None:
    [trial] = judge(bench, STATEFUL, [AFFINE])
    assert isinstance(trial.verdict, Correct), trial.verdict
    (launch,) = trial.launches
    assert launch.grid == (4, 6, 1)
    assert [launch.argument(name) for name in ("x_ptr", "a_ptr", "b_ptr")] == ["bf16[4, 3000]", *["bf16[3000]"] * 2]


def test_shared_memory_and_matrix_units_of_an_example(bench: OfflineBench) -> None:
    problem = load_problem(EXAMPLES / "gated_mlp")
    assert problem.start is not None
    [trial] = judge(bench, problem, [problem.start])
    assert isinstance(trial.verdict, Correct), trial.verdict
    (launch,) = trial.launches
    assert (launch.grid, launch.warps, launch.stages) == ((1, 64, 1), 4, 3)
    # Three stages of two 64 by 64 tiles and one of 16 by 64, in float16, less what is loaded into registers.
    assert 2 * 64 * 64 * 2 <= launch.shared_bytes <= 3 * (2 * 64 + 16) * 64 * 2 + 1024
    assert launch.argument("a_ptr") == "fp16[4096, 4096]"


GLUON = """import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def in_gluon(x_ptr, y_ptr, z_ptr, n, BLOCK: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    at = gl.program_id(0) * BLOCK + gl.arange(0, BLOCK, layout=layout)
    inside = at < n
    z = 2.0 * gl.load(x_ptr + at, mask=inside) + gl.load(y_ptr + at, mask=inside)
    gl.store(z_ptr + at, z, mask=inside)


def kernel_function(x, y):
    z = torch.empty_like(x)
    n = x.numel()
    in_gluon[((n + 255) // 256,)](x, y, z, n, BLOCK=256, num_warps=4)
    return z
"""


def test_gluon_compiles_and_stays_unchecked(bench: OfflineBench) -> None:
    [trial] = judge(bench, PROBLEM, [GLUON])
    assert isinstance(trial.verdict, Unchecked), trial.verdict
    assert trial.verdict.time is not None
    assert trial.verdict.time.estimate_us > 0
    assert trial.time_us is None
    assert summary(trial) == [("in_gluon", (20, 1, 1), 4)]
    assert trial.fingerprint


def summary(trial: Trial) -> list[tuple[str, tuple[int, int, int], int]]:
    return [(launch.kernel, launch.grid, launch.warps) for launch in trial.launches]


def test_who_proposed_a_candidate_does_not_count(bench: OfflineBench) -> None:
    given = [Candidate(PLAIN, "start"), Candidate(SAMPLES.renamed, "rewrite:anything", "its parent")]
    first, second = bench.judge(PROBLEM, given, ())
    assert [first.candidate.origin, second.candidate.origin] == ["start", "rewrite:anything"]
    assert second.verdict == Duplicate(first.candidate.id)
