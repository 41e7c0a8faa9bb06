"""NVIDIA's device library for Triton's interpreter, where its functions are empty."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

_ONE_BY_ONE = ("erf", "erfc", "lgamma")
_NUMPY: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "fabs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "copysign": np.copysign,
    "cos": np.cos,
    "cosh": np.cosh,
    "div_rn": np.divide,
    "exp": np.exp,
    "exp10": lambda x: np.power(x.dtype.type(10), x),
    "exp2": np.exp2,
    "expm1": np.expm1,
    "fast_cosf": np.cos,
    "fast_dividef": np.divide,
    "fast_expf": np.exp,
    "fast_log2f": np.log2,
    "fast_logf": np.log,
    "fast_powf": np.power,
    "fast_sinf": np.sin,
    "fast_tanhf": np.tanh,
    "fdim": lambda x, y: np.maximum(x - y, 0),
    "floor": np.floor,
    "fma": lambda x, y, z: x * y + z,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "max": np.maximum,
    "min": np.minimum,
    "mul_rn": np.multiply,
    "nearbyint": np.rint,
    "pow": np.power,
    "rcp_rn": np.reciprocal,
    "rint": np.rint,
    "round": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "sqrt_rn": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
    "trunc": np.trunc,
    **{name: np.vectorize(getattr(math, name), otypes=[np.float64]) for name in _ONE_BY_ONE},
}


def install() -> None:
    """Give the interpreter every function of the table. Any other raises, where it used to answer with nothing."""
    from triton.language.extra import libdevice

    for name in [name for name in dir(libdevice) if not name.startswith("_") and callable(getattr(libdevice, name))]:
        if type(getattr(libdevice, name)).__name__ in ("function", "JITFunction", "InterpretedFunction"):
            setattr(libdevice, name, _interpreted(name, _NUMPY.get(name)))


def _interpreted(name: str, function: Callable[..., Any] | None) -> Callable[..., Any]:
    def call(*arguments: Any, **_: Any) -> Any:
        import triton.language as tl
        from triton.runtime.interpreter import TensorHandle

        if function is None:
            raise NotImplementedError(f"libdevice.{name} is not known to the interpreter")
        like = next(argument for argument in arguments if isinstance(argument, tl.tensor))
        values = [a.handle.data if isinstance(a, tl.tensor) else getattr(a, "value", a) for a in arguments]
        with np.errstate(all="ignore"):
            data = np.asarray(function(*values)).astype(like.handle.data.dtype)
        return tl.tensor(TensorHandle(data, like.handle.dtype), like.type)

    return call
