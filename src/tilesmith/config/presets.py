"""Presets: all that shapes a run with models, in one file. The packaged ones and the user's own are read alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tilesmith.config.text import TextFaultError, read_text
from tilesmith.core.errors import OptionError
from tilesmith.core.names import shown, unknown

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Model = Annotated[str, Field(pattern=r"^[^\s:]+:\S.*$")]

STRICT = ConfigDict(strict=True, extra="forbid")
ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class TechniqueClustering:
    """How the pool is kept diverse."""

    __pydantic_config__ = STRICT

    enabled: bool = False
    classifier: Literal["compiled", "llm", "both"] = "compiled"
    classifier_model: Model | None = None
    """ "provider:name"; None takes the first of the preset's models."""
    max_concurrency: Count = 4
    """Classifications in flight."""
    techniques_yaml: str | None = None
    """A taxonomy's path; None takes the packaged one."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A run's shape. Each field has the name of its key, and of its flag with dashes for underscores."""

    __pydantic_config__ = STRICT

    name: str
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    candidate_pool_size: Count = 2
    num_bottlenecks: Annotated[int, Field(ge=1, le=8)] = 2
    """There are eight kinds."""
    samples_per_prompt: Count = 1
    rounds: Count | None = 8
    patience: Count | None = None
    """Rounds without gain after which a run stops; None: it goes on."""
    repairs: Annotated[int, Field(ge=0)] = 2
    workers_per_gpu: Count = 2
    proposers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Who proposes beside the models."""
    technique_clustering: TechniqueClustering = field(default_factory=TechniqueClustering)
    analyst: Literal["rules"] | Model = "rules"
    call_seconds: Seconds = 600.0
    round_seconds: Seconds | None = None
    max_output_tokens: Count = 32_000

    @property
    def directions(self) -> int:
        """Of one round."""
        return self.candidate_pool_size * self.num_bottlenecks * len(self.models) * self.samples_per_prompt

    def changed(self, own: Mapping[str, object], clustering: Mapping[str, object]) -> Preset:
        """The same with these values in place of its own; None and empty ones change nothing.

        Raises `OptionError` for a value that cannot be used, as a flag of the key's name.
        """
        table = asdict(self)
        table["technique_clustering"] |= {key: value for key, value in clustering.items() if value is not None}
        table |= {key: value for key, value in own.items() if value not in (None, ())}
        del table["name"]
        return _checked(f"preset {self.name} with these flags", self.name, table)


def read_preset(text: str) -> Preset:
    """A preset from its JSON, as a journal keeps it. Raises ValueError for anything else."""
    return TypeAdapter(Preset).validate_json(text)


KEYS = tuple(each.name for each in fields(Preset) if each.name != "name")
CLUSTERING_KEYS = tuple(each.name for each in fields(TechniqueClustering))


@cache
def presets() -> tuple[str, ...]:
    """The names of the packaged presets, the narrowest first."""
    return tuple(sorted(_packaged(), key=lambda name: (load_preset(name).directions, name)))


def load_preset(name_or_path: str) -> Preset:
    """The packaged preset of this name, or the one in a file: a path with a folder in it, or one that ends in .yaml.

    Keys that a file leaves out have their defaults; only `models` has none. A taxonomy is looked for beside the file.
    Raises `OptionError`: a preset or key that nobody knows, with the nearest known name; a value that cannot be used;
    a file that cannot be read.
    """
    if not name_or_path.endswith(ENDINGS) and "/" not in name_or_path:
        resource = files("tilesmith.config").joinpath("presets", f"{name_or_path}.yaml")
        # "." and ".." have no file of this kind either.
        if resource.is_file():
            return _checked(f"preset {name_or_path}", name_or_path, _table(name_or_path, resource.read_text("utf-8")))
        raise OptionError(f"{unknown('preset', name_or_path, _packaged())} A file of your own ends in .yaml.")
    path = Path(name_or_path)
    try:
        text = read_text(path)
    except TextFaultError as fault:
        raise OptionError(f"preset {path} {fault}.") from None
    preset = _checked(f"preset {path}", path.stem, _table(str(path), text))
    clustering = preset.technique_clustering
    if clustering.techniques_yaml is None:
        return preset
    beside = str(path.parent / clustering.techniques_yaml)
    return replace(preset, technique_clustering=replace(clustering, techniques_yaml=beside))


def _packaged() -> list[str]:
    folder = files("tilesmith.config").joinpath("presets")
    return [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]


def _table(where: str, text: str) -> dict[str, Any]:
    try:
        table = yaml.load(text, Loader=_Strict)
    except yaml.YAMLError as error:
        raise OptionError(f"preset {where} is not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise OptionError(f"preset {where} is nested too deeply to be one.") from None
    if not isinstance(table, dict):
        raise OptionError(f"preset {where} should hold keys and values, such as `rounds: 8`, not {shown(table)}.")
    return table


def _checked(where: str, name: str, table: Mapping[Any, Any]) -> Preset:
    _known(where, table, KEYS)
    inner = table.get("technique_clustering", {})
    if isinstance(inner, Mapping):
        _known(f"{where}: technique_clustering", inner, CLUSTERING_KEYS)
    try:
        # From JSON, strictness takes a list for a tuple and a table for a dataclass, and nothing else for another.
        preset = TypeAdapter(Preset).validate_json(json.dumps({**table, "name": name}, default=str))
    except ValidationError as error:
        raise OptionError(f"{where}: {_fault(error, table)}") from None
    except (ValueError, RecursionError):
        raise OptionError(f"{where} holds something that contains itself; write it out.") from None
    for key, values in (("models", preset.models), ("proposers", preset.proposers)):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise OptionError(f"{where}: {key} names {twice[0]} twice; name each once.")
    return preset


def _known(where: str, table: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise OptionError(f"{where} has an {unknown('key', str(key), known)}")


EXPECTED = {
    "models": "a list of different models such as anthropic:claude-opus-5-5, at least one",
    "candidate_pool_size": "a whole number of at least 1",
    "num_bottlenecks": "a whole number from 1 to 8",
    "samples_per_prompt": "a whole number of at least 1",
    "rounds": "a whole number of at least 1, or null for no limit",
    "patience": "a whole number of at least 1, or null for no limit",
    "repairs": "a whole number of at least 0",
    "workers_per_gpu": "a whole number of at least 1",
    "proposers": "a list of proposers' names, which may be empty",
    "technique_clustering": "a table with the key enabled",
    "analyst": "rules, or a model such as anthropic:claude-opus-5-5",
    "call_seconds": "a number above 0",
    "round_seconds": "a number above 0, or null for no limit",
    "max_output_tokens": "a whole number of at least 1",
    "enabled": "true or false",
    "classifier": "one of compiled, llm and both",
    "classifier_model": "a model such as anthropic:claude-opus-5-5, or null for the first of models",
    "max_concurrency": "a whole number of at least 1",
    "techniques_yaml": "a path, or null for the packaged taxonomy",
}


def _fault(error: ValidationError, table: Mapping[Any, Any]) -> str:
    """What is wrong with the first key that is, in one sentence."""
    place = [str(part) for part in error.errors(include_url=False)[0]["loc"]]
    key = place[0]
    if key not in table:
        return f"{key} is missing; it should be {EXPECTED[key]}."
    value = table[key]
    if key == "technique_clustering" and isinstance(value, Mapping) and len(place) > 1:
        key, value = place[1], value[place[1]]
    return f"{key} should be {EXPECTED[key]}, not {shown(value)}."


class _Strict(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable):
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)
