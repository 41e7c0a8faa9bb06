"""One name for everything that a call does to the device, so that a kernel is judged once however it is spelled.

Two sources have one fingerprint when their launches run the same PTX in the same order on the same grids, with the
same scalars and the same work of the framework between them, on the same target. Names of kernels, arguments,
variables and files, comments and white space do not count: they are not in what is hashed. No address is, either.

It is conservative: sources that differ in the order of two instructions, or in the name of a framework operator, keep
two fingerprints and are judged twice, which costs time; to merge two that differ would cost a result.
"""

from __future__ import annotations

import hashlib
import re

from tilesmith.bench.compiled import Call, Choice, Compiled, Operator, Step
from tilesmith.bench.triton_ir import parameters

_COMMENT = re.compile(r"""("[^"\n]*")|/\*.*?\*/|//[^\n]*""", re.DOTALL)
_DEBUG = re.compile(r"^\s*\.section\s+\.debug\w*\s*\{.*?\}", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"^\s*(?:\.loc\b.*|\.file\b.*|\$L__(?:tmp|func_begin|func_end)\d+:)$", re.MULTILINE)
_DEFINED = re.compile(r"(?<!\.extern )\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([A-Za-z_$][\w$]*)")


def fingerprint(call: Call, target: str) -> str:
    """32 hexadecimal digits. An autotuned launch stands for the set of its configurations until one is chosen."""
    return _digest("call", target, *(_trace(step) for step in call))


def normalised(ptx: str) -> str:
    """PTX without comments, debug data and blank space, its own functions named by the order of their definition."""
    text = _MARK.sub("", _DEBUG.sub("", _COMMENT.sub(r"\1", ptx)))
    for number, name in enumerate(dict.fromkeys(_DEFINED.findall(text))):
        # A name may be that of an instruction ("add", "ret"), so it is replaced only where a symbol stands:
        # before its parameters, in a call, and as the beginning of a parameter's name.
        symbol = rf"(?<![\w$%.]){re.escape(name)}(?=\s*[,(]|_param_\d+\b)"
        text = re.sub(symbol, f"function{number}", text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _trace(step: Step) -> str:
    match step:
        case Operator(name, kind, nbytes):
            return _digest("operator", name, kind, nbytes)
        case Choice(configurations, None):
            return _digest("choice", *sorted({_trace(each) for each in configurations}))
        case Choice(configurations, int(chosen)):
            return _trace(configurations[chosen])
        case Compiled():
            return _launch(step)
    raise TypeError(f"not device work: {step!r}")


def _launch(compiled: Compiled) -> str:
    launch = compiled.launch
    tensors = [(p.dtype, p.nbytes, p.tensor) for p in sorted(compiled.pointers, key=lambda p: p.index)]
    shape = (launch.grid, launch.warps, launch.shared_bytes)
    return _digest("launch", normalised(compiled.ptx), shape, _scalars(compiled), tensors)


def _scalars(compiled: Compiled) -> tuple[object, ...]:
    """Runtime scalars in the order of the compiled function's parameters, whatever they are called.

    Constexprs and specialised arguments are part of the PTX and not among those parameters; pointers are told apart
    by `Compiled.pointers`. Where the function names a scalar that the launch does not know, every scalar of the
    launch counts, in an order free of names.
    """
    given = dict(compiled.launch.arguments)
    known = parameters(compiled.ttir)
    # A descriptor of a tensor becomes several parameters: all of its name, or "name.shape.0" and so on.
    names = dict.fromkeys(name.partition(".")[0] for name, kind in known or () if not kind.startswith("!tt.ptr"))
    if known is not None and all(name in given for name in names):
        return tuple(_exact(given[name]) for name in names)
    return tuple(sorted(repr(_exact(value)) for value in given.values() if not isinstance(value, str)))


def _exact(value: object) -> tuple[str, str]:
    """1, 1.0 and True are equal in Python and different on the device."""
    return type(value).__name__, repr(value)


def _digest(*parts: object) -> str:
    text = "\0".join(part if isinstance(part, str) else repr(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
