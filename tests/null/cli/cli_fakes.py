"""A bench and a proposer that stand in for the real ones, and what a command left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilesmith.core.problem import Problem
from tilesmith.core.profile import Launch, Profile
from tilesmith.core.seams import Given
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Environment,
    Estimate,
    Failed,
    Rejected,
    Trial,
    Unchecked,
    Verdict,
    Wrong,
)

PROBLEM = """\
class Model:
    pass

def get_inputs():
    return []

def get_init_inputs():
    return []
"""
WHERE = Environment("offline", "h200", None, None, "2.13.0", "3.6.0", "3.11.7")
LAUNCH = Launch("kernel", (132, 1, 1), 4, 3, 1024, 32, 0)


def kernel(word: str) -> str:
    """A candidate that says its verdict: a time in microseconds, or the name of another verdict; after - a remark."""
    return f'VERDICT = "{word}"\n\n\ndef kernel_function():\n    return None\n'


@dataclass
class WordBench:
    """Judges a candidate by its own word."""

    judged: list[str] = field(default_factory=list)
    before: Callable[[Candidate], None] = lambda _: None

    def judge(self, _problem: Problem, candidates: Iterable[Candidate], _trials: Sequence[Trial]) -> Iterator[Trial]:
        for candidate in candidates:
            self.before(candidate)
            word = re.search(r'^VERDICT = "([^"-]*)', candidate.source, re.MULTILINE)
            verdict = _verdict(word[1] if word else "wrong")
            self.judged.append(candidate.id)
            launches = (LAUNCH,) if isinstance(verdict, Correct) else ()
            yield Trial(candidate, verdict, candidate.id, launches, None, Cost(wall_s=0.5), WHERE, "namespaces")

    def profile(self, _problem: Problem, trial: Trial) -> Profile:
        """The trial's own, or one without kernels."""
        return trial.profile or Profile("estimate", "word", ())

    def confirm(self, _problem: Problem, finalist: Trial, _baseline: Candidate | None) -> Trial:
        """The word stands."""
        return finalist


def _verdict(word: str) -> Verdict:
    match word:
        case "wrong":
            return Wrong("output 0 differs", float("inf"))
        case "rejected":
            return Rejected("it calls the reference")
        case "failed":
            return Failed("compile", "no such operator\nat line 3")
        case "unchecked":
            return Unchecked("Gluon has no interpreter", Estimate(5.0))
    return Correct(Estimate(float(word)), 0.25)


class Halving:
    """Proposes a candidate twice as fast as the best, a wrong one and a slower one, until 1 µs is reached."""

    def propose(self, _problem: Problem, trials: Sequence[Trial], _number: int) -> Given:
        timed = [trial for trial in trials if trial.time_us is not None] or list(trials)
        if not timed:
            return Given([Candidate(kernel("64.0"), "start")])
        parent = min(timed, key=lambda trial: trial.time_us or 0.0)
        time_us = (parent.time_us or 0.0) / 2
        if time_us < 1:
            return Given()
        words = {"halve": f"{time_us}", "break": f"wrong-{time_us}", "slow": f"{time_us * 3}"}
        return Given(Candidate(kernel(word), f"rewrite:{name}", parent.candidate.id) for name, word in words.items())


@dataclass
class Answer:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one strict JSON object on stdout."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        assert self.out.count("\n") == 1
        document = json.loads(self.out, parse_constant=refuse)
        assert {"verdict", "message"} <= document.keys()
        assert (self.status == 2) == (document["verdict"] is None)
        return dict(document)
