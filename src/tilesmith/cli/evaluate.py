"""`tilesmith evaluate`: one kernel judged against one problem."""

from __future__ import annotations

from pathlib import Path

from tilesmith import config
from tilesmith.cli import rooms
from tilesmith.cli.options import BenchOptions, allowing
from tilesmith.cli.screen import answer, show
from tilesmith.core.trial import Candidate, Correct, Trial
from tilesmith.report import document, tables


def evaluate(
    problem_path: Path, kernel: Path, options: BenchOptions, allow: tuple[str, ...], journal: Path, as_json: bool
) -> int:
    """Judge and say so; 0 for a correct kernel, 1 for any other."""
    problem = allowing(config.load_problem(problem_path), allow)
    chosen = rooms.chosen(options, problem)
    candidate = config.read_candidate(kernel)
    if isinstance(candidate, Candidate):
        with rooms.bench(chosen, journal) as bench:
            [trial] = bench.judge(problem, [candidate], ())
    else:
        trial = Trial(Candidate(""), candidate)
    if as_json:
        answer(document.evaluation(trial))
    else:
        show(tables.evaluation(trial))
    return 0 if isinstance(trial.verdict, Correct) else 1
