"""The question: what must be computed, and how exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["fp64", "fp32", "fp16", "bf16"]
Constant = int | float | bool | str | tuple[int, ...]


def content_id(text: str) -> str:
    """The identity of a text: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `problem.toml` may say. Every field has the meaning that its absence gives it here."""

    dtype: Dtype | None = None
    """Cast parameters and floating inputs to this; None leaves them as the problem makes them."""
    tolerance: float = 1.0
    """Scales the error limit, which comes from the reference's own rounding error."""
    tf32: bool = False
    """Whether dots of float32 operands may round them to TF32."""
    library: bool = False
    """Whether candidates may call the framework's kernels beside their own."""
    target: str | None = None
    """The GPU to compile for where there is none, such as "h200"; None takes the default."""
    small: Mapping[str, Constant] = field(default_factory=dict)
    """Module constants to override for checks without a GPU."""
    large: Mapping[str, Constant] = field(default_factory=dict)
    """Module constants to override for everything else."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A reference module in KernelBench's form: `Model`, `get_inputs()` and `get_init_inputs()`.

    Holds source, never objects: only child processes execute it.
    """

    name: str
    source: str
    settings: Settings = field(default_factory=Settings)
    start: str | None = None
    """The source of the start kernel, where the problem comes with one."""

    @property
    def id(self) -> str:
        """The same problem under the same settings has the same id; its name does not count."""
        rows: tuple[object, ...] = (self.settings.dtype, self.settings.tolerance, self.settings.tf32)
        if self.settings.library:
            rows += ("library",)
        shapes = (sorted(self.settings.small.items()), sorted(self.settings.large.items()))
        return content_id(repr((self.source, rows, shapes)))
