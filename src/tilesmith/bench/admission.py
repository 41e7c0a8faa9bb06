"""The first part of judging, on CPU cores alone: capture, the contract of a call, fingerprint, profile."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tilesmith.bench.compiled import Call, Choice, Compiled, Operator, from_json
from tilesmith.bench.features import features
from tilesmith.bench.fingerprint import fingerprint
from tilesmith.bench.gpus import Gpu
from tilesmith.bench.processes import Process, Zygote
from tilesmith.bench.roofline import choose, estimate
from tilesmith.bench.wire import Garbled, Gone, Late, Message
from tilesmith.core.errors import ProblemError
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Launch, Profile
from tilesmith.core.trial import Candidate, Failed, Rejected, Unchecked, Verdict, Wrong

CAPTURE_S = 120.0
SOURCE_BYTES = 1 << 20
STAGES = frozenset(("import", "capture", "compile", "launch", "check", "time", "memory"))


@dataclass(frozen=True, slots=True)
class Scene:
    """What a candidate must answer at full size: the outputs' description, and a packet of meta tensors for capture."""

    outputs: list[Any]
    packet: bytes
    input_bytes: int
    widen: bool
    """Whether inputs or parameters are bfloat16, which the interpreter cannot compute with."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A candidate after capture. With a verdict it is judged already."""

    candidate: Candidate
    scratch: Path
    verdict: Verdict | None = None
    call: Call = ()
    picks: tuple[int, ...] = ()
    """For each autotuned launch, the configuration to run where nothing can be timed."""
    fingerprint: str | None = None
    launches: tuple[Launch, ...] = ()
    profile: Profile | None = None


def ask(oracle: Process, message: Message, timeout_s: float = 1200.0) -> tuple[Message, bytes]:
    """Ask the oracle. Raises `ProblemError` where the problem is at fault."""
    reply, blob = oracle.ask(message, timeout_s=timeout_s)
    if "fault" in reply:
        raise ProblemError(reply["fault"])
    return reply, blob


def load(oracle: Process, problem: Problem, size: str) -> None:
    """Have the oracle execute the problem at one of its sizes."""
    settings = problem.settings
    constants = {**settings.large, **(settings.small if size == "small" else {})}
    question = {
        "source": problem.source,
        "constants": constants,
        "dtype": settings.dtype,
        "tolerance": settings.tolerance,
    }
    ask(oracle, {"do": "load", "size": size, **question})


def describe(oracle: Process, size: str) -> Scene:
    reply, packet = ask(oracle, {"do": "describe", "size": size})
    return Scene(reply["outputs"], packet, reply["input_bytes"], reply["widen"])


