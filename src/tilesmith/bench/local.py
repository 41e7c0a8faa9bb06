"""The bench on this host's GPUs.

Per GPU: an oracle that holds inputs and answers in that GPU's memory, a warm runner that forks a child a candidate, a
lease shared for checks and exclusive for timing, and the fastest candidate so far in a child of its own that stays, so
that every new one is timed in alternation with it. Capture and compilation run on CPU cores, outside any lease.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tilesmith.bench import counters
from tilesmith.bench.admission import (
    Admission,
    Admitted,
    Scene,
    ask,
    describe,
    failure,
    load,
    mismatch,
    protection,
    words,
)
from tilesmith.bench.clocks import Clocks, read
from tilesmith.bench.compiled import Choice, Compiled
from tilesmith.bench.effort import Effort
from tilesmith.bench.exam import FIRST_SETS, Examiner
from tilesmith.bench.gpus import Device, lease
from tilesmith.bench.pipeline import judge
from tilesmith.bench.processes import Child, Process, Zygote
from tilesmith.bench.sanitizer import sanitize
from tilesmith.bench.timing import BLOCKS, alternate
from tilesmith.bench.wire import Garbled, Gone, Late, Message
from tilesmith.bench.workshop import workshop
from tilesmith.core.activity import Notice, Step, unnoticed
from tilesmith.core.errors import MachineError
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Environment,
    Failed,
    Lease,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Verdict,
    Wrong,
)

CONFIRMATIONS = 20
"""Times that a finalist's numbers are checked on every input set, and again on inputs that change."""
UNTOLD = 3
"""Times that a comparison is made again whose inputs happen to be of no use."""
SLOW_SHARE = 0.25
"""Of a check's deadline: what takes longer with its programs in the usual order may miss it in another by chance."""
FLOOR_SHARE = 0.9
"""Of the time that the least traffic takes at the datasheet's bandwidth: what claims to be faster is not believed."""


