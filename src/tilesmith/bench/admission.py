"""The first part of judging, on CPU cores alone: capture, the contract of a call, fingerprint, profile."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tilesmith.bench.compiled import Call, Choice, Compiled, Operator, from_json
from tilesmith.bench.effort import Effort
from tilesmith.bench.features import features
from tilesmith.bench.fingerprint import fingerprint
from tilesmith.bench.packing import Packed
from tilesmith.bench.processes import Process, Zygote
from tilesmith.bench.roofline import choose, estimate
from tilesmith.bench.screen import screen
from tilesmith.bench.wire import Garbled, Gone, Late, Message
from tilesmith.core.errors import ProblemError
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem, content_id
from tilesmith.core.profile import Launch, Profile
from tilesmith.core.trial import Candidate, Environment, Failed, Rejected, Trial, Unchecked, Verdict, Wrong

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
    precise: bool
    """Whether inputs or parameters are float32 or wider: TF32 is less than they have."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A candidate after capture. With a verdict it is judged already."""

    candidate: Candidate
    scratch: Path
    verdict: Verdict | None = None
    walls: tuple[str, ...] = ()
    """What stood around it while it was captured."""
    call: Call = ()
    tried: tuple[tuple[int, ...], ...] = ()
    """For each autotuned launch in the call, which of its configurations, by their order in the source, compile."""
    returns: tuple[str, ...] = ()
    """Which of the call's tensors each output is."""
    picks: tuple[int, ...] = ()
    """For each autotuned launch, the configuration to run where nothing can be timed, by that same order."""
    fingerprint: str | None = None
    launches: tuple[Launch, ...] = ()
    profile: Profile | None = None
    packed: Packed | None = None
    """What its scratch folder held, on the way to another machine."""


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
    return Scene(reply["outputs"], packet, reply["input_bytes"], reply["widen"], reply["precise"])


class Admission:
    """Captures candidates for one target. Threads may share it."""

    def __init__(self, gpu: Gpu, zygote: Zygote, effort: Effort, folder: Path) -> None:
        self.gpu = gpu
        self._effort = effort
        self._zygote = zygote
        self._target = {key: value for key, value in asdict(gpu).items() if isinstance(value, (int, float, str))}
        self._folder = folder
        """Of the bench, in which every scratch folder lies."""

    @property
    def target(self) -> Message:
        """The GPU as a child's stub driver needs it."""
        return self._target

    def admit(self, problem: Problem, candidate: Candidate, scene: Scene) -> Admitted:
        """Capture one call at full size and check it against the contract that needs no numbers."""
        scratch = self.scratch()
        admitted = Admitted(candidate, scratch)
        if len(candidate.source.encode("utf-8", "surrogatepass")) > SOURCE_BYTES:
            return replace(admitted, verdict=Failed("admit", f"the source is longer than {SOURCE_BYTES} bytes"))
        if not candidate.source.strip():
            return replace(admitted, verdict=Failed("admit", "the source is empty"))
        if reason := screen(candidate.source):
            return replace(admitted, verdict=Rejected(reason))
        with self._zygote.child(str(scratch), self._effort.memory_bytes) as child:
            admitted = replace(admitted, walls=child.walls)
            child.send({"source": candidate.source, "target": self._target}, scene.packet)
            try:
                reply = child.receive(self._effort.capture_s)
            except Late:
                return replace(
                    admitted, verdict=Failed("timeout", f"it was not captured within {self._effort.capture_s:.0f} s")
                )
            except Garbled as error:
                return replace(admitted, verdict=Rejected(f"its process sent what is no answer: {error}"))
            except Gone:
                ended = self._zygote.why(child)
                return replace(admitted, verdict=Failed(ended.stage, f"in capture {ended}"))
        try:
            return self._read(problem, admitted, reply, scene)
        except (KeyError, TypeError, ValueError) as error:
            return replace(admitted, verdict=Rejected(f"its process sent what is no answer: {str(error)[:300]}"))

    def _read(self, problem: Problem, admitted: Admitted, reply: Message, scene: Scene) -> Admitted:
        if "stage" in reply:
            computes = reply.get("operator") and not problem.settings.library
            return replace(admitted, verdict=_by_framework([str(reply["operator"])]) if computes else failure(reply))
        call = tuple(_featured(step) for step in from_json(reply["call"]))
        tried = tuple(tuple(int(number) for number in numbers) for numbers in reply["tried"])
        returns = tuple(str(name) for name in reply["returns"])
        admitted = self.examined(replace(admitted, call=call, tried=tried, returns=returns))
        return replace(admitted, verdict=breach(problem, admitted, scene) or mismatch(reply["outputs"], scene.outputs))

    def examined(self, admitted: Admitted) -> Admitted:
        """The same with what its call shows; of an autotuned launch the chosen configuration, or the likeliest."""
        launches: list[Launch] = []
        picks: list[int] = []
        for step in admitted.call:
            if isinstance(step, Choice):
                index = choose(step, self.gpu) if step.chosen is None else step.chosen
                picks.append(admitted.tried[len(picks)][index])
                launches.append(step.configurations[index].launch)
            elif isinstance(step, Compiled):
                launches.append(step.launch)
        return replace(
            admitted,
            picks=tuple(picks),
            fingerprint=content_id(f"{fingerprint(admitted.call, self.gpu.name)} {admitted.returns}"),
            launches=tuple(launches),
            profile=estimate(admitted.call, self.gpu),
        )

    def tuned(self, admitted: Admitted, numbers: tuple[int, ...]) -> Admitted:
        """The same after tuning on a device, which chose these configurations by their order in the source.

        The numbers are the child's word, which decides a fingerprint and no verdict: what fits nowhere is ignored.
        """
        left = iter(zip(numbers, admitted.tried, strict=False))
        call: list[Compiled | Operator | Choice] = []
        for step in admitted.call:
            number, tried = next(left, (-1, ())) if isinstance(step, Choice) else (-1, ())
            if isinstance(step, Choice) and number in tried:
                call.append(replace(step, chosen=tried.index(number)))
            else:
                call.append(step)
        return self.examined(replace(admitted, call=tuple(call)))

    def scratch(self) -> Path:
        """A new folder for one candidate, where walls let its processes write."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def discard(self, admitted: Admitted) -> None:
        """Remove a candidate's scratch folder."""
        shutil.rmtree(admitted.scratch, ignore_errors=True)


