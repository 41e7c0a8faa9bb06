"""The workers of a cluster as places at which candidates are judged: who has one free, who is lost, who is new.

A place is claimed, used for one call, and released. What goes wrong with a call is either about the problem, and is
raised; or about the worker, who is then ended and its node tried again later, while the call is made once more at
another place. So a node that is lost costs what it was doing, and nothing is counted twice: an answer that comes is the
only one, because whoever might still give another has been ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from tilesmith.bench.effort import Effort
from tilesmith.bench.ray.nodes import Node, Plan, alive, disagreement, plan, survey, surveyed
from tilesmith.bench.ray.worker import Duty, Worker
from tilesmith.core.activity import Notice
from tilesmith.core.errors import MachineError, TilesmithError
from tilesmith.core.trial import Environment

Task = Literal["admit", "check"]

SURVEY_S = 60.0
"""For a node to say what it has, first of all: Ray starts a process there."""
START_S = 120.0
"""For the first worker to be there."""
WAIT_S = 120.0
"""For a new node, when all are lost."""
TEND_S = 1.0
"""Between two looks for nodes that have come, gone, or have answered."""
LISTEN_S = 0.25
"""Between two questions to a worker with a GPU, for who watches: who has a lease of it."""
ATTEMPTS = 3
"""Workers at most that one call may lose: who takes them all with it is at fault itself."""
FAILURES = 3
"""Workers of one node that may be lost one after another, with nothing done between, before it is left aside."""
SPARE_CALLS = 4
"""Beside those that hold a place: opening, profiles, news, the end."""


class Lost(Exception):
    """Every worker that was asked was lost."""


@dataclass(eq=False, slots=True)
class Hand:
    """One worker, from here."""

    actor: Any
    node: str
    """The node's id."""
    name: str
    """The node's, for people."""
    duty: Duty
    free: dict[Task, int]
    device: str = ""
    """Its GPU, as leases name it, once it is there."""

    def able(self, task: Task) -> bool:
        """Whether it ever does this."""
        return bool(self.duty.jobs if task == "admit" else self.duty.slots)


@dataclass(slots=True)
class Hire:
    """A worker that was asked for and has not yet said that it is there."""

    hand: Hand
    about: Any
    """Of `Worker.about`, when it is there."""
    since_s: float
    told: bool = False


