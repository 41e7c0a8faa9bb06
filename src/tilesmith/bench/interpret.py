"""A child session that runs a candidate's kernels on the CPU, through Triton's interpreter (TRITON_INTERPRET=1).

The interpreter multiplies bfloat16 operands of a dot by their bit patterns, without a word. So where the problem has
bfloat16 tensors they come as float32 with the same values, and "bfloat16" in the candidate's source reads "float32".
The candidate sees CPU tensors that say they are on a GPU. Memory that it allocates without filling holds NaN.

Programs run one after another, in every other call from the last to the first: no order is promised on a GPU either.

Every call gets the same tensors, with other contents: what remembers an answer by address, identity or shape gives a
stale one. Answers are looked at after later calls have had the chance to overwrite them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tilesmith.bench import folds, libdevice, stub
from tilesmith.bench.candidate import Bound, Fault, bind, explain, guarded, load, stage_of
from tilesmith.bench.capture import describe, foreign, kind_of
from tilesmith.bench.wire import Message, Wire

_TRITON = f"{find_spec('triton').submodule_search_locations[0]}/"  # type: ignore[union-attr, index]


def warm() -> None:
    """Import what every session needs; the children inherit it."""
    import torch
    import triton.language
    import triton.runtime.interpreter
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    libdevice.install()
    folds.install()
    _exchange_floats()
    _ask_no_overflow()
    del torch, triton, TorchFunctionMode, TorchDispatchMode


def _ask_no_overflow() -> None:
    """Leave out the search for integers that overflow, twice the work of each addition: its answer is thrown away."""
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)


def _exchange_floats() -> None:
    """Let the interpreter exchange floating-point numbers atomically, which it can do with integers alone."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, _interpreter

    change = InterpreterBuilder.create_atomic_rmw
    exchange = next(
        operation
        for operation, known in InterpreterBuilder.ir_rmw_op_to_interpreter_rmw_op.items()
        if known == _interpreter.RMW_OP.XCHG
    )

    def changed(self: Any, operation: Any, pointer: Any, value: Any, *rest: Any) -> Any:
        bits = {4: "int32", 8: "int64"}.get(value.data.dtype.itemsize)
        if operation != exchange or value.data.dtype.kind != "f" or bits is None:
            return change(self, operation, pointer, value, *rest)
        old = change(self, operation, pointer, TensorHandle(value.data.view(bits), value.dtype), *rest)
        return TensorHandle(old.data.view(value.data.dtype), value.dtype.scalar)

    InterpreterBuilder.create_atomic_rmw = changed


def serve(wire: Wire, scratch: str, *, watched: bool = True) -> None:
    """Run the candidate on every set of inputs named in the request; one reply, outputs in files."""
    message, _ = wire.receive(60.0)
    try:
        wire.send(_run(wire, message, scratch, watched=watched))
    except BaseException as error:
        wire.send({"stage": stage_of(error, "check"), "message": _explain(error), "unable": _unable(error)})


def _run(wire: Wire, message: Message, scratch: str, *, watched: bool) -> Message:
    import torch

    seen = Seen()
    configuration = _patch_tuning(message["picks"])
    stub.pretend(message["target"], lambda *_: None, configuration)
    _patch_launches(seen, backwards=message["backwards"])
    source = message["source"]
    if message["widen"]:
        source = re.sub(r"\bbfloat16\b", "float32", source)
    contents = [torch.load(path, weights_only=False, mmap=False) for path in message["sets"]]
    live = _cloned(contents[0])
    with _pretend_device(seen), _operators(seen, library=message["library"]), torch.no_grad():
        look = guarded(wire, scratch, watched=watched)
        # What a model computes before it has the state, its own first parameters, is nobody's answer.
        seen.setting_up = True
        bound = bind(load(source, scratch), live)
        seen.setting_up = False
        answers = [_call(bound, live, content, seen) for content in contents]
        for number in range(message["later"]):
            _call(bound, live, contents[number % len(contents)], seen)
        look()
        rows = [describe(answer, (live["inputs"], live["state"])) for answer in answers]
    for number, answer in enumerate(answers):
        _write(answer, Path(scratch, f"set{number}"))
    return {
        "sets": rows,
        "altered": seen.altered,
        "kernels": sorted(seen.kernels),
        "idle": seen.idle,
        "breaches": seen.breaches[:5],
    }


class Seen:
    """What the calls of a candidate did, besides answering."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.launches = 0
        self.calls = 0
        self.inside = 0
        """Launches under way: what the framework does within them is the interpreter's."""
        self.setting_up = False
        self.breaches: list[str] = []
        self.altered = False
        self.idle = False
        """Whether some call launched no kernel."""


