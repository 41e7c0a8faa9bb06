"""How long does the report of 2,000 trials take, how large is it, and what does the live view cost a run?

Limits: 5 seconds of processor time and 5 MB for the report, which is written by the command in a process of its own;
1 % of a run for the live view. The run never happened: its sources grow out of the examples' kernels line by line, its
replies hold them whole. The live view is drawn on a terminal of 100 columns as often as a search draws it, in the state
after all of the trials, where it costs the most; its share is of one core.

With `--browser` the page is also opened in Chromium without a window: limit 2 seconds, by the browser's own clock.
"""

from __future__ import annotations

import io
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console

from lib.answer import ROOT, answer, parser, say
from tilesmith.cli.screen import REFRESH_HZ
from tilesmith.core.budget import Limits
from tilesmith.core.reply import Reply
from tilesmith.journal import open_store
from tilesmith.report.live import Panel, Progress
from tilesmith.testing.history import History, history, recorded

LIMIT_S, LIMIT_BYTES, LIMIT_SHARE, LIMIT_OPEN_S = 5.0, 5_000_000, 0.01, 2.0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3, help="how often the report is written")
    options.add_argument("--browser", action="store_true", help="also open the page")
    given = options.parse_args()
    kernels = [path.read_text("utf-8") for path in sorted((ROOT / "examples").glob("*/kernel.py"))]
    made = history(given.trials, kernels=kernels, began_s=time.time() - 3600)
    with tempfile.TemporaryDirectory() as folder:
        journal, page = Path(folder, "tilesmith.db"), Path(folder, "report.html")
        say(f"recording {len(made.trials)} trials")
        run = recorded(made, journal)
        command = [sys.executable, "-m", "tilesmith.cli", "report", run, "--journal", str(journal), "--out", str(page)]
        times = [_seconds(command) for _ in range(given.rounds)]
        size = page.stat().st_size
        share = _live_share(made, journal, run)
        opened_s = _opened_s(page) if given.browser else None
    fastest = min(cpu for cpu, _ in times)
    holds = fastest <= LIMIT_S and size <= LIMIT_BYTES and share <= LIMIT_SHARE
    holds = holds and (opened_s is None or opened_s <= LIMIT_OPEN_S)
    document = {
        "trials": len(made.trials),
        "sources_bytes": sum(len(trial.candidate.source) for trial in made.trials),
        "report_cpu_s": fastest,
        "report_wall_s": min(wall for _, wall in times),
        "report_bytes": size,
        "live_share": share,
        "opened_s": opened_s,
        "limit_s": LIMIT_S,
        "limit_bytes": LIMIT_BYTES,
        "limit_share": LIMIT_SHARE,
        "holds": holds,
    }
    answer(document, given.json)
    return 0 if holds else 1


def _seconds(command: list[str]) -> tuple[float, float]:
    """Of processor time, and by the clock."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - began


def _live_share(made: History, journal: Path, run_id: str, seconds: int = 60) -> float:
    """Of one core: what a second's pictures take, each after a look into the journal, with a new trial every second."""
    with open_store(journal) as store:
        run = store.run(run_id)
        trials, replies = run.trials(), run.facts(Reply)
        shown_s = 0.0
        # Pictures are drawn one after another here, and stand for so many a second.
        panel = Panel(lambda: shown_s + time.process_time())
        spent_s = 0.0
        for place in range(seconds * REFRESH_HZ):
            console = Console(file=io.StringIO(), width=100, force_terminal=True)
            began = time.process_time()
            run.facts(Reply)
            seen = trials[: len(trials) - seconds + place // REFRESH_HZ]
            now = Progress("rows", run.id, "local", Limits(usd=9.0), seen, shown_s, replies, made.endings, 90)
            console.print(panel(now))
            if place:
                # The very first picture of a resumed run is not what a run costs.
                spent_s += time.process_time() - began
            shown_s += 1 / REFRESH_HZ
    return spent_s / seconds


def _opened_s(page: Path) -> float | None:
    """Until everything of it is loaded; None where there is no browser."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        say("no chromium or no chromedriver: the page is not opened")
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        try:
            times = []
            for _ in range(5):
                chrome.get(page.as_uri())
                clock = "return performance.timing.loadEventEnd - performance.timing.navigationStart"
                times.append(float(chrome.execute_script(clock)) / 1e3)
            return median(times)
        finally:
            chrome.quit()


if __name__ == "__main__":
    sys.exit(main())
