"""A round of the widest preset against models that take their time: do GPUs wait for models, or models for GPUs?

225 directions (5 parents, 3 bottlenecks, 3 models, 5 samples) against a provider's server on loopback whose answers
take 20 s in the mean, log-normal. No direction holds a GPU while it waits, so the round should take little more than
the longer of its two bounds: the slowest chain of replies, and the work under leases divided by the GPUs. Expected: at
most 1.25 times that bound, on one GPU and on two. With --bench offline the numbers are this machine's CPU work.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

from lib.answer import answer, parser, say
from lib.variants import problem, variants
from tilesmith.bench.gpus import find
from tilesmith.bench.local import LocalBench
from tilesmith.bench.offline import OfflineBench
from tilesmith.core.budget import Limits
from tilesmith.core.facts import Ending
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Reply
from tilesmith.core.seams import Bench
from tilesmith.core.search import search
from tilesmith.core.trial import Correct, Trial
from tilesmith.journal import RunOptions, open_store
from tilesmith.propose.chat import ModelBook, Provider, open_models
from tilesmith.propose.directions import Width
from tilesmith.propose.model import Diversity, Manner, ModelProposer, Place
from tilesmith.propose.taxonomy import default
from tilesmith.testing.provider import ProviderServer
from tilesmith.testing.provider_replies import Latency, seeded

MOST = 1.25


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--bench", choices=["local", "offline"], default="local")
    options.add_argument("--gpus", type=int, default=0, help="how many to use; 0 for all")
    options.add_argument("--workers-per-gpu", type=int, default=4)
    options.add_argument("--latency-s", type=float, default=20.0)
    options.add_argument("--samples", type=int, default=5)
    given = options.parse_args()
    devices = find()[: given.gpus or None] if given.bench == "local" else ()
    if given.bench == "local" and not devices:
        say("this benchmark needs an NVIDIA GPU; --bench offline does without")
        return 2
    asked = problem()
    bench: AbstractContextManager[Bench]
    if devices:
        bench, gpu = LocalBench(devices, given.workers_per_gpu), devices[0].gpu
    else:
        bench, gpu = OfflineBench(target("h200"), os.cpu_count()), target("h200")
    names = tuple(f"loopback:{name}" for name in "abc")
    manner = Manner(Width(5, 3, names, given.samples), repairs=2, diversity=Diversity(default()))
    codes = [variant.source for variant in variants(180, warps=(2, 4, 8), stages=(1, 2, 3, 4, 5))]
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder, "tilesmith.db")) as store, bench as judging:
        run = store.create(asked, RunOptions("{}"))
        with ProviderServer(seeded(0, codes, Latency(given.latency_s, 0.5))) as server:
            provider = Provider("loopback", "openai", server.openai_url, concurrent=1000, free=True)
            opened = open_models(names, ModelBook({"loopback": provider}, {}), {}, say)
            place = Place(gpu, _estimated, bool(devices))
            with ModelProposer(manner, opened, run, place, say) as proposer:
                # The start kernel first, so that opening the problem is in no number.
                search(asked, proposer, judging, run, Limits(rounds=0))
                began = time.perf_counter()
                search(asked, proposer, judging, run, Limits(rounds=1))
                wall_s = time.perf_counter() - began
        trials = [trial for trial in run.trials() if trial.round == 1]
        replies, endings = run.facts(Reply), run.facts(Ending)
    chains: dict[str, float] = {}
    for reply in replies:
        way = "/".join(reply.key.split("/")[:-2])
        chains[way] = chains.get(way, 0.0) + reply.seconds
    leased_s = sum(trial.cost.gpu_s for trial in trials)
    count = max(1, len(devices))
    work_s = leased_s / count if devices else sum(trial.cost.wall_s for trial in trials) / (os.cpu_count() or 1)
    bound_s = max(*chains.values(), work_s)
    document = {
        "gpus": len(devices),
        "directions": manner.width.directions,
        "replies": len(replies),
        "trials": len(trials),
        "correct": sum(isinstance(trial.verdict, Correct) for trial in trials),
        "late": sum(ending.outcome == "late" for ending in endings),
        "wall_s": wall_s,
        "slowest_chain_s": max(chains.values()),
        "mean_reply_s": sum(reply.seconds for reply in replies) / len(replies),
        "work_s": work_s,
        "gpu_seconds_leased": leased_s,
        "gpu_idle_share": 1 - leased_s / (count * wall_s),
        "lease_share_measured": sum(trial.cost.measured_s for trial in trials) / leased_s if leased_s else 0.0,
        "over_bound": wall_s / bound_s,
        "holds": wall_s <= MOST * bound_s,
    }
    answer(document, given.json)
    return 0 if document["holds"] else 1


def _estimated(_: Problem, trial: Trial) -> Profile:
    """Counters take their own time, which is in no bound here."""
    assert trial.profile is not None
    return trial.profile


if __name__ == "__main__":
    sys.exit(main())
