"""What one call of a candidate puts on the device, as plain values, and the way they travel between processes.

The process that compiles a candidate runs the candidate's own code, so its word is not trusted: `from_json` checks
every type and every size, and raises `ValueError` with the path of what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from tilesmith.core.profile import Launch, Scalar

OperatorKind = Literal["fill", "copy", "library", "outside"]
"""What an operator of the framework does: "library" computes on the device in a call; "outside" computes elsewhere."""

T = TypeVar("T")

LONGEST_NAME = 1_000
LONGEST_TEXT = 32 << 20
"""Of one kernel's IR or PTX, in characters."""
MOST_TEXT = 256 << 20
"""Of all kernels of a call together."""
MOST_ITEMS = 10_000
"""Of any list: the launches of a call, the configurations of a choice, the arguments of a kernel."""
LARGEST = 1 << 64


@dataclass(frozen=True, slots=True)
class Pointer:
    """A tensor behind one argument of a launch."""

    name: str
    index: int
    """The position among the kernel's parameters as its source lists them, constexprs counted, from 0."""
    dtype: str
    """Of the tensor's elements: "fp32", "bf16", "i32", "fp8e4nv", ..."""
    nbytes: int
    """Of the tensor's elements, from the first to the last."""
    tensor: str = ""
    """Which tensor of the call this is, told without an address: "x", "weight", "new 2"; "" where nobody knows.

    Two launches that swap two inputs of one shape differ in nothing else.
    """


@dataclass(frozen=True, slots=True)
class Compiled:
    """One launch of one compiled kernel. Its scalar arguments and constexprs are in `launch.arguments`."""

    launch: Launch
    ttir: str
    ptx: str
    pointers: tuple[Pointer, ...] = ()


@dataclass(frozen=True, slots=True)
class Operator:
    """Device work of the framework itself between launches: `torch.zeros` is a fill."""

    name: str
    kind: OperatorKind
    nbytes: int
    """Read and written together; of a fill, written."""
    flops: int = 0
    """Of a library's matrix products and convolutions."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A launch that is autotuned: one entry per configuration that compiles."""

    configurations: tuple[Compiled, ...]
    chosen: int | None = None
    """The index of the configuration that tuning found fastest; None before tuning."""

    def __post_init__(self) -> None:
        if not self.configurations:
            raise ValueError("a choice needs at least one configuration")
        if self.chosen is not None and not 0 <= self.chosen < len(self.configurations):
            raise ValueError(
                f"a choice among {len(self.configurations)} configurations cannot have chosen {self.chosen}"
            )


Step = Compiled | Operator | Choice
Call = tuple[Step, ...]
"""What one call puts on the device, in order. A launch of an empty grid starts nothing and is not part of it."""


# To JSON -------------------------------------------------------------------------------------------------------------


def to_json(call: Call) -> dict[str, object]:
    """The call as a value that `json.dumps` takes. A kernel's text stands in it once, however often it is launched."""
    texts: dict[tuple[str, str], int] = {}
    rows = [_row(step, texts) for step in call]
    return {"texts": [list(pair) for pair in texts], "call": rows}


def _row(step: Step, texts: dict[tuple[str, str], int]) -> dict[str, object]:
    match step:
        case Operator(name, kind, nbytes, flops):
            return {"operator": name, "kind": kind, "nbytes": nbytes, "flops": flops}
        case Choice(configurations, chosen):
            return {"configurations": [_row(each, texts) for each in configurations], "chosen": chosen}
        case Compiled(launch, ttir, ptx, pointers):
            return {
                "kernel": launch.kernel,
                "text": texts.setdefault((ttir, ptx), len(texts)),
                "grid": list(launch.grid),
                "warps": launch.warps,
                "stages": launch.stages,
                "shared_bytes": launch.shared_bytes,
                "registers": launch.registers,
                "spills": launch.spills,
                "arguments": [list(pair) for pair in launch.arguments],
                "features": sorted(launch.features),
                "pointers": [[p.name, p.index, p.dtype, p.nbytes, p.tensor] for p in pointers],
            }


# From JSON -----------------------------------------------------------------------------------------------------------


def from_json(value: object) -> Call:
    """The call that `to_json` wrote. Raises `ValueError` for anything else."""
    fields = _fields(value, "the call", ("texts", "call"))
    texts = _list(fields["texts"], "texts", _pair_of_texts)
    if sum(len(ttir) + len(ptx) for ttir, ptx in texts) > MOST_TEXT:
        raise ValueError(f"texts: longer than {MOST_TEXT} characters together")
    return _list(fields["call"], "call", lambda row, at: _step(row, at, texts))


