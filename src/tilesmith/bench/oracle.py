"""The oracle: the process that executes the problem, owns its inputs and knows what the answers should be.

Run as `python -m tilesmith.bench.oracle DESCRIPTOR`. Candidate code never runs here, and a candidate's process cannot
reach this one's memory. It hands out packets of inputs, and compares the answers that come back as plain bytes:

    load      size, source, constants, dtype, tolerance
    describe  size                                what the outputs are, and a packet of meta tensors (no memory)
    prepare   size, folder, sets, memory_bytes    input sets written as files, references computed
    compare   size, set, folder                   the scaled error of the answers in a folder; null is infinite
    hold      size, sets, gpu_share, slots        the same made on the GPU and kept there, in a share of what is free
    lend      size, slot                          handles on the sets and on a slot's outboxes, which are poisoned
    collect   size, slot, set                     the scaled error of the answers in a slot's outboxes
    moved     size, slot                          the same for the last timed launch, whose inputs have changed since;
                                                  not told where the reference itself returns no number for them
    restore   size                                inputs made what they were

A process that opens another's GPU memory gets the whole of what the driver once gave out, not one tensor of it. So what
is lent lies in pools of its own, inputs in one and each slot's outboxes in another, and no expected value beside it.

A size is a name, "small" or "full". Every answer may be {"fault": text}: the problem itself is at fault.
"""

from __future__ import annotations

import copy
import io
import linecache
import math
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing  # registers how tensors travel between processes
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_map_only

from tilesmith.bench.capture import describe as rows_of
from tilesmith.bench.check import FEW, NUDGE, TELLING, Expected, expect, finite, scaled_error, terms_of
from tilesmith.bench.constants import apply_constants
from tilesmith.bench.modules import cast
from tilesmith.bench.wire import Gone, Late, Message, adopt
from tilesmith.bench.zygote import die_with_parent

INPUTS = -1
"""Among the owners of lent memory, which are slots otherwise."""
PAUSES_S = (0.0, 0.5, 2.0)
"""Before what lacked GPU memory is tried again."""
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Fault(Exception):
    """The problem cannot be used; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One call's inputs, with the parameters and buffers that go with them."""

    name: str
    inputs: list[Any]
    init: list[Any]
    model: torch.nn.Module


@dataclass(frozen=True, slots=True)
class Prepared:
    """A set of inputs with its expected outputs."""

    inputs: Inputs
    expected: list[Any]
    """An `Expected` for each tensor among the output's leaves, the value itself for others."""
    terms: list[float]
    """How large the terms of each leaf are, where it has few elements; else 0."""


class Program:
    """A problem's source, executed: the reference at one size."""

    def __init__(self, source: str, constants: dict[str, Any], dtype: str | None) -> None:
        self.dtype = DTYPES[dtype] if dtype else None
        text = apply_constants(source, {k: tuple(v) if isinstance(v, list) else v for k, v in constants.items()})
        self.module = types.ModuleType("problem")
        # A real file, so that tracebacks and torch can read the source; it goes with this object.
        self._folder = tempfile.TemporaryDirectory(prefix="tilesmith-problem-")
        self.module.__file__ = str(Path(self._folder.name, "problem.py"))
        Path(self.module.__file__).write_text(text, encoding="utf-8")
        linecache.clearcache()
        sys.modules["problem"] = self.module
        with _blame("the problem fails when it is imported"):
            exec(compile(text, self.module.__file__, "exec"), self.module.__dict__)
        for name in ("Model", "get_inputs", "get_init_inputs"):
            if not callable(getattr(self.module, name, None)):
                raise Fault(f"the problem defines no {name}")

    def make(self, seed: int, device: str = "cpu") -> Inputs:
        """The problem's own inputs and model under a seed, cast to the problem's dtype."""
        torch.manual_seed(seed)
        with torch.device(device):
            with _blame("get_init_inputs() fails"):
                init = _listed(self.module.get_init_inputs(), "get_init_inputs()")
            with _blame("Model(*get_init_inputs()) fails"):
                model = self.module.Model(*init)
            with _blame("get_inputs() fails"):
                inputs = _listed(self.module.get_inputs(), "get_inputs()")
        inputs = tree_map_only(torch.Tensor, lambda t: self._cast(t.detach()).to(device), inputs)
        if not isinstance(model, torch.nn.Module):
            raise Fault("Model is no torch.nn.Module")
        return Inputs("own", inputs, init, cast(model, self.dtype, device))

    def run(self, model: torch.nn.Module, inputs: list[Any]) -> Any:
        with _blame("the reference fails on its own inputs"):
            return model(*inputs)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if self.dtype and tensor.is_floating_point() else tensor