class Admission:
    """Captures candidates for one target. Threads may share it."""

    def __init__(self, gpu: Gpu, zygote: Zygote) -> None:
        self.gpu = gpu
        self._zygote = zygote
        self._target = {key: value for key, value in asdict(gpu).items() if isinstance(value, (int, float, str))}
        self._folder = Path(tempfile.mkdtemp(prefix="tilesmith-"))

    @property
    def target(self) -> Message:
        """The GPU as a child's stub driver needs it."""
        return self._target

    def admit(self, problem: Problem, candidate: Candidate, scene: Scene) -> Admitted:
        """Capture one call at full size and check it against the contract that needs no numbers."""
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        admitted = Admitted(candidate, scratch)
        if len(candidate.source.encode("utf-8", "surrogatepass")) > SOURCE_BYTES:
            return replace(admitted, verdict=Failed("admit", f"the source is longer than {SOURCE_BYTES} bytes"))
        if not candidate.source.strip():
            return replace(admitted, verdict=Failed("admit", "the source is empty"))
        with self._zygote.child(str(scratch)) as child:
            child.send({"source": candidate.source, "target": self._target}, scene.packet)
            try:
                reply = child.receive(CAPTURE_S)
            except Late:
                return replace(admitted, verdict=Failed("timeout", f"it was not captured within {CAPTURE_S:.0f} s"))
            except Garbled as error:
                return replace(admitted, verdict=Rejected(f"its process sent what is no answer: {error}"))
            except Gone:
                return replace(admitted, verdict=Failed("crash", f"in capture {self._zygote.why(child)}"))
        try:
            return self._read(problem, admitted, reply, scene)
        except (KeyError, TypeError, ValueError) as error:
            return replace(admitted, verdict=Rejected(f"its process sent what is no answer: {str(error)[:300]}"))

    def _read(self, problem: Problem, admitted: Admitted, reply: Message, scene: Scene) -> Admitted:
        if "stage" in reply:
            return replace(admitted, verdict=failure(reply))
        call = tuple(_featured(step) for step in from_json(reply["call"]))
        picks: list[int] = []
        chosen: list[Compiled] = []
        for step in call:
            if isinstance(step, Choice):
                index = choose(step, self.gpu)
                picks.append(int(reply["tried"][len(picks)][index]))
                chosen.append(step.configurations[index])
            elif isinstance(step, Compiled):
                chosen.append(step)
        admitted = replace(
            admitted,
            call=call,
            picks=tuple(picks),
            fingerprint=fingerprint(call, self.gpu.name),
            launches=tuple(compiled.launch for compiled in chosen),
            profile=estimate(call, self.gpu),
        )
        return replace(admitted, verdict=breach(problem, call, chosen) or mismatch(reply["outputs"], scene.outputs))

    def discard(self, admitted: Admitted) -> None:
        """Remove a candidate's scratch folder."""
        shutil.rmtree(admitted.scratch, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def failure(reply: Message) -> Failed | Unchecked:
    """The verdict in a child's own report of what stopped it."""
    stage, message = reply["stage"], str(reply["message"])[:4000]
    if reply.get("unable"):
        return Unchecked(f"without a GPU it cannot be followed: {message}")
    return Failed(stage if stage in STAGES else "crash", message)


def breach(problem: Problem, call: Call, chosen: list[Compiled]) -> Verdict | None:
    """The verdict on a call that breaks the contract whatever it computes."""
    library = [step.name for step in call if isinstance(step, Operator) and step.kind == "library"]
    if library:
        return Rejected(
            f"it computes outside its own kernels, with the framework's {', '.join(sorted(set(library))[:5])}"
        )
    if not chosen:
        return Rejected("a call launches no kernel of its own")
    if not problem.settings.tf32 and any("tf32" in compiled.launch.features for compiled in chosen):
        return Wrong(
            'a dot rounds its float32 operands to TF32: give it input_precision="ieee" (or set tf32 in problem.toml)'
        )
    return None


def mismatch(outputs: Any, expected: list[Any]) -> Wrong | None:
    """The verdict on outputs that are not what the reference returns, before any number is looked at."""
    if not isinstance(outputs, list) or not all(isinstance(row, dict) for row in outputs):
        return Wrong("its outputs cannot be described")
    if len(outputs) != len(expected) or outputs[0] != expected[0]:
        return Wrong(f"it returns {_shown(outputs)}; the reference returns {_shown(expected)}")
    for number, (got, want) in enumerate(zip(outputs[1:], expected[1:], strict=True)):
        if "value" in want:
            if got != want:
                return Wrong(f"output {number} is {_row(got)}; the reference's is {_row(want)}")
        elif (got.get("dtype"), got.get("shape")) != (want["dtype"], want["shape"]):
            return Wrong(f"output {number} is {_row(got)}; the reference's is {_row(want)}")
        elif got.get("device") != "cuda":
            return Wrong(f"output {number} is on {str(got.get('device'))[:20]}, not on the GPU")
    return None


def _shown(rows: list[Any]) -> str:
    return ", ".join(_row(row) for row in rows[1:])[:300] or "nothing"


def _row(row: Any) -> str:
    if "shape" in row:
        return f"{str(row.get('dtype'))[:20]}{str(row['shape'])[:100]}"
    return f"the value {str(row.get('value'))[:100]}"


def _featured(step: Any) -> Any:
    """The same with the features that its own PTX shows: the child's word on them does not count."""
    if isinstance(step, Choice):
        return replace(step, configurations=tuple(_featured(each) for each in step.configurations))
    if isinstance(step, Compiled):
        return replace(step, launch=replace(step.launch, features=features(step.ptx)))
    return step
