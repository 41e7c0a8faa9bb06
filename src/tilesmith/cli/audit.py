"""`tilesmith audit`: judge a corpus of cheats and honest kernels on this machine, and say what gets through."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tilesmith
from tilesmith import config
from tilesmith.bench.effort import Effort
from tilesmith.cli import rooms
from tilesmith.cli.options import BenchOptions
from tilesmith.cli.screen import answer, say, show
from tilesmith.config.corpus import Case, load_corpus
from tilesmith.core.errors import OptionError
from tilesmith.core.names import unknown
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench
from tilesmith.core.trial import Candidate, Correct, Duplicate, Timing, Trial, Verdict
from tilesmith.report import document, tables
from tilesmith.report.audit import Audit, Finding
from tilesmith.report.words import verdict_message, verdict_name

EFFORT = Effort(capture_s=25.0, open_s=25.0, check_s=25.0, time_s=25.0, sanitize_s=0.0)
"""Some cases never end."""


@dataclass(frozen=True, slots=True)
class Cases:
    """Which cases of a corpus are judged. Raises `OptionError` where a corpus has none of a class."""

    classes: tuple[str, ...] = ()
    """Empty for all."""
    shard: int = 1
    shards: int = 1

    def of(self, corpus: Sequence[Case]) -> list[Case]:
        known = tuple(sorted({case.kind for case in corpus}))
        for name in self.classes:
            if name not in known:
                raise OptionError(f"--classes: {unknown('class', name, known)}")
        return [case for case in corpus if not self.classes or case.kind in self.classes][self.shard - 1 :: self.shards]


def shard(words: str) -> tuple[int, int]:
    """`--shard`: "2/5" as the second of five. Raises `OptionError`."""
    parts = words.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        number, of = map(int, parts)
        if 1 <= number <= of:
            return number, of
    raise OptionError(f"--shard is {words!r}; it must be such as 2/5, for the second of five")


def audit(folder: Path | None, options: BenchOptions, chosen_cases: Cases, journal: Path, as_json: bool) -> int:
    """0 where every cheat was stopped and no honest kernel refused, else 1."""
    where = folder or Path(tilesmith.__file__).parents[2] / "tests" / "exploits"
    cases = chosen_cases.of(load_corpus(where))
    if not cases:
        raise OptionError("--shard leaves no case to judge; name fewer shards")
    problems = {case.problem: config.load_problem(case.problem_folder) for case in cases}
    chosen = rooms.chosen(options, next(iter(problems.values())))
    findings: list[Finding] = []
    with rooms.bench(chosen, journal, EFFORT) as bench:
        for name, problem in problems.items():
            for case, trial in _judged(bench, problem, [case for case in cases if case.problem == name]):
                finding = _finding(case, trial, chosen.bench)
                findings.append(finding)
                mark = "" if finding.right else "  <- not what it must be"
                say(f"{len(findings)} of {len(cases)}: {case.file}: {finding.verdict}{mark}")
    if as_json:
        answer(document.audit(Audit(tuple(findings))))
    else:
        show(tables.audit(Audit(tuple(findings))))
    return 0 if all(finding.right for finding in findings) else 1


def _judged(bench: Bench, problem: Problem, cases: Sequence[Case]) -> Iterator[tuple[Case, Trial]]:
    """Each case's own verdict: one that compiles to what another does is judged alone."""
    candidates: dict[str, list[Case]] = {}
    sources: dict[str, Candidate] = {}
    for case in cases:
        read = _read(case)
        if isinstance(read, Candidate):
            sources[read.id] = read
            candidates.setdefault(read.id, []).append(case)
        else:
            yield case, Trial(Candidate(""), read)
    for judged in bench.judge(problem, list(sources.values()), ()):
        trial = judged
        if isinstance(trial.verdict, Duplicate):
            [trial] = bench.judge(problem, [trial.candidate], ())
        if isinstance(trial.verdict, Correct) and isinstance(trial.verdict.time, Timing):
            # As for a winner: what is right once may be wrong in one run of twenty.
            trial = bench.confirm(problem, trial, None)
        for case in candidates[trial.candidate.id]:
            yield case, trial


def _read(case: Case) -> Candidate | Verdict:
    """As the commands read a candidate's file: what is wrong with its bytes is part of some cases."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "kernel.py")
        path.write_bytes(case.content())
        return config.read_candidate(path)


def _finding(case: Case, trial: Trial, bench: str) -> Finding:
    verdict = verdict_name(trial.verdict)
    told = case.needs in ("", {"local": "gpu"}.get(bench, bench))
    stage = getattr(trial.verdict, "stage", None)
    return Finding(
        file=case.file,
        kind=case.kind,
        honest=case.honest,
        verdict=verdict,
        defence=f"{verdict} ({stage})" if stage else verdict,
        message=verdict_message(trial.verdict),
        told=told,
        right=not told or verdict in case.expected,
        protection=trial.protection,
    )
