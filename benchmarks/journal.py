"""How does a journal bear a million trials?

Expected: at least 2,000 trials recorded a second, one after another, each with its launches, profile and source of two
kilobytes; a run opened within 0.2 s; a run's 2,000 trials read as fast as from a journal that holds nothing else;
writers and readers side by side without a fault. Writes about 4 GB for a million, to a folder that is removed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TypeVar

from lib.answer import answer, parser, say
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate
from tilesmith.journal import Run, RunOptions, open_store
from tilesmith.testing.journal import TRIALS

T = TypeVar("T")
RECORD_A_S, OPEN_S = 2000, 0.2
SOURCE = "x = tl.load(x_ptr + offsets, mask=mask)\n" * 50
PROBLEM = Problem("net", SOURCE, start=SOURCE + "# start")


def timed(deed: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    done = deed()
    return done, time.perf_counter() - began


def fill(run: Run, first: int, count: int) -> None:
    for number in range(first, first + count):
        run.record(
            replace(TRIALS[1], candidate=Candidate(f"# {number}\n{SOURCE}", "rewrite:tiles"), round=number // 50)
        )


def read(path: Path, run: str) -> dict[str, float]:
    """Seconds of opening a run as a command does, of reading its trials, and of taking it up again."""

    def once() -> tuple[float, float, float]:
        with open_store(path, must_exist=True) as store:
            opened, open_s = timed(lambda: store.run(run))
            _, trials_s = timed(opened.trials)
            _, claim_s = timed(opened.claim)
            return open_s, trials_s, claim_s

    rows = [once() for _ in range(5)]
    return dict(
        zip(("open_s", "trials_s", "claim_s"), (median(column) for column in zip(*rows, strict=True)), strict=True)
    )


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import journal
with journal.open_store(Path(sys.argv[1])) as store:
    run = store.create(journal.PROBLEM, journal.RunOptions("{}"))
    began = time.perf_counter()
    journal.fill(run, 10**7, int(sys.argv[2]))
    print(int(sys.argv[2]) / (time.perf_counter() - began))
"""
READER = """
import sys, time
from pathlib import Path
from tilesmith.journal import open_store
count, slowest = 0, 0.0
with open_store(Path(sys.argv[1])) as store:
    while not Path(sys.argv[2]).exists():
        began = time.perf_counter()
        assert len(store.run(sys.argv[3]).trials()) == int(sys.argv[4])
        count, slowest = count + 1, max(slowest, time.perf_counter() - began)
print(count, slowest)
"""


def together(path: Path, writers: int, readers: int, run: str, length: int, each: int) -> dict[str, object]:
    """Several processes record, each its own run, while others read one again and again."""
    over = path.with_name("over")
    here = str(Path(__file__).parent)

    def start(code: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code, str(path), *words], stdout=subprocess.PIPE, text=True)

    reading = [start(READER, str(over), run, str(length)) for _ in range(readers)]
    writing = [start(WRITER, str(each), here) for _ in range(writers)]
    rates = [float(process.communicate()[0]) for process in writing]
    over.touch()
    reads = [process.communicate()[0].split() for process in reading]
    return {
        "writers": writers,
        "readers": readers,
        "recorded_a_s_all": sum(rates),
        "reads": sum(int(count) for count, _ in reads),
        "slowest_read_s": max(float(slowest) for _, slowest in reads),
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=50_000, help="1000000 takes ten minutes")
    options.add_argument("--run-length", type=int, default=2000, help="trials of one run")
    options.add_argument("--folder", type=Path, help="where there is room; a folder in it is made and removed")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tilesmith-journal-", dir=given.folder))
    try:
        alone = Path(folder, "alone.db")
        with open_store(alone) as store:
            fill(run := store.create(PROBLEM, RunOptions("{}")), 0, given.run_length)
        small = read(alone, run.id)
        path = Path(folder, "tilesmith.db")
        began, cpu, rates, runs = time.perf_counter(), time.process_time(), [], []
        with open_store(path) as store:
            for first in range(0, given.trials, given.run_length):
                run = store.create(PROBLEM, RunOptions("{}"))
                count = min(given.run_length, given.trials - first)
                _, spent_s = timed(lambda run=run, first=first, count=count: fill(run, first, count))
                run.release()
                rates.append(count / spent_s)
                runs.append(run.id)
                if len(rates) % 50 == 0:
                    say(f"{first + count} trials; the last run at {rates[-1]:.0f} a second")
        whole_s, whole_cpu_s = time.perf_counter() - began, time.process_time() - cpu
        large = read(path, runs[-1])
        with open_store(path) as store:
            _, list_s = timed(store.runs)
            _, again_s = timed(store.runs)
            cpu = time.process_time()
            for _ in range(5):
                store.run(runs[-1]).trials()
            reading_cpu_s = (time.process_time() - cpu) / 5
            found, look_s = timed(store.garbage)
        say("writers and readers side by side")
        side = together(path, 3, 2, runs[-1], given.run_length, given.run_length)
        document: dict[str, object] = {
            "trials": given.trials,
            "runs": len(runs),
            "file_gb": path.stat().st_size / 1e9,
            "recorded_a_s": given.trials / whole_s,
            "recorded_a_cpu_s": given.trials / whole_cpu_s,
            "slowest_run_a_s": min(rates),
            **{f"latest_run_{name}": value for name, value in large.items()},
            **{f"alone_{name}": value for name, value in small.items()},
            "latest_run_trials_cpu_s": reading_cpu_s,
            "list_runs_s": list_s,
            "list_runs_again_s": again_s,
            "garbage_look_s": look_s,
            "garbage": len(found.sources),
            **side,
        }
    finally:
        shutil.rmtree(folder)
    document["holds"] = document["recorded_a_s"] >= RECORD_A_S and large["open_s"] + large["claim_s"] <= OPEN_S
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
