"""The search on several processes: ranks of an MPI job, each with threads of its own.

The first rank splits the search once; all ranks pull what it was split into, by a shared counter that they add to with
one-sided atomics, or by asking the first. A rank that has nothing left asks another for half of what it has, the
shallowest first.
Every block search belongs to a rank: the others ask it, do something else meanwhile, and are all told what it found, so
that none is made twice. What was found goes to the first rank, work by work, and is put in the order in which one
thread would have found it.

A launcher ends all ranks when one dies. What was found until then is kept by a process of its own, outside the job,
which answers in the first rank's place.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Limits
from tilesmith.superopt import concrete
from tilesmith.superopt import engine as engines
from tilesmith.superopt.limits import Plan, checked
from tilesmith.superopt.search import Counted, Results, Worker, counted, results_of, workers_of
from tilesmith.superopt.table import named

if TYPE_CHECKING:
    from mpi4py import MPI

PAUSE_S = 0.001
"""Between two looks at messages, tickets and what the threads need."""
SOON_S = 0.0001
"""The same while there is something to tell, or to wait for."""
ASK_S = 0.004
"""After so long without work to give a rank says so."""
LOOK_S = 0.25
"""Between two looks at whether ranks are alive."""
SILENT_S = 30.0
"""A rank of another machine that says nothing for so long is gone."""
BEAT_S = 1.0

DIED = "a rank of the job ended before the search did; this is what was found until then"

STOPS = ("incomplete", "interrupted", "seconds")
"""The first of these that a rank gives is the job's."""


@dataclass(frozen=True)
class Job:
    """The processes that search together, as one of them sees it."""

    comm: MPI.Intracomm
    rank: int
    size: int
    parts: list[int] = field(default_factory=list)
    """Searches so far."""
    lost: set[int] = field(default_factory=set)
    """Ranks that died."""
    keeper: int | None = None
    """The pipe to the process that outlives the job; only the first rank has one."""

    def keep(self, kind: bytes, body: bytes = b"") -> None:
        """For the keeper."""
        if self.keeper is not None:
            _pass(self.keeper, kind, body)

    def end(self) -> None:
        self.keep(b"D")


Blobs = list[list[tuple[bytes, bytes]]]
"""Of every search: what the first rank heard."""