def _call(bound: Bound, live: dict[str, Any], content: dict[str, Any], seen: Seen) -> Any:
    """One call on `content`, which is copied into the tensors that every call gets."""
    import torch

    seen.inside += 1
    for name in ("inputs", "state"):
        for old, new in zip(_tensors(live[name]), _tensors(content[name]), strict=True):
            # Not even the tensor's version tells that its contents are others.
            old.data.copy_(new)
    bound.refresh()
    seen.inside -= 1
    before = seen.launches
    seen.calls += 1
    answer = bound.call(*live["inputs"])
    seen.idle = seen.idle or seen.launches == before
    seen.inside += 1
    for name in ("inputs", "state"):
        for old, new in zip(_tensors(live[name]), _tensors(content[name]), strict=True):
            seen.altered = seen.altered or not torch.equal(old, new)
    seen.inside -= 1
    return answer


def _tensors(value: Any) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_flatten

    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def _cloned(content: dict[str, Any]) -> dict[str, Any]:
    import torch
    from torch.utils._pytree import tree_map_only

    return {**content, **{n: tree_map_only(torch.Tensor, torch.clone, content[n]) for n in ("inputs", "state")}}


def _write(outputs: Any, folder: Path) -> None:
    """Write each output's elements, in row-major order, to a file of its own."""
    import torch

    folder.mkdir()
    for number, tensor in enumerate(_tensors(outputs)):
        plain = tensor.as_subclass(torch.Tensor).detach().contiguous().flatten()
        plain.view(torch.uint8).numpy().tofile(folder / str(number))


def _patch_tuning(picked: list[int]) -> Callable[..., Any]:
    """Have each tuning choose the configuration that was picked for it; what stands in for the benchmark."""
    from triton.runtime.autotuner import Autotuner

    picks = iter(picked)
    pick, configuration = 0, 0
    run = Autotuner.run

    def tuning_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal pick, configuration
        configuration = 0
        if len(self.configs) > 1 and not self.cache:
            pick = next(picks, 0)
        return run(self, *args, **kwargs)

    def bench(_call: Callable[[], Any], *_: Any, quantiles: Any = None, **__: Any) -> Any:
        nonlocal configuration
        cost = 0.0 if configuration == pick else 1.0
        configuration += 1
        return [cost] * len(quantiles) if quantiles else cost

    Autotuner.run = tuning_run
    return bench


def _patch_launches(seen: Seen, *, backwards: bool) -> None:
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, interpreter_builder

    execute = GridExecutor.__call__
    patch = interpreter._patch_lang
    patched: set[Callable[..., Any]] = set()

    def patched_once(function: Callable[..., Any]) -> Any:
        """For every call of a device function the interpreter prepares the whole language; once a launch is enough."""
        if function in patched:
            return interpreter._LangPatchScope()
        patched.add(function)
        return patch(function)

    place = interpreter_builder.set_grid_idx

    def placed(*at: int) -> None:
        turned = backwards and seen.calls % 2 == 0
        sizes = zip(interpreter_builder.grid_dim, at, strict=True)
        place(*(size - 1 - index if turned else index for size, index in sizes))

    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.kernels.add(self.fn.__name__)
        seen.launches += 1
        seen.inside += 1
        patched.clear()
        try:
            return execute(self, *args, **kwargs)
        finally:
            seen.inside -= 1

    interpreter._patch_lang = patched_once
    GridExecutor.__call__ = executed
    interpreter_builder.set_grid_idx = placed


def _operators(seen: Seen, *, library: bool) -> Any:
    """A mode that notes the framework's operators which compute; with `library` they are launches like others."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Trace(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not seen.inside and not seen.setting_up:
                if library and kind_of(func) == "library":
                    seen.launches += 1
                elif kind_of(func) == "library":
                    seen.breaches.append(f"it computes outside its own kernels, with the framework's {func.name()}")
                if own := foreign(types):
                    seen.breaches.append(f"it dispatches operators through a tensor class of its own, {own}")
            return func(*args, **(kwargs or {}))

    return Trace()


def _pretend_device(seen: Seen) -> Any:
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
    readings = {
        getattr(torch.Tensor, name): name for name in ("numpy", "__array__", "tolist", "__dlpack__", "share_memory_")
    }

    def local(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            return here
        return here if isinstance(value, str) and value.split(":")[0] == "cuda" else value

    class Pretend(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if seen.inside:
                return func(*args, **(kwargs or {}))
            if func in properties:
                return properties[func]
            if func in readings:
                seen.breaches.append(f"it takes tensors to the host, with Tensor.{readings[func]}")
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
    """Whether the interpreter, not the candidate, is at fault: the compiler has accepted what it cannot follow."""
    root = error
    while root.__cause__ is not None and not isinstance(root, Fault):
        root = root.__cause__
    if isinstance(root, Fault):
        return False
    trace = root.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    innermost = trace.tb_frame.f_code.co_filename if trace is not None else ""
    return isinstance(root, NotImplementedError) or innermost.startswith(_TRITON)


def _explain(error: BaseException) -> str:
    if isinstance(error, Fault):
        return str(error)
    cause = error
    while type(cause).__name__ == "InterpreterError" and cause.__cause__ is not None:
        cause = cause.__cause__
    return explain(cause)
