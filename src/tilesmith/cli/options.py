"""What a user chose, as values: checked once, before anything starts, and kept in the journal so that a run resumes.

Every field has the name of its flag with underscores for dashes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tilesmith.config import Preset, load_preset, read_preset
from tilesmith.core.budget import Limits
from tilesmith.core.errors import JournalError, OptionError
from tilesmith.core.names import unknown
from tilesmith.core.problem import Problem

REWRITE, MODELS, SUPEROPT, AUTO = "rewrite", "llm", "superopt", "auto"
PROPOSERS = (SUPEROPT, REWRITE, MODELS)
DEFAULT_PRESET = "beam"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Where candidates are judged. Raises `OptionError` for what no bench can mean."""

    bench: str = "auto"
    """auto, offline, local, ray or replay:RUN."""
    target: str | None = None
    gpus: tuple[int, ...] | None = None
    """None takes every GPU of this host."""
    workers_per_gpu: int = 3
    address: str | None = None
    """Of a Ray cluster; None takes what RAY_ADDRESS says, else this machine alone."""
    otherwise: str | None = None
    """What a Ray cluster without GPUs compiles for, where `target` says nothing: the problem's word."""

    def __post_init__(self) -> None:
        kind, _, run = self.bench.partition(":")
        known = self.bench in {"auto", "offline", "local", "ray"} or (kind == "replay" and run)
        if not known:
            raise OptionError(f"--bench is {self.bench!r}; it must be auto, offline, local, ray or replay:RUN")
        if self.address is not None and self.bench != "ray":
            raise OptionError(f"--address names a Ray cluster, and --bench is {self.bench}; say --bench ray")
        _positive("--workers-per-gpu", self.workers_per_gpu)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides how a run goes on. Raises `OptionError` for a value that cannot be used."""

    problem_path: str
    out: str
    bench: BenchOptions = field(default_factory=BenchOptions)
    candidate_pool_size: int = 4
    num_bottlenecks: int = 2
    proposers: tuple[str, ...] = (AUTO,)
    """Who proposes. auto: models where some are named; else rewrites, of µGraphs' kernels where there is no other."""
    seed: int = 0
    rounds: int | None = None
    budget_trials: int | None = None
    budget_seconds: float | None = None
    budget_gpu_seconds: float | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    patience: int | None = None
    allow: tuple[str, ...] = ()
    """What candidates may do beside the contract: "library"."""
    preset: Preset | None = None
    """The shape of a run with models; None asks no model."""
    models_file: str | None = None

    def __post_init__(self) -> None:
        _positive("--candidate-pool-size", self.candidate_pool_size)
        _positive("--num-bottlenecks", self.num_bottlenecks)
        _positive("--rounds", self.rounds)
        _positive("--budget-trials", self.budget_trials)
        _positive("--budget-seconds", self.budget_seconds)
        _positive("--budget-gpu-seconds", self.budget_gpu_seconds)
        _positive("--budget-usd", self.budget_usd)
        _positive("--budget-tokens", self.budget_tokens)
        _positive("--patience", self.patience)
        for name in self.proposers:
            if name not in (*PROPOSERS, AUTO):
                raise OptionError(f"--proposers: {unknown('proposer', name, PROPOSERS)}")
        if not self.proposers:
            raise OptionError(f"--proposers is empty; known are: {', '.join(PROPOSERS)}")
        if MODELS in self.proposers and self.preset is None:
            raise OptionError("--proposers names llm, which needs models: name some with --models, or a --preset")

    def settled(self, problem: Problem) -> Options:
        """With nothing left to choose of who proposes. Raises `OptionError` where nobody could begin."""
        if self.proposers != (AUTO,):
            chosen = self.proposers
        elif self.preset is not None:
            chosen = (MODELS, *self.preset.proposers)
        else:
            chosen = (REWRITE,) if problem.start is not None else (SUPEROPT, REWRITE)
        if problem.start is None and chosen == (REWRITE,):
            raise OptionError(
                f"{self.problem_path} has no start kernel to rewrite: put a kernel.py beside problem.py in a folder of "
                "the problem and name that folder, name models with --models, or leave --proposers out"
            )
        return replace(self, proposers=chosen)

    @property
    def limits(self) -> Limits:
        """The budgets, as the search takes them."""
        return Limits(
            self.rounds,
            self.budget_trials,
            self.budget_seconds,
            self.budget_gpu_seconds,
            self.budget_usd,
            self.budget_tokens,
            self.patience,
        )

    def extended(self, given: Given) -> Options:
        """The same options with what is given now in place of the old."""
        named = {name: value for name, value in asdict(given).items() if value is not None}
        if (address := named.pop("address", None)) is not None:
            named["bench"] = replace(self.bench, address=address)
        return replace(self, **named)

    def to_json(self) -> str:
        """The text that a journal keeps."""
        return json.dumps(asdict(self), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Options:
        """Read back what `to_json` wrote. Raises `JournalError` for anything else."""
        try:
            rows: dict[str, Any] = json.loads(text)
            bench, preset = rows.pop("bench"), rows.pop("preset", None)
            gpus = bench.pop("gpus")
            chosen = BenchOptions(gpus=None if gpus is None else tuple(gpus), **bench)
            proposers, allow = (tuple(rows.pop(name, ())) for name in ("proposers", "allow"))
            shape = None if preset is None else read_preset(json.dumps(preset))
            return Options(bench=chosen, proposers=proposers, allow=allow, preset=shape, **rows)
        except (ValueError, TypeError, KeyError, AttributeError, OptionError) as error:
            raise JournalError(
                f"the options that this run was started with cannot be read ({error}); start a new run"
            ) from error


@dataclass(frozen=True, slots=True)
class Given:
    """What `resume` may change: budgets, where the winner goes, where a Ray cluster is. None leaves what was."""

    rounds: int | None = None
    budget_trials: int | None = None
    budget_seconds: float | None = None
    budget_gpu_seconds: float | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    patience: int | None = None
    out: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What the command line says of a run with models. None, or nothing, leaves the preset's word."""

    preset: str | None = None
    models: tuple[str, ...] = ()
    candidate_pool_size: int | None = None
    num_bottlenecks: int | None = None
    samples_per_prompt: int | None = None
    repairs: int | None = None
    analyst: str | None = None
    call_seconds: float | None = None
    round_seconds: float | None = None
    max_output_tokens: int | None = None
    technique_clustering: bool | None = None
    techniques_yaml: str | None = None
    classifier: str | None = None
    classifier_model: str | None = None
    max_concurrency: int | None = None

    def chosen(self, proposers: tuple[str, ...] | None) -> Preset | None:
        """The preset with the flags over it; None where no model is to be asked. Raises `OptionError`."""
        if self.preset is None and not self.models:
            return None
        if proposers is not None and MODELS not in proposers:
            raise OptionError(f"--proposers leaves out {MODELS}, but --models or --preset names models")
        clustering = {
            "enabled": self.technique_clustering,
            "techniques_yaml": self.techniques_yaml,
            "classifier": self.classifier,
            "classifier_model": self.classifier_model,
            "max_concurrency": self.max_concurrency,
        }
        own = {name: value for name, value in asdict(self).items() if name not in {*clustering, "preset"}}
        own.pop("technique_clustering")
        return load_preset(self.preset or DEFAULT_PRESET).changed(own, clustering)


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
