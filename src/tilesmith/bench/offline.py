"""The bench without a GPU: real compilation, numbers from Triton's interpreter, time from a roofline model."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from tilesmith.bench.admission import Admission, Admitted, libraries, protection
from tilesmith.bench.effort import Effort
from tilesmith.bench.exam import Examiner
from tilesmith.bench.pipeline import judge_in_order
from tilesmith.bench.processes import Zygote
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Candidate, Cost, Environment, Trial, Verdict


class OfflineBench:
    """Judges without a GPU. A context manager: its processes end with the block."""

    def __init__(self, gpu: Gpu, jobs: int | None = None, effort: Effort | None = None) -> None:
        self.gpu = gpu
        self.jobs = jobs or os.cpu_count() or 1
        self.effort = effort or Effort()

    def __enter__(self) -> Self:
        environment = {"TRITON_DISABLE_LINE_INFO": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._life = ExitStack()
        folder = self._life.enter_context(tempfile.TemporaryDirectory(prefix="tilesmith-"))
        capture = self._life.enter_context(Zygote("capture", environment, (folder,)))
        self._admission = Admission(self.gpu, capture, self.effort, Path(folder))
        self._examiner = self._life.enter_context(Examiner(folder, self._admission.target, self.effort))
        self._problem: str | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """See `tilesmith.core.seams.Bench`. Raises `ProblemError` where the reference cannot be executed."""
        if self._problem != problem.id:
            self._problem = None
            self._examiner.open(problem)
            self._problem = problem.id
        clock: dict[str, float] = {}

        def admit(candidate: Candidate) -> Admitted:
            clock[candidate.id] = time.monotonic()
            return self._admission.admit(problem, candidate, self._examiner.scene)

        def settle(admitted: Admitted, verdict: Verdict) -> Trial:
            self._admission.discard(admitted)
            spent = Cost(wall_s=time.monotonic() - clock[admitted.candidate.id])
            return Trial(
                admitted.candidate,
                verdict,
                admitted.fingerprint,
                admitted.launches,
                admitted.profile,
                spent,
                self._environment(),
                evidence=libraries(admitted),
                protection=protection(admitted.walls),
            )

        def check(admitted: Admitted) -> Trial:
            return settle(admitted, self._examiner.check(admitted))

        yield from judge_in_order(candidates, trials, admit, check, settle, self.jobs, self.jobs)

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """See `tilesmith.core.seams.Bench`: an estimate from the compiled code."""
        del problem
        if trial.profile is None:
            raise MachineError("there is no profile of a candidate that was not compiled")
        return trial.profile

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """See `tilesmith.core.seams.Bench`. The interpreter knows no races and no clock: once more is enough."""
        del baseline
        (trial,) = self.judge(problem, [finalist.candidate], ())
        return replace(trial, round=finalist.round)

    def _environment(self) -> Environment:
        python = platform.python_version()
        return Environment("offline", self.gpu.name, None, None, version("torch"), version("triton"), python)
