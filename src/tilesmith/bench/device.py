"""A child session on a GPU: it runs one candidate, copies its answers to the oracle's memory, and times launches.

The zygote that it is forked from has imported torch and Triton and never touched CUDA, so a context costs a fraction of
a second and dies with the child. Inputs are the oracle's, shared through CUDA IPC; so are the outboxes for answers.

    open    source, and a packet of the oracle's   -> whether launches are seen at the driver
    check                                          -> the outputs of every set described; answers in the outboxes
    time    launches                               -> microseconds of each; the last answer in the last outbox
    shares                                         -> microseconds of a call by kernel

Every reply to check and time also says what each call launched, as the driver saw it.
"""

from __future__ import annotations

import contextlib
import pickle
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tilesmith.bench.candidate import Fault, bind, explain, guarded, load, stage_of
from tilesmith.bench.capture import describe
from tilesmith.bench.trace import KernelTrace
from tilesmith.bench.wire import Gone, Message, Wire

FLUSH_BYTES = 256 << 20
"""Written before each timed launch, so that it finds a cold second-level cache; several times the largest."""
KEPT_BYTES = 1 << 30
"""GPU memory that a candidate may keep for reuse while it waits."""
SHARE_CALLS = 5
LATER_CALLS = 5
"""Calls after which an output must still be right."""
HEAD_START_CYCLES = 400_000
"""The device waits so long, about 0.2 ms, before each timed launch, so that the host has enqueued it by then."""
MOVED_ELEMENTS = 1 << 22
"""At most so many elements of an input change before a timed launch: enough to be seen in the answer."""


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


def serve(wire: Wire, scratch: str, *, watched: bool = True) -> None:
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
                total = torch.cuda.get_device_properties(0).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, message["gpu_share"] + FLUSH_BYTES / total))
                session = Session(wire, message["source"], content, scratch, watched=watched)
                stage = "launch"
                wire.send({"traced": session.trace is not None})
            elif session is not None and message["do"] == "check":
                wire.send(session.check())
            elif session is not None and message["do"] == "time":
                wire.send(session.time(message["launches"]))
            elif session is not None:
                wire.send(session.shares())
    except Gone:
        return
    except BaseException as error:
        text = str(error) if isinstance(error, Fault) else explain(error)
        wire.send({"stage": stage_of(error, stage), "message": text})


