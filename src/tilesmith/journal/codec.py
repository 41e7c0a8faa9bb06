"""Core values as JSON text, and back: strict, and exact.

A dataclass is an object with its class under "is" and every field under its name; an enumeration its member's name;
a tuple a list; a frozenset a sorted list; a number that JSON lacks `{"float": "inf"}`. Reading goes by the types that
the class declares: an unknown field, a missing one that has no default, or a value of another type is an error and
never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


Reader = Callable[[Json], object]


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
    return cast(T, _reader(cast(Any, kind))(value))


def _refuse(name: str) -> None:
    raise CodecError(f"{name} is not JSON")


def _encode(value: object) -> Json:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return cast(Json, value)
    if kind is float:
        number = cast(float, value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if kind is tuple:
        return [_encode(item) for item in cast(tuple[object, ...], value)]
    if names := _names(cast(Any, kind)):
        row: dict[str, Json] = {"is": kind.__name__}
        for name in names:
            row[name] = _encode(getattr(value, name))
        return row
    match value:
        case Enum():
            return value.name
        # What derives from them, such as the numbers of a library, is written as they are.
        case float():
            return _encode(float(value))
        case int() | str():
            return value
        case frozenset():
            return [_encode(item) for item in sorted(value)]
        case Mapping():
            return {key: _encode(value[key]) for key in sorted(value)}
    raise TypeError(f"{kind.__name__} has no form in the journal")


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; none of anything else."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


@cache
def _required(kind: type) -> frozenset[str]:
    """Fields without a default. One with a default may have come after the record was written."""
    return frozenset(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)


@cache
def _reader(kind: Any) -> Reader:
    """What reads a value of this type, made once: a report reads thousands of trials."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _of_union(arguments)
    if is_dataclass(kind):
        return _of_dataclass(cast(type, kind))
    if origin is Literal:
        return lambda value: value if type(value) is str and value in arguments else _refused(kind, value)
    if origin is tuple:
        return _of_tuple(kind, arguments)
    if origin is frozenset:
        item = _reader(arguments[0])
        return lambda value: frozenset(map(item, value)) if type(value) is list else _refused(kind, value)
    if origin is Mapping:
        item = _reader(arguments[1])
        return lambda value: (
            {key: item(each) for key, each in value.items()} if type(value) is dict else _refused(kind, value)
        )
    if isinstance(kind, type) and issubclass(kind, Enum):
        members = kind.__members__
        return lambda value: members[value] if type(value) is str and value in members else _refused(kind, value)
    if kind is float:
        return _float
    return lambda value: value if type(value) is kind else _refused(kind, value)


def _float(value: Json) -> object:
    # An int where a float is declared is what was recorded; it stays one.
    if type(value) is float or type(value) is int:
        return value
    if type(value) is dict and value.get("float") in ("inf", "-inf", "nan"):
        return float(cast(str, value["float"]))
    return _refused(float, value)


def _of_tuple(kind: Any, arguments: tuple[Any, ...]) -> Reader:
    if arguments[1:] == (...,):
        item = _reader(arguments[0])
        return lambda value: tuple(map(item, value)) if type(value) is list else _refused(kind, value)
    items = tuple(map(_reader, arguments))

    def read(value: Json) -> object:
        if type(value) is not list or len(value) != len(items):
            return _refused(kind, value)
        return tuple(item(each) for item, each in zip(items, value, strict=True))

    return read


def _of_union(kinds: tuple[Any, ...]) -> Reader:
    """Exact types first, or an int in `float | int` would be read by the wrong alternative."""
    tagged = {cast(Any, kind).__name__: _reader(cast(Any, kind)) for kind in kinds if is_dataclass(kind)}
    exact = {kind: _reader(kind) for kind in kinds if isinstance(kind, type) and not is_dataclass(kind)}
    others = tuple(_reader(kind) for kind in kinds if not is_dataclass(kind) and kind is not type(None))
    optional = type(None) in kinds

    def read(value: Json) -> object:
        if value is None and optional:
            return None
        if type(value) is dict and type(tag := value.get("is")) is str and (reader := tagged.get(tag)):
            return reader(value)
        if reader := exact.get(type(value)):
            return reader(value)
        for other in others:
            try:
                return other(value)
            except CodecError:
                continue
        return _refused(kinds, value)

    return read


def _of_dataclass(kind: type) -> Reader:
    hints = _hints(kind)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    required = frozenset(("is", *_required(kind)))
    known = frozenset(("is", *hints))

    def read(value: Json) -> object:
        if (
            type(value) is not dict
            or value.get("is") != kind.__name__
            or not required <= value.keys()
            or not value.keys() <= known
        ):
            return _refused(f"{kind.__name__} with {', '.join(hints)}", value)
        return kind(**{name: readers[name](each) for name, each in value.items() if name != "is"})

    return read


def _refused(kind: object, value: Json) -> NoReturn:
    raise CodecError(f"expected {kind}, found {json.dumps(value)[:80]}")