class Crew:
    """All workers. Threads may share it; two of its own look after it, and listen to it, until `close`."""

    def __init__(
        self,
        ray: ModuleType,
        say: Callable[[str], None],
        effort: Effort,
        workers_per_gpu: int,
        wanted: str | None,
        otherwise: str | None,
        notice: Notice,
    ) -> None:
        """Look at the cluster, decide what it is used as, and wait for the first worker. Raises `MachineError`."""
        self._ray = ray
        self._say = say
        self._notice = notice
        self._effort = effort
        self._workers_per_gpu = workers_per_gpu
        self._turn = threading.Condition()
        self._hands: list[Hand] = []
        self._hired: list[Hire] = []
        self._asked: dict[str, tuple[Node, Any]] = {}
        """By node, the survey that is under way there."""
        self._nodes: dict[str, Node] = {}
        """Those that take part."""
        self._failures: dict[str, int] = {}
        self._aside: set[str] = set()
        self._why = ""
        """Of the worker that was lost last."""
        self._closed = threading.Event()
        self._own = str(survey()(False)["versions"]["tilesmith"])
        self.environment: Environment
        self.plan: Plan = self._begin(wanted, otherwise)
        self._keepers = [threading.Thread(target=deed, name="crew", daemon=True) for deed in (self._tend, self._listen)]
        for keeper in self._keepers:
            keeper.start()

    def places(self, task: Task) -> int:
        """How many calls of this kind there can be at once, with those counted that are on their way."""
        with self._turn:
            duties = [self._duty(self._nodes[hand.node]) for hand in self._members() if hand.node in self._nodes]
        return max(1, sum(duty.jobs if task == "admit" else duty.slots for duty in duties))

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs that have a worker now, as leases name them."""
        with self._turn:
            return tuple(sorted(hand.device for hand in self._hands if hand.device))

    def everyone(self, method: str, *values: object) -> list[Any]:
        """Start a call of each worker that is there, and wait for none."""
        with self._turn:
            return [getattr(hand.actor, method).remote(*values) for hand in self._hands]

    def call(self, task: Task, method: str, *values: object, blame: bool = True) -> Any:
        """One call at a free place, which it waits for; at another place once more where its worker is lost.

        A `MachineError` of the worker's counts as its loss, unless nothing is to be blamed on it. Raises what else
        the worker raised, `Lost` where too many were, `MachineError` where there is no worker left.
        """
        for _ in range(ATTEMPTS):
            hand = self._claim(task)
            try:
                answer = self._ray.get(getattr(hand.actor, method).remote(*values))
            except self._ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                if not isinstance(cause, TilesmithError):
                    raise
                if not blame or not isinstance(cause, MachineError):
                    raise cause from None
                self._lose(hand, str(cause))
            except self._ray.exceptions.RayError as error:
                self._lose(hand, f"{type(error).__name__}: {_first_line(error)}")
            else:
                self._failures.pop(hand.node, None)
                return answer
            finally:
                self._release(hand, task)
        raise Lost(self._why)

    def close(self) -> None:
        """End all workers and what they started."""
        self._closed.set()
        for keeper in self._keepers:
            keeper.join()
        with self._turn:
            hands = list(self._members())
            ending = [hand.actor.close.remote() for hand in self._hands]
            self._hands.clear()
            self._hired.clear()
        if ending:
            self._ray.wait(ending, num_returns=len(ending), timeout=15.0)
        for hand in hands:
            self._ray.kill(hand.actor)

    # Places ----------------------------------------------------------------------------------------------------------

    def _claim(self, task: Task) -> Hand:
        """The worker with the most free places; to capture, one without a GPU before others."""
        deadline = time.monotonic() + WAIT_S
        with self._turn:
            while True:
                if any(hand.able(task) for hand in self._hands):
                    deadline = time.monotonic() + WAIT_S
                able = [hand for hand in self._hands if hand.free[task] > 0]
                if able:
                    hand = max(able, key=lambda one: (task == "admit" and not one.duty.measured, one.free[task]))
                    hand.free[task] -= 1
                    return hand
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"no worker of the Ray cluster is left, and none came within {WAIT_S:.0f} s ({self._why}); "
                        "see `ray status`, and go on with `tilesmith resume`"
                    )
                self._turn.wait(TEND_S)

    def _release(self, hand: Hand, task: Task) -> None:
        with self._turn:
            hand.free[task] += 1
            self._turn.notify_all()

    def _lose(self, hand: Hand, why: str) -> None:
        """End a worker, so that nothing more comes from it. The keeper sees to another."""
        with self._turn:
            if hand not in self._hands:
                return
            self._hands.remove(hand)
            self._why = f"node {hand.name}: {why}"
            self._fail(hand.node)
            self._turn.notify_all()
        self._ray.kill(hand.actor)
        self._say(f"a worker on node {hand.name} was lost, what it had begun is judged again ({why[:200]})")

    def _fail(self, node: str) -> None:
        self._failures[node] = self._failures.get(node, 0) + 1
        if self._failures[node] >= FAILURES:
            self._aside.add(node)

    # Members ---------------------------------------------------------------------------------------------------------

    def _begin(self, wanted: str | None, otherwise: str | None) -> Plan:
        found = alive(self._ray.nodes())
        asked = {node.id: (node, self._ask(node)) for node in found.values()}
        refs = [ref for _, ref in asked.values()]
        done, late = self._ray.wait(refs, num_returns=len(refs), timeout=SURVEY_S) if refs else ([], [])
        for node, ref in asked.values():
            if ref in late:
                self._say(f"node {node.name} of the Ray cluster does not answer, and is left aside")
                self._aside.add(node.id)
        nodes = []
        for node, ref in asked.values():
            if ref in done:
                try:
                    nodes.append(surveyed(node, self._ray.get(ref)))
                except self._ray.exceptions.RayError as error:
                    self._say(f"node {node.name} of the Ray cluster is left aside: {_first_line(error)}")
                    self._aside.add(node.id)
        self.plan = plan(nodes, self._own, wanted, otherwise)
        for remark in self.plan.remarks:
            self._say(remark)
        for node in nodes:
            self._hire(node)
        deadline = time.monotonic() + START_S
        while not any(hand.able("check") for hand in self._hands):
            if time.monotonic() > deadline or not self._hired:
                why = self._why or "its CPUs and GPUs are in use by others"
                for hand in self._members():
                    self._ray.kill(hand.actor)
                raise MachineError(f"no worker of the Ray cluster could start ({why}); see `ray status`")
            self._welcome(0.1)
        return self.plan

    def _members(self) -> list[Hand]:
        return [*self._hands, *(hire.hand for hire in self._hired)]

    def _ask(self, node: Node) -> Any:
        """Have a node surveyed, in a process of its own there."""
        return self._ray.remote(survey()).options(num_cpus=0, max_retries=0, **self._on(node)).remote(True)

    def _on(self, node: Node) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}

    def _duty(self, node: Node) -> Duty:
        """Of each worker of this node."""
        plan, lent = self.plan, node.lends(self.plan.kind)
        if lent:
            share = max(1, node.cpus // node.gpus)
            return Duty(plan.gpu, True, False, share, self._workers_per_gpu, node.name, self._effort)
        jobs = max(1, node.cpus)
        return Duty(plan.gpu, False, not plan.measured, jobs, 0 if plan.measured else jobs, node.name, self._effort)

    def _hire(self, node: Node) -> None:
        """Ask Ray for this node's workers: one for each GPU that is used, or one for all of its cores."""
        duty = self._duty(node)
        self._nodes[node.id] = node
        if not duty.measured and not node.cpus:
            return
        # On a node with several kinds of GPUs only the worker itself sees which one it was lent.
        count = node.gpus if duty.measured else 1
        needs = {"num_gpus": 1, "num_cpus": node.cpus // node.gpus} if duty.measured else {"num_cpus": node.cpus}
        make = self._ray.remote(Worker).options(
            max_concurrency=duty.jobs + duty.slots + SPARE_CALLS, max_restarts=0, **needs, **self._on(node)
        )
        for _ in range(count):
            actor = make.remote(duty)
            hand = Hand(actor, node.id, node.name, duty, {"admit": duty.jobs, "check": duty.slots})
            self._hired.append(Hire(hand, actor.about.remote(), time.monotonic()))

    def _welcome(self, timeout_s: float) -> None:
        """Let in who has come."""
        with self._turn:
            waiting = {hire.about: hire for hire in self._hired}
        if not waiting:
            return
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=timeout_s)
        for ref in ready:
            hire = waiting[ref]
            about, hire.hand.device, why = self._answer(ref)
            with self._turn:
                self._hired.remove(hire)
                if about is None:
                    self._why = f"node {hire.hand.name}: {why}"
                    self._fail(hire.hand.node)
                    self._say(f"a worker could not start on node {hire.hand.name}: {why}")
                elif about.gpu in (None, self.plan.kind):
                    if about.gpu == self.plan.kind:
                        self.environment = about
                    self._hands.append(hire.hand)
                    self._turn.notify_all()
                else:
                    self._ray.kill(hire.hand.actor)
        for hire in self._hired:
            if not hire.told and time.monotonic() - hire.since_s > START_S:
                hire.told = True
                self._say(f"node {hire.hand.name} has what it lends in use by others; going on without it until then")

    def _answer(self, about: Any) -> tuple[Environment | None, str, str]:
        """What a new worker says of itself and its GPU, or why it says nothing."""
        try:
            return *self._ray.get(about), ""
        except self._ray.exceptions.RayError as error:
            # Of a worker that did not begin, the last line is its own error.
            return None, "", (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]

    def _tend(self) -> None:
        """Notice nodes that have come or gone, and see to workers in place of the lost."""
        while not self._closed.wait(TEND_S):
            try:
                self._look()
            except self._ray.exceptions.RayError as error:
                # The cluster's head is away; who waits for a place says so when that has been too long.
                self._why = _first_line(error)

    def _listen(self) -> None:
        """Pass on what workers tell of their GPUs. Each has one question at a time, so a silent one costs nothing."""
        asked: dict[Any, Hand] = {}
        while not self._closed.wait(LISTEN_S):
            with self._turn:
                hands = {hand for hand in self._hands if hand.device}
            asked |= {hand.actor.steps.remote(): hand for hand in hands.difference(asked.values())}
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
            for answer in ready:
                del asked[answer]
                # A worker that is lost tells nothing more; the keeper sees to it.
                with suppress(self._ray.exceptions.RayError):
                    for step in self._ray.get(answer):
                        self._notice(step)

    def _look(self) -> None:
        found = alive(self._ray.nodes())
        for gone in [id_ for id_ in self._nodes if id_ not in found]:
            for hand in [hand for hand in self._hands if hand.node == gone]:
                self._lose(hand, "the node is gone")
            with self._turn:
                self._hired = [hire for hire in self._hired if hire.hand.node != gone]
                del self._nodes[gone]
        for id_, node in found.items():
            if id_ not in self._nodes and id_ not in self._asked and id_ not in self._aside:
                self._asked[id_] = (node, self._ask(node))
        for id_, (node, ref) in list(self._asked.items()):
            if self._ray.wait([ref], timeout=0)[0]:
                del self._asked[id_]
                self._join(surveyed(node, self._ray.get(ref)))
        for node in list(self._nodes.values()):
            if node.id not in self._aside and not any(hand.node == node.id for hand in self._members()):
                with self._turn:
                    self._hire(node)
        self._welcome(0.0)

    def _join(self, node: Node) -> None:
        """Let a node take part that came later."""
        if complaint := disagreement(node, self.plan.versions, "those before it", self._own):
            self._aside.add(node.id)
            self._say(f"a new node is left aside: {complaint}")
            return
        with self._turn:
            self._hire(node)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