def protection(walls: tuple[str, ...]) -> str:
    """What stood around a candidate, in words; its source is always screened."""
    return ", ".join(("screened source", *walls))


def failure(reply: Message) -> Failed | Rejected | Unchecked:
    """The verdict in a child's own report of what stopped it."""
    stage, message = reply["stage"], str(reply["message"])[:4000]
    if stage == "rejected":
        return Rejected(message)
    if reply.get("unable"):
        return Unchecked(f"it cannot be followed without running it on a GPU: {message}")
    return Failed(stage if stage in STAGES else "crash", message)


def words(verdict: Verdict) -> str:
    """What a verdict says of why it is none of success."""
    return str(getattr(verdict, "message", None) or getattr(verdict, "reason", "") or type(verdict).__name__)


def breach(problem: Problem, admitted: Admitted, scene: Scene) -> Verdict | None:
    """The verdict on a call that breaks the contract whatever it computes."""
    library = [step.name.split()[0] for step in admitted.call if isinstance(step, Operator) and step.kind == "library"]
    outside = [step.name.split()[0] for step in admitted.call if isinstance(step, Operator) and step.kind == "outside"]
    if foreign := outside + ([] if problem.settings.library else library):
        return _by_framework(foreign)
    if admitted.launches and admitted.launches[0].argument("launch_pdl"):
        return Rejected("its first kernel may start before what was launched ahead of the call has ended")
    if not admitted.launches and not library:
        return Rejected("a call launches no kernel of its own")
    if scene.precise and not problem.settings.tf32 and _rounds_to_tf32(admitted):
        return Wrong(
            'a dot rounds its float32 operands to TF32: give it input_precision="ieee" (or set tf32 in problem.toml)'
        )
    return None


def _by_framework(operators: list[str]) -> Rejected:
    names = ", ".join(sorted(set(operators))[:5])
    return Rejected(f"it computes outside its own kernels, with the framework's {names[:300]}")


def libraries(admitted: Admitted) -> tuple[str, ...]:
    """A line for each of the framework's kernels that computes in a call: its share of the estimate."""
    kernels = admitted.profile.kernels if admitted.profile else ()
    total = sum(kernel.time_us for kernel in kernels) or 1.0
    names = {step.name for step in admitted.call if isinstance(step, Operator) and step.kind == "library"}
    return tuple(
        f"library kernel {kernel.kernel}: {100 * kernel.time_us / total:.0f} % of the estimate"
        for kernel in kernels
        if kernel.kernel in names
    )


def untimed(admitted: Admitted, verdict: Verdict, environment: Environment, evidence: tuple[str, ...]) -> Trial:
    """The trial of an admitted candidate that was not timed."""
    return Trial(
        admitted.candidate,
        verdict,
        admitted.fingerprint,
        admitted.launches,
        admitted.profile,
        environment=environment,
        evidence=evidence,
        protection=protection(admitted.walls),
    )


def _rounds_to_tf32(admitted: Admitted) -> bool:
    """Whether a dot of float32 operands rounds them once; three such products ("tf32x3") keep float32's precision."""
    for step in admitted.call:
        for compiled in step.configurations if isinstance(step, Choice) else (step,):
            if isinstance(compiled, Compiled) and re.search(
                r"tt\.dot .*inputPrecision = tf32 : tensor<[\dx]+f32", compiled.ttir
            ):
                return True
    return False


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
        elif not got.get("plain"):
            return Wrong(f"output {number} is a tensor of its own class, not a plain one")
        elif got.get("alias"):
            return Wrong(f"output {number} is an input, or a view of one")
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