def _pair_of_texts(value: object, at: str) -> tuple[str, str]:
    ttir, ptx = _items(value, at, 2)
    return _text(ttir, f"{at}[0]", LONGEST_TEXT), _text(ptx, f"{at}[1]", LONGEST_TEXT)


def _step(value: object, at: str, texts: tuple[tuple[str, str], ...]) -> Step:
    if isinstance(value, Mapping) and "operator" in value:
        return _operator(value, at)
    if isinstance(value, Mapping) and "configurations" in value:
        fields = _fields(value, at, ("configurations", "chosen"))
        chosen = fields["chosen"]
        try:
            return Choice(
                _list(fields["configurations"], f"{at}.configurations", lambda row, to: _compiled(row, to, texts)),
                None if chosen is None else _whole(chosen, f"{at}.chosen"),
            )
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from error
    return _compiled(value, at, texts)


def _operator(value: object, at: str) -> Operator:
    fields = _fields(value, at, ("operator", "kind", "nbytes", "flops"))
    kind = fields["kind"]
    for known in get_args(OperatorKind):
        if kind == known:
            nbytes, flops = (_whole(fields[name], f"{at}.{name}") for name in ("nbytes", "flops"))
            return Operator(_text(fields["operator"], at), known, nbytes, flops)
    raise ValueError(f"{at}.kind: not one of {', '.join(get_args(OperatorKind))}")


def _compiled(value: object, at: str, texts: tuple[tuple[str, str], ...]) -> Compiled:
    names = ("kernel", "text", "grid", "warps", "stages", "shared_bytes", "registers", "spills", "arguments")
    fields = _fields(value, at, (*names, "features", "pointers"))
    text = _whole(fields["text"], f"{at}.text")
    if text >= len(texts):
        raise ValueError(f"{at}.text: there is no text {text}")
    x, y, z = (_whole(size, f"{at}.grid", least=1) for size in _items(fields["grid"], f"{at}.grid", 3))
    arguments = _list(fields["arguments"], f"{at}.arguments", _argument)
    launch = Launch(
        kernel=_text(fields["kernel"], f"{at}.kernel"),
        grid=(x, y, z),
        warps=_whole(fields["warps"], f"{at}.warps", least=1),
        stages=_whole(fields["stages"], f"{at}.stages"),
        shared_bytes=_whole(fields["shared_bytes"], f"{at}.shared_bytes"),
        registers=_whole(fields["registers"], f"{at}.registers"),
        spills=_whole(fields["spills"], f"{at}.spills"),
        arguments=tuple(sorted(arguments, key=lambda pair: pair[0])),
        features=frozenset(_list(fields["features"], f"{at}.features", _text)),
    )
    return Compiled(launch, *texts[text], _list(fields["pointers"], f"{at}.pointers", _pointer))


def _argument(value: object, at: str) -> tuple[str, Scalar]:
    name, scalar = _items(value, at, 2)
    if isinstance(scalar, str):
        return _text(name, at), _text(scalar, at)
    if scalar is None or isinstance(scalar, (bool, float)):
        return _text(name, at), scalar
    if isinstance(scalar, int) and -LARGEST < scalar < LARGEST:
        return _text(name, at), scalar
    raise ValueError(f"{at}: not a scalar of 64 bits")


def _pointer(value: object, at: str) -> Pointer:
    name, index, dtype, nbytes, tensor = _items(value, at, 5)
    return Pointer(_text(name, at), _whole(index, at), _text(dtype, at), _whole(nbytes, at), _text(tensor, at))


def _fields(value: object, at: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise ValueError(f"{at}: not an object with exactly the fields {', '.join(names)}")
    return value


def _items(value: object, at: str, count: int) -> list[object]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{at}: not a list of {count}")
    return value


def _list(value: object, at: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise ValueError(f"{at}: not a list of at most {MOST_ITEMS} items")
    return tuple(read(item, f"{at}[{number}]") for number, item in enumerate(value))


def _text(value: object, at: str, longest: int = LONGEST_NAME) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"{at}: not a text of at most {longest} characters")
    return value


def _whole(value: object, at: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < LARGEST:
        raise ValueError(f"{at}: not a whole number of at least {least}")
    return value
