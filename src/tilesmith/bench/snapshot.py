"""What the framework, the compiler, the judge and the interpreter consist of, to see what a candidate has exchanged."""

from __future__ import annotations

import builtins
import gc
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tilesmith.bench.forbidden import words

MODULES = words(
    """
    torch torch._C torch._C._nn torch._tensor torch._ops torch.autograd torch.autograd.graph torch.backends
    torch.backends.cuda torch.backends.cudnn torch.cuda torch.cuda.graphs torch.cuda.memory torch.cuda.nvtx
    torch.cuda.random torch.cuda.streams torch.fx torch.library torch.linalg torch.nn torch.nn.functional torch.nn.init
    torch.nn.modules.module torch.overrides torch.random torch.serialization torch.special torch.testing
    torch.utils._python_dispatch torch.utils._pytree torch._subclasses.fake_tensor
    triton triton.testing numpy numpy.linalg numpy.random
    builtins collections contextlib copy functools gc importlib inspect io itertools json json.decoder json.encoder
    linecache logging math operator os pickle posixpath random re select signal socket statistics struct subprocess sys
    tempfile threading time traceback types warnings weakref
    """
)
"""Modules whose functions, classes and submodules must stay what they are, where they are loaded."""
PACKAGES = ("triton.", "tilesmith.")
"""The same for all modules of these packages, and for what their classes consist of."""
CLASSES = words(
    """
    torch.Tensor torch._C.TensorBase torch._C._TensorBase torch.nn.Module torch.nn.Parameter torch.cuda.Event
    torch.cuda.Stream torch.cuda.CUDAGraph torch.autograd.Function torch.Generator torch._ops.OpOverload
    torch._ops.OpOverloadPacket torch.utils._python_dispatch.TorchDispatchMode torch.overrides.TorchFunctionMode
    torch._subclasses.fake_tensor.FakeTensor torch._subclasses.fake_tensor.FakeTensorMode
    json.encoder.JSONEncoder json.decoder.JSONDecoder socket.socket threading.Thread logging.Logger
    """
)
_CODE = {types.ModuleType, types.GetSetDescriptorType, types.MemberDescriptorType, classmethod, property}
_ABSENT = object()
_GIVEN = words("__annotations__ __doc__ __abstractmethods__ __warningregistry__ __signature__ _abc_impl")
"""Names that appear on modules and classes as they are used."""


