"""What a user chose, as values: checked once, before anything starts, and kept in the journal so that a run resumes.

Every field has the name of its flag with underscores for dashes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tilesmith.core.budget import Limits
from tilesmith.core.errors import JournalError, OptionError
from tilesmith.core.problem import Problem

PROPOSERS = ("rewrite",)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Where candidates are judged. Raises `OptionError` for what no bench can mean."""

    bench: str = "auto"
    """auto, offline, local or replay:RUN."""
    target: str | None = None
    gpus: tuple[int, ...] | None = None
    """None takes every GPU of this host."""
    workers_per_gpu: int = 3

    def __post_init__(self) -> None:
        kind, _, run = self.bench.partition(":")
        known = self.bench in {"auto", "offline", "local"} or (kind == "replay" and run)
        if not known:
            raise OptionError(f"--bench is {self.bench!r}; it must be auto, offline, local or replay:RUN")
        _positive("--workers-per-gpu", self.workers_per_gpu)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides how a run goes on. Raises `OptionError` for a value that cannot be used."""

    problem_path: str
    out: str
    bench: BenchOptions = field(default_factory=BenchOptions)
    candidate_pool_size: int = 4
    num_bottlenecks: int = 2
    proposers: tuple[str, ...] = PROPOSERS
    seed: int = 0
    rounds: int | None = None
    budget_trials: int | None = None
    budget_seconds: float | None = None
    budget_gpu_seconds: float | None = None
    allow: tuple[str, ...] = ()
    """What candidates may do beside the contract: "library"."""

    def __post_init__(self) -> None:
        _positive("--candidate-pool-size", self.candidate_pool_size)
        _positive("--num-bottlenecks", self.num_bottlenecks)
        _positive("--rounds", self.rounds)
        _positive("--budget-trials", self.budget_trials)
        _positive("--budget-seconds", self.budget_seconds)
        _positive("--budget-gpu-seconds", self.budget_gpu_seconds)
        for name in self.proposers:
            if name not in PROPOSERS:
                raise OptionError(f"--proposers names {name!r}; known are: {', '.join(PROPOSERS)}")
        if not self.proposers:
            raise OptionError(f"--proposers is empty; known are: {', '.join(PROPOSERS)}")

    @property
    def limits(self) -> Limits:
        """The budgets, as the search takes them."""
        return Limits(self.rounds, self.budget_trials, self.budget_seconds, self.budget_gpu_seconds)

    def extended(
        self,
        rounds: int | None,
        budget_trials: int | None,
        budget_seconds: float | None,
        budget_gpu_seconds: float | None,
        out: str | None,
    ) -> Options:
        """The same options with the budgets that are given now in place of the old ones."""
        return replace(
            self,
            rounds=rounds if rounds is not None else self.rounds,
            budget_trials=budget_trials if budget_trials is not None else self.budget_trials,
            budget_seconds=budget_seconds if budget_seconds is not None else self.budget_seconds,
            budget_gpu_seconds=budget_gpu_seconds if budget_gpu_seconds is not None else self.budget_gpu_seconds,
            out=out if out is not None else self.out,
        )

    def to_json(self) -> str:
        """The text that a journal keeps."""
        return json.dumps(asdict(self), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Options:
        """Read back what `to_json` wrote. Raises `JournalError` for anything else."""
        try:
            rows: dict[str, Any] = json.loads(text)
            bench = rows.pop("bench")
            gpus = bench.pop("gpus")
            chosen = BenchOptions(gpus=None if gpus is None else tuple(gpus), **bench)
            proposers, allow = (tuple(rows.pop(name, ())) for name in ("proposers", "allow"))
            return Options(bench=chosen, proposers=proposers, allow=allow, **rows)
        except (ValueError, TypeError, KeyError, AttributeError, OptionError) as error:
            raise JournalError(
                f"the options that this run was started with cannot be read ({error}); start a new run"
            ) from error


def gpu_list(words: str | None) -> tuple[int, ...] | None:
    """`--gpus`: "0,2" as numbers; None or "all" for every GPU."""
    if words is None or words == "all":
        return None
    parts = [part.strip() for part in words.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise OptionError(f"--gpus is {words!r}; it must be all, or different numbers such as 0,1")
    return tuple(int(part) for part in parts)


def name_list(words: str) -> tuple[str, ...]:
    """`--proposers`: names between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))


def allowing(problem: Problem, allow: tuple[str, ...]) -> Problem:
    """The problem with what `--allow` permits. Raises `OptionError` for what nobody knows."""
    if unknown := [name for name in allow if name != "library"]:
        raise OptionError(f"--allow names {unknown[0]!r}; known is: library")
    return replace(problem, settings=replace(problem.settings, library=problem.settings.library or "library" in allow))


def _positive(flag: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise OptionError(f"{flag} is {value}; it must be more than 0")
