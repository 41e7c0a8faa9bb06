"""The taxonomy: which techniques are told apart. Data, in a file that users extend or replace."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tilesmith.core.errors import OptionError
from tilesmith.core.names import meant, shown
from tilesmith.core.problem import content_id
from tilesmith.propose.detectors import DETECTORS
from tilesmith.propose.strict import Strict

MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FILE_KEYS = ("extends", "techniques")
_ENTRY_KEYS = ("name", "description", "prompt_hint", "shows")


@dataclass(frozen=True, slots=True)
class Technique:
    """One entry."""

    name: str
    description: str
    """One sentence."""
    prompt_hint: str
    """What in a source tells a model that it is there."""
    shows: str | None
    """The detector that reads it; None where only a model can tell."""


@dataclass(frozen=True)
class Taxonomy:
    """Entries with different names, in their order."""

    entries: tuple[Technique, ...]

    @cached_property
    def id(self) -> str:
        """Of the content: every edit of an entry, an addition and another order have another id."""
        return content_id(json.dumps([asdict(entry) for entry in self.entries]))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.entries)


def load_taxonomy(path: str | Path | None = None, classifier: str = "compiled") -> Taxonomy:
    """The packaged taxonomy, or the one in a file: entries after the packaged ones where it says `extends: default`.

    Raises `OptionError`: a file that cannot be read, or that is no taxonomy; unknown keys and detectors (with the
    nearest known name), a name twice; and for the compiled classifier one in which no entry has a detector, because
    every kernel would look the same.
    """
    taxonomy = default() if path is None else Taxonomy(_entries(Path(path)))
    if classifier == "compiled" and not any(entry.shows for entry in taxonomy.entries):
        raise OptionError(
            f"{path} has no entry with a detector, so that the compiled classifier sees no difference between kernels; "
            "give entries `shows`, or set classifier to llm"
        )
    return taxonomy


@lru_cache(maxsize=1)
def default() -> Taxonomy:
    """The packaged one."""
    resource = files("tilesmith.propose").joinpath("techniques.yaml")
    return Taxonomy(_parsed("the packaged taxonomy", resource.read_text("utf-8"), ()))


def _entries(path: Path) -> tuple[Technique, ...]:
    try:
        # A pipe or a device could make the reading wait for ever.
        if not path.is_file():
            raise OptionError(f"techniques_yaml {path} is not a file; check the path")
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError(f"techniques_yaml {path} is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise OptionError(f"techniques_yaml {path} cannot be read ({error}); check the path") from None
    if len(data) > MAX_BYTES:
        raise OptionError(f"techniques_yaml {path} is larger than {MAX_BYTES:,} bytes; no taxonomy needs that much")
    return _parsed(f"techniques_yaml {path}", text, default().entries)


def _parsed(where: str, text: str, packaged: tuple[Technique, ...]) -> tuple[Technique, ...]:
    try:
        table = yaml.load(text, Loader=Strict)
    except yaml.YAMLError as error:
        raise OptionError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise OptionError(f"{where} is not a taxonomy: it is nested too deeply") from None
    if not isinstance(table, dict):
        raise OptionError(f"{where} should hold a list under `techniques`, not {shown(table)}")
    _known_keys(where, table, _FILE_KEYS)
    rows = table.get("techniques")
    if not isinstance(rows, list) or not rows:
        raise OptionError(f"{where} should hold a list of entries under `techniques`, not {shown(rows)}")
    base: tuple[Technique, ...] = ()
    if "extends" in table:
        if table["extends"] != "default":
            raise OptionError(f"{where} extends {shown(table['extends'])}; the only taxonomy to extend is default")
        base = packaged
    found = list(base)
    for number, row in enumerate(rows, start=1):
        entry = _entry(where, number, row)
        if any(entry.name == other.name for other in base):
            raise OptionError(f"{where}: entry {number}, {entry.name}, is in the taxonomy that it extends; rename it")
        if any(entry.name == other.name for other in found):
            raise OptionError(f"{where}: entry {number} has the name {entry.name}, which an earlier one has; rename it")
        found.append(entry)
    return tuple(found)


def _entry(where: str, number: int, row: object) -> Technique:
    if not isinstance(row, dict):
        raise OptionError(f"{where}: entry {number} should have {', '.join(_ENTRY_KEYS)}, not be {shown(row)}")
    name = row.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            f"{where}: the name of entry {number} should be lower-case letters, digits and underscores, "
            f"not {shown(name)}"
        )
    where = f"{where}: {name}"
    _known_keys(where, row, _ENTRY_KEYS)
    words: dict[str, str] = {}
    for key in ("description", "prompt_hint"):
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise OptionError(f"{where}: {key} should be a sentence, not {shown(value)}")
        words[key] = " ".join(value.split())
    if "shows" not in row:
        raise OptionError(f"{where} has no `shows`; name a detector, or write null where only a model can tell")
    shows = row["shows"]
    if shows is not None and not (isinstance(shows, str) and shows in DETECTORS):
        raise OptionError(f"{where}: {_unknown('detector', shows, DETECTORS)}")
    return Technique(name, words["description"], words["prompt_hint"], shows)


def _known_keys(where: str, row: dict[Any, Any], known: Iterable[str]) -> None:
    for key in row:
        if key not in known:
            raise OptionError(f"{where}: {_unknown('key', key, known)}")


def _unknown(kind: str, name: object, known: Iterable[str]) -> str:
    return f"unknown {kind} {shown(name)}; {meant(str(name), known)}"
