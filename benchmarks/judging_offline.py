"""How many candidates a minute are judged without a GPU, compilation included, and what does it save?

Expected: several times as many as with two fresh processes a candidate, one that compiles it and one that tests it.
Those import torch and Triton anew, which takes seconds; ours are forked from processes that have imported both. Both
ways have the same candidates (the gated MLP with other tiles, warps and stages), the same number at a time, and cold
compilation. Ours checks six sets of inputs and knows duplicates before it checks them; the other way checks one set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lib.answer import answer, parser, say
from lib.variants import Variant, problem, variants
from tilesmith.bench import pipeline
from tilesmith.bench.admission import Admission
from tilesmith.bench.offline import OfflineBench
from tilesmith.core.gpu import target
from tilesmith.core.trial import Candidate, Correct, Duplicate

COMPILE = """
import re, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
sys.path.insert(0, ".")
from candidate import gated_mlp_kernel
n, k, warps, stages = map(int, sys.argv[1:])
pointers, sizes = ["x_ptr", "a_ptr", "b_ptr", "y_ptr"], ["M", "N", "K"]
tiles = {"BLOCK_M": 16, "BLOCK_N": n, "BLOCK_K": k}
signature = {**{p: "*fp16" for p in pointers}, **{s: "i32" for s in sizes}, **{t: "constexpr" for t in tiles}}
aligned = {(at,): [["tt.divisibility", 16]] for at in (0, 1, 2, 3, 5, 6)}
made = triton.compile(ASTSource(gated_mlp_kernel, signature, tiles, aligned), target=GPUTarget("cuda", 90, 32),
                      options={"num_warps": warps, "num_stages": stages})
assert made.asm["cubin"]
"""

TEST = """
import sys, torch
sys.path.insert(0, ".")
import candidate, small
torch.manual_seed(1)
inputs = [t.half() for t in small.get_inputs()]
answer = candidate.kernel_function(*inputs)
assert torch.allclose(answer, small.Model().half()(*inputs), rtol=1e-2, atol=0.5)
"""


class Clock:
    """Seconds spent in each part of judging, over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def wrap(self, part: str, holder: Any, name: str) -> None:
        """Time every call of a function where others find it."""
        inner: Callable[..., Any] = getattr(holder, name)

        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                spent = time.perf_counter() - began
                with self._lock:
                    self.seconds[part] = self.seconds.get(part, 0.0) + spent

        setattr(holder, name, timed)


def ours(sources: list[str], repeated: list[str], jobs: int) -> dict[str, object]:
    clock = Clock()
    with OfflineBench(target("h200"), jobs=jobs) as bench:
        asked = problem()
        began = time.perf_counter()
        list(bench.judge(asked, [Candidate(asked.start or "")], ()))
        opened = time.perf_counter()
        clock.wrap("capture", Admission, "admit")
        clock.wrap("check", OfflineBench, "check")
        clock.wrap("dedup", pipeline, "stands")
        trials = list(bench.judge(asked, [Candidate(source) for source in sources + repeated], ()))
        spent = time.perf_counter() - opened
    right = [trial for trial in trials if isinstance(trial.verdict, Correct)]
    known = [trial for trial in trials if isinstance(trial.verdict, Duplicate)]
    busy = sum(clock.seconds.values())
    return {
        "candidates": len(trials),
        "correct": len(right),
        "duplicates": len(known),
        "seconds": spent,
        "per_minute": 60 * len(trials) / spent,
        "open_and_first_s": opened - began,
        "s_each": clock.seconds["capture"] / len(trials) + clock.seconds["check"] / max(1, len(trials) - len(known)),
        **{f"{part}_share": clock.seconds.get(part, 0.0) / busy for part in ("capture", "check", "dedup")},
    }


def fresh(sample: list[Variant], jobs: int) -> dict[str, object]:
    """Two fresh processes a candidate, `jobs` candidates at a time."""
    asked = problem()
    constants = "".join(f"{name} = {value!r}\n" for name, value in asked.settings.small.items())

    def judge(variant: Variant) -> None:
        with tempfile.TemporaryDirectory(prefix="tilesmith-fresh-") as folder:
            Path(folder, "candidate.py").write_text(variant.source, encoding="utf-8")
            Path(folder, "small.py").write_text(f"{asked.source}\n{constants}", encoding="utf-8")
            shape = [str(size) for size in (variant.block_n, variant.block_k, variant.warps, variant.stages)]
            common = {**os.environ, "TRITON_CACHE_DIR": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
            for code, words, mode in ((COMPILE, shape, "0"), (TEST, [], "1")):
                command = [sys.executable, "-c", code, *words]
                subprocess.run(command, cwd=folder, env={**common, "TRITON_INTERPRET": mode}, check=True)

    began = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(judge, sample))
    spent = time.perf_counter() - began
    return {"candidates": len(sample), "seconds": spent, "per_minute": 60 * len(sample) / spent}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--candidates", type=int, default=24, help="distinct ones for our way")
    options.add_argument("--sample", type=int, default=6, help="of the same, for the way with fresh processes")
    options.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="candidates at a time")
    given = options.parse_args()
    chosen = variants(given.candidates)
    sources = [variant.source for variant in chosen]
    repeated = [source.replace("inner_mask", "inside") + "\n# Again.\n" for source in sources[::4]]
    say(f"judging {len(sources)} candidates and {len(repeated)} duplicates, {given.jobs} at a time")
    warm = ours(sources, repeated, given.jobs)
    say(f"judging {given.sample} of them with two fresh processes each")
    cold = fresh(chosen[: given.sample], given.jobs)
    ratio = float(str(warm["per_minute"])) / float(str(cold["per_minute"]))
    document = {
        "per_minute": warm["per_minute"],
        "fresh_per_minute": cold["per_minute"],
        "ratio": ratio,
        "jobs": given.jobs,
        **{name: warm[name] for name in warm if name != "per_minute"},
        "fresh_candidates": cold["candidates"],
        "fresh_seconds": cold["seconds"],
    }
    answer(document, given.json)
    complete = warm["correct"] == len(sources) and warm["duplicates"] == len(repeated)
    return 0 if complete and ratio > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
