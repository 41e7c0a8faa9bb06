"""The bench on a Ray cluster.

The order of judging is the one of every bench (`pipeline.py`) and runs here, with the search. Each of its steps is one
call of a worker: capture and compilation where cores are free, on nodes without a GPU first; then, once it is known
what a candidate compiles to, the check and the time on a GPU of the one kind that is used. So duplicates are found
before they are timed, wherever they were compiled, and no more candidates are under way than there are places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tilesmith.bench.admission import Admitted, libraries, untimed
from tilesmith.bench.effort import Effort
from tilesmith.bench.pipeline import judge
from tilesmith.bench.ray.crew import ATTEMPTS, Crew, Lost
from tilesmith.bench.ray.reach import chosen, connected
from tilesmith.core.activity import Notice, unnoticed
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Candidate, Correct, Environment, Failed, Timing, Trial, Verdict


class RayBench:
    """Judges on the nodes of a Ray cluster. A context manager: its workers end with the block."""

    def __init__(
        self,
        address: str | None = None,
        target: str | None = None,
        otherwise: str | None = None,
        workers_per_gpu: int = 3,
        effort: Effort | None = None,
        say: Callable[[str], None] = lambda _: None,
        notice: Notice = unnoticed,
    ) -> None:
        """`target` names the kind of GPU to use, or to estimate for where the cluster has none; else `otherwise`.

        Raises `OptionError` for an address that can be none, and where Ray is not installed. Connects when entered.
        """
        self.address = chosen(address)
        self._target = target
        self._otherwise = otherwise
        self._workers_per_gpu = workers_per_gpu
        self._effort = effort or Effort()
        self._say = say
        self._notice = notice

    def __enter__(self) -> Self:
        with ExitStack() as life:
            ray = life.enter_context(connected(self.address))
            self._crew = Crew(
                ray, self._say, self._effort, self._workers_per_gpu, self._target, self._otherwise, self._notice
            )
            life.callback(self._crew.close)
            self._life = life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    @property
    def gpu(self) -> Gpu:
        """What candidates are compiled for."""
        return self._crew.plan.gpu

    @property
    def measured(self) -> bool:
        """Whether the cluster has GPUs, so that times are measured."""
        return self._crew.plan.measured

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs that it has now, as leases name them: "node/0"."""
        return self._crew.devices

    @property
    def environment(self) -> Environment:
        """What a trial says of where it was judged, where only this process knows of it."""
        return replace(self._crew.environment, bench="ray")

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """See `tilesmith.core.seams.Bench`. Raises `MachineError` where `trials` were timed on another kind of GPU."""
        self._compare(trials)
        self._crew.everyone("open", problem)
        try:
            self._crew.call("check", "open", problem)
        except Lost as lost:
            raise MachineError(f"each of {ATTEMPTS} workers that executed the problem was lost: {lost}") from None
        places = (self._crew.places("admit"), self._crew.places("check"))
        yield from judge(self, problem, candidates, trials, *places, self._notice)

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        """See `tilesmith.bench.pipeline.Steps`."""
        try:
            admitted: Admitted = self._crew.call("admit", "admit", problem, candidate)
        except Lost as lost:
            return Admitted(candidate, Path(), _deadly("captured", lost))
        return admitted

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`."""
        try:
            trial: Trial = self._crew.call("check", "check", problem, admitted, rival)
        except Lost as lost:
            return self.settle(admitted, _deadly("checked", lost))
        return self._named(trial)

    def settle(self, admitted: Admitted, verdict: Verdict) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`."""
        return untimed(admitted, verdict, self.environment, () if self.measured else libraries(admitted))

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """See `tilesmith.core.seams.Bench`."""
        try:
            found: Profile = self._crew.call("check", "profile", problem, trial, blame=False)
        except Lost as lost:
            raise MachineError(f"each of {ATTEMPTS} workers that profiled it was lost: {lost}") from None
        return found

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """See `tilesmith.core.seams.Bench`; both are timed on the same GPU."""
        try:
            trial: Trial = self._crew.call("check", "confirm", problem, finalist, baseline)
        except Lost as lost:
            return replace(finalist, verdict=_deadly("confirmed", lost))
        return self._named(trial)

    def _named(self, trial: Trial) -> Trial:
        return replace(trial, environment=replace(trial.environment or self.environment, bench="ray"))

    def _compare(self, trials: Sequence[Trial]) -> None:
        """Raises `MachineError` where the cluster's times could not be compared with those of the run."""
        here = self._crew.plan
        for trial in trials:
            if isinstance(trial.verdict, Correct) and trial.environment is not None:
                measured = isinstance(trial.verdict.time, Timing)
                kind = trial.environment.gpu if measured else trial.environment.target
                ours = here.kind if here.measured else here.gpu.name
                if (measured, kind) != (here.measured, ours):
                    theirs = f"measured on {kind}" if measured else f"estimates for {kind}"
                    mine = f"measures on {ours}" if here.measured else f"estimates for {ours}"
                    raise MachineError(
                        f"the times of this run are {theirs}, and the Ray cluster {mine}: the two are never compared; "
                        "name a cluster like the first, or begin a new run"
                    )


def _deadly(done: str, lost: Lost) -> Failed:
    """The verdict on a candidate that took one worker after another with it."""
    return Failed("crash", f"each of the {ATTEMPTS} workers that {done} it was lost: {str(lost)[:500]}")
