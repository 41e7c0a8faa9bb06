"""Core values as JSON text, and back: strict, and exact.

A dataclass is an object with its class under "is" and every field under its name; an enumeration its member's name;
a tuple a list; a frozenset a sorted list; a number that JSON lacks `{"float": "inf"}`. Reading goes by the types that
the class declares: an unknown field, a missing one that has no default, or a value of another type is an error and
never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class CodecError(ValueError):
    """The text does not stand for a value of the type."""


def dumps(value: object) -> str:
    """One line of ASCII, the same for equal values. Raises `TypeError` for what is no core value."""
    return json.dumps(_encode(value), allow_nan=False, separators=(",", ":"))


def loads(kind: type[T], text: str) -> T:
    """The value of type `kind` that `dumps` wrote as `text`. Raises `CodecError`."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not JSON: {error}") from None
    return cast(T, _decode(kind, value))


def _refuse(name: str) -> None:
    raise CodecError(f"{name} is not JSON")


def _encode(value: object) -> Json:
    match value:
        case Enum():
            return value.name
        case float() if not math.isfinite(value):
            return {"float": repr(value)}
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return [_encode(item) for item in value]
        case frozenset():
            return [_encode(item) for item in sorted(value)]
        case Mapping():
            return {key: _encode(value[key]) for key in sorted(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__} | {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    raise TypeError(f"{type(value).__name__} has no form in the journal")


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


@cache
def _required(kind: type) -> frozenset[str]:
    """Fields without a default. One with a default may have come after the record was written."""
    return frozenset(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)


def _decode(kind: Any, value: Json) -> object:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _decode_union(arguments, value)
    if origin is Literal:
        if value in arguments and isinstance(value, str):
            return value
    elif is_dataclass(kind):
        return _decode_dataclass(cast(type, kind), value)
    elif origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            return tuple(_decode(inner, item) for inner, item in zip(kinds, value, strict=True))
    elif origin is frozenset and isinstance(value, list):
        return frozenset(_decode(arguments[0], item) for item in value)
    elif origin is Mapping and isinstance(value, dict):
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    elif isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, str) and value in kind.__members__:
        return kind[value]
    elif kind is float and isinstance(value, dict) and value.get("float") in ("inf", "-inf", "nan"):
        return float(cast(str, value["float"]))
    elif type(value) is kind or (kind is float and type(value) is int):
        # An int where a float is declared is what was recorded; it stays one.
        return value
    raise CodecError(f"expected {kind}, found {json.dumps(value)[:80]}")


def _decode_union(kinds: tuple[Any, ...], value: Json) -> object:
    if value is None and type(None) in kinds:
        return None
    tag = value.get("is") if isinstance(value, dict) else None
    for kind in kinds:
        # Exact types first, or an int in `float | int` would be read by the wrong alternative.
        if type(value) is kind or (is_dataclass(kind) and cast(type, kind).__name__ == tag):
            return _decode(kind, value)
    for kind in kinds:
        if not is_dataclass(kind) and kind is not type(None):
            try:
                return _decode(kind, value)
            except CodecError:
                continue
    raise CodecError(f"expected one of {kinds}, found {json.dumps(value)[:80]}")


def _decode_dataclass(kind: type, value: Json) -> object:
    hints = _hints(kind)
    if (
        not isinstance(value, dict)
        or value.get("is") != kind.__name__
        or not {"is", *_required(kind)} <= value.keys() <= {"is", *hints}
    ):
        raise CodecError(f"expected {kind.__name__} with {', '.join(hints)}, found {json.dumps(value)[:80]}")
    return kind(**{name: _decode(hint, value[name]) for name, hint in hints.items() if name in value})
