"""Moving a module's parameters and buffers, fake ones too, which `Module.to` cannot swap."""

from __future__ import annotations

from typing import Any

import torch


def cast(model: torch.nn.Module, dtype: torch.dtype | None, device: str | None = None) -> torch.nn.Module:
    """The same module, floating state in `dtype` and all of it on `device`; None changes nothing. Ties stay ties."""
    made: dict[int, Any] = {}

    def changed(tensor: Any) -> Any:
        if tensor is None:
            return None
        if id(tensor) not in made:
            floating = dtype is not None and tensor.is_floating_point()
            new = tensor.detach().to(device=device or tensor.device, dtype=dtype if floating else tensor.dtype)
            made[id(tensor)] = torch.nn.Parameter(new, False) if isinstance(tensor, torch.nn.Parameter) else new
        return made[id(tensor)]

    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                table[name] = changed(tensor)
        if isinstance(module, torch.nn.RNNBase):
            module._init_flat_weights()
    return model
