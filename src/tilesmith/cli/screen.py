"""What goes where: answers to stdout, one at the end; everything else to stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType

from tilesmith.core.errors import TilesmithError
from tilesmith.core.search import best
from tilesmith.core.trial import Trial
from tilesmith.report import live
from tilesmith.report.live import Progress

CALM_S = 10.0
"""Between two lines of a log, unless there is something new to say."""
REFRESH_HZ = 2
"""Pictures a second: what nobody can read faster costs the search nothing."""
PULSE_S = 30.0
"""Between two lines of a log that say how models are getting on: they may think for minutes, and nothing is judged."""


def say(words: str) -> None:
    """A remark on the way; never an answer."""
    print(words, file=sys.stderr, flush=True)


def answer(words: str) -> None:
    """The answer of a command, as text."""
    print(words, flush=True)


def show(page: RenderableType) -> None:
    """The answer of a command, as a page for people; as wide as it needs where nobody looks."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    console.print(page)
    sys.stdout.flush()


@contextmanager
def watching(progress: Callable[[], Progress]) -> Iterator[Callable[[Trial], None]]:
    """Show a search on stderr while it runs; yields what to call for each new trial."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        with _pulse(progress):
            yield _log(progress)
        return
    from rich.live import Live

    panel = live.Panel()
    drawn = Live(
        get_renderable=lambda: panel(progress()),
        console=console,
        refresh_per_second=REFRESH_HZ,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
    with drawn:
        yield lambda _: None


def _log(progress: Callable[[], Progress]) -> Callable[[Trial], None]:
    """One line for each new best and each new round, and now and then one between."""
    said_s, said_round = float("-inf"), -1

    def line(trial: Trial) -> None:
        nonlocal said_s, said_round
        now = progress()
        fresh = trial is best(now.trials) or trial.round != said_round
        if fresh or time.monotonic() - said_s >= CALM_S:
            say(live.line(now))
            said_s, said_round = time.monotonic(), trial.round

    return line


@contextmanager
def _pulse(progress: Callable[[], Progress]) -> Iterator[None]:
    """Where models are asked, a line now and then from a thread of its own; it ends with the block."""
    if not progress().directions:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        # What goes wrong here goes wrong in the search too, which tells of it.
        with suppress(OSError, TilesmithError):
            while not over.wait(PULSE_S):
                say(live.status(progress()))

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
