"""A child session that runs a candidate's kernels on the CPU, through Triton's interpreter (TRITON_INTERPRET=1).

The interpreter multiplies bfloat16 operands of a dot by their bit patterns, without a word. So where the problem has
bfloat16 tensors they come as float32 with the same values, and "bfloat16" in the candidate's source reads "float32".
The candidate sees CPU tensors that say they are on a GPU. Memory that it allocates without filling holds NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilesmith.bench import stub
from tilesmith.bench.candidate import Fault, bind, explain, load, stage_of
from tilesmith.bench.capture import describe
from tilesmith.bench.wire import Message, Wire


def warm() -> None:
    """Import what every session needs; the children inherit it."""
    import torch
    import triton.language
    import triton.runtime.interpreter
    from torch.overrides import TorchFunctionMode

    del torch, triton, TorchFunctionMode


def serve(wire: Wire, scratch: str) -> None:
    """Run the candidate on every set of inputs named in the request; one reply a set, outputs in files."""
    message, _ = wire.receive(60.0)
    try:
        _run(wire, message, scratch)
    except BaseException as error:
        wire.send({"stage": stage_of(error, "check"), "message": _explain(error), "unable": _unable(error)})


def _run(wire: Wire, message: Message, scratch: str) -> None:
    import torch

    picks = iter(message["picks"])
    pick = [0]
    configuration = [0]

    def bench(_call: Callable[[], Any], *_: Any, quantiles: Any = None, **__: Any) -> Any:
        """Instead of timing configurations, take the one that was picked for this tuning."""
        cost = 0.0 if configuration[0] == pick[0] else 1.0
        configuration[0] += 1
        return [cost] * len(quantiles) if quantiles else cost

    stub.pretend(message["target"], lambda *_: None, bench)
    _patch_tuning(picks, pick, configuration)
    source = message["source"]
    if message["widen"]:
        source = re.sub(r"\bbfloat16\b", "float32", source)
    with _pretend_device(), torch.no_grad():
        module = load(source, scratch)
        for number, path in enumerate(message["sets"]):
            content = torch.load(path, weights_only=False, mmap=False)
            call = bind(module, content)
            outputs = call(*content["inputs"])
            rows = describe(outputs, (content["inputs"], content["state"]))
            _write(outputs, Path(scratch, f"set{number}"))
            wire.send({"outputs": rows})


def _write(outputs: Any, folder: Path) -> None:
    """Write each output's elements, in row-major order, to a file of its own."""
    import torch
    from torch.utils._pytree import tree_flatten

    folder.mkdir()
    tensors = [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, torch.Tensor)]
    for number, tensor in enumerate(tensors):
        tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tofile(folder / str(number))


def _patch_tuning(picks: Any, pick: list[int], configuration: list[int]) -> None:
    from triton.runtime.autotuner import Autotuner

    run = Autotuner.run

    def tuning_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = len(self.cache)
        configuration[0] = 0
        if len(self.configs) > 1 and not known:
            pick[0] = next(picks, 0)
        return run(self, *args, **kwargs)

    Autotuner.run = tuning_run


def _pretend_device() -> Any:
    """A mode in which CPU tensors say they are on device cuda:0, and what is asked for there is made on the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    there, here = torch.device("cuda", 0), torch.device("cpu")
    properties = {
        torch.Tensor.device.__get__: there,
        torch.Tensor.is_cuda.__get__: True,
        torch.Tensor.is_cpu.__get__: False,
        torch.Tensor.get_device: 0,
    }
    uninitialised = {
        torch.empty,
        torch.empty_like,
        torch.empty_strided,
        torch.Tensor.new_empty,
        torch.Tensor.new_empty_strided,
    }
    moves = {torch.Tensor.to, torch.Tensor.cuda}

    def local(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            return here
        return here if isinstance(value, str) and value.split(":")[0] == "cuda" else value

    class Pretend(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in properties:
                return properties[func]
            if func is torch.Tensor.cuda:
                return args[0]
            kwargs = {name: local(value) for name, value in (kwargs or {}).items()}
            if func in moves:
                args = tuple(local(value) for value in args)
            result = func(*args, **kwargs)
            if func in uninitialised:
                result.fill_(float("nan") if result.is_floating_point() else _poison(result.dtype))
            return result

    return Pretend()


def _poison(dtype: Any) -> int | bool:
    import torch

    return True if dtype is torch.bool else torch.iinfo(dtype).max // 3


def _unable(error: BaseException) -> bool:
    """Whether the interpreter, not the candidate, is at fault: it lacks inline assembly, for one."""
    chain: BaseException | None = error
    while chain is not None:
        text = f"{type(chain).__name__}: {chain}"
        if isinstance(chain, NotImplementedError) or "not supported in interpreter mode" in text:
            return True
        if isinstance(chain, AttributeError) and "InterpreterBuilder" in text:
            return True
        chain = chain.__cause__
    return False


def _explain(error: BaseException) -> str:
    if isinstance(error, Fault):
        return str(error)
    cause = error
    while type(cause).__name__ == "InterpreterError" and cause.__cause__ is not None:
        cause = cause.__cause__
    return explain(cause)
