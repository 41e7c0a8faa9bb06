"""A child session that captures what a candidate puts on the device, with no GPU and no driver.

Tensors are fake: they have a shape, a dtype and a device "cuda", and no memory. Triton really compiles every kernel for
the target; a stub driver records each launch where the real one would start it. So the PTX, the cubin, registers,
spills, shared memory, grids and the order of launches are those of a real run. What depends on tensor *values* cannot
run here and is reported as such.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilesmith.bench import stub
from tilesmith.bench.candidate import Fault, bind, explain, guarded, load, stage_of
from tilesmith.bench.compiled import Choice, Compiled, Operator, OperatorKind, Pointer, to_json
from tilesmith.bench.stub import Arguments
from tilesmith.bench.wire import Message, Wire
from tilesmith.core.profile import Launch, Scalar

BASE_ADDRESS = 0x7F00_0000_0000
"""Where every fake tensor's storage begins: aligned as an allocator's blocks are."""

_SILENT = """
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided view _unsafe_view reshape _reshape_alias
    as_strided t transpose permute expand squeeze unsqueeze slice select narrow split split_with_sizes chunk unbind
    detach alias lift lift_fresh view_as_real view_as_complex real imag diagonal unfold movedim set_ resize_ is_pinned
    sym_size sym_stride sym_numel sym_storage_offset stride size dim numel device layout
"""
_FILLS = "zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full fill fill_ zero_ arange"
_COPIES = "copy_ copy _to_copy clone contiguous cat stack constant_pad_nd scalar_tensor _pin_memory"
OPERATORS: dict[str, OperatorKind | None] = {
    **dict.fromkeys(_SILENT.split()),
    **dict.fromkeys(_FILLS.split(), "fill"),
    **dict.fromkeys(_COPIES.split(), "copy"),
}
"""What the framework's operators do on the device; None is nothing. All others compute: they are "library"."""


def warm() -> None:
    """Import what every capture needs, and compile once; the children inherit both."""
    from torch._subclasses import fake_tensor

    from tilesmith.bench.warmup import compile_once

    compile_once(90)
    _guard_devices()
    fake_tensor.FakeTensorMode()
    for name in ("torch._subclasses.fake_tensor", "triton.backends.nvidia.compiler", "triton.testing"):
        importlib.import_module(name)
    for name in ("triton.tools.tensor_descriptor", "triton.experimental.gluon"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _guard_devices() -> None:
    """Give a torch without CUDA a guard for its devices, the CPU's: without one it refuses to slice a fake tensor.

    The registry is an array of pointers by device type, the CPU's first and CUDA's second.
    """
    import torch

    if torch.version.cuda is not None:
        return
    library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[1] = guards[1] or guards[0]


def serve(wire: Wire, scratch: str, *, watched: bool = True) -> None:
    """One capture: a request with the source, the target and a packet of meta tensors; one reply."""
    message, packet = wire.receive(60.0)
    try:
        wire.send(_capture(wire, message, packet, scratch, watched=watched))
    except BaseException as error:
        stage = stage_of(error, "capture")
        text = str(error) if isinstance(error, Fault) else explain(error)
        kind = type(error).__name__
        values = kind in ("DataDependentOutputException", "DynamicOutputShapeException")
        # What makes a tensor whose shape depends on values computes; what only reads a value does not.
        operator = error.func.name() if kind == "DynamicOutputShapeException" and hasattr(error, "func") else None
        wire.send({"stage": stage, "message": text, "unable": values, "operator": operator})


def _capture(wire: Wire, message: Message, packet: bytes, scratch: str, *, watched: bool) -> Message:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._pytree import tree_leaves, tree_map_only

    content = torch.load(io.BytesIO(packet), weights_only=False)
    recorder = Recorder()
    install(recorder, message["target"])
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():

        def fake(meta: Any) -> Any:
            return torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype, device="cuda")

        inputs, init, state = (tree_map_only(torch.Tensor, fake, content[k]) for k in ("inputs", "init", "state"))
        for number, tensor in enumerate(inputs):
            recorder.name(tensor, f"input {number}")
        for name, tensor in state.items():
            recorder.name(tensor, name)
        look = guarded(wire, scratch, watched=watched)
        module = load(message["source"], scratch)
        with torch.device("cuda"), recorder.watching(setting_up=True):
            call = bind(module, {**content, "init": init, "state": state}).call
        if isinstance(call, torch.nn.Module):
            for name, tensor in (*call.named_parameters(), *call.named_buffers()):
                recorder.name(tensor, name)
        with recorder.watching():
            outputs = call(*inputs)
        look()
        return {
            "call": to_json(tuple(recorder.call)),
            "tried": recorder.tried,
            "outputs": describe(outputs, (inputs, state)),
            "returns": [recorder.name_of(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)],
        }


