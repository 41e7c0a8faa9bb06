"""The bench without a GPU: real compilation, numbers from Triton's interpreter, time from a roofline model."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from tilesmith.bench.admission import Admission, Admitted, libraries, untimed
from tilesmith.bench.effort import Effort
from tilesmith.bench.exam import Examiner
from tilesmith.bench.pipeline import judge
from tilesmith.bench.processes import Zygote
from tilesmith.bench.workshop import workshop
from tilesmith.core.activity import Notice, unnoticed
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Candidate, Environment, Trial, Verdict


class OfflineBench:
    """Judges without a GPU. A context manager: its processes end with the block."""

    def __init__(
        self, gpu: Gpu, jobs: int | None = None, effort: Effort | None = None, notice: Notice = unnoticed
    ) -> None:
        self.gpu = gpu
        self._notice = notice
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.effort = effort or Effort()

    def __enter__(self) -> Self:
        environment = {"TRITON_DISABLE_LINE_INFO": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._life = ExitStack()
        folder = self._life.enter_context(workshop())
        capture = self._life.enter_context(Zygote("capture", environment, (folder,)))
        self.admission = Admission(self.gpu, capture, self.effort, Path(folder))
        self._examiner = self._life.enter_context(Examiner(folder, self.admission.target, self.effort))
        self._problem: str | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """See `tilesmith.core.seams.Bench`. Raises `ProblemError` where the reference cannot be executed."""
        self.open(problem)
        yield from judge(self, problem, candidates, trials, self.jobs, self.jobs, self._notice)

    def open(self, problem: Problem) -> None:
        """Make the inputs and the expected outputs, where that is not yet done. Raises `ProblemError`."""
        if self._problem != problem.id:
            self._problem = None
            self._examiner.open(problem)
            self._problem = problem.id

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        """See `tilesmith.bench.pipeline.Steps`; the problem must be open."""
        return self.admission.admit(problem, candidate, self._examiner.scene)

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`. The interpreter has no clock, and so no rival."""
        del problem, rival
        return self.settle(admitted, self._examiner.check(admitted))

    def settle(self, admitted: Admitted, verdict: Verdict) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`."""
        self.admission.discard(admitted)
        return untimed(admitted, verdict, self.environment, libraries(admitted))

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

    @property
    def environment(self) -> Environment:
        """What every trial of this bench says of where it was judged."""
        python = platform.python_version()
        return Environment("offline", self.gpu.name, None, None, version("torch"), version("triton"), python)
