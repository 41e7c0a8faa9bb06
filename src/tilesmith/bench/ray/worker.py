"""What runs on a node: a whole bench of one host, with one GPU or with none.

An actor is on the controller's side of every wall. Its bench starts oracle and runners as processes of their own, with
an environment of a few names, and no descriptor of Ray's; so a candidate is exactly as far from Ray's sockets, memory
and variables as it is from the controller on one machine.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, replace

from tilesmith.bench import gpus
from tilesmith.bench.admission import Admitted
from tilesmith.bench.effort import Effort
from tilesmith.bench.local import LocalBench
from tilesmith.bench.offline import OfflineBench
from tilesmith.bench.packing import pack, unpack
from tilesmith.core.activity import Step
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Candidate, Environment, Trial


@dataclass(frozen=True, slots=True)
class Duty:
    """What one worker is for."""

    gpu: Gpu
    measured: bool
    """Whether it owns a GPU of the kind that is used."""
    alone: bool
    """Whether what it admits is checked by itself or its like: then nothing compiled has to travel."""
    jobs: int
    """Candidates that it admits at a time."""
    slots: int
    """Candidates that it checks at a time; 0 for one that only captures and compiles."""
    node: str
    """The node's name, for people."""
    effort: Effort


class Worker:
    """The actor. Its methods may be called by several threads at once; each says which problem it is about."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._bench: LocalBench | OfflineBench
        self._opening = threading.Lock()
        self._steps: deque[Step] = deque()
        self._device = ""
        if duty.measured:
            devices = gpus.find()
            if len(devices) != 1:
                raise MachineError(f"Ray lent one GPU on {os.uname().nodename}, and nvidia-smi shows {len(devices)}")
            self._device = f"{duty.node}/{devices[0].index}"
            self._bench = LocalBench(devices, duty.slots, duty.jobs, duty.effort, self._steps.append)
        else:
            self._bench = OfflineBench(duty.gpu, duty.jobs, duty.effort)
        self._bench.__enter__()

    def about(self) -> tuple[Environment, str]:
        """What this worker's trials say of where they were judged, and its GPU as leases of it are named."""
        return self._bench.environment, self._device

    def steps(self) -> tuple[Step, ...]:
        """What its candidates did on its GPU since this was last asked; asked by one at a time."""
        news = [self._steps.popleft() for _ in range(len(self._steps))]
        return tuple(replace(step, device=self._device) if step.device else step for step in news)

    def open(self, problem: Problem) -> None:
        """Have the reference executed. Raises `ProblemError`."""
        with self._opening:
            self._bench.open(problem)

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        """Capture and compile; what is to be checked elsewhere comes back packed."""
        self.open(problem)
        admitted = self._bench.admit(problem, candidate)
        packed = None if self._duty.alone or admitted.verdict is not None else pack(admitted.scratch)
        self._bench.admission.discard(admitted)
        return replace(admitted, packed=packed)

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        """Check, and time or estimate, what any worker admitted."""
        self.open(problem)
        scratch = self._bench.admission.scratch()
        if admitted.packed is not None:
            unpack(admitted.packed, scratch)
        return self._named(self._bench.check(problem, replace(admitted, scratch=scratch, packed=None), rival))

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """See `tilesmith.core.seams.Bench`."""
        self.open(problem)
        return self._named(self._bench.confirm(problem, finalist, baseline))

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """See `tilesmith.core.seams.Bench`."""
        return self._bench.profile(problem, trial)

    def _named(self, trial: Trial) -> Trial:
        """The same with the node's name before the number of its GPU."""
        leases = tuple(replace(lease, device=self._device) for lease in trial.leases)
        return replace(trial, leases=leases)

    def close(self) -> None:
        """End every process of its bench."""
        self._bench.__exit__(None, None, None)
