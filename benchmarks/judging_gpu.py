"""How many candidates a minute are judged on one GPU, and how much of the time under its lease is measurement?

Expected: at least 60 a minute for a kernel of matrix-multiplication size, compilation included, and at least 70 % of
the leased time spent in timed launches. Capture and compilation run on CPU cores outside any lease; a candidate's
process is forked from one that has imported torch and Triton; inputs and expected outputs stay on the GPU.

The usual way, measured in the same run on a sample of the same candidates: a fresh process that tests, then a fresh
process that times with triton.testing.do_bench, one after the other. The compiled kernel is cached between the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lib.answer import answer, parser, say
from lib.gpu import described, first_gpu
from lib.variants import Variant, problem, variants
from tilesmith.bench.gpus import Device, lease
from tilesmith.bench.local import LocalBench
from tilesmith.core.trial import Candidate, Correct, Timing, Trial

PER_MINUTE, SHARE = 60.0, 0.70
SETUP = """
import json, sys, time, torch, triton
sys.path.insert(0, ".")
import candidate, problem
torch.manual_seed(1)
torch.set_default_device("cuda")
inputs = [t.half() for t in problem.get_inputs()]
"""
TEST = f"""{SETUP}
answer, expected = candidate.kernel_function(*inputs), problem.Model().half()(*inputs)
assert torch.allclose(answer, expected, rtol=1e-2, atol=1e-2 * float(expected.float().std()))
"""
TIME = f"""{SETUP}
candidate.kernel_function(*inputs)
torch.cuda.synchronize()
start = time.perf_counter()
ms = triton.testing.do_bench(lambda: candidate.kernel_function(*inputs), warmup=25, rep=100, return_mode="median")
print(json.dumps({{"time_us": 1000 * ms, "measured_s": time.perf_counter() - start}}))
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate in the usual way."""

    seconds: float
    measured_s: float
    time_us: float | None


def ours(device: Device, chosen: list[Variant], workers: int) -> tuple[list[Trial], float, float]:
    """Trials of the variants, seconds to open the problem and judge the start kernel, seconds for the variants."""
    asked = problem()
    with LocalBench([device], workers_per_gpu=workers) as bench:
        began = time.perf_counter()
        first = list(bench.judge(asked, [Candidate(asked.start or "")], ()))
        opened = time.perf_counter()
        trials = list(bench.judge(asked, [Candidate(variant.source) for variant in chosen], first))
        return trials, opened - began, time.perf_counter() - opened


def usual(device: Device, sample: list[Variant], limit_s: float) -> list[Row]:
    """A row a candidate. Ends early at the limit."""
    rows: list[Row] = []
    began = time.perf_counter()
    for variant in sample:
        if time.perf_counter() - began > limit_s and len(rows) >= 3:
            break
        with tempfile.TemporaryDirectory(prefix="tilesmith-usual-") as folder, lease(device.uuid, "exclusive"):
            start = time.perf_counter()
            told = _test_and_time(variant, Path(folder), device)
            rows.append(Row(time.perf_counter() - start, told.get("measured_s", 0.0), told.get("time_us")))
    return rows


def _test_and_time(variant: Variant, folder: Path, device: Device) -> dict[str, float]:
    """What the process that times says; empty where a process fails."""
    (folder / "candidate.py").write_text(variant.source, encoding="utf-8")
    (folder / "problem.py").write_text(problem().source, encoding="utf-8")
    visible = {"CUDA_VISIBLE_DEVICES": device.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment = {**os.environ, **visible, "TRITON_CACHE_DIR": str(folder / "cache")}
    told = ""
    for code in (TEST, TIME):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            say(f"the usual way fails with {variant}")
            return {}
        told = done.stdout
    answered: dict[str, float] = json.loads(told.splitlines()[-1])
    return answered


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--candidates", type=int, default=48)
    options.add_argument("--sample", type=int, default=8, help="of the same candidates, for the usual way")
    options.add_argument("--workers", type=int, default=3, help="--workers-per-gpu of our way")
    given = options.parse_args()
    device = first_gpu()
    chosen = variants(given.candidates)
    say(f"judging {len(chosen)} candidates on {device.name}")
    trials, open_s, spent_s = ours(device, chosen, given.workers)
    say(f"judging {given.sample} of them in the usual way")
    rows = usual(device, chosen[: given.sample], limit_s=60)

    leased_s = sum(trial.cost.gpu_s for trial in trials)
    per_minute = 60 * len(trials) / spent_s
    share = sum(trial.cost.measured_s for trial in trials) / leased_s if leased_s else 0.0
    usual_s = sum(row.seconds for row in rows)
    usual_per_minute = 60 * len(rows) / usual_s
    timed = {
        trial.candidate.source: trial.verdict.time.time_us
        for trial in trials
        if isinstance(trial.verdict, Correct) and isinstance(trial.verdict.time, Timing)
    }
    agreement = [
        timed[variant.source] / row.time_us
        for variant, row in zip(chosen, rows, strict=False)
        if variant.source in timed and row.time_us
    ]
    verdicts = [type(trial.verdict).__name__.lower() for trial in trials]
    document = {
        "gpu": described(device),
        "candidates": len(trials),
        **{name: verdicts.count(name) for name in sorted(set(verdicts))},
        "per_minute": per_minute,
        "per_minute_with_opening": 60 * (len(trials) + 1) / (open_s + spent_s),
        "usual_per_minute": usual_per_minute,
        "ratio": per_minute / usual_per_minute,
        "leased_s": leased_s,
        "lease_share_measured": share,
        "usual_lease_share_measured": sum(row.measured_s for row in rows) / usual_s,
        "opening_s": open_s,
        "fastest_us": min(timed.values(), default=None),
        "ours_over_do_bench": median(agreement) if agreement else None,
        "usual_candidates": len(rows),
        "holds": per_minute >= PER_MINUTE and share >= SHARE,
    }
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