def join(rescue: Callable[[Blobs], None]) -> Job:
    """Takes part in the job. `rescue` is called in a process of its own if the job dies.

    Raises `MachineError` where mpi4py or its library is missing, or belongs to another MPI than the launcher.
    """
    pipe = _keeper(rescue)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as fault:
        _pass(pipe, b"D")
        raise MachineError(
            f"--schedule mpi needs mpi4py and an MPI library ({fault}); install them with: pip install 'tilesmith[mpi]'"
        ) from None
    comm = MPI.COMM_WORLD.Dup()
    job = Job(comm, comm.rank, comm.size, keeper=pipe)
    launched = max(_number(name) for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMIX_SIZE"))
    if launched > 1 and job.size == 1:
        job.end()
        raise MachineError(
            f"{launched} processes were started, but mpi4py's MPI sees one of them; start them with its own launcher: "
            f"{launcher()} -n {launched} tilesmith superoptimize ..."
        )
    if job.rank:
        job.end()
        os.close(pipe)
        return replace(job, keeper=None)
    return job


def launcher() -> str:
    """The mpiexec of this environment, whatever else is on the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else "mpiexec"


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def _keeper(rescue: Callable[[Blobs], None]) -> int:
    """Starts the process that outlives the job, before there are threads; returns the pipe to it."""
    sys.stdout.flush()
    sys.stderr.flush()
    reads, writes = os.pipe()
    if os.fork():
        os.close(reads)
        return writes
    status = 1
    try:
        os.setsid()
        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_IGN)
        # The launcher's own pipes tell it that its process is gone.
        os.dup2(reads, 3)
        os.closerange(4, 4096)
        blobs = _heard(3)
        if blobs is not None:
            rescue(blobs)
            sys.stdout.flush()
        status = 0
    except BaseException:  # nobody else would say it
        traceback.print_exc()
    finally:
        os._exit(status)


def _pass(pipe: int, kind: bytes, body: bytes = b"") -> None:
    """Where the keeper is gone, there is none to answer, and the search goes on."""
    view = memoryview(struct.pack("<cQ", kind, len(body)) + body)
    try:
        while view:
            view = view[os.write(pipe, view) :]
    except BrokenPipeError:
        pass


def _heard(pipe: int) -> Blobs | None:
    """Everything until the pipe ends; None where the job said that it was done."""
    blobs: Blobs = []
    with os.fdopen(pipe, "rb") as stream:
        while len(head := stream.read(9)) == 9:
            kind, size = struct.unpack("<cQ", head)
            if kind == b"D":
                return None
            body = stream.read(size)
            if len(body) < size:
                break
            if kind == b"P":
                blobs.append([])
            else:
                blobs[-1].append((kind, body))
    return blobs


def rescued(graph: Graph, limits: Limits, plan: Plan, blobs: Sequence[tuple[bytes, bytes]]) -> Results | None:
    """The results of what the first rank had heard. None where it had not come so far."""
    if not blobs:
        return None
    if plan.space == "concrete":
        space = concrete.space(graph, limits, replace(plan, seconds=None))
        space.made.serve(1, False, 0, 1)
        for kind, body in blobs:
            if kind == b"C":
                space.made.tell(body)
        return _concluded(space, graph, plan, (), ("interrupted", DIED))
    program = named(graph, limits)
    made = engines.engine(program, limits, replace(plan, seconds=None), target(plan.target), ranks=1)
    for kind, body in blobs:
        # A listing's split comes with the block searches that it took.
        if kind == b"F" or (kind == b"B" and plan.kernels == "listing"):
            made.learn(body)
    for kind, body in blobs:
        if kind == b"C":
            _told(made, body)
    made.replay()
    result = made.conclude()
    return results_of(program, made, result, (), (), limits, plan, ("interrupted", DIED))


class Search(Protocol):
    """What ranks search together; each of its bytes is its own."""

    ready: bool
    """Whether all the others may be called; while it runs."""
    items: int
    """What the search is split into."""
    waiting: int
    """Pieces of work that no worker has taken."""
    parked: int
    """Pieces of work that wait for what another rank makes."""
    idle: bool
    """Whether all workers wait for work, and there is none."""

    def begin(self) -> bytes:
        """The first rank's split, for the others; empty as long as there is none."""

    def join(self, split: bytes) -> None: ...
    def offer(self, item: int) -> None: ...
    def give(self) -> bytes:
        """Some of the work here, for another rank; empty where there is none just now."""

    def receive(self, given: bytes) -> None: ...
    def end(self) -> None: ...
    def fresh(self) -> bytes:
        """What was made here since the last call and all ranks need."""

    def learn(self, made: bytes) -> None: ...
    def wanted(self) -> list[bytes]:
        """What to ask each rank for, in their order; empty where there is nothing."""

    def ask(self, wanted: bytes) -> None:
        """Another rank asks for these."""

    def found(self, everything: bool) -> bytes:
        """What was found and not told: in work that is done, or after the search in all."""

    def tell(self, found: bytes) -> None:
        """Raises ValueError where it names what was not learned yet."""

    def told_enough(self) -> bool: ...
    def interrupt(self) -> None: ...


def _told(made: Search, chains: bytes) -> bool:
    """False where they name a block search that is not known yet."""
    try:
        made.tell(chains)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _End:
    """What a rank says at the end."""

    stop: str
    reason: str
    workers: tuple[Worker, ...]
    counted: tuple[Any, ...]
    """As the space counts."""
    began_s: float = 0.0


def search(job: Job, graph: Graph, limits: Limits, plan: Plan) -> Results | None:
    """The results on the first rank, None on the others. The same as those of one thread.

    Raises `OptionError` for a program that the space does not know, or for limits of nothing.
    """
    checked(limits, plan)
    job.parts.append(len(job.parts))
    job.keep(b"P")
    return (_concrete if plan.space == "concrete" else _symbolic)(job, graph, limits, plan)


def _symbolic(job: Job, graph: Graph, limits: Limits, plan: Plan) -> Results | None:
    program = named(graph, limits)
    made = engines.engine(program, limits, plan, target(plan.target), ranks=job.size, rank=job.rank)

    def run() -> _End:
        result = made.run()
        return _End(result.stop, result.incomplete, workers_of(result), counted(result))

    part = _Part(job, made, run, plan, len(job.parts))
    ends = part.run()
    if job.rank:
        return None
    stop, reason = part.ended()
    result = made.conclude()
    if result.stop == "graphs":
        stop = "graphs"
    counts: list[Counted] = [count for end in ends.values() for count in end.counted]
    return results_of(program, made, result, _workers(ends), counts, limits, plan, (stop, reason))


def _concrete(job: Job, graph: Graph, limits: Limits, plan: Plan) -> Results | None:
    space = concrete.space(graph, limits, plan)
    made = space.made
    made.serve(plan.threads, plan.timeline, plan.max_graphs or 0, job.size)
    if made.told_enough():  # by graphs of predefined kernels
        made.interrupt()

    def run() -> _End:
        counts = tuple(concrete.counted(count) for count in made.run_served())
        return _End(made.stop, made.incomplete, tuple(concrete.worker(count) for count in counts), counts)

    part = _Part(job, made, run, plan, len(job.parts))
    ends = part.run()
    if job.rank:
        return None
    ended = part.ended()
    if made.told_enough():
        ended = ("graphs", "")
    counts = [count for _, end in sorted(ends.items()) for count in end.counted]
    return replace(_concluded(space, graph, plan, counts, ended), workers=_workers(ends))


def _concluded(
    space: concrete.Space, graph: Graph, plan: Plan, counts: Sequence[concrete.Counted], ended: tuple[str, str]
) -> Results:
    """Graphs of predefined kernels, which every rank has, and what was told."""
    found = [*space.made.predefined, *space.made.conclude()]
    return concrete.results_of(concrete.explored(space, found, counts, ended), graph, plan)


def _workers(ends: Mapping[int, _End]) -> tuple[Worker, ...]:
    """Of all ranks in their order; times count from when the first rank began."""
    return tuple(
        replace(
            worker,
            rank=rank,
            spans=tuple(
                (a, s + end.began_s - ends[0].began_s, e + end.began_s - ends[0].began_s) for a, s, e in worker.spans
            ),
        )
        for rank, end in sorted(ends.items())
        for worker in end.workers
    )


class _Part:
    """One search, on one rank."""

    def __init__(self, job: Job, made: Search, search: Callable[[], _End], plan: Plan, tag: int) -> None:
        self.job, self.made, self.search, self.plan, self.tag = job, made, search, plan, tag
        self.began_s = time.time()
        self.results: list[_End] = []
        self.faults: list[BaseException] = []
        self.thread = threading.Thread(target=self._work, name="search", daemon=True)
        self.sends: list[tuple[Any, bytes]] = []
        self.wanting: deque[tuple[int, float]] = deque()
        self.tickets_left = True
        self.ticket_asked = False
        self.work_asked = False
        self.asks_again_s = 0.0
        self.victim = job.rank
        self.held = 0
        self.started = False
        self.unsplit = False
        self.quit = False
        self.late: list[bytes] = []
        self.ends: dict[int, _End] = {}
        self.dead = job.lost
        self.heard_s = dict.fromkeys(range(job.size), time.monotonic())
        self.beat_s = self.look_s = 0.0
        self.next_ticket = 0
        self.told = False

    def _work(self) -> None:
        try:
            self.results.append(self.search())
        except BaseException as fault:  # carried over to the thread that waits
            self.faults.append(fault)

    def run(self) -> Mapping[int, _End]:
        from mpi4py import MPI

        job = self.job
        self.places = job.comm.gather((socket.gethostname(), os.getpid()))
        # Two counters on the first rank: the next ticket, and the work that is not done.
        self.window = MPI.Win.Allocate(16 if job.rank == 0 else 0, 8, comm=job.comm)
        if job.rank == 0:
            np.frombuffer(self.window.tomemory(), np.dtype(np.int64))[:] = 0  # type: ignore[call-overload]
        job.comm.Barrier()
        self.window.Lock_all()
        self.thread.start()
        try:
            self._search()
            self._finish()
        except KeyboardInterrupt:
            self._stop_all()
            self._finish()
        finally:
            if not self.dead:
                self.window.Unlock_all()
        if self.faults:
            if isinstance(self.faults[0], ValueError):
                raise OptionError(f"The program cannot be searched in the {self.plan.space} space: {self.faults[0]}.")
            raise self.faults[0]
        if not self.dead:
            self.window.Free()
        return self.ends

    def ended(self) -> tuple[str, str]:
        """Why, and the reason."""
        if self.dead:
            return "interrupted", DIED
        # Where the first came to no split the others ended for that alone.
        ends = [self.ends[0]] if self.unsplit else list(self.ends.values())
        stop = next((stop for stop in STOPS if any(end.stop == stop for end in ends)), "exhausted")
        return stop, next((end.reason for end in ends if end.reason), "")

    # While it searches

    def _search(self) -> None:
        while self.thread.is_alive():
            try:
                self._step()
            except KeyboardInterrupt:
                self._stop_all()
            time.sleep(SOON_S if self.told else PAUSE_S)
        self.thread.join()
        if not self.started and self.job.rank == 0:
            self.unsplit = True
            self._start(b"")

    def _step(self) -> None:
        self._receive()
        self._look()
        if not self.made.ready:
            return
        if not self.started:
            if self.job.rank == 0 and (split := self.made.begin()):
                self._add(1, self.made.items)
                self._start(split)
            return
        self._share()
        self._pull()
        self._give()

    def _start(self, split: bytes) -> None:
        self.started = True
        self.job.keep(b"B", split)
        for rank in range(1, self.job.size):
            self._send(rank, b"B", split)

    def _share(self) -> None:
        # What was found names what was made before.
        chains = self.made.found(not self.thread.is_alive())
        made = self.made.fresh()
        self.told = bool(made or chains or self.made.parked or self.wanting or self.made.idle)
        if made:
            for rank in range(self.job.size):
                if rank != self.job.rank:
                    self._send(rank, b"F", made)
            self.job.keep(b"F", made)
        for rank, keys in enumerate(self.made.wanted()):
            if keys:
                self.told = True
                self._send(rank, b"R", keys)
        if chains:
            if self.job.rank == 0:
                self._hear(chains)
            else:
                self._send(0, b"C", chains)

    def _hear(self, chains: bytes) -> None:
        self.job.keep(b"C", chains)
        self.late = [each for each in (*self.late, chains) if not _told(self.made, each)]
        if self.made.told_enough():
            self._stop_all()

    def _pull(self) -> None:
        threads = self.plan.threads
        while self.tickets_left and not self.ticket_asked and self.made.waiting < threads:
            if self.plan.pull == "tickets":
                self._ticket(self._add(0, 1))
            elif self.job.rank == 0:
                self._ticket(self._next())
            else:
                self.ticket_asked = True
                self._send(0, b"T")
        if self.tickets_left or not self.made.idle:
            return
        if self.held:
            self._add(1, -self.held)
            self.held = 0
        if self._add(1, 0) == 0:
            self.made.end()
        elif not self.work_asked and self.job.size > 1 and time.monotonic() >= self.asks_again_s:
            self.victim = (self.victim + 1) % self.job.size
            if self.victim != self.job.rank:
                self.work_asked = True
                self._send(self.victim, b"W")

    def _next(self) -> int:
        self.next_ticket += 1
        return self.next_ticket - 1

    def _ticket(self, ticket: int) -> None:
        if ticket >= self.made.items:
            self.tickets_left = False
        else:
            self.held += 1
            self.made.offer(ticket)

    def _give(self) -> None:
        """To whom has none; what is asked for takes a moment to be split off."""
        while self.wanting:
            rank, since_s = self.wanting[0]
            alive = self.thread.is_alive() and self.started
            given = self.made.give() if alive and not self.made.idle else b""
            if given:
                self._add(1, 1)
                self._send(rank, b"G", given)
            elif alive and not self.made.idle and time.monotonic() - since_s < ASK_S:
                return
            else:
                self._send(rank, b"N")
            self.wanting.popleft()

    def _stop_all(self) -> None:
        self.made.interrupt()
        for rank in range(self.job.size):
            if rank != self.job.rank:
                self._send(rank, b"S")

    # At the end

    def _finish(self) -> None:
        """Tells the first rank all that is left; stays until it knows that everybody has."""
        if self.started and self.made.ready:
            self._share()
        self._settle()
        end = replace(self.results[0] if self.results else _End("interrupted", "", (), ()), began_s=self.began_s)
        if self.job.rank:
            self._send(0, b"E", pickle.dumps(end))
            while not self.quit:
                self._receive()
                self._give()
                self._look()
                time.sleep(PAUSE_S)
            self._settle()
            return
        self.ends[0] = end
        while len(self.ends) + len(self.dead - self.ends.keys()) < self.job.size:
            self._receive()
            self._give()
            self._look()
            time.sleep(PAUSE_S)
        for chains in self.late:
            _told(self.made, chains)
        for rank in range(1, self.job.size):
            self._send(rank, b"Q")
        self._settle()

    def _settle(self) -> None:
        """Until all that was sent has gone."""
        while self.sends and not self.dead:
            self._receive()
            self._give()
            time.sleep(PAUSE_S)

    # Messages

    def _send(self, rank: int, kind: bytes, body: bytes = b"") -> None:
        if rank in self.dead:
            return
        message = kind + body
        self.sends.append((self.job.comm.Isend([message, len(message), _byte()], rank, self.tag), message))

    def _receive(self) -> None:
        from mpi4py import MPI

        self.sends = [(request, message) for request, message in self.sends if not request.Test()]
        status = MPI.Status()
        while self.job.comm.Iprobe(MPI.ANY_SOURCE, self.tag, status):
            source, buffer = status.Get_source(), bytearray(status.Get_count(MPI.BYTE))
            self.job.comm.Recv([buffer, len(buffer), MPI.BYTE], source, self.tag)
            self.heard_s[source] = time.monotonic()
            self._answer(source, bytes(buffer[:1]), bytes(buffer[1:]))

    def _answer(self, source: int, kind: bytes, body: bytes) -> None:
        if kind == b"B":
            self._begin(body)
        elif kind == b"F":
            if self._ready():
                self.made.learn(body)
            self.job.keep(b"F", body)
            if self.late:
                self.late = [each for each in self.late if not _told(self.made, each)]
        elif kind == b"C":
            self._hear(body)
        elif kind == b"R":
            if self._ready():
                self.made.ask(body)
        elif kind == b"T":
            self._send(source, b"K", struct.pack("<q", self._next()))
        elif kind == b"K":
            self.ticket_asked = False
            self._ticket(struct.unpack("<q", body)[0])
        elif kind == b"W":
            self.wanting.append((source, time.monotonic()))
        elif kind == b"G":
            self.work_asked = False
            self.held += 1
            self.made.receive(body)
        elif kind == b"N":
            self.work_asked = False
            self.asks_again_s = time.monotonic() + PAUSE_S
        elif kind == b"S":
            self.made.interrupt()
        elif kind == b"E":
            self.ends[source] = pickle.loads(body)
        elif kind == b"Q":
            self.quit = True

    def _begin(self, split: bytes) -> None:
        self.started = True
        if not split:
            self.made.interrupt()
        elif self._ready():
            self.made.join(split)

    def _ready(self) -> bool:
        """Whether there is something to tell, once that is known: others may have been faster, and tell but once."""
        while not self.made.ready and self.thread.is_alive():
            time.sleep(PAUSE_S)
        return self.made.ready

    def _add(self, place: int, number: int) -> int:
        """To a counter of the first rank; what it was before."""
        from mpi4py import MPI

        before = np.zeros(1, np.int64)
        self.window.Fetch_and_op(np.array([number], np.int64), before, 0, place, MPI.SUM)
        self.window.Flush(0)
        return int(before[0])

    # Who is alive

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s < self.look_s:
            return
        self.look_s = now_s + LOOK_S
        if self.job.rank:
            if now_s > self.beat_s:
                self.beat_s = now_s + BEAT_S
                self._send(0, b"H")
            return
        host = socket.gethostname()
        for rank, (machine, pid) in enumerate(self.places or ()):
            if rank == 0 or rank in self.dead or rank in self.ends:
                continue
            gone = not _alive(pid) if machine == host else now_s - self.heard_s[rank] > SILENT_S
            if gone:
                self.dead.add(rank)
                self._stop_all()


def _byte() -> Any:
    from mpi4py import MPI

    return MPI.BYTE


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