def describe(outputs: Any, inputs: Any = ()) -> list[dict[str, Any]]:
    """Dtype, shape and device of every output tensor, whether it is an input, and how they nest."""
    import torch
    from torch.utils._pytree import tree_flatten

    given = {_storage(leaf) for leaf in tree_flatten(inputs)[0] if isinstance(leaf, torch.Tensor)}
    leaves, structure = tree_flatten(outputs)
    rows: list[dict[str, Any]] = [{"structure": str(structure)}]
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            rows.append({"value": repr(leaf)[:100]})
            continue
        plain = type(leaf).__name__ == "FakeTensor" or (type(leaf) is torch.Tensor and not leaf.__dict__)
        row = {"dtype": str(leaf.dtype).removeprefix("torch."), "shape": list(leaf.shape), "device": leaf.device.type}
        rows.append({**row, "plain": plain, "alias": plain and _storage(leaf) in given})
    return rows


def foreign(types: Any) -> str:
    """The name of a tensor class that is not the framework's, whose operators run where nobody looks; or nothing."""
    return next((str(kind.__name__) for kind in types if not kind.__module__.startswith("torch")), "")


def kind_of(func: Any) -> OperatorKind | None:
    """What an operator does on the device; operators of other libraries than the framework's own compute."""
    space, _, name = func.name().rpartition("::")
    return OPERATORS.get(name.split(".")[0], "library") if space in ("aten", "prim") else "library"