@dataclass(frozen=True, slots=True)
class _Namespace:
    """What one module or class holds, as it was."""

    name: str
    now: Mapping[str, Any]
    """The live namespace."""
    then: tuple[tuple[str, Any], ...]
    """Its functions, classes and modules. What they execute cannot be exchanged unheard."""
    own: bool
    """Whether it is the judge's or holds the built-in names: what is asked about others could be exchanged in these."""
    interpreted: bool
    """Whether Triton's interpreter may put its functions in this one's."""
    names: frozenset[str]
    below: tuple[Mapping[str, Any], ...]
    """What a new name would hide: built-in names from a module, those of its bases from a class."""

    def changed(self) -> str | None:
        now = self.now
        for name, value in self.then:
            found = now.get(name, _ABSENT)
            if found is value:
                continue
            if self.own or not (_wraps(found, value) or (self.interpreted and _interprets(found))):
                return f"it {'deletes' if found is _ABSENT else 'replaces'} {self.name}.{name}"
        if not self.names.issuperset(now):
            for name in now.keys() - self.names:
                if name not in _GIVEN and any(name in names for names in self.below):
                    return f"it replaces {self.name}.{name}"
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the process consisted of at one moment: the parts of others' modules and classes, hooks and settings.

    Take it as the last thing before the candidate's source is loaded, and compare within the same contexts (modes,
    default device) as it was taken in.
    """

    namespaces: tuple[_Namespace, ...]
    modules: tuple[tuple[str, types.ModuleType], ...]
    state: tuple[tuple[str, Any], ...]

    @classmethod
    def take(cls) -> Snapshot:
        """How it all is now."""
        namespaces = sorted(_namespaces(), key=lambda namespace: not namespace.own)
        return cls(tuple(namespaces), tuple(sys.modules.items()), tuple(_state()))

    def changed(self) -> str | None:
        """What is no longer as it was, or None. New names, as lazy imports bring them, are no change."""
        for name, module in self.modules:
            if sys.modules.get(name) is not module:
                return f"it replaces the module {name}"
        for namespace in self.namespaces:
            reason = namespace.changed()
            if reason is not None:
                return reason
        now = dict(_state())
        return next((f"it changes {what}" for what, before in self.state if now.get(what) != before), None)


def _namespaces() -> Iterator[_Namespace]:
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        whole = name.startswith(PACKAGES)
        if not isinstance(module, types.ModuleType) or not (whole or name in MODULES):
            continue
        yield _namespace(name, module)
        for part in list(vars(module).values()) if whole else ():
            if isinstance(part, type) and part.__module__ == name and id(part) not in seen:
                seen.add(id(part))
                yield _namespace(f"{name}.{part.__qualname__}", part)
    for path in sorted(CLASSES):
        name, _, attribute = path.rpartition(".")
        found = getattr(sys.modules.get(name), attribute, None)
        if isinstance(found, type) and id(found) not in seen:
            seen.add(id(found))
            yield _namespace(path, found)


def _namespace(name: str, holder: types.ModuleType | type) -> _Namespace:
    now = vars(holder)
    below: tuple[Mapping[str, Any], ...] = (vars(builtins),)
    if isinstance(holder, type):
        below = tuple(vars(base) for base in holder.__mro__[1:] if base is not object)
    parts = ((key, value) for key, value in now.items() if callable(value) or type(value) in _CODE)
    own = holder is builtins or name.startswith("tilesmith.")
    return _Namespace(name, now, tuple(parts), own, name.startswith("triton.language"), frozenset(now), below)


def _wraps(found: Any, value: Any) -> bool:
    """Whether the framework has put its own function around this one, as it does where its compiler is imported."""
    if type(found) is not types.FunctionType or not str(found.__globals__.get("__name__")).startswith("torch."):
        return False
    module = sys.modules.get(found.__globals__["__name__"])
    own = module is not None and vars(module) is found.__globals__
    return own and any(cell.cell_contents is value for cell in found.__closure__ or ())


def _interprets(value: Any) -> bool:
    """Whether this is what Triton's interpreter puts in the language's place, and leaves there."""
    value = getattr(value, "fget", None) or getattr(value, "func", value)
    interpreter = sys.modules.get("triton.runtime.interpreter")
    return value is print or (
        interpreter is not None
        and type(value) is types.FunctionType
        and value.__globals__ is vars(interpreter)
        and value.__qualname__.startswith("_patch_")
    )


def _state() -> Iterator[tuple[str, Any]]:
    """Hooks and settings of the whole process, by what they are called in a verdict."""
    for name in ("excepthook", "unraisablehook", "displayhook", "breakpointhook", "stdin", "stdout", "stderr"):
        yield f"sys.{name}", id(getattr(sys, name, None))
    for name in ("meta_path", "path_hooks"):
        yield f"sys.{name}", [id(each) for each in getattr(sys, name, ())]
    # Packages bring folders of their own.
    yield "sys.path", [each for each in sys.path if "-packages" not in each]
    yield "the interpreter's tracing", (id(sys.gettrace()), id(sys.getprofile()))
    yield "the recursion limit", sys.getrecursionlimit()
    yield "the garbage collector", (gc.isenabled(), gc.get_threshold(), [id(each) for each in gc.callbacks])
    yield "the threads", [each.ident for each in threading.enumerate()]
    yield "the threads' exit hooks", len(getattr(threading, "_threading_atexits", ()))
    yield "the signal handlers", [_handler(number) for number in range(1, signal.NSIG)]
    yield "the working folder", os.getcwd()  # noqa: PTH109
    yield "the built-in names", id(builtins.__dict__)
    yield from _torch_state()
    yield from _triton_state()


def _handler(number: int) -> Any:
    try:
        handler = signal.getsignal(number)
    except ValueError:
        return None
    return handler if isinstance(handler, int) or handler is None else id(handler)


def _torch_state() -> Iterator[tuple[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    core = torch._C
    yield "torch's dispatch modes", _stack(core, "_len_torch_dispatch_stack", "_get_dispatch_stack_at")
    yield "torch's function modes", _stack(core, "_len_torch_function_stack", "_get_function_stack_at")
    yield "torch's default dtype", torch.get_default_dtype()
    for what, name in (
        ("TF32 setting of matrix products", "_get_cublas_allow_tf32"),
        ("TF32 setting of convolutions", "_get_cudnn_allow_tf32"),
        ("precision of float32 products", "_get_float32_matmul_precision"),
        ("reduced-precision sums in half precision", "_get_cublas_allow_fp16_reduced_precision_reduction"),
        ("reduced-precision sums in bfloat16", "_get_cublas_allow_bf16_reduced_precision_reduction"),
        ("determinism", "_get_deterministic_algorithms"),
        ("number of threads", "get_num_threads"),
        ("cuDNN benchmark setting", "_get_cudnn_benchmark"),
        ("cuDNN determinism", "_get_cudnn_deterministic"),
    ):
        getter = getattr(core, name, None)
        yield f"torch's {what}", getter() if getter is not None else None
    yield "torch's autocast", (core.is_autocast_enabled("cuda"), core.is_autocast_enabled("cpu"))
    hooks = vars(sys.modules["torch.nn.modules.module"])
    yield (
        "torch's module hooks",
        [(name, len(value)) for name, value in sorted(hooks.items()) if "hooks" in name and isinstance(value, dict)],
    )


def _stack(core: Any, length: str, at: str) -> list[int]:
    count, get = getattr(core, length, None), getattr(core, at, None)
    modes = [] if count is None or get is None else [get(index) for index in range(count())]
    methods = ("__torch_dispatch__", "__torch_function__")
    return [id(part) for mode in modes for part in (mode, *(vars(type(mode)).get(method) for method in methods))]


def _triton_state() -> Iterator[tuple[str, Any]]:
    driver = sys.modules.get("triton.runtime.driver")
    yield "Triton's driver", id(getattr(getattr(driver, "driver", None), "_active", None))
    knobs = sys.modules.get("triton.knobs")
    for name, group in sorted(vars(knobs).items()) if knobs is not None else ():
        if type(group).__module__ == "triton.knobs" and hasattr(group, "__dict__"):
            yield f"triton.knobs.{name}", [(key, _knob(value)) for key, value in sorted(vars(group).items())]


def _knob(value: Any) -> Any:
    """A setting's value, or the hooks in a chain of them."""
    calls = getattr(value, "calls", None)
    if isinstance(calls, list):
        return [id(each) for each in calls]
    return value if isinstance(value, (str, int, float, type(None))) else id(value)
