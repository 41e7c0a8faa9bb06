"""Does clustering matter where models answer alike whatever they are shown? Recorded replies, recorded verdicts.

Expected: no difference at all. A recorded reply does not depend on the parent that its direction shows, and parents are
all that clustering decides. So this measures the experiment, not clustering: whatever it shows beyond nothing would be
a leak of the pool into the replies. Each seed deals the replies in another order; both arms get the same order, the
same number of trials, and the verdicts that an H200 gave (a journal of `replay_gpu.py --out FOLDER`).
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from pathlib import Path

from lib.answer import ROOT, answer, parser
from tilesmith.bench.replay import ReplayBench
from tilesmith.config import load_problem
from tilesmith.core.budget import Limits
from tilesmith.core.gpu import target
from tilesmith.core.search import best, search
from tilesmith.journal import open_store
from tilesmith.propose.beam import select
from tilesmith.propose.chat import open_models, read_book
from tilesmith.propose.chat.recorded import Recorded, read_replies
from tilesmith.propose.directions import Width
from tilesmith.propose.model import Diversity, Manner, ModelProposer, Place
from tilesmith.propose.taxonomy import default
from tilesmith.testing.fakes import ListJournal


def searched(
    problem: Path, bench: ReplayBench, replies: Path, clustered: bool, trials: int
) -> tuple[float, frozenset[str]]:
    """The best time, microseconds, and the last pool."""
    asked, journal = load_problem(problem), ListJournal()
    manner = Manner(
        Width(2, 2, (f"replay:{replies}",), 2), repairs=1, diversity=Diversity(default()) if clustered else None
    )
    opened = open_models(manner.models, read_book(), {})
    with ModelProposer(manner, opened, journal, Place(target("h200"), bench.profile, True)) as proposer:
        search(asked, proposer, bench, journal, Limits(rounds=4, trials=trials))
    fastest = best(journal.trials())
    assert fastest is not None
    return fastest.time_us or 0.0, frozenset(trial.candidate.id for trial in select(journal.trials(), 2))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("journal", type=Path, help="of replay_gpu.py --out FOLDER")
    options.add_argument("--problem", default="fused_gate_up")
    options.add_argument("--seeds", type=int, default=12)
    options.add_argument("--trials", type=int, default=24)
    given = options.parse_args()
    problem = ROOT / "examples" / given.problem
    with open_store(given.journal, must_exist=True) as store:
        bench = ReplayBench(store.run(store.runs()[0].id).trials())
    replies: list[Recorded] = list(read_replies(ROOT / "examples" / "replies" / given.problem))
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            dealt = replies[:]
            random.Random(seed).shuffle(dealt)
            path = Path(folder, f"{seed}.jsonl")
            path.write_text("\n".join(json.dumps({"text": r.text, "repairs": list(r.repairs)}) for r in dealt))
            (one, _), (two, _) = (
                searched(problem, bench, path, clustered, given.trials) for clustered in (True, False)
            )
            differences.append(math.log(one / two))
    document = {
        "problem": given.problem,
        "seeds": given.seeds,
        "trials_each": given.trials,
        "equal": sum(difference == 0 for difference in differences),
        "largest_difference": max(map(abs, differences)),
        "holds": not any(differences),
    }
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
