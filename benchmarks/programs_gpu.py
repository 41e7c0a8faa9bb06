"""How fast are kernels that are found from no start kernel and with no model key, against torch at its best?

Expected on an H200, over the six published programs at batch 1 and 8: a geometric mean of at least 1.5 over the best of
eager, torch.compile and max-autotune (aim 1.65), and no program slower beyond its interval. Besides: fused_gate_up at
least 1.10 times torch.compile (aim 1.14), matvec at most 985 us, rmsnorm_nchw at least 0.90 and max_pool3d 0.95 of the
speed of a pure reader of as many bytes, under the same timing. A row is one search of at most `--budget-seconds`, then
its winner and torch in turns in a fresh process that has the GPU to itself, cold caches, medians of device time. GPUs
take rows side by side.
"""

from __future__ import annotations

import json
import math
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from lib.answer import ROOT, answer, parser, say
from lib.command import optimize
from lib.contest import contest
from lib.gpu import described, first_gpu
from tilesmith.bench.gpus import Device, find

PUBLISHED = ("rmsnorm_linear", "gated_mlp", "gqa", "qknorm_gqa", "lora", "norm_transformer")
OTHERS = ("fused_gate_up", "matvec", "rmsnorm_nchw", "max_pool3d")
BASELINES = ("torch eager", "torch.compile", "torch.compile max-autotune")


def problem(name: str, batch: int, folder: Path) -> Path:
    """A copy of an example, of this batch."""
    made = folder / name
    shutil.copytree(ROOT / "examples" / name, made, ignore=shutil.ignore_patterns("__pycache__"))
    source = (made / "problem.py").read_text()
    if batch != 1:
        assert source.count("\nBATCH = 1\n") == 1, f"{name} has no batch"
        (made / "problem.py").write_text(source.replace("\nBATCH = 1\n", f"\nBATCH = {batch}\n"))
    return made


def measured(name: str, batch: int, device: Device, budget_s: float, kept: Path) -> dict[str, object]:
    """One row. Its files are kept in a folder of their own."""
    folder = kept / f"{name}-{batch}"
    folder.mkdir(parents=True)
    made = problem(name, batch, folder)
    began = time.perf_counter()
    options = ["--no-start-kernel", "--proposers", "superopt,rewrite"]
    options += ["--bench", "local", "--gpus", str(device.index), "--budget-seconds", str(budget_s)]
    with (folder / "log").open("w") as log:
        status, told = optimize(made, folder, *options, log=log)
    row: dict[str, object] = {"program": name, "batch": batch, "wall_s": time.perf_counter() - began}
    if status != 0:
        return {**row, "fault": told.get("message") or "nothing correct was found"}
    row |= {
        "search_us": told["best"]["time_us"],
        "trials": told["trials"],
        "lineage": " > ".join(told["best"]["lineage"]),
    }
    try:
        rows = {str(each["contender"]): each for each in contest(made, folder / "winner.py", folder, device=device)}
    except (subprocess.SubprocessError, ValueError) as error:
        return {**row, "fault": f"no comparison with torch: {error}"}
    best = min((rows[each] for each in BASELINES), key=lambda each: float(str(each["median_us"])))
    reader = rows["pure reader"]
    return {
        **row,
        "tilesmith_us": rows["tilesmith"]["median_us"],
        **{f"{each}_us": rows[each]["median_us"] for each in BASELINES},
        "best_baseline": best["contender"],
        "speedup": best["over_tilesmith"],
        "low": best["low"],
        "high": best["high"],
        "of_floor": reader["over_tilesmith"],
    }


def met(row: dict[str, Any]) -> bool:
    """Whether one of the other programs is as fast as is asked of it."""
    if "fault" in row:
        return False
    ours = row["tilesmith_us"]
    match row["program"]:
        case "fused_gate_up":
            return row["torch.compile_us"] >= 1.10 * ours and row["high"] >= 1
        case "matvec":
            return ours <= 985
        case "rmsnorm_nchw":
            return row["of_floor"] >= 0.90
        case _:
            return row["of_floor"] >= 0.95


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--programs", default=",".join((*PUBLISHED, *OTHERS)))
    options.add_argument("--batches", default="1,8")
    options.add_argument("--budget-seconds", type=float, default=110.0)
    options.add_argument(
        "--beside", type=int, default=2, help="rows at a time on each GPU; none is timed beside another"
    )
    options.add_argument("--out", type=Path, help="keep journals, winners and rows in this folder")
    given = options.parse_args()
    device = first_gpu()
    work: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for name in given.programs.split(","):
        for batch in map(int, given.batches.split(",")) if name in PUBLISHED else (1,):
            work.put((name, batch))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="tilesmith-programs-") as temporary:
        kept = (given.out or Path(temporary)).resolve()

        def serve(device: Device) -> None:
            while True:
                try:
                    name, batch = work.get_nowait()
                except queue.Empty:
                    return
                row = measured(name, batch, device, given.budget_seconds, kept)
                rows.append(row)
                say(json.dumps(row))

        threads = [threading.Thread(target=serve, args=(each,)) for each in find() for _ in range(given.beside)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows.sort(key=lambda row: (str(row["program"]), int(str(row["batch"]))))
    published = [float(str(row["speedup"])) for row in rows if row["program"] in PUBLISHED and "speedup" in row]
    asked = sum(row["program"] in PUBLISHED for row in rows)
    mean = math.exp(sum(map(math.log, published)) / len(published)) if published else None
    slower = [f"{row['program']} {row['batch']}" for row in rows if float(str(row.get("high", 1.0))) < 1.0]
    missed = [str(row["program"]) for row in rows if row["program"] in OTHERS and not met(row)]
    holds = len(published) == asked and (mean is None or mean >= 1.5) and not slower and not missed
    document: dict[str, object] = {
        "gpu": described(device),
        "geometric_mean": mean,
        "slower": slower,
        "missed": missed,
        "holds": holds,
    }
    document["rows"] = rows
    answer(document, given.json)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
