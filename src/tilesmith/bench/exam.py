"""Numbers without a GPU: what a candidate's kernels compute through Triton's interpreter, compared by the oracle.

A candidate is checked at the problem's small shapes. What is not right there is checked at the full ones, for which it
may have been made; where that is not feasible, a source that names sizes of the full shapes stays unchecked.
"""

from __future__ import annotations

import ast
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tilesmith.bench.admission import Admitted, Scene, ask, describe, failure, load, mismatch
from tilesmith.bench.effort import Effort
from tilesmith.bench.processes import Child, Process, Zygote
from tilesmith.bench.wire import Garbled, Gone, Late, Message
from tilesmith.core.errors import MachineError, ProblemError
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Correct, Estimate, Failed, Rejected, Unchecked, Verdict, Wrong

FINAL = frozenset(("timeout", "crash", "memory"))
"""Stages of failure at the small shapes that other shapes could only make worse."""
LATER_CALLS = 7
"""Calls after which an output must still be right."""
FIRST_SETS = 2
"""At full shapes, where a call may take seconds, so many sets come first: what is wrong is mostly wrong there."""
ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 4, "int64": 8, "int32": 4, "int16": 2, "bool": 1}


@dataclass(frozen=True, slots=True)
class Exam:
    """Prepared input sets at one size."""

    size: str
    outputs: list[Any]
    paths: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a candidate computes with its programs in the usual order, and in another."""

    usual: Verdict
    other: Verdict | None
    """None where the usual order's answers are not known to be right."""
    usual_s: float
    """What the usual order took."""