class _blame:  # noqa: N801  reads as a verb where it is used
    """Turn an error of the problem's code into a `Fault` that says where it arose."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (Fault, KeyboardInterrupt, torch.OutOfMemoryError)):
            return
        frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.endswith("problem.py")]
        place = f" (problem.py, line {frames[-1].lineno})" if frames else ""
        text = str(error).strip().splitlines() or ["no message"]
        raise Fault(f"{self.what}: {type(error).__name__}: {text[0][:500]}{place}") from error


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise Fault(f"{name} returns a {type(value).__name__}; it must return a list")
    return list(value)


# Input sets ----------------------------------------------------------------------------------------------------------


def variants(program: Program, device: str) -> Iterator[Inputs]:
    """Input sets, the most telling first; those after the first count only where the reference is finite."""
    own = program.make(1, device)
    yield own
    yield _changed(own, "zero mean", torch.randn_like, _varied)
    second = program.make(2, device)
    yield Inputs("own, other seed", second.inputs, second.init, second.model)
    yield _changed(second, "large", lambda t: torch.randn_like(t) * 16)
    yield _changed(second, "sparse", lambda t: t * (torch.rand_like(t.float()) < 0.1))
    yield _changed(own, "permuted", _permute, _permute)


Change = Callable[[torch.Tensor], torch.Tensor]


def _changed(base: Inputs, name: str, change: Change, parameters: Change | None = None) -> Inputs:
    """The same structure with every floating tensor of the inputs, and every parameter where asked, changed."""
    torch.manual_seed(hash_of(name))

    def changed(tensor: torch.Tensor, by: Change = change) -> torch.Tensor:
        return by(tensor).to(tensor.dtype) if tensor.is_floating_point() else tensor

    model = base.model
    if parameters is not None:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(changed(parameter, parameters))
    return Inputs(name, tree_map_only(torch.Tensor, changed, base.inputs), base.init, model)


def hash_of(name: str) -> int:
    """A seed from a name, the same in every process."""
    return int.from_bytes(name.encode()[:6].ljust(6, b"."), "big") % (1 << 31)


def _varied(tensor: torch.Tensor) -> torch.Tensor:
    """Near what it was, and nowhere the same: parameters often begin as ones or zeros, which anyone can guess."""
    spread = float(tensor.float().std()) if tensor.numel() > 1 else 0.0
    return tensor + 0.25 * (spread or 1.0) * torch.randn_like(tensor)


def _permute(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flip(tuple(range(tensor.ndim))).roll(1)


def prepare(program: Program, inputs: Inputs, terms: list[float] | None = None) -> Prepared:
    """Compute what the reference answers, and what its own dtype loses. Raises `Fault` where it answers no number.

    `terms` of each leaf are found out, unless others are given: those of inputs as large as these.
    """
    native = program.run(copy.deepcopy(inputs.model), _copied(inputs.inputs))
    leaves = tree_flatten(native)[0]
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise Fault("the reference returns no tensor")
    if not finite(leaves):
        raise Fault("the reference returns NaN or infinity on its own inputs")
    truth = tree_flatten(_precise(inputs, leaves))[0]
    terms = _terms(inputs, leaves, truth) if terms is None else terms
    expected = [
        expect(true.detach(), own.detach(), size) if isinstance(own, torch.Tensor) else own
        for own, true, size in zip(leaves, truth, terms, strict=True)
    ]
    return Prepared(inputs, expected, terms)


def _terms(inputs: Inputs, native: list[Any], truth: list[Any]) -> list[float]:
    """How large the terms of each leaf are, where it has few elements; else 0."""
    few = [isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and 0 < leaf.numel() <= FEW for leaf in native]
    if not any(few):
        return [0.0] * len(native)
    samples = math.ceil(TELLING / min(leaf.numel() for leaf, small in zip(native, few, strict=True) if small))
    nudged = [tree_flatten(_precise(inputs, native, NUDGE))[0] for _ in range(samples)]
    return [
        terms_of(true.detach(), [each[place].detach() for each in nudged]) if small else 0.0
        for place, (true, small) in enumerate(zip(truth, few, strict=True))
    ]


def _precise(inputs: Inputs, native: list[Any], nudge: float = 0.0) -> Any:
    """The reference in float64; in float32 where float64 cannot be had; as it is where neither can.

    With `nudge` its inputs are changed by this share, up or down by chance.
    """

    def raised(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        wide = tensor.to(dtype)
        return wide + nudge * wide * torch.randn_like(wide).sign() if nudge else wide

    for dtype in (torch.float32,) if _large(inputs, native) else (torch.float64, torch.float32):
        try:
            model = cast(copy.deepcopy(inputs.model), dtype)
            values = tree_map_only(torch.Tensor, lambda t, d=dtype: raised(t, d), inputs.inputs)
            with torch.no_grad():
                answer = model(*values)
            leaves = tree_flatten(answer)[0]
            same = [getattr(leaf, "shape", None) for leaf in leaves] == [
                getattr(leaf, "shape", None) for leaf in native
            ]
            if same and finite(leaves):
                return answer
        except torch.OutOfMemoryError:
            # What the problem's own dtype loses must not be taken for the truth only because a neighbour has the room.
            if dtype is torch.float32:
                raise
            torch.cuda.empty_cache()
        except (RuntimeError, TypeError, NotImplementedError):
            pass
    return native


def _large(inputs: Inputs, native: list[Any]) -> bool:
    """Whether all is of 16 bits, to which float32 is precise, and in float64 would take an eighth of a GPU's memory."""
    leaves = [leaf for leaf in [*_tensors(inputs), *native] if isinstance(leaf, torch.Tensor)]
    if not any(leaf.is_cuda for leaf in leaves) or any(leaf.element_size() > 2 for leaf in leaves):
        return False
    return bool(8 * sum(leaf.numel() for leaf in leaves) > torch.cuda.mem_get_info()[1] // 8)


def _copied(value: Any) -> Any:
    return tree_map_only(torch.Tensor, lambda tensor: tensor.clone(), value)


# Packets -------------------------------------------------------------------------------------------------------------


def packet(program: Program, inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """What a candidate's process gets: inputs, constructor arguments and state, each tensor passed through `change`."""
    state = dict(inputs.model.state_dict())
    for name, buffer in inputs.model.named_buffers():
        state.setdefault(name, buffer)
    content = {"inputs": inputs.inputs, "init": inputs.init, "state": state}
    return {**tree_map_only(torch.Tensor, lambda t: change(t.detach()), content), "dtype": program.dtype}


def meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """For the interpreter, which cannot do bfloat16: the same values in float32."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor


def describe(program: Program) -> tuple[list[Message], dict[str, Any]]:
    """The outputs' description at full size and a packet of meta tensors, without allocating the tensors."""
    with torch.no_grad():
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                inputs = program.make(1)
                outputs = program.run(inputs.model, inputs.inputs)
                rows = rows_of(outputs)
        except Fault as fault:
            # Fake tensors cannot do all that real ones can, and say so in many ways: then the real run decides.
            unlike = type(fault.__cause__).__module__.startswith("torch.")
            if not unlike and not isinstance(fault.__cause__, (RuntimeError, NotImplementedError)):
                raise
            inputs = program.make(1)
            rows = rows_of(program.run(inputs.model, inputs.inputs))
        return rows, packet(program, inputs, meta)


# The process ---------------------------------------------------------------------------------------------------------


class Question:
    """The problem at one size: the program, its prepared input sets, and the tolerance for answers."""

    def __init__(self, message: Message) -> None:
        self.program = Program(message["source"], message["constants"], message["dtype"])
        self.tolerance: float = message["tolerance"]
        self.prepared: list[Prepared] = []
        self.sums: list[int] = []
        self.outboxes: dict[int, list[list[torch.Tensor]]] = {}
        self.pools: dict[int, Any] = {}
        """The GPU memory pools that are lent: the inputs', and for each slot its outboxes'."""
        self.moving: Inputs
        self.signed = False
        self.terms: list[float] = []
        """Of the moving inputs' answers: how large they are does not change."""

    def describe(self, _message: Message) -> tuple[Message, bytes]:
        rows, content = describe(self.program)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        tensors = [leaf for leaf in tree_flatten(content)[0] if isinstance(leaf, torch.Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        widen = any(tensor.dtype is torch.bfloat16 for tensor in tensors)
        precise = any(tensor.dtype in (torch.float32, torch.float64) for tensor in tensors)
        reply = {"outputs": rows, "input_bytes": size, "widen": widen, "precise": precise}
        return reply, buffer.getvalue()

    def prepare(self, message: Message) -> tuple[Message, bytes]:
        """Input sets until there are enough, or the next would take more memory than allowed."""
        paths, names, left = [], [], message["memory_bytes"]
        with torch.no_grad():
            for inputs in variants(self.program, "cpu"):
                try:
                    prepared = prepare(self.program, inputs)
                except Fault:
                    if not self.prepared:
                        raise
                    continue
                path = Path(message["folder"], f"inputs.{len(self.prepared)}.pt")
                torch.save(packet(self.program, inputs, widened), path)
                self.prepared.append(prepared)
                paths.append(str(path))
                names.append(inputs.name)
                left -= path.stat().st_size
                if len(paths) >= message["sets"] or left < path.stat().st_size:
                    break
        return {"paths": paths, "names": names}, b""

    def hold(self, message: Message) -> tuple[Message, bytes]:
        """As `prepare`, in the GPU's memory, where each slot's answers to every set will lie, too."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        left = message["gpu_share"] * torch.cuda.mem_get_info()[0]
        self.prepared.clear()
        with torch.no_grad():
            for made in variants(self.program, "cuda"):
                before = torch.cuda.memory_allocated()
                try:
                    self.prepared.append(prepare(self.program, self._lendable(made)))
                except Fault:
                    if not self.prepared:
                        raise
                    continue
                except torch.OutOfMemoryError:
                    if not self.prepared:
                        raise
                    break
                answers = self._answer_bytes(len(self.prepared) - 1) * message["slots"]
                taken = torch.cuda.memory_allocated() - before + answers
                left -= taken
                torch.cuda.empty_cache()
                if len(self.prepared) >= message["sets"] or left < taken:
                    break
        self.sums = [checksum(prepared.inputs) for prepared in self.prepared]
        with torch.no_grad():
            self._move()
        _release()
        least = _nbytes(self.prepared[0].inputs.inputs) + self._answer_bytes(0)
        return {"names": [prepared.inputs.name for prepared in self.prepared], "least_bytes": least}, b""

    def _lendable(self, inputs: Inputs) -> Inputs:
        """A copy in the memory that is lent; what it was made with, and what is computed with it, lies elsewhere."""
        with self._lent(INPUTS):
            return copy.deepcopy(inputs)

    def _lent(self, owner: int) -> AbstractContextManager[None]:
        """Within, GPU memory is of the pool that is lent for the inputs, or for the outboxes of a slot."""
        if owner not in self.pools:
            self.pools[owner] = torch.cuda.MemPool()
        within: AbstractContextManager[None] = torch.cuda.use_mem_pool(self.pools[owner])
        return within

    def _move(self) -> None:
        """Inputs for timed launches, which change from one to the next; of both signs where the reference allows."""
        own, moving = self._drawn()
        try:
            prepared, self.signed = prepare(self.program, moving), True
        except Fault:
            prepared = prepare(self.program, own)
        self.moving, self.terms = self._lendable(prepared.inputs), prepared.terms

    def _drawn(self) -> tuple[Inputs, Inputs]:
        own = self.program.make(3, "cuda")
        return own, _changed(own, "moving", torch.randn_like)

    def moved(self, message: Message) -> tuple[Message, bytes]:
        """The scaled error of what the last timed launch returned, for what its inputs are now.

        Of products in 16 bits a few may overflow, and which inputs make them do so changes: where the reference itself
        returns no number nothing is told, and the inputs are what they were at first.
        """
        boxes = self.outboxes[message["slot"]][0]
        reply: Message = {"error": None, "told": True}
        try:
            with torch.no_grad():
                prepared = prepare(self.program, self.moving, self.terms)
            expected = [e for e in prepared.expected if isinstance(e, Expected)]
            errors = [scaled_error(b, e, self.tolerance) for b, e in zip(boxes, expected, strict=True)]
            reply["error"] = max(errors) if max(errors) < math.inf else None
            del prepared, expected
        except Fault:
            own, moving = self._drawn()
            _restored(self.moving, moving if self.signed else own)
            reply["told"] = False
        for outbox in boxes:
            outbox.fill_(math.nan if outbox.is_floating_point() else 1)
        torch.cuda.synchronize()
        _release()
        return reply, b""

    def lend(self, message: Message) -> tuple[Message, bytes]:
        """Handles that another process opens with `pickle`; they are good for one process."""
        if message["slot"] not in self.outboxes:
            with self._lent(message["slot"]):
                self.outboxes[message["slot"]] = [
                    [torch.empty(e.truth.shape, dtype=e.dtype, device=e.truth.device) for e in self._expected(number)]
                    for number in range(len(self.prepared))
                ]
        # What is timed is called after every answer of a check was collected, and answers in the first set's box.
        outboxes = [*self.outboxes[message["slot"]], self.outboxes[message["slot"]][0]]
        for outbox in (outbox for boxes in outboxes[:-1] for outbox in boxes):
            outbox.fill_(math.nan if outbox.is_floating_point() else 1)
        sets = [packet(self.program, prepared.inputs, lambda tensor: tensor) for prepared in self.prepared]
        moving = packet(self.program, self.moving, lambda tensor: tensor)
        torch.cuda.synchronize()
        content = {"sets": sets, "moving": moving, "signed": self.signed, "outboxes": outboxes}
        return {}, bytes(ForkingPickler.dumps(content))

    def collect(self, message: Message) -> tuple[Message, bytes]:
        """Compare, poison again, and see whether the inputs are what they were."""
        number, boxes = message["set"], self.outboxes[message["slot"]][message["set"]]
        errors = [scaled_error(b, e, self.tolerance) for b, e in zip(boxes, self._expected(number), strict=True)]
        for outbox in boxes:
            outbox.fill_(math.nan if outbox.is_floating_point() else 1)
        intact = checksum(self.prepared[number].inputs) == self.sums[number]
        torch.cuda.synchronize()
        return {"error": max(errors) if max(errors) < math.inf else None, "intact": intact}, b""

    def restore(self, _message: Message) -> tuple[Message, bytes]:
        """Make inputs that somebody has written to what they were, in place."""
        held = {prepared.inputs.name: prepared.inputs for prepared in self.prepared}
        for inputs in variants(self.program, "cuda"):
            if inputs.name in held:
                _restored(held[inputs.name], inputs)
        torch.cuda.synchronize()
        return {}, b""

    def _expected(self, number: int) -> list[Expected]:
        return [e for e in self.prepared[number].expected if isinstance(e, Expected)]

    def _answer_bytes(self, number: int) -> int:
        return sum(e.truth.numel() * e.dtype.itemsize for e in self._expected(number))

    def compare(self, message: Message) -> tuple[Message, bytes]:
        errors = [
            scaled_error(read(Path(message["folder"], str(number)), one), one, self.tolerance)
            for number, one in enumerate(self._expected(message["set"]))
        ]
        return {"error": max(errors) if max(errors) < math.inf else None}, b""


def _restored(inputs: Inputs, first: Inputs) -> None:
    """Make inputs in place what they were at first."""
    for old, new in zip(_tensors(inputs), _tensors(first), strict=True):
        old.copy_(new)


def _tensors(inputs: Inputs) -> list[torch.Tensor]:
    """Every tensor that candidates are given: inputs, parameters and buffers."""
    leaves = tree_flatten(inputs.inputs)[0] + list(inputs.model.state_dict().values())
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _release() -> None:
    """Give back what is kept for reuse, where it is so much that candidates might lack it."""
    total = torch.cuda.mem_get_info()[1]
    if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > total // 16:
        torch.cuda.empty_cache()


def _nbytes(value: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor))


def checksum(inputs: Inputs) -> int:
    """Changes when the bits of any tensor do: sums of short rows, weighted by where they stand."""
    total = 0
    for tensor in _tensors(inputs):
        flat = tensor.detach().contiguous().reshape(-1)
        bits = flat.view(_INTEGERS[flat.element_size()])
        whole = bits.numel() // 509 * 509
        rows = bits[:whole].view(-1, 509).sum(1, dtype=torch.int64)
        weights = torch.arange(1, rows.numel() + 1, device=rows.device)
        total = total * 31 + int((rows * weights).sum()) + int(bits[whole:].sum(dtype=torch.int64))
    return total


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def read(path: Path, expected: Expected) -> torch.Tensor:
    """An answer from a file of its elements in row-major order; what should be bfloat16 comes as float32."""
    dtype = torch.float32 if expected.dtype is torch.bfloat16 else expected.dtype
    shape, count = expected.truth.shape, expected.truth.numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(path), shared=False, size=count, dtype=dtype).view(shape)


def main(descriptor: int) -> None:
    """Serve until the controller hangs up."""
    die_with_parent()
    wire = adopt(descriptor)
    questions: dict[str, Question] = {}
    actions = {
        method.__name__: method
        for method in (
            Question.describe,
            Question.prepare,
            Question.compare,
            Question.hold,
            Question.lend,
            Question.collect,
            Question.restore,
            Question.moved,
        )
    }
    wire.send({"ready": True})
    while True:
        try:
            message, _ = wire.receive(3600.0)
        except Late:
            continue
        except Gone:
            return
        try:
            if message["do"] == "load":
                questions[message["size"]] = Question(message)
                reply, content = Message(), b""
            else:
                question, action = questions[message["size"]], actions[message["do"]]
                reply, content = _patiently(partial(action, question, message))
        except Fault as fault:
            reply, content = {"fault": str(fault)}, b""
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            reply, content = {"fault": f"the problem's tensors are too large for the memory of {_room()}"}, b""
        wire.send(reply, content)


def _patiently(action: Callable[[], tuple[Message, bytes]]) -> tuple[Message, bytes]:
    """What a neighbour on the GPU has taken for a moment is waited for."""
    for pause_s in PAUSES_S:
        try:
            return action()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            time.sleep(pause_s)
    return action()


def _room() -> str:
    """This machine; of its GPU, where that was in use, how much others have taken."""
    if not torch.cuda.is_initialized():
        return "this machine"
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    others = total - free - torch.cuda.memory_reserved()
    return f"this GPU, of whose {total >> 30} GiB other processes hold {others >> 30}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
