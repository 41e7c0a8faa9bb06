"""The candidate's side of the contract: load a source, bind it to a problem's inputs, call it.

Runs in children only. A packet comes from the oracle and may be trusted; nothing here is trusted by anyone.
"""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilesmith.bench.guard import crier, watch
from tilesmith.bench.modules import cast
from tilesmith.bench.snapshot import Snapshot
from tilesmith.bench.wire import Wire

FILE = "candidate.py"
MESSAGE_LIMIT = 2000


class Fault(Exception):
    """What stopped a candidate, and at which stage."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


def guarded(wire: Wire, scratch: str, *, watched: bool) -> Callable[[], None]:
    """From here on tampering ends this process with a verdict. What is returned looks for what has been exchanged.

    Not `watched` nothing is done, to measure what it costs.

    Called when everything that the session itself patches is in place, and before candidate code loads.
    """

    if not watched:
        return lambda: None
    # The candidate may exchange what a message goes through; what `crier` uses it cannot.
    reject = crier(wire.socket)
    watch(str(Path(scratch, FILE)), scratch, reject)
    snapshot = Snapshot.take()

    def look() -> None:
        if reason := snapshot.changed():
            reject(reason)

    return look


def load(source: str, scratch: str) -> types.ModuleType:
    """Import the source as module `candidate` from the scratch folder: Triton reads kernels' text from the file."""
    path = Path(scratch, FILE)
    path.write_text(source, encoding="utf-8")
    linecache.clearcache()
    spec = importlib.util.spec_from_file_location("candidate", path)
    if spec is None or spec.loader is None:
        raise Fault("import", "the candidate cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["candidate"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise Fault("import", explain(error)) from error
    return module


@dataclass(frozen=True, slots=True)
class Bound:
    """A candidate that can be called."""

    call: Callable[..., Any]
    refresh: Callable[[], None]
    """Take the state anew, after its tensors have got other contents."""


def bind(module: types.ModuleType, packet: dict[str, Any]) -> Bound:
    """What takes a problem's inputs and returns its outputs.

    `kernel_function(*inputs)` gets the reference's parameters and buffers as keyword arguments, dots replaced by
    underscores, where its signature names them. `ModelNew(*init)` is cast to the problem's dtype and gets the
    reference's state.
    """
    function, model_class = getattr(module, "kernel_function", None), getattr(module, "ModelNew", None)
    if function is not None and model_class is not None:
        raise Fault("rejected", "it defines both kernel_function and ModelNew")
    if callable(function):
        return _bind_function(function, packet["state"])
    if model_class is None:
        raise Fault("import", "it defines neither kernel_function nor ModelNew")
    return _bind_model(model_class, packet)


def _bind_function(function: Callable[..., Any], state: dict[str, Any]) -> Bound:
    named = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = types.MappingProxyType({})
    wanted = {name: named[name] for name in parameters if name in named}
    return Bound(lambda *inputs: function(*inputs, **wanted), lambda: None)


def _bind_model(model_class: Any, packet: dict[str, Any]) -> Bound:
    import torch

    try:
        model = model_class(*packet["init"])
        if not isinstance(model, torch.nn.Module):
            raise Fault("import", "ModelNew is no torch.nn.Module")
        model = cast(model, packet["dtype"])
        # The method is the base class's: an override is a place to compute where nobody looks.
        found = torch.nn.Module.load_state_dict(model, packet["state"], strict=False)
    except Fault:
        raise
    except BaseException as error:
        raise Fault("import", f"ModelNew: {explain(error)}") from error
    if found.missing_keys:
        raise Fault("import", f"ModelNew has state that the reference lacks: {', '.join(found.missing_keys[:5])}")
    return Bound(model, lambda: _reload(model, packet["state"]))


def _reload(model: Any, state: dict[str, Any]) -> None:
    import torch

    torch.nn.Module.load_state_dict(model, state, strict=False)


def explain(error: BaseException) -> str:
    """An error in a line or two, with the place in the candidate's file where it arose."""
    text = str(error).strip() or "no message"
    file = getattr(sys.modules.get("candidate"), "__file__", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" (line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        place, text = f" (line {error.lineno})", error.msg
    return f"{type(error).__name__}: {text}"[:MESSAGE_LIMIT] + place


def stage_of(error: BaseException, otherwise: str) -> str:
    """The stage at which an error of a call arose: compilers raise errors of their own."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, Fault):
            return chain.stage
        if isinstance(chain, MemoryError) or type(chain).__name__ == "OutOfMemoryError":
            return "memory"
        module = type(chain).__module__ or ""
        if module.startswith("triton.") and "interpreter" not in module:
            return "compile"
        chain = chain.__cause__
    return otherwise
