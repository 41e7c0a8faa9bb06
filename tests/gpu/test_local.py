"""The bench on a real GPU: the same promises, and what only a device can show."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.bench.effort import Effort
from tilesmith.bench.gpus import find
from tilesmith.bench.local import LocalBench
from tilesmith.config import load_problem
from tilesmith.core.errors import ProblemError
from tilesmith.core.trial import Candidate, Correct, Failed, Timing, Wrong
from tilesmith.testing.bench import RunningBenchConformance, judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not find(), reason="this machine has no NVIDIA GPU")]

EXAMPLES = Path(__file__).parents[2] / "examples"
RETURN = "    return z\n"


@pytest.fixture(scope="module")
def bench() -> Iterator[LocalBench]:
    with LocalBench(find(), effort=Effort(capture_s=15.0, open_s=15.0, check_s=10.0, time_s=10.0)) as bench:
        yield bench


class TestLocalBench(RunningBenchConformance):
    @pytest.fixture
    def bench(self, bench: LocalBench) -> LocalBench:
        return bench


def test_a_time_is_a_measurement_with_an_interval(bench: LocalBench) -> None:
    (trial,) = judge(bench, PROBLEM, [SAMPLES.correct])
    assert isinstance(trial.verdict, Correct)
    time = trial.verdict.time
    assert isinstance(time, Timing)
    assert 0 < time.low_us <= time.time_us <= time.high_us
    assert time.samples >= 50
    assert trial.environment is not None
    assert trial.environment.gpu is not None
    assert 0 < trial.cost.measured_s <= trial.cost.gpu_s <= trial.cost.wall_s


def test_later_ones_alternate_with_the_fastest(bench: LocalBench) -> None:
    first, second = judge(bench, PROBLEM, [SAMPLES.correct, SAMPLES.other])
    (third,) = judge(bench, PROBLEM, [SAMPLES.correct.replace("256", "1024")], [first, second])
    assert isinstance(third.verdict, Correct)
    assert isinstance(third.verdict.time, Timing)
    assert third.verdict.time.rival in (first.candidate.id, second.candidate.id)
    assert third.verdict.time.rival_us is not None


def spoil(statement: str) -> str:
    """A correct kernel that does something more before it returns."""
    return SAMPLES.correct.replace(RETURN, f"    {statement}\n{RETURN}")


HANG = SAMPLES.correct.replace(
    "    tl.store(", "    i = 0\n    while i < n:\n        tl.atomic_add(z_ptr, 0.0)\n    tl.store("
)
WILD = SAMPLES.correct.replace("x_ptr + at, mask=inside", "x_ptr + (at.to(tl.int64) << 40)")


@pytest.mark.parametrize(
    ("source", "stages"),
    [
        (HANG, {"timeout"}),
        (WILD, {"launch", "crash"}),
        (spoil("torch.empty(1 << 50, device='cuda')"), {"memory", "capture", "launch"}),
    ],
    ids=["a kernel that never ends", "a wild pointer", "too much memory"],
)
def test_what_harms_its_process_costs_that_candidate_alone(bench: LocalBench, source: str, stages: set[str]) -> None:
    bad, good = judge(bench, PROBLEM, [source, SAMPLES.other.replace("512", "128")])
    assert isinstance(bad.verdict, Failed), bad.verdict
    assert bad.verdict.stage in stages
    assert isinstance(good.verdict, Correct), good.verdict


def test_writing_to_inputs_is_wrong_and_harms_nobody_else(bench: LocalBench) -> None:
    writer = SAMPLES.correct.replace(
        "    tl.store(z_ptr", "    tl.store(x_ptr + at, y, mask=inside)\n    tl.store(z_ptr"
    )
    others = [SAMPLES.other.replace("512", str(block)) for block in (32, 64, 2048)]
    trials = judge(bench, PROBLEM, [others[0], writer, *others[1:]])
    assert isinstance(trials[1].verdict, Wrong), trials[1].verdict
    for trial in (trials[0], *trials[2:]):
        assert isinstance(trial.verdict, Correct), trial.verdict


def test_an_output_that_a_later_call_overwrites_is_wrong(bench: LocalBench) -> None:
    static = SAMPLES.correct.replace("def kernel_function", "KEPT = []\n\n\ndef kernel_function").replace(
        "    z = torch.empty_like(x)\n", "    KEPT or KEPT.append(torch.empty_like(x))\n    z = KEPT[0]\n"
    )
    (trial,) = judge(bench, PROBLEM, [static])
    assert isinstance(trial.verdict, Wrong), trial.verdict


def test_autotuning_is_known_by_what_it_chose(bench: LocalBench) -> None:
    configurations = "[triton.Config({'BLOCK': b}) for b in (16, 4096)]"
    tuned = SAMPLES.correct.replace(
        "@triton.jit", f"@triton.autotune(configs={configurations}, key=['n'])\n@triton.jit"
    ).replace("(triton.cdiv(n, 256),)](x, y, z, n, BLOCK=256)", "lambda m: (triton.cdiv(n, m['BLOCK']),)](x, y, z, n)")
    (trial,) = judge(bench, PROBLEM, [tuned])
    assert isinstance(trial.verdict, Correct), trial.verdict
    plain = [SAMPLES.correct.replace("256", block) for block in ("16", "4096")]
    trials = judge(bench, PROBLEM, plain)
    assert trial.fingerprint in {other.fingerprint for other in trials}


@pytest.mark.parametrize("name", ["matvec", "rmsnorm_linear", "gated_mlp"])
def test_start_kernels_of_the_examples(bench: LocalBench, name: str) -> None:
    problem = load_problem(EXAMPLES / name)
    assert problem.start is not None
    (trial,) = bench.judge(problem, [Candidate(problem.start, "start")], ())
    assert isinstance(trial.verdict, Correct), trial.verdict
    assert trial.verdict.error < 1
    print(name, trial.verdict, trial.profile)


def test_inputs_too_large_for_the_device_are_a_fault_of_the_problem(bench: LocalBench) -> None:
    huge = replace(PROBLEM, source=PROBLEM.source.replace("N = 5000", "N = 1 << 40"))
    with pytest.raises(ProblemError, match="memory"):
        judge(bench, huge, [SAMPLES.correct])


def test_nothing_is_left_running() -> None:
    before = _on_gpu()
    with LocalBench(find()) as bench:
        judge(bench, PROBLEM, [SAMPLES.correct, SAMPLES.other])
        assert _on_gpu() > before
    deadline = time.monotonic() + 10
    while _on_gpu() > before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _on_gpu() <= before


def _on_gpu() -> int:
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    return len(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