class Stopped(Exception):
    """Ends the judging of one candidate with a verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


@dataclass(slots=True)
class Runner:
    """A candidate in a child of its own, with the inputs open."""

    candidate: Candidate
    child: Child
    slot: int
    life: ExitStack
    scratch: str
    traced: bool = False
    """Whether the driver tells what it launches."""

    @property
    def walls(self) -> tuple[str, ...]:
        return (*self.child.walls, *(["launches seen at the driver"] if self.traced else []))

    def ask(self, message: Message, timeout_s: float, what: str, zygote: Zygote, packet: bytes = b"") -> Message:
        """A reply. Raises `Stopped` with the verdict where there is none or it tells of a failure."""
        try:
            self.child.send(message, packet)
            reply = self.child.receive(timeout_s)
        except Late:
            raise Stopped(Failed("timeout", f"{what} took more than {timeout_s:.0f} s")) from None
        except Garbled as error:
            raise Stopped(Rejected(f"its process sent what is no answer: {error}")) from None
        except Gone:
            ended = zygote.why(self.child)
            raise Stopped(Failed(ended.stage, f"in {what} {ended}")) from None
        if "machine" in reply:
            raise MachineError(f"a runner cannot use its GPU: {str(reply['machine'])[:500]}")
        if "stage" in reply:
            raise Stopped(failure(reply))
        return reply


@dataclass(frozen=True, slots=True)
class Judged:
    """What a station found out about one candidate."""

    verdict: Verdict
    cost: Cost = field(default_factory=Cost)
    tuned: tuple[int, ...] = ()
    """The configurations that autotuning chose, by their places in the source."""
    walls: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    stays: bool = False
    """Whether its process goes on as the rival of the next ones, and needs its scratch folder."""
    leases: tuple[Lease, ...] = ()


class Station:
    """One GPU of this host with its processes."""

    def __init__(
        self,
        device: Device,
        slots: int,
        environment: dict[str, str],
        effort: Effort,
        folder: str,
        notice: Notice,
        *,
        walled: bool,
    ) -> None:
        self.device = device
        self._notice = notice
        self._effort = effort
        self.free = slots
        visible = {"CUDA_VISIBLE_DEVICES": device.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        self.oracle = Process("oracle", (), visible)
        self.zygote = Zygote("device", {**environment, **visible}, (folder,), walled=walled)
        self.names: list[str] = []
        self.least_bytes = 0
        # Beside those that are judged, the fastest so far and two of a finalist's.
        self._slots = set(range(slots + 3))
        self._lock = threading.Lock()
        self._rival: Runner | None = None
        self._dirty = False
        """Whether inputs were found changed and not yet made what they were."""
        self._folder = folder
        self._library = False

    def load(self, problem: Problem) -> None:
        """Make the inputs and the expected outputs on the GPU."""
        self._retire()
        load(self.oracle, problem, "full")
        # Alone, so that of two who begin at once the second sees what the first has taken.
        with lease(self.device.uuid, "exclusive"):
            asked = {"sets": self._effort.sets, "gpu_share": self._effort.gpu_share, "slots": len(self._slots)}
            reply, _ = ask(self.oracle, {"do": "hold", "size": "full", **asked})
        self.names, self.least_bytes = reply["names"], reply["least_bytes"]
        self._library = problem.settings.library

    @contextmanager
    def _held(self, mode: Literal["shared", "exclusive"], candidate: Candidate, leases: list[Lease]) -> Iterator[None]:
        """Lease the GPU for a candidate, write down when, and tell who watches."""
        name, alone = str(self.device.index), mode == "exclusive"
        waits = Step(candidate.id, "judging", candidate.origin)
        with lease(self.device.uuid, mode):
            began_s = time.time()
            self._notice(replace(waits, device=name, exclusive=alone))
            try:
                yield
            finally:
                leases.append(Lease(name, began_s, time.time(), alone))
                self._notice(waits)

    def judge(
        self, admitted: Admitted, scene: Scene, rival: Candidate | None, leases: list[Lease], *, alone: bool
    ) -> Judged:
        """Check, then time; the GPU is leased for no longer than either takes, and each lease noted.

        With `alone` nobody else runs on the GPU during the check either. Raises `Disturbed` where others did and the
        inputs were found changed.
        """
        tuned: tuple[int, ...] = ()
        runner: Runner | None = None
        walls = admitted.walls
        try:
            with self._held("exclusive" if alone else "shared", admitted.candidate, leases):
                if alone and self._dirty:
                    ask(self.oracle, {"do": "restore", "size": "full"})
                    self._dirty = False
                runner = self._open(admitted.candidate, str(admitted.scratch))
                walls = runner.walls
                error, tuned = self._check(runner, admitted, scene, alone=alone)
            with self._held("exclusive", admitted.candidate, leases):
                began = time.monotonic()
                timing, measured_s = self._time(runner, admitted, scene, rival)
                evidence = self._shares(runner) if self._library else ()
                if stays := timing.rival_us is None or timing.time_us < timing.rival_us:
                    self._retire()
                    self._rival, runner = runner, None
                cost = Cost(gpu_s=time.monotonic() - began, measured_s=measured_s)
            right = Correct(timing, error, len(self.names) + 1)
            return Judged(right, cost, tuned, walls, evidence, stays, tuple(leases))
        except Stopped as stopped:
            return Judged(stopped.verdict, Cost(), tuned, walls, leases=tuple(leases))
        finally:
            if runner is not None:
                runner.life.close()

    def confirm(self, admitted: Admitted, scene: Scene, baseline: Candidate | None) -> Judged:
        """Check again and again: two processes at once, so that launches meet a busy GPU; then alone; then time."""
        leases: list[Lease] = []
        with ExitStack() as life:
            try:
                # Each in a folder of its own: what one writes while it starts the other would read half done.
                second = tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True)
                folders = (str(admitted.scratch), life.enter_context(second))
                with self._held("shared", admitted.candidate, leases), ThreadPoolExecutor(2) as pool:
                    opening = [pool.submit(self._open, admitted.candidate, folder) for folder in folders]
                    runners = []
                    for opened in opening:
                        runners.append(opened.result())
                        life.callback(runners[-1].life.close)
                    repeats = [pool.submit(self._repeat, runner, admitted, scene) for runner in runners]
                    error = max(repeat.result() for repeat in repeats)
                with self._held("exclusive", admitted.candidate, leases):
                    began = time.monotonic()
                    for _ in range(CONFIRMATIONS):
                        self._batch(runners[0], admitted, scene, 1, compared=True)
                    rival = baseline if baseline and baseline.id != admitted.candidate.id else None
                    self._retire()
                    timing, measured_s = self._time(runners[0], admitted, scene, rival)
                    evidence = self._shares(runners[0]) if self._library else ()
                    cost = Cost(gpu_s=time.monotonic() - began, measured_s=measured_s)
                comparisons = CONFIRMATIONS * len(self.names) + CONFIRMATIONS + 1
                right = Correct(timing, error, comparisons)
                return Judged(right, cost, (), runners[0].walls, evidence, leases=tuple(leases))
            except Stopped as stopped:
                return Judged(stopped.verdict, walls=admitted.walls, leases=tuple(leases))
            except Disturbed:
                return Judged(self._spoilt().verdict, walls=admitted.walls, leases=tuple(leases))

    def _repeat(self, runner: Runner, admitted: Admitted, scene: Scene) -> float:
        return max(self._check(runner, admitted, scene, alone=False)[0] for _ in range(CONFIRMATIONS // 2))

    def _open(self, candidate: Candidate, scratch: str) -> Runner:
        with self._lock:
            slot = self._slots.pop()
        life = ExitStack()
        life.callback(self._slots.add, slot)
        try:
            child = life.enter_context(self.zygote.child(scratch))
            _, packet = ask(self.oracle, {"do": "lend", "size": "full", "slot": slot})
            runner = Runner(candidate, child, slot, life, scratch)
            message = {"do": "open", "source": candidate.source, "gpu_share": self._effort.candidate_share}
            reply = runner.ask(message, self._effort.open_s, "its import", self.zygote, packet)
            runner.traced = reply.get("traced") is True
            return runner
        except BaseException:
            life.close()
            raise

    def _check(self, runner: Runner, admitted: Admitted, scene: Scene, *, alone: bool) -> tuple[float, tuple[int, ...]]:
        reply = runner.ask({"do": "check"}, self._effort.check_s, "the check", self.zygote)
        try:
            tuned = tuple(int(number) for number in reply["tuned"])
            if breach := launched(reply, admitted, library=self._library):
                raise Stopped(breach)
            error, intact = self._collect(runner, list(reply["sets"]), scene)
        except (KeyError, TypeError, ValueError) as fault:
            raise _garbled(fault) from fault
        if intact:
            return error, tuned
        if alone:
            raise self._spoilt()
        self._dirty = True
        raise Disturbed

    def _collect(self, runner: Runner, sets: list[Any], scene: Scene) -> tuple[float, bool]:
        """The largest scaled error of the delivered answers, and whether the inputs are what they were."""
        if len(sets) != len(self.names):
            raise ValueError("answers to another number of input sets")
        worst = 0.0
        for number, (rows, name) in enumerate(zip(sets, self.names, strict=True)):
            if wrong := mismatch(rows, scene.outputs):
                raise Stopped(wrong)
            reply, _ = ask(self.oracle, {"do": "collect", "size": "full", "slot": runner.slot, "set": number})
            if not reply["intact"]:
                return worst, False
            worst = max(worst, _within(reply["error"], f"on the inputs '{name}'"))
        return worst, True

    def _time(self, runner: Runner, admitted: Admitted, scene: Scene, rival: Candidate | None) -> tuple[Timing, float]:
        """Under an exclusive lease: alternate with the rival; of one block, nobody knows which, the answer counts."""
        opponent = self._opponent(runner.candidate, rival)
        measured_s = 0.0
        chosen, blocks = 1 + secrets.randbelow(BLOCKS), 0
        seen: list[Clocks] = []

        def own(launches: int) -> list[float]:
            nonlocal blocks, measured_s
            times, took_s = self._batch(runner, admitted, scene, launches, compared=blocks == chosen)
            measured_s += took_s
            blocks += 1
            if clocks := read(self.device.uuid):
                seen.append(clocks)
            return times

        def theirs(launches: int) -> list[float]:
            nonlocal measured_s
            if opponent is None:
                return []
            try:
                times, took_s, _ = self._timed(opponent, launches)
            except Stopped as stopped:
                self._retire()
                raise MachineError(f"the fastest candidate so far failed while it was timed again: {stopped}") from None
            measured_s += took_s
            return times

        timing = alternate(own, theirs if opponent else None, opponent.candidate.id if opponent else None)
        if blocks <= chosen:
            self._batch(runner, admitted, scene, 1, compared=True)
        floor_us = 1e6 * self.least_bytes / self.device.gpu.dram_bytes_per_s
        if timing.time_us < FLOOR_SHARE * floor_us:
            wall_us = 1e6 * measured_s
            raise Stopped(
                Rejected(
                    f"it claims {timing.time_us:.1f} us a launch, moving its inputs and outputs takes {floor_us:.1f} "
                    f"us at the least, and our clock saw {wall_us:.0f} us for all"
                )
            )
        if seen:
            clocks = [each.sm_mhz for each in seen]
            held = sorted(frozenset().union(*(each.throttled for each in seen)))
            timing = replace(timing, sm_mhz=(min(clocks), max(clocks)), throttled=tuple(held))
        return timing, measured_s

    def _batch(
        self, runner: Runner, admitted: Admitted, scene: Scene, launches: int, *, compared: bool
    ) -> tuple[list[float], float]:
        """Timed launches of a candidate, watched; with `compared` the answer of the last one counts."""
        times, took_s, reply = self._timed(runner, launches)
        told = self._watched(runner, reply, admitted, scene, compared=compared)
        for _ in range(UNTOLD):
            told = told or self._watched(runner, self._timed(runner, 1)[2], admitted, scene, compared=True)
        if not told:
            raise Stopped(Wrong("the inputs of its timed launches become such that the reference returns no number"))
        return times, took_s

    def _watched(self, runner: Runner, reply: Message, admitted: Admitted, scene: Scene, *, compared: bool) -> bool:
        """Whether its answer was compared, where that is asked for. Raises `Stopped` for what must not be."""
        try:
            if breach := launched(reply, admitted, library=self._library):
                raise Stopped(breach)
            if not compared:
                return True
            if wrong := mismatch(reply["outputs"], scene.outputs):
                raise Stopped(wrong)
            moved, _ = ask(self.oracle, {"do": "moved", "size": "full", "slot": runner.slot})
            if moved["told"]:
                _within(moved["error"], "in timed launches, whose inputs change,")
            return bool(moved["told"])
        except (KeyError, TypeError, ValueError) as fault:
            raise _garbled(fault) from fault

    def _timed(self, runner: Runner, launches: int) -> tuple[list[float], float, Message]:
        """Microseconds of each launch by the device's clock, seconds of all by ours, and the reply."""
        began = time.monotonic()
        reply = runner.ask({"do": "time", "launches": launches}, self._effort.time_s, "timing", self.zygote)
        took_s = time.monotonic() - began
        try:
            times = [float(value) for value in reply["times_us"]]
            if len(times) != launches or not all(value > 0 for value in times):
                raise ValueError("times that are none")
        except (KeyError, TypeError, ValueError) as fault:
            raise _garbled(fault) from fault
        if sum(times) > 1e6 * took_s:
            raise Stopped(
                Rejected(f"its launches took {sum(times):.0f} us by its clock, {1e6 * took_s:.0f} us by ours")
            )
        return times, took_s, reply

    def _shares(self, runner: Runner) -> tuple[str, ...]:
        """A line for each kernel of a call: its share of the device's time."""
        reply = runner.ask({"do": "shares"}, self._effort.time_s, "timing", self.zygote)
        try:
            spent = {str(name): float(us) for name, us in reply["shares_us"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise _garbled(fault) from fault
        total = sum(spent.values()) or 1.0
        ranked = sorted(spent.items(), key=lambda row: -row[1])
        return tuple(f"kernel {name[:200]}: {100 * us / total:.0f} % of the time" for name, us in ranked)

    def _spoilt(self) -> Stopped:
        """Under an exclusive lease it is clear who changed the inputs. Make them what they were."""
        ask(self.oracle, {"do": "restore", "size": "full"})
        self._dirty = False
        return Stopped(Wrong("it writes to its inputs"))

    def _opponent(self, candidate: Candidate, rival: Candidate | None) -> Runner | None:
        """The fastest on this GPU, in its child; before there is one, the fastest of the run so far."""
        if self._rival is None and rival is not None and rival.id != candidate.id:
            try:
                self._rival = self._open(rival, tempfile.mkdtemp(dir=self._folder))
                self._rival.ask({"do": "check"}, self._effort.check_s, "the check", self.zygote)
            except Stopped:
                self._retire()
        return self._rival

    def _retire(self) -> None:
        if self._rival is not None:
            self._rival.life.close()
            shutil.rmtree(self._rival.scratch, ignore_errors=True)
            self._rival = None

    def close(self) -> None:
        self._retire()
        self.zygote.close()
        self.oracle.close()


_FRAMEWORK = re.compile(r"FillFunctor|copy_kernel|CatArrayBatchedCopy|arange")
"""In the names of the framework's kernels that a candidate may start: fills and copies."""


def launched(reply: Message, admitted: Admitted, *, library: bool) -> Verdict | None:
    """The verdict on what the driver saw launched, where it is not the candidate's own work.

    With `library` the framework's kernels may do a part of it, or all.
    """
    if reply["launches"] is None:
        return None
    calls = [{str(name) for name in call} for call in reply["launches"]]
    own: set[str] = set()
    for step in admitted.call:
        steps = step.configurations if isinstance(step, Choice) else (step,)
        own |= {each.launch.kernel for each in steps if isinstance(each, Compiled)}
    foreign = [name for call in calls for name in call if name not in own and not _FRAMEWORK.search(name)]
    if foreign and not library:
        return Rejected(f"it starts a kernel that is not its own: {foreign[0][:300]}")
    if any(not (call if library else call & own) for call in calls):
        return Rejected("not every call launches a kernel of its own")
    if any(reply["streams"]):
        return Rejected("it launches on a stream of its own, where no event of ours sees it end")
    if reply["others"]:
        return Rejected(f"it calls {', '.join(str(name) for name in reply['others'])[:200]}")
    return None


def _untried(why: str) -> Judged:
    told = f"that its programs may run in any order could not be tried: {why}"
    return Judged(Unchecked(told), evidence=(told[:300],))


def _garbled(fault: Exception) -> Stopped:
    return Stopped(Rejected(f"its process sent what is no answer: {str(fault)[:300]}"))


def _within(error: float | None, where: str) -> float:
    """The error, where it is within the limit. Raises `Stopped` where it is not."""
    if error is None:
        raise Stopped(Wrong(f"{where} it returns NaN, infinity or memory that it never wrote"))
    if error > 1:
        raise Stopped(Wrong(f"{where} its error is {error:.3g} times the limit", error))
    return error


class Disturbed(Exception):
    """Inputs changed while several candidates were running: nobody knows who did it."""


class LocalBench:
    """Judges on GPUs of this host. A context manager: its processes end with the block."""

    def __init__(
        self,
        devices: Sequence[Device],
        workers_per_gpu: int = 3,
        jobs: int | None = None,
        effort: Effort | None = None,
        notice: Notice = unnoticed,
        *,
        walled: bool = True,
    ) -> None:
        """Without walls candidates can do harm; that is for measuring what the walls cost."""
        if not devices:
            raise MachineError("no NVIDIA GPU was found; use --bench offline")
        self.devices = tuple(devices)
        self.workers_per_gpu = workers_per_gpu
        self._notice = notice
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.effort = effort or Effort()
        self._walled = walled
        self._without_counters = ""
        """Why no candidate can be profiled here, once that is known."""

    def __enter__(self) -> Self:
        environment = {"TRITON_DISABLE_LINE_INFO": "1", "OMP_NUM_THREADS": "1"}
        self._place = ExitStack()
        self._folder = self._place.enter_context(workshop())
        folder, walled = self._folder, self._walled
        self._capture = Zygote("capture", {**environment, "CUDA_VISIBLE_DEVICES": ""}, (folder,), walled=walled)
        self._stations = [
            Station(device, self.workers_per_gpu, environment, self.effort, folder, self._notice, walled=walled)
            for device in self.devices
        ]
        self.admission = Admission(self.devices[0].gpu, self._capture, self.effort, Path(folder))
        self._turn = threading.Condition()
        self._problem: str | None = None
        self._scene: Scene
        self._life = ExitStack()
        self._examiner: Examiner | None = None
        """Started for the first finalist."""
        self._examined: str | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()
        self._capture.close()
        for station in self._stations:
            station.close()
        self._place.close()

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:
        """See `tilesmith.core.seams.Bench`. Raises `ProblemError` where the reference cannot be executed."""
        self.open(problem)
        slots = self.workers_per_gpu * len(self._stations)
        yield from judge(self, problem, candidates, trials, self.jobs, slots, self._notice)

    def open(self, problem: Problem) -> None:
        """Make the inputs and the expected outputs on each GPU, where that is not yet done. Raises `ProblemError`."""
        if self._problem != problem.id:
            self._open(problem)

    def admit(self, problem: Problem, candidate: Candidate) -> Admitted:
        """See `tilesmith.bench.pipeline.Steps`; the problem must be open."""
        return self.admission.admit(problem, candidate, self._scene)

    def check(self, problem: Problem, admitted: Admitted, rival: Candidate | None) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`."""
        del problem
        station = self._claim()
        try:
            judged = self._judge(station, admitted, rival)
        finally:
            self._release(station)
        admitted = self.admission.tuned(admitted, judged.tuned) if judged.tuned else admitted
        if not judged.stays:
            self.admission.discard(admitted)
        return self._trial(admitted, judged, station.device)

    def settle(self, admitted: Admitted, verdict: Verdict) -> Trial:
        """See `tilesmith.bench.pipeline.Steps`."""
        self.admission.discard(admitted)
        return self._trial(admitted, Judged(verdict, walls=admitted.walls), self.devices[0])

    def profile(self, problem: Problem, trial: Trial) -> Profile:
        """See `tilesmith.core.seams.Bench`: hardware counters, once for every fingerprint that it is asked for."""
        if self._without_counters:
            raise MachineError(self._without_counters)
        try:
            return counters.profile(self.devices[0], problem, trial.candidate.source, self._folder)
        except counters.Unavailable as error:
            self._without_counters = str(error)
            raise

    def confirm(self, problem: Problem, finalist: Trial, baseline: Candidate | None) -> Trial:
        """See `tilesmith.core.seams.Bench`."""
        self.open(problem)
        began = time.monotonic()
        self._notice(Step(finalist.candidate.id, "capturing", finalist.candidate.origin))
        admitted = self.admission.admit(problem, finalist.candidate, self._scene)
        judged = Judged(admitted.verdict, walls=admitted.walls) if admitted.verdict else self._race(problem, admitted)
        if isinstance(judged.verdict, Correct | Unchecked):
            seen = judged.evidence
            judged = self._stations[0].confirm(admitted, self._scene, baseline)
            judged = replace(judged, evidence=(*judged.evidence, *seen))
        if isinstance(judged.verdict, Correct):
            judged = self._sanitized(problem, admitted, judged)
        self.admission.discard(admitted)
        self._notice(Step(finalist.candidate.id, "done"))
        spent = replace(judged.cost, wall_s=time.monotonic() - began)
        return replace(
            self._trial(admitted, replace(judged, cost=spent), self._stations[0].device), round=finalist.round
        )

    def _sanitized(self, problem: Problem, admitted: Admitted, judged: Judged) -> Judged:
        """The same after compute-sanitizer, where it is installed, has watched the kernels."""
        if not self.effort.sanitize_s:
            return judged
        device = self._stations[0].device
        kernels = [launch.kernel for launch in admitted.launches]
        with lease(device.uuid, "shared"):
            findings = sanitize(
                device,
                problem,
                admitted.candidate.source,
                kernels,
                self._folder,
                self.effort.sanitize_s,
                barriers=any("mbarrier" in launch.features for launch in admitted.launches),
            )
        judged = replace(judged, evidence=(*judged.evidence, *map(str, findings)))
        guilty = [finding for finding in findings if finding.clean is False]
        return replace(judged, verdict=Wrong(str(guilty[0]))) if guilty else judged

    def _race(self, problem: Problem, admitted: Admitted) -> Judged:
        """Its programs one after another, on the CPU, also from the last to the first.

        A GPU starts them in nearly the same order every time, so a kernel that relies on an order, which nothing
        promises, is hardly ever wrong there.
        """
        if self._examiner is None:
            effort = replace(self.effort, sets=FIRST_SETS)
            self._examiner = self._life.enter_context(Examiner(self._folder, self.admission.target, effort))
        if self._examined != problem.id:
            self._examined = None
            self._examiner.open(problem)
            self._examined = problem.id
        made = self._examiner.orders(admitted)
        # What the interpreter gets wrong in the usual order, too, tells of the interpreter.
        if made.other is None:
            return _untried(words(made.usual))
        if isinstance(made.other, Correct):
            return Judged(made.other, evidence=("its programs may run in any order (interpreter)",))
        # One that is as slow in any order tells nothing; one that waits for an earlier program never ends.
        late = isinstance(made.other, Failed) and made.other.stage == "timeout"
        if late and made.usual_s > SLOW_SHARE * self.effort.check_s:
            return _untried(words(made.other))
        return Judged(Wrong(f"with its programs in another order: {words(made.other)}"), walls=admitted.walls)

    def _judge(self, station: Station, admitted: Admitted, rival: Candidate | None) -> Judged:
        # What tunes itself must do so undisturbed.
        tunes = any(isinstance(step, Choice) for step in admitted.call)
        leases: list[Lease] = []
        try:
            return station.judge(admitted, self._scene, rival, leases, alone=tunes)
        except Disturbed:
            # Once more, with nobody else on the GPU: then it is known who writes to the inputs.
            return station.judge(admitted, self._scene, rival, leases, alone=True)

    def _open(self, problem: Problem) -> None:
        self._problem = None
        load(self._stations[0].oracle, problem, "full")
        self._scene = describe(self._stations[0].oracle, "full")
        for station in self._stations:
            station.load(problem)
        self._problem = problem.id

    def _claim(self) -> Station:
        """The GPU with the most free slots."""
        with self._turn:
            self._turn.wait_for(lambda: any(station.free for station in self._stations))
            station = max(self._stations, key=lambda one: one.free)
            station.free -= 1
            return station

    def _release(self, station: Station) -> None:
        with self._turn:
            station.free += 1
            self._turn.notify()

    @property
    def environment(self) -> Environment:
        """What a trial of the first GPU says of where it was judged."""
        return _environment(self.devices[0])

    def _trial(self, admitted: Admitted, judged: Judged, device: Device) -> Trial:
        return Trial(
            admitted.candidate,
            judged.verdict,
            admitted.fingerprint,
            admitted.launches,
            admitted.profile,
            judged.cost,
            _environment(device),
            evidence=judged.evidence,
            protection=protection(judged.walls),
            leases=judged.leases,
        )


def _environment(device: Device) -> Environment:
    return Environment(
        "local",
        device.gpu.name,
        device.name,
        device.driver,
        version("torch"),
        version("triton"),
        platform.python_version(),
    )
