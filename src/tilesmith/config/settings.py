"""Reads `problem.toml` into `Settings`, strictly: every key is known and every value has the type it should."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Set
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tilesmith.config.text import TextFaultError, read_text
from tilesmith.core.errors import ProblemError
from tilesmith.core.names import shown, unknown
from tilesmith.core.problem import Constant, Settings

EXPECTED = {
    "dtype": 'one of "fp64", "fp32", "fp16" and "bf16"',
    "tolerance": "a positive number",
    "tf32": "true or false",
    "library": "true or false",
    "target": 'the name of a GPU, such as "h200"',
    "small": "a table of constants",
    "large": "a table of constants",
}
CONSTANT = "a number, true or false, a text, or a list of whole numbers"


def read_settings(path: Path, constants: Set[str]) -> Settings:
    """The settings in this file; `constants` are the names that the problem assigns at top level.

    Raises `ProblemError`, which names the key.
    """
    try:
        table = tomllib.loads(read_text(path))
    except TextFaultError as fault:
        raise ProblemError(f"{path} {fault}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ProblemError(f"{path} is not valid TOML: {error}.") from None
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise ProblemError(f"{path} has an {unknown('key', key, hints)}")
        if key in ("small", "large"):
            values[key] = _constants(path, key, value, constants)
        elif not _valid(hints[key], value) or (key == "tolerance" and not 0 < value < math.inf):
            raise ProblemError(f"{path}: {key} should be {EXPECTED[key]}, not {shown(value)}.")
        else:
            values[key] = value
    return Settings(**values)


def _constants(path: Path, key: str, table: object, known: Set[str]) -> dict[str, Constant]:
    if not isinstance(table, dict):
        raise ProblemError(f"{path}: {key} should be {EXPECTED[key]}, written [{key}], not {shown(table)}.")
    values: dict[str, Constant] = {}
    for name, value in table.items():
        if name not in known:
            raise ProblemError(f"{path}: [{key}] sets an {unknown('constant of problem.py', name, known)}")
        constant = tuple(value) if isinstance(value, list) else value
        if not _valid(Constant, constant) or (isinstance(constant, float) and not math.isfinite(constant)):
            raise ProblemError(f"{path}: {name} in [{key}] should be {CONSTANT}, not {shown(value)}.")
        values[name] = constant
    return values


def _valid(kind: Any, value: object) -> bool:
    # Strict: 1 is not true, "2" is not a number.
    try:
        TypeAdapter[Any](kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    return True