class Examiner:
    """An oracle on the CPU and a warm interpreter. A context manager: its processes end with the block."""

    def __init__(self, folder: str, target: Message, effort: Effort) -> None:
        """`folder` will hold inputs and answers; `target` describes the GPU to a stub driver."""
        self._folder = folder
        self._target = target
        self._effort = effort

    def __enter__(self) -> Self:
        environment = {"TRITON_DISABLE_LINE_INFO": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._oracle = Process("oracle", (), {"CUDA_VISIBLE_DEVICES": ""})
        self._interpret = Zygote("interpret", {**environment, "TRITON_INTERPRET": "1"}, (self._folder,))
        self._exams: dict[str, Exam | None] = {}
        self.scene: Scene
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interpret.close()
        self._oracle.close()

    def open(self, problem: Problem) -> None:
        """Execute the problem. Raises `ProblemError` where it cannot be."""
        load(self._oracle, problem, "full")
        self.scene = describe(self._oracle, "full")
        self._exams = {}
        if problem.settings.small:
            load(self._oracle, problem, "small")
            self._exams["small"] = self._prepare("small")
        self._problem = problem

    def _prepare(self, size: str) -> Exam | None:
        """Input sets with references; None where this size is beyond this machine."""
        if size == "full" and self._full_bytes() > self._effort.full_bytes:
            return None
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        request = {"do": "prepare", "size": size, "folder": str(folder), "sets": self._effort.sets}
        reply, _ = ask(self._oracle, {**request, "memory_bytes": self._effort.full_bytes})
        outputs = describe(self._oracle, size).outputs
        return Exam(size, outputs, tuple(reply["paths"]), tuple(reply["names"]))

    def _full_bytes(self) -> int:
        """What the reference's inputs and outputs take at full size."""
        return self.scene.input_bytes + sum(_bytes(row) for row in self.scene.outputs if "shape" in row)

    def _full(self) -> Exam | None:
        """The sets at full size, prepared when they are first asked for; None where only the small size can be."""
        if "full" not in self._exams:
            try:
                self._exams["full"] = self._prepare("full")
            except (ProblemError, MachineError):
                if "small" not in self._exams:
                    raise
                self._exams["full"] = None
        return self._exams["full"]

    def check(self, admitted: Admitted) -> Verdict:
        """The verdict on what a candidate computes; its time is the estimate of its admission.

        Every other call runs its programs from the last to the first.
        """
        estimate = Estimate(admitted.profile.time_us if admitted.profile else 0.0)
        if without := _without_interpreter(admitted):
            return without
        small = self._exams.get("small")
        verdict = self._run(admitted, small, self._effort.check_s) if small else None
        if isinstance(verdict, Correct):
            return verdict
        if isinstance(verdict, Rejected) or (isinstance(verdict, Failed) and verdict.stage in FINAL):
            return verdict
        full = self._full()
        checked = self._at_full(admitted, full) if full else None
        if isinstance(checked, Unchecked):
            return replace(checked, time=estimate)
        if checked is not None and not (isinstance(checked, Failed) and checked.stage == "timeout"):
            return checked
        if isinstance(verdict, Unchecked):
            return replace(verdict, time=estimate)
        if verdict is not None and not _made_for(admitted.candidate.source, self._problem):
            return verdict
        why = f"takes the interpreter more than {self._effort.full_s:.0f} s" if checked else "needs a GPU"
        return Unchecked(f"its numbers can only be checked at the full shapes, which {why}", estimate)

    def orders(self, admitted: Admitted) -> Orders:
        """A few calls of a candidate whose numbers are checked elsewhere, with its programs in the usual order.

        If that is right, the same with every other call from the last program to the first. What is not right at the
        small shapes, for which it may not be made, is tried at the full ones.
        """
        began = time.monotonic()
        usual: Verdict = Unchecked("its full shapes need a GPU")
        if without := _without_interpreter(admitted):
            return Orders(without, None, 0.0)
        for size in ("small", "full"):
            exam = self._full() if size == "full" else self._exams.get(size)
            if exam is None:
                continue
            few = _few(exam)
            usual = self._run(admitted, few, self._effort.check_s, backwards=False, later=0)
            if isinstance(usual, Correct):
                usual_s = time.monotonic() - began
                return Orders(usual, self._run(admitted, few, self._effort.check_s, later=0), usual_s)
        return Orders(usual, None, time.monotonic() - began)

    def _at_full(self, admitted: Admitted, exam: Exam) -> Verdict:
        deadline = time.monotonic() + self._effort.full_s
        verdict = self._run(admitted, _few(exam), self._effort.full_s, later=0)
        if not isinstance(verdict, Correct):
            return verdict
        return self._run(admitted, exam, deadline - time.monotonic())

    def _run(
        self, admitted: Admitted, exam: Exam, limit_s: float, *, backwards: bool = True, later: int = LATER_CALLS
    ) -> Verdict:
        """Run every input set in a child and have the oracle compare.

        With `backwards` every other call runs its programs from the last to the first.
        """
        folder = Path(tempfile.mkdtemp(dir=admitted.scratch))
        deadline = time.monotonic() + limit_s
        request = {
            "source": admitted.candidate.source,
            "target": self._target,
            "widen": self.scene.widen,
            "library": self._problem.settings.library,
            "backwards": backwards,
            "later": later,
        }
        with self._interpret.child(str(folder), self._effort.memory_bytes, exam.paths) as child:
            child.send({**request, "picks": list(admitted.picks), "sets": list(exam.paths)})
            try:
                return self._compare(admitted, exam, child, folder, deadline)
            except Late:
                return Failed("timeout", f"its numbers were not there within {limit_s:.0f} s")
            except Garbled as error:
                return Rejected(f"its process sent what is no answer: {error}")
            except Gone:
                ended = self._interpret.why(child)
                return Failed(ended.stage, f"in the check {ended}")
            except (KeyError, TypeError, ValueError) as error:
                return Rejected(f"its process sent what is no answer: {str(error)[:300]}")

    def _compare(self, admitted: Admitted, exam: Exam, child: Child, folder: Path, deadline: float) -> Verdict:
        reply = child.receive(deadline - time.monotonic())
        if "stage" in reply:
            return failure(reply)
        if reply["breaches"]:
            return Rejected("; ".join(dict.fromkeys(str(breach)[:300] for breach in reply["breaches"])))
        expected = [_interpreted(row) for row in exam.outputs]
        for number in range(len(exam.names)):
            if wrong := mismatch(reply["sets"][number], expected):
                return wrong
        if reply["altered"]:
            return Wrong("it writes to its inputs")
        if reply["idle"]:
            return Rejected("not every call launches a kernel of its own")
        worst = 0.0
        for number, name in enumerate(exam.names):
            answers = folder / f"set{number}"
            for index, row in enumerate(row for row in expected if "shape" in row):
                if not (answers / str(index)).is_file() or (answers / str(index)).stat().st_size != _bytes(row):
                    return Rejected("its process wrote outputs of another size than it said")
            error = self._error(exam, number, answers)
            if error is None:
                return Wrong(f"on the inputs '{name}' it returns NaN, infinity or memory that it never wrote")
            if error > 1:
                return Wrong(
                    f"on the inputs '{name}' its error is {error:.3g} times the limit ({exam.size} shapes)", error
                )
            worst = max(worst, error)
        if unseen := {launch.kernel for launch in admitted.launches} - set(reply["kernels"]):
            return Unchecked(f"at the {exam.size} shapes it does not launch {', '.join(sorted(unseen))[:200]}")
        estimate = Estimate(admitted.profile.time_us if admitted.profile else 0.0)
        return Correct(estimate, worst, len(exam.names))

    def _error(self, exam: Exam, number: int, answers: Path) -> float | None:
        request: Message = {"do": "compare", "size": exam.size, "set": number, "folder": str(answers)}
        error = ask(self._oracle, request)[0]["error"]
        return None if error is None else float(error)


def _few(exam: Exam) -> Exam:
    return replace(exam, paths=exam.paths[:FIRST_SETS], names=exam.names[:FIRST_SETS])


def _without_interpreter(admitted: Admitted) -> Unchecked | None:
    """The verdict on what the interpreter cannot run."""
    if "gluon" not in admitted.candidate.source or not _imports_gluon(admitted.candidate.source):
        return None
    estimate = Estimate(admitted.profile.time_us if admitted.profile else 0.0)
    return Unchecked("Gluon kernels have no interpreter: a GPU is needed to check their numbers", estimate)


def _bytes(row: Message) -> int:
    count = 1
    for size in row["shape"]:
        count *= int(size)
    return count * ELEMENT_BYTES.get(row["dtype"], 1)


def _interpreted(row: Message) -> Message:
    """An output's description as the interpreter makes it: bfloat16 is float32 there."""
    return {**row, "dtype": "float32"} if row.get("dtype") == "bfloat16" else row


def _imports_gluon(source: str) -> bool:
    names = [
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    ]
    return any("gluon" in name for name in names)


def _made_for(source: str, problem: Problem) -> bool:
    """Whether a source names, as a literal, a size that the problem has at full shapes and not at small ones."""
    small = problem.settings.small
    full = _constants(problem, tuple(small))
    literals = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    sizes = {value for name, value in full.items() if isinstance(value, int) and value > 1 and value != small[name]}
    return bool((sizes - set(small.values())) & literals)


def _constants(problem: Problem, names: tuple[str, ...]) -> dict[str, Any]:
    """The values that these top-level constants have at full size."""
    found: dict[str, Any] = {}
    for node in ast.parse(problem.source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found.update({t.id: node.value.value for t in node.targets if isinstance(t, ast.Name) and t.id in names})
    return {**found, **{name: value for name, value in problem.settings.large.items() if name in names}}
