"""A kernel's source made callable, and the module that stands for a part: guarded, with the part itself behind it."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tilesmith.bench.check import expect, scaled_error
from tilesmith.core.errors import MachineError
from tilesmith.core.problem import content_id
from tilesmith.splice.pieces import Form, form_of

Kernel = Callable[..., Any]


def load(source: str) -> Kernel:
    """The source's `kernel_function`. The text that is executed is the text that was checked: no file is read again."""
    return _executed(source, f"<tilesmith kernel {content_id(source)}>")["kernel_function"]  # type: ignore[no-any-return]


def original(source: str) -> Kernel:
    """What a part's problem computes, as PyTorch does."""
    return _executed(source, f"<tilesmith part {content_id(source)}>")["Model"]()  # type: ignore[no-any-return]


def inputs(source: str, device: torch.device) -> list[Any]:
    """The inputs of a part's problem, on a device. The state of the random generators stays."""
    drawn = _executed(source, f"<tilesmith part {content_id(source)}>")["get_inputs"]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(1)
        return list(drawn())


def _executed(source: str, name: str) -> dict[str, Any]:
    # Triton reads the source of its functions: it finds this text, and none that has changed on the disk.
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    made: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec"), made)
    return made


def disagreement(kernel: Kernel, part: Kernel, values: Sequence[Any], tolerance: float = 1.0) -> str:
    """How the kernel differs from the part on these inputs, in a clause; empty where it does not."""
    with torch.no_grad():
        native = _listed(part(*values))
        try:
            truth = _listed(part(*(value.double() for value in values)))
        except RuntimeError:
            # Where the part itself says in which dtype it computes.
            truth = [tensor.double() for tensor in native]
        try:
            answers = _listed(kernel(*values))
        except Exception as error:  # whatever the source or Triton does here, the part goes on without it
            text = (str(error).strip().splitlines() or ["no message"])[0]
            return f"it fails in this process: {type(error).__name__}: {text[:200]}"
    if len(answers) != len(native):
        return f"it returns {len(answers)} tensors, and the part {len(native)}"
    worst = 0.0
    for answer, own, true in zip(answers, native, truth, strict=True):
        if answer.shape != own.shape or answer.dtype != own.dtype or answer.device != own.device:
            return "it returns another shape, dtype or device"
        worst = max(worst, scaled_error(answer, expect(true, own), tolerance))
    return "" if worst <= 1 else f"its error is {worst:.3g} on the inputs of this process, where 1 is the limit"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


class Guarded(nn.Module):
    """A kernel in place of a part. Inputs of another form than it was found for go to the part itself."""

    def __init__(self, kernel: Kernel, part: Kernel, forms: Sequence[Form], order: Sequence[int]) -> None:
        """Argument i of the kernel is input `order[i]`."""
        super().__init__()
        self._kernel, self._part, self._order = kernel, part, tuple(order)
        self._expected = tuple(forms)
        self._forms = [(form.dims, form.strides, DTYPES[form.dtype]) for form in forms]

    def forward(self, *tensors: Any) -> Any:
        first = tensors[0].device
        for place, (dims, strides, dtype) in enumerate(self._forms):
            tensor = tensors[place]
            alike = tensor.shape == dims and tensor.dtype is dtype and tensor.device == first
            # Strides of extent 1 may be any; a form has them as dense tensors do.
            if not alike or (tensor.stride() != strides and form_of(tensor) != self._expected[place]):
                return self._part(*tensors)
        if first.type == "cuda" and first.index != torch.cuda.current_device():
            # Triton launches on the current device.
            with torch.cuda.device(first):
                return self._kernel(*(tensors[place] for place in self._order))
        return self._kernel(*(tensors[place] for place in self._order))


DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def interpreted() -> bool:
    """Whether Triton was imported to interpret: it decides then, for its own functions too."""
    import triton
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction

    try:
        return isinstance(triton.language.cdiv, InterpretedFunction)
    except AttributeError as error:
        raise MachineError(f"this Triton ({triton.__version__}) is not known to Tilesmith: {error}.") from None