class Recorder:
    """Collects the work of one call, in order."""

    def __init__(self) -> None:
        self.call: list[Compiled | Operator | Choice] = []
        self.tuning: list[list[Compiled]] | None = None
        self.tried: list[list[int]] = []
        """For each choice, which configurations of its tuning, by their order in it, are in the choice."""
        self._names: dict[Any, str] = {}
        self._on = False

    @contextlib.contextmanager
    def watching(self, *, setting_up: bool = False) -> Iterator[None]:
        """Record framework operators and launches within; while setting up, only that something computes on state."""
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Trace(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                if own := foreign(types):
                    recorder.call.append(Operator(f"tensor class:{own}".replace(" ", "_"), "outside", 0))
                if setting_up:
                    recorder.computed(func, (args, kwargs))
                elif recorder.tuning is None:
                    recorder.operator(func, result, (args, kwargs or {}))
                return result

        self._on = not setting_up
        with Trace():
            yield
        self._on = False

    def operator(self, func: Any, result: Any, given: Any) -> None:
        """Name what it makes, and record what it does: operands and values count, as they do in another program."""
        from torch.utils._pytree import tree_leaves

        parts = result if isinstance(result, (tuple, list)) else [result]
        operands = self._shown(given)
        made = [self.name_of(part) for part in parts if hasattr(part, "untyped_storage")]
        name, kind = func.name().split("::")[-1], kind_of(func)
        if kind == "library" and any(part.device.type == "cpu" for part in parts if hasattr(part, "untyped_storage")):
            kind = "outside"
        if kind is not None:
            nbytes = sum(_nbytes(part) for part in parts)
            if kind == "copy":
                nbytes *= 2
            elif kind == "library":
                nbytes += sum(_nbytes(leaf) for leaf in tree_leaves(given) if hasattr(leaf, "untyped_storage"))
            self.call.append(
                Operator(f"{name} {operands} -> {', '.join(made)}"[:900], kind, nbytes, _flops(func, given, result))
            )

    def computed(self, func: Any, given: Any) -> None:
        """Note an operator that computes with the problem's tensors before any call: it is work done ahead."""
        from torch.utils._pytree import tree_leaves

        known = [
            leaf for leaf in tree_leaves(given) if hasattr(leaf, "untyped_storage") and _storage(leaf) in self._names
        ]
        if known and kind_of(func) == "library":
            self.call.append(Operator(func.name(), "outside", 0))

    def _shown(self, value: Any) -> str:
        if hasattr(value, "untyped_storage"):
            return self.name_of(value)
        if isinstance(value, (tuple, list)):
            return f"({', '.join(self._shown(part) for part in value)})"
        if isinstance(value, dict):
            return f"({', '.join(f'{name}={self._shown(part)}' for name, part in sorted(value.items()))})"
        return str(value)[:100]

    def launch(self, compiled: Compiled) -> None:
        if not self._on or 0 in compiled.launch.grid:
            return
        if self.tuning:
            self.tuning[-1].append(compiled)
        elif self.tuning is None:
            self.call.append(compiled)

    def choice(self, tuned: list[list[Compiled]]) -> None:
        """Replace the launch that ended a tuning by the choice among the configurations it tried."""
        tried = [number for number, launches in enumerate(tuned) if launches]
        if tried and self.call:
            self.call[-1] = Choice(tuple(tuned[number][-1] for number in tried))
            self.tried.append(tried)

    def again(self, choice: Choice, tried: list[int]) -> None:
        """The same for a launch that an earlier tuning has decided."""
        last = self.call[-1] if self.call else None
        if isinstance(last, Compiled):
            self.call[-1] = Choice(tuple(replace(each, pointers=last.pointers) for each in choice.configurations))
            self.tried.append(tried)

    def name(self, tensor: Any, name: str) -> None:
        with contextlib.suppress(AttributeError):
            self._names[_storage(tensor)] = name

    def name_of(self, tensor: Any) -> str:
        name = self._names.setdefault(_storage(tensor), f"new {len(self._names)}")
        offset = tensor.storage_offset()
        strides = "" if tensor.is_contiguous() else f" {list(tensor.stride())}"
        return f"{name}+{offset}{strides}" if offset else f"{name}{strides}"


def _flops(func: Any, given: Any, result: Any) -> int:
    """What the framework itself counts for an operator: matrix products, convolutions and attention; 0 for others."""
    from torch.utils.flop_counter import flop_registry

    count = flop_registry.get(func.overloadpacket)
    args, kwargs = given
    return int(count(*args, **kwargs, out_val=result)) if count else 0


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _nbytes(value: Any) -> int:
    return int(value.numel() * value.element_size()) if hasattr(value, "element_size") else 0


def install(recorder: Recorder, target: Message) -> None:
    """Make Triton and torch believe in one device of the target's kind, on which nothing runs and all is recorded."""
    import torch
    import triton.testing
    from torch._subclasses import fake_tensor
    from torch._subclasses.fake_tensor import FakeTensor

    # A torch that was built for CUDA starts a context, for the sake of backward passes, when it makes a fake tensor.
    fake_tensor.init_gpu_context = lambda _device: None
    torch._C._ensureCUDADeviceGuardSet()
    FakeTensor.data_ptr = lambda self: BASE_ADDRESS + self.storage_offset() * self.element_size()

    def launched(kernel: Any, metadata: Any, grid: tuple[int, int, int], arguments: Arguments) -> None:
        recorder.launch(_compiled(recorder, kernel, metadata, grid, arguments))

    stub.pretend(target, launched, _bench(recorder))
    _patch_moves(torch, FakeTensor)
    _patch_tuning(recorder)
    triton.testing.do_bench = _bench(recorder)


def _compiled(
    recorder: Recorder, kernel: Any, metadata: Any, grid: tuple[int, int, int], given_arguments: Arguments
) -> Compiled:
    arguments: list[tuple[str, Scalar]] = []
    pointers: list[Pointer] = []
    for index, (name, given) in enumerate(given_arguments):
        value: Any = getattr(given, "base", given) if type(given).__name__ == "TensorDescriptor" else given
        value = getattr(value, "value", value) if type(value).__name__ == "constexpr" else value
        if hasattr(value, "data_ptr"):
            dtype = _short(value.dtype)
            pointers.append(Pointer(name, index, dtype, _nbytes(value), recorder.name_of(value)))
            arguments.append((name, f"{dtype}{list(value.shape)}{_descriptor(given)}"))
        elif (
            value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
        ):
            arguments.append((name, value))
        else:
            arguments.append((name, str(value)[:200]))
    options = ("launch_cooperative_grid", "launch_pdl")
    arguments.extend((option, True) for option in options if getattr(metadata, option, False))
    launch = Launch(
        kernel=str(metadata.name),
        grid=(int(grid[0]), int(grid[1]), int(grid[2])),
        warps=int(metadata.num_warps),
        stages=int(getattr(metadata, "num_stages", 0) or 0),
        shared_bytes=int(metadata.shared),
        registers=int(kernel.n_regs),
        spills=int(kernel.n_spills),
        arguments=tuple(sorted(arguments)),
    )
    asm = kernel.asm
    return Compiled(launch, str(asm.get("ttir", "")), str(asm.get("ptx", "")), tuple(pointers))


def _descriptor(value: Any) -> str:
    """What a host tensor descriptor adds to its tensor."""
    if type(value).__name__ != "TensorDescriptor":
        return ""
    return f" as {list(value.shape)} by {list(value.strides)} in {list(value.block_shape)}"


def _short(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(name) or re.sub(
        "^u?int|^bool$", lambda match: {"int": "i", "uint": "u", "bool": "i1"}[match.group()], name
    )


def _bench(recorder: Recorder) -> Callable[..., Any]:
    """In place of a benchmark: call once, so that the launch is recorded; every configuration takes 1 ms."""

    def bench(call: Callable[[], Any], *_: Any, quantiles: Any = None, **__: Any) -> Any:
        if recorder.tuning is not None:
            recorder.tuning.append([])
        call()
        return [1.0] * len(quantiles) if quantiles else 1.0

    return bench


def _patch_tuning(recorder: Recorder) -> None:
    """Tell launches made to compare configurations from the launch that the tuning ends in."""
    from triton.runtime.autotuner import Autotuner

    run, tune = Autotuner.run, Autotuner._bench
    tuned: list[list[list[Compiled]]] = []
    decided: dict[tuple[int, str], tuple[Choice, list[int]]] = {}

    def tuning_bench(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder.tuning = tuned[-1]
        try:
            return tune(self, *args, **kwargs)
        finally:
            recorder.tuning = None

    def tuning_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        tuned.append([])
        try:
            result = run(self, *args, **kwargs)
            key = (id(self), str(self.best_config))
            recorder.choice(tuned[-1])
            if tuned[-1] and recorder.call and isinstance(recorder.call[-1], Choice):
                decided[key] = recorder.call[-1], recorder.tried[-1]
            elif key in decided:
                recorder.again(*decided[key])
            return result
        finally:
            tuned.pop()

    Autotuner._bench, Autotuner.run = tuning_bench, tuning_run


def _patch_moves(torch: Any, fake_tensor: Any) -> None:
    """Let fake tensors move to "cuda" where there is none."""
    original = torch.Tensor.to

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, fake_tensor):
            return original(self, *args, **kwargs)
        like: Any = args[0] if args else None
        if isinstance(like, torch.Tensor):
            device, dtype = like.device, like.dtype
        else:
            rest = {key: value for key, value in kwargs.items() if key != "copy"}
            device, dtype, _, _ = torch._C._nn._parse_to(*args, **rest)
        if device is not None and device.type == "cuda" and device.index is None:
            device = torch.device("cuda", 0)
        same = (device is None or device == self.device) and (dtype is None or dtype == self.dtype)
        if same and not kwargs.get("copy"):
            return self
        return torch.ops.aten._to_copy.default(self, device=device or self.device, dtype=dtype or self.dtype)

    torch.Tensor.to = to
    torch.Tensor.cuda = lambda self, *_, **__: to(self, torch.device("cuda", 0))

    made = torch.tensor

    def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        """Made on the CPU and moved: a torch without CUDA cannot make one there, fake or not."""
        here = made(data, *args, device="cpu", **kwargs)
        return here if device is None or torch.device(device).type == "cpu" else to(here, torch.device("cuda", 0))

    torch.tensor = tensor
