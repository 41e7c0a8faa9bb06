"""`tilesmith.compile`: a module that calls what was found for it, and can explain itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tilesmith.core.errors import OptionError
from tilesmith.splice.backend import TRAINING, Backend
from tilesmith.splice.explanation import Explanation
from tilesmith.splice.options import Options


class Compiled(nn.Module):
    """A module or function as it was, with kernels where they were found. The original is `original`, untouched."""

    def __init__(self, model: Callable[..., Any], options: Options) -> None:
        super().__init__()
        if not callable(model):
            raise OptionError(f"tilesmith.compile takes a torch.nn.Module or a function, not a {type(model).__name__}.")
        self.original = model
        self._backend = Backend(options)
        self._compiled = [torch.compile(model, backend=self._backend, dynamic=False)]
        """In a list, so that it is no child: it shares the original's parameters."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the original. Raises `OptionError` where gradients would be recorded."""
        if torch.is_grad_enabled():
            given = [*self.parameters(), *tree_leaves((args, kwargs))]
            if any(isinstance(each, torch.Tensor) and each.requires_grad for each in given):
                raise OptionError(TRAINING)
        return self._compiled[0](*args, **kwargs)

    def explain(self) -> Explanation:
        """What was replaced, by what, with what evidence, and what stays as it was, and why. Print it, or read it."""
        return self._backend.explain()
