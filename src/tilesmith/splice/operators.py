"""A kernel as an operator that other backends of torch.compile leave whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import nn

from tilesmith.splice.assemble import laid_out
from tilesmith.splice.kernel import DTYPES
from tilesmith.splice.pieces import Form

_LIBRARY = torch.library.Library("tilesmith", "FRAGMENT")
_NUMBERS = count()


class Opaque(nn.Module):
    """Calls a module as an operator of its own, which compilers know by the form of its results alone."""

    def __init__(self, module: nn.Module, results: Sequence[Form]) -> None:
        super().__init__()
        self.inner = module
        self._single = len(results) == 1
        name = f"part{next(_NUMBERS)}"
        _LIBRARY.define(f"{name}(Tensor[] inputs) -> Tensor[]")

        def real(inputs: list[Any]) -> list[Any]:
            made = module(*inputs)
            made = [made] if isinstance(made, torch.Tensor) else list(made)
            return [laid_out(each, form.strides) for each, form in zip(made, results, strict=True)]

        def fake(inputs: list[Any]) -> list[Any]:
            return [
                torch.empty_strided(form.dims, form.strides, dtype=DTYPES[form.dtype], device=inputs[0].device)
                for form in results
            ]

        _LIBRARY.impl(name, real, "CompositeExplicitAutograd")
        torch.library.register_fake(f"tilesmith::{name}", fake, lib=_LIBRARY)
        self._operator = getattr(torch.ops.tilesmith, name).default

    def forward(self, *tensors: Any) -> Any:
        made = self._operator(list(tensors))
        return made[0] if self._single else tuple(made)
