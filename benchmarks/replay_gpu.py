"""How far does a search get with recorded replies in the place of models, and how does its winner compare with torch?

Expected on an H200: matvec 0.980 ms or less (aim 0.976); fused_gate_up at least 1.10 times as fast as torch.compile in
turns (aim 1.14). The replies in examples/replies were written by hand, good and bad ones; every direction gets the
next, as if a model had drawn it, so the full path is driven: directions, judging, repairs, selection.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib.answer import ROOT, answer, parser, say
from lib.command import optimize
from lib.contest import contest
from lib.gpu import described, first_gpu


def main() -> int:
    options = parser(__doc__)
    options.add_argument("problem", choices=["matvec", "fused_gate_up"])
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--budget-seconds", type=float, default=300.0)
    options.add_argument("--contest-s", type=float, default=200.0)
    options.add_argument("--out", type=Path, help="keep the journal and the winner in this folder")
    given = options.parse_args()
    device = first_gpu()
    problem = ROOT / "examples" / given.problem
    with tempfile.TemporaryDirectory(prefix="tilesmith-replay-") as temporary:
        folder = (given.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        shape = ["--candidate-pool-size", "2", "--num-bottlenecks", "2", "--samples-per-prompt", "5", "--repairs", "1"]
        models = ["--models", f"replay:{ROOT / 'examples' / 'replies' / given.problem}"]
        budget = ["--rounds", str(given.rounds), "--budget-seconds", str(given.budget_seconds)]
        status, told = optimize(problem, folder, *models, *shape, *budget)
        if status != 0:
            say(f"the search ended with exit status {status}: {told['message']}")
            return status
        document: dict[str, object] = {
            "gpu": described(device),
            "problem": given.problem,
            "best_us": told["best"]["time_us"],
            "start_us": told["best"]["baseline_us"],
            "trials": told["trials"],
            "wall_s": time.perf_counter() - began,
            "stop": told["stop"],
        }
        say("timing the winner and torch in turns")
        try:
            rows = contest(problem, folder / "winner.py", folder, limit_s=given.contest_s)
        except (subprocess.SubprocessError, ValueError) as error:
            say(f"no comparison with torch: {error}")
            rows = []
        document["in_turns"] = rows
        compiled = next((row["over_tilesmith"] for row in rows if row["contender"] == "torch.compile"), 0.0)
        reached = told["best"]["time_us"] <= 980.0 if given.problem == "matvec" else float(str(compiled)) >= 1.10
        document["holds"] = reached
        answer(document, given.json)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
