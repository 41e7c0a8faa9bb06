"""How fast is a transformer layer through tilesmith.compile against torch.compile, and how soon is it there?

Two processes start one after the other with one cache folder, which is empty at first: the first searches, the second
must not. In each the layer is timed in turns by PyTorch as it is, torch.compile, torch.compile with max-autotune,
Tilesmith, and torch.compile and Tilesmith with CUDA graphs: cold-cache medians of many rounds. A contender's
`over_eager` is the median over rounds of eager's time over its own in the same round, with its 95 % interval;
`graphs_over_graphs` is the same of torch.compile's time over Tilesmith's, both with CUDA graphs. What a call costs on
the host stands beside: without CUDA graphs a layer this small is bound by it, whoever computes it.

Expected on an H200: no part is replaced that is not faster by its own interval, so with CUDA graphs Tilesmith is faster
than torch.compile; the second start takes as long as torch.compile's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib.answer import ROOT, answer, parser, say
from lib.gpu import described, first_gpu
from tilesmith.bench.timing import interval

CONTENDERS = (
    "eager",
    "torch.compile",
    "torch.compile max-autotune",
    "torch.compile with CUDA graphs",
    "tilesmith",
    "tilesmith with CUDA graphs",
)


def start(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A process of its own, with the caches in the folder; its answer."""
    caches = {"TILESMITH_CACHE": "tilesmith", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    entries = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment = {
        **os.environ,
        **{name: str(folder / place) for name, place in caches.items()},
        "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), *entries]),
    }
    command = [sys.executable, __file__, "--child", "--batch", str(given.batch), "--rounds", str(given.rounds)]
    command += ["--budget-seconds", str(given.budget_seconds)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def contend(given: argparse.Namespace) -> dict[str, Any]:
    """Everything of one start, in this process."""
    import torch
    import triton.testing
    from compile_transformer import Layer

    import tilesmith

    torch.manual_seed(0)
    layer = Layer(512, 8, 1408).eval().half().cuda()
    x = torch.randn(given.batch, 256, 512, device="cuda", dtype=torch.float16)
    budget = given.budget_seconds
    own = tilesmith.compile(layer, budget_seconds=budget)
    calls: dict[str, Callable[..., Any]] = dict(
        zip(
            CONTENDERS,
            (
                layer,
                torch.compile(layer),
                torch.compile(layer, mode="max-autotune-no-cudagraphs"),
                torch.compile(layer, mode="reduce-overhead"),
                own,
                tilesmith.compile(layer, budget_seconds=budget, rest="cudagraphs"),
            ),
            strict=True,
        )
    )
    first_s: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with torch.no_grad():
        truth = layer.double()(x.double())
        layer.half()
        for name, call in calls.items():
            # Each captures the layer anew; what was captured before would count as its first.
            began = time.perf_counter()
            worst = float((call(x).double() - truth).abs().max() / truth.std())
            torch.cuda.synchronize()
            first_s[name] = time.perf_counter() - began
            say(f"  {name}: first call {first_s[name]:.1f} s, off by {worst:.2%} of a standard deviation")
        host_us = {name: _host_us(call, x) for name, call in calls.items()}
        for _ in range(given.rounds):
            for name, call in calls.items():
                ms = triton.testing.do_bench(lambda c=call: c(x), warmup=5, rep=20, return_mode="median")
                times[name].append(1000 * ms)

    def over(slower: str, name: str) -> tuple[float, float, float]:
        ratios = [one / other for one, other in zip(times[slower], times[name], strict=True)]
        return median(ratios), *interval(ratios)

    rows = []
    for name, each in times.items():
        ratio, low, high = over("eager", name)
        rows.append(
            {
                "contender": name,
                "median_us": median(each),
                "over_eager": ratio,
                "low": low,
                "high": high,
                "host_us": host_us[name],
                "first_call_s": first_s[name],
            }
        )
    (graph,) = own.explain().graphs
    say(str(own.explain()))
    graphs = over("torch.compile with CUDA graphs", "tilesmith with CUDA graphs")
    return {
        "rows": rows,
        "graphs_over_graphs": graphs,
        "replaced": graph.replaced,
        "search_seconds": graph.search_seconds,
    }


def _host_us(call: Callable[..., Any], x: Any) -> float:
    """What the host spends on a call, microseconds, where the device keeps up."""
    import torch

    spent = []
    for _ in range(50):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call(x)
        spent.append(1e6 * (time.perf_counter() - began))
    return median(spent)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--budget-seconds", type=float, default=300.0)
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(contend(given)))
        return
    device = first_gpu()
    with tempfile.TemporaryDirectory(prefix="tilesmith-compile-") as folder:
        starts = []
        for number in ("first", "second"):
            say(f"{number} start")
            starts.append(start(given, Path(folder)))
    first, second = starts
    if second["search_seconds"]:
        say("the second start searched, and should have found everything in the cache")
    document = {
        "gpu": described(device),
        "parts_replaced": first["replaced"],
        "first_search_s": first["search_seconds"],
        "second_search_s": second["search_seconds"],
        "graphs_over_graphs": first["graphs_over_graphs"],
        "first_start": first["rows"],
        "second_start": second["rows"],
    }
    answer(document, given.json)
    sys.exit(1 if second["search_seconds"] or second["replaced"] != first["replaced"] else 0)


if __name__ == "__main__":
    main()
