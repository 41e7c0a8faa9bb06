"""A kernel against PyTorch's compiler on the same part, in turns, in a fresh process on one GPU.

The kernel has been judged and confirmed before; what is asked here is only whether it is faster than what it would
replace. Run as `python -P -m tilesmith.splice.contest`, with a request as JSON on standard input:

    request   problem, kernel (sources), tf32
    answer    {"baseline": name, "timing": fields of `Timing`} or {"fault": one sentence}

Before each launch the second-level cache is emptied and the host gets ahead of the device, as the bench does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from tilesmith.bench.gpus import Device, lease
from tilesmith.bench.processes import PASSED_ON
from tilesmith.bench.timing import alternate
from tilesmith.core.trial import Timing
from tilesmith.splice.words import micros

FLUSH_BYTES = 256 << 20
HEAD_START_CYCLES = 400_000
"""About 0.2 ms."""
TRIAL_LAUNCHES = 20
"""That decide which of PyTorch's ways is the baseline."""
TIMEOUT_S = 300.0


def contest(problem: str, kernel: str, device: Device, *, tf32: bool) -> tuple[str, Timing] | str:
    """The baseline's name and the kernel's time in turns with it; or in a clause why there was no contest."""
    environment = {name: os.environ[name] for name in (*PASSED_ON, "HOME", "TMPDIR") if name in os.environ}
    environment |= {"CUDA_VISIBLE_DEVICES": device.uuid, "PYTHONDONTWRITEBYTECODE": "1"}
    request = json.dumps({"problem": problem, "kernel": kernel, "tf32": tf32})
    command = [sys.executable, "-P", "-m", "tilesmith.splice.contest"]
    with tempfile.TemporaryDirectory(prefix="tilesmith-contest-") as folder, lease(device.uuid, "exclusive"):
        try:
            done = subprocess.run(
                command,
                input=request,
                capture_output=True,
                text=True,
                env=environment,
                cwd=folder,
                timeout=TIMEOUT_S,
                check=False,
            )
            answer = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            return f"timing it against torch.compile took more than {TIMEOUT_S:.0f} s"
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"the process that timed it against torch.compile ended with status {done.returncode}: {last[:200]}"
    if "fault" in answer:
        return str(answer["fault"])
    timing = answer["timing"]
    clocks = timing.pop("sm_mhz")
    throttled = tuple(timing.pop("throttled"))
    return answer["baseline"], Timing(**timing, sm_mhz=clocks and tuple(clocks), throttled=throttled)


def faster(timing: Timing) -> bool:
    """Whether it is faster wherever in their intervals both times lie."""
    return timing.gain is not None and timing.gain[1] > 1


def slower_words(baseline: str, timing: Timing) -> str:
    """Why a correct kernel does not replace its part."""
    gain = timing.gain or (0.0, 0.0, 0.0)
    return (
        f"a correct kernel was found and is not faster: {gain[0]:.2f} times as fast as {baseline} of the same part "
        f"({gain[1]:.2f} to {gain[2]:.2f}), {micros(timing.time_us)} to {micros(timing.rival_us or 0.0)}"
    )


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        made = run(json.load(sys.stdin))
    except Exception as error:  # whatever the compiler does with the part is an answer
        text = (str(error).strip().splitlines() or ["no message"])[0]
        made = {"fault": f"it could not be timed against torch.compile: {type(error).__name__}: {text[:200]}"}
    json.dump(made, answers)
    answers.close()


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The contest, in the process that was started for it."""
    import torch

    from tilesmith.splice.kernel import inputs, load, original

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = request["tf32"]
    device = torch.device("cuda", 0)
    values = inputs(request["problem"], device)
    part = original(request["problem"])
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def batch(call: Callable[..., Any]) -> Callable[[int], list[float]]:
        def timed(launches: int) -> list[float]:
            starts = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
            for start, end in zip(starts, ends, strict=True):
                torch.cuda._sleep(HEAD_START_CYCLES)
                flush.zero_()
                start.record()
                call(*values)
                end.record()
            torch.cuda.synchronize()
            return [1000.0 * start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]

        return timed

    with torch.no_grad():
        own = batch(load(request["kernel"]))
        ways = {"torch.compile": batch(torch.compile(part)), "eager": batch(part)}
        for each in (own, *ways.values()):
            each(3)
        first = {name: median(each(TRIAL_LAUNCHES)) for name, each in ways.items()}
        baseline = min(first, key=lambda name: first[name])
        timing = alternate(own, ways[baseline], baseline)
    return {"baseline": baseline, "timing": asdict(timing)}


if __name__ == "__main__":
    main()