class Session:
    """One candidate, bound to every set of inputs."""

    def __init__(self, wire: Wire, source: str, content: dict[str, Any], scratch: str, *, watched: bool) -> None:
        import torch

        # What the candidate could replace in torch must be held before it loads.
        self._event, self._synchronize, self._sleep = torch.cuda.Event, torch.cuda.synchronize, torch.cuda._sleep
        self._empty_cache = torch.cuda.empty_cache
        self.tuned: list[int] = []
        """For each autotuning so far, the place of the configuration that it chose."""
        _watch_tuning(self.tuned)
        self.outboxes: list[list[Any]] = content["outboxes"]
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        self.signed: bool = content["signed"]
        self.trace = _traced() if watched else None
        self._seen_calls: set[frozenset[str]] = set()
        """What calls have launched since the last reply, by name: as a rule it is the same every time."""
        self.look = guarded(wire, scratch, watched=watched)
        module = load(source, scratch)
        with torch.no_grad(), torch.device("cuda"):
            self.calls = [bind(module, packet).call for packet in (*content["sets"], content["moving"])]
        self.packets: list[dict[str, Any]] = [*content["sets"], content["moving"]]
        if self.trace is not None:
            self.trace.take()

    def check(self) -> Message:
        """Every set's answer, copied to its outbox only after later calls have had the chance to overwrite it."""
        import torch

        sets = len(self.packets) - 1
        with torch.no_grad():
            with _poisoned():
                answers = [self._call(number) for number in range(sets)]
                for number in range(LATER_CALLS):
                    self._call(number % sets)
            rows = [self._described(number, answer) for number, answer in enumerate(answers)]
            self.look()
            self._synchronize()
            with self._paused():
                for number, answer in enumerate(answers):
                    self._deliver(number, answer)
            self._synchronize()
            # It waits for its turn to be timed now, and others are checked: they need the room.
            del answers, answer
            if torch.cuda.memory_reserved() > KEPT_BYTES:
                self._empty_cache()
        return {"sets": rows, "tuned": self.tuned, **self._seen()}

    def time(self, launches: int) -> Message:
        """Device time of each of so many calls, microseconds: the cache cold, the inputs never the same twice.

        A random number of untimed calls comes before, so that no candidate can count to the timed ones.
        """
        import torch

        moving = len(self.packets) - 1
        inputs = [leaf for leaf in _leaves(self.packets[moving]["inputs"]) if leaf.is_floating_point()]
        ahead = secrets.randbelow(4)
        with torch.no_grad():
            starts = [self._event(enable_timing=True) for _ in range(launches)]
            ends = [self._event(enable_timing=True) for _ in range(launches)]
            for _ in range(ahead):
                self._call(moving)
            self._synchronize()
            answer: Any = None
            for start, end in zip(starts, ends, strict=True):
                with self._paused():
                    for tensor in inputs:
                        _move(tensor, negate=self.signed)
                    self._sleep(HEAD_START_CYCLES)
                    self.flush.zero_()
                start.record()
                answer = self._call(moving)
                end.record()
            self._synchronize()
            times = [1000.0 * start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]
            rows = self._described(moving, answer)
            self.look()
            with self._paused():
                self._deliver(moving, answer)
            self._synchronize()
        return {"times_us": times, "outputs": rows, **self._seen()}

    def shares(self) -> Message:
        """Device time of each kernel of a call by name, microseconds, the mean of a few calls."""
        import torch

        if self.trace is None:
            return {"shares_us": {}}
        with torch.no_grad(), self.trace.durations() as spent_ns:
            for _ in range(SHARE_CALLS):
                self._call(len(self.packets) - 1)
            self._synchronize()
        self.trace.take()
        return {"shares_us": {name: ns / 1000 / SHARE_CALLS for name, ns in spent_ns.items()}}

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """What the session does on the GPU for itself is not the candidate's."""
        if self.trace is None:
            yield
            return
        self.trace.paused = True
        yield
        self.trace.paused = False

    def _call(self, number: int) -> Any:
        if self.trace is None:
            return self.calls[number](*self.packets[number]["inputs"])
        before = self.trace.launches
        self.trace.launches = Counter()
        answer = self.calls[number](*self.packets[number]["inputs"])
        self._seen_calls.add(frozenset(self.trace.launches))
        self.trace.launches = before
        return answer

    def _described(self, number: int, answer: Any) -> list[dict[str, Any]]:
        return describe(answer, (self.packets[number]["inputs"], self.packets[number]["state"]))

    def _deliver(self, number: int, answer: Any) -> None:
        """Copy an answer to the oracle's memory, where shapes allow; the controller compares the descriptions."""
        for tensor, outbox in zip(_leaves(answer), self.outboxes[number], strict=False):
            if tensor.shape == outbox.shape and tensor.dtype == outbox.dtype:
                outbox.copy_(tensor)

    def _seen(self) -> Message:
        """What each call has launched since the last time this was asked, and what was seen beside launches."""
        if self.trace is None:
            return {"launches": None, "streams": [], "others": []}
        _, streams, others = self.trace.take()
        calls, self._seen_calls = self._seen_calls, set()
        return {"launches": [sorted(call) for call in calls], "streams": sorted(streams), "others": sorted(others)}


@contextlib.contextmanager
def _poisoned() -> Iterator[None]:
    """Memory that is allocated without being filled holds NaN, or the largest integer."""
    import torch

    # The public function imports the framework's compiler first.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False)


def _traced() -> KernelTrace | None:
    try:
        return KernelTrace()
    except OSError:
        return None


def _leaves(value: Any) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_flatten

    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def _move(tensor: Any, *, negate: bool) -> None:
    """Change a random stretch of an input: the signs of one, or two that change places."""
    flat = tensor.view(-1) if tensor.is_contiguous() else None
    if flat is None or flat.numel() < 2:
        tensor.neg_() if negate else None
        return
    count = max(1, min(flat.numel() // 8, MOVED_ELEMENTS))
    here = secrets.randbelow(flat.numel() - count + 1)
    if negate:
        flat[here : here + count].neg_()
        return
    there = secrets.randbelow(flat.numel() - count + 1)
    held = flat[here : here + count].clone()
    flat[here : here + count] = flat[there : there + count].clone()
    flat[there : there + count] = held


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
