"""A child session on a GPU: it runs one candidate, copies its answers to the oracle's memory, and times launches.

The zygote that it is forked from has imported torch and Triton and never touched CUDA, so a context costs a fraction of
a second and dies with the child. Inputs are the oracle's, shared through CUDA IPC; so are the outboxes for answers.

    {"do": "open", source} and a packet     -> {"open": true}
    {"do": "check"}                         -> {"sets": [outputs of each set]}: answers lie in the outboxes
    {"do": "time", launches}                -> {"times_us": [...]}, the last answers in the outboxes
"""

from __future__ import annotations

import pickle
from typing import Any

from tilesmith.bench.candidate import Fault, bind, explain, load, stage_of
from tilesmith.bench.capture import describe
from tilesmith.bench.wire import Gone, Message, Wire

FLUSH_BYTES = 256 << 20
"""Written before each timed launch, so that it finds a cold second-level cache; several times the largest."""
LATER_CALLS = 5
"""Calls after which an output must still be right."""


def warm() -> None:
    """Import everything, and build Triton's driver tools, without touching CUDA; the children inherit both."""
    import torch
    import torch.multiprocessing.reductions
    import triton
    import triton.language
    import triton.testing
    from triton.backends.nvidia.driver import CudaDriver

    from tilesmith.bench.warmup import compile_once

    compile_once(90)
    triton.runtime.driver.set_active(CudaDriver())
    if torch.cuda.is_initialized():
        raise RuntimeError("the warm runner has touched CUDA")


def serve(wire: Wire, scratch: str) -> None:
    """Answer until the controller hangs up."""
    import torch

    session: Session | None = None
    stage = "import"
    try:
        while True:
            message, packet = wire.receive(3600.0)
            if message["do"] == "open":
                try:
                    torch.cuda.init()
                    content = pickle.loads(packet)
                except (RuntimeError, OSError) as error:
                    wire.send({"machine": explain(error)})
                    return
                session, stage = Session(message["source"], content, scratch), "launch"
                wire.send({"open": True})
            elif session is not None and message["do"] == "check":
                wire.send(session.check())
            elif session is not None:
                wire.send(session.time(message["launches"]))
    except Gone:
        return
    except BaseException as error:
        wire.send(
            {"stage": stage_of(error, stage), "message": str(error) if isinstance(error, Fault) else explain(error)}
        )


class Session:
    """One candidate, bound to every set of inputs."""

    def __init__(self, source: str, content: dict[str, Any], scratch: str) -> None:
        import torch

        self.tuned: list[int] = []
        """For each autotuning so far, the place of the configuration that it chose."""
        _watch_tuning(self.tuned)
        self.outboxes: list[list[Any]] = content["outboxes"]
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        module = load(source, scratch)
        self.calls: list[Any] = []
        self.inputs: list[list[Any]] = []
        with torch.no_grad(), torch.device("cuda"):
            for packet in content["sets"]:
                self.calls.append(bind(module, packet))
                self.inputs.append(packet["inputs"])

    def check(self) -> Message:
        """Every set's answer, copied to its outbox only after later calls have had the chance to overwrite it."""
        import torch

        with torch.no_grad():
            answers = [call(*inputs) for call, inputs in zip(self.calls, self.inputs, strict=True)]
            for number in range(LATER_CALLS):
                self._call(number)
            rows = [describe(answer) for answer in answers]
            for number, answer in enumerate(answers):
                self._deliver(number, answer)
            torch.cuda.synchronize()
        return {"sets": rows, "tuned": self.tuned}

    def time(self, launches: int) -> Message:
        """Device time of each of so many calls with a cold cache, one set of inputs after another, microseconds."""
        import torch

        with torch.no_grad():
            starts = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
            torch.cuda.synchronize()
            answers: dict[int, Any] = {}
            for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
                self.flush.zero_()
                start.record()
                answer = self._call(number)
                end.record()
                answers[number % len(self.calls)] = answer
            torch.cuda.synchronize()
            times = [1000.0 * start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]
            rows = {}
            for number, answer in answers.items():
                rows[str(number)] = describe(answer)
                self._deliver(number, answer)
            torch.cuda.synchronize()
        return {"times_us": times, "sets": rows}

    def _call(self, number: int) -> Any:
        number %= len(self.calls)
        return self.calls[number](*self.inputs[number])

    def _deliver(self, number: int, answer: Any) -> None:
        """Copy an answer to the oracle's memory, where shapes allow; the controller compares the descriptions."""
        import torch
        from torch.utils._pytree import tree_flatten

        tensors = [leaf for leaf in tree_flatten(answer)[0] if isinstance(leaf, torch.Tensor)]
        for tensor, outbox in zip(tensors, self.outboxes[number], strict=False):
            if tensor.shape == outbox.shape and tensor.dtype == outbox.dtype:
                outbox.copy_(tensor)


def _watch_tuning(tuned: list[int]) -> None:
    from triton.runtime.autotuner import Autotuner

    run = Autotuner.run

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = len(self.cache)
        result = run(self, *args, **kwargs)
        if len(self.cache) > known:
            tuned.append(list(self.configs_timings).index(self.best_config))
        return result

    Autotuner.run = watched
