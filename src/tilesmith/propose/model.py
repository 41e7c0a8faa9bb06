"""Proposals by language models: every direction of a round is one task of one process, and holds no GPU.

A direction asks, takes the one code block of the reply, has it judged, and shows the verdict to the model again, up to
a number of repairs. Every reply is in the journal before anything is made of it: a resumed run finds its replies there,
by direction and prompt, and pays for none of them twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self

from tilesmith.core.budget import Limits, Stop
from tilesmith.core.errors import MachineError
from tilesmith.core.facts import Analysis, Bottleneck, Ending, Profiled
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Prompt, Reply
from tilesmith.core.seams import Journal
from tilesmith.core.trial import Candidate, Correct, Direction, Trial, Verdict
from tilesmith.propose.analysis import BY_RULES, BadAnalysis, analysis_key, analysis_prompt, by_rules, read_analysis
from tilesmith.propose.beam import kernel_id, select
from tilesmith.propose.budget import Purse, Unpaid
from tilesmith.propose.chat import Call, Models
from tilesmith.propose.code import NoCode, code_block
from tilesmith.propose.directions import Width, directions, parent_of
from tilesmith.propose.history import history
from tilesmith.propose.prompts import Scene, first, repair, write_from_reference
from tilesmith.propose.taxonomy import Taxonomy, default
from tilesmith.propose.techniques import classification_prompt, classified, clusters, unclassified, vector

Outcome = Literal["judged", "no code", "no reply", "known", "late", "unpaid"]


@dataclass(frozen=True, slots=True)
class Diversity:
    """How the pool is kept diverse."""

    taxonomy: Taxonomy
    model: str | None = None
    """ "provider:name" of the model that classifies; None reads techniques from the code alone."""
    both: bool = False
    """Whether the code says what it can, and the model the rest."""
    max_concurrency: int = 4


@dataclass(frozen=True, slots=True)
class Manner:
    """How rounds are carried out."""

    width: Width
    repairs: int = 2
    analyst: str = BY_RULES
    """Who ranks bottlenecks: "rules", or "provider:name"."""
    diversity: Diversity | None = None
    """None takes the fastest kernels into the pool, whatever their techniques."""
    call_seconds: float = 600.0
    round_seconds: float | None = None
    max_output_tokens: int = 32_000
    limits: Limits = field(default_factory=Limits)

    @property
    def taxonomy(self) -> Taxonomy:
        return self.diversity.taxonomy if self.diversity else default()

    @property
    def models(self) -> tuple[str, ...]:
        """Everyone who will be asked, each once."""
        classifier = self.diversity.model if self.diversity else None
        named = (*self.width.models, self.analyst, classifier)
        return tuple(dict.fromkeys(name for name in named if name is not None and name != BY_RULES))


@dataclass(frozen=True, slots=True)
class Place:
    """Where candidates run, as far as prompts tell of it."""

    gpu: Gpu
    profile: Callable[[Problem, Trial], Profile]
    """A bench's. Raises `MachineError` where there are no counters."""
    measured: bool
    """Whether there is a GPU."""


class ModelProposer:
    """A `Proposer`. A context manager: the thread of its tasks, and the connections, end with the block."""

    def __init__(
        self,
        manner: Manner,
        models: Models,
        journal: Journal,
        place: Place,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.manner = manner
        self._models = models
        self._journal = journal
        self._place = place
        self._say = say
        self._silent: set[str] = set()
        """What was said once."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="models", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result(30.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        """Rounds that were closed put away what they had under way; then connections are given up."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._models.close()

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Conversation:
        """See `tilesmith.core.seams.Proposer`."""
        return Conversation(_Round(self, problem, tuple(trials), number), self._loop)

    def once(self, words: str) -> None:
        """Say something that will be true again and again."""
        if words not in self._silent:
            self._silent.add(words)
            self._say(words)


class Conversation:
    """The proposals of one round, as replies come in. Implements `tilesmith.core.seams.Proposals`."""

    def __init__(self, round_: _Round, loop: asyncio.AbstractEventLoop) -> None:
        self._round = round_
        self._loop = loop
        self._task = asyncio.run_coroutine_threadsafe(round_.run(), loop)
        self._task.add_done_callback(lambda _: round_.found.put(None))

    def __iter__(self) -> Iterator[Candidate]:
        while (candidate := self._round.found.get()) is not None:
            yield candidate
        # Leave the end for whoever asks again.
        self._round.found.put(None)
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    def tell(self, trial: Trial) -> None:
        self._loop.call_soon_threadsafe(self._round.heard, trial)

    def close(self) -> None:
        self._task.cancel()

    @property
    def end(self) -> Stop | None:
        """A round that brought nothing may be bad luck, unless nobody is left to ask or nothing is left to pay with."""
        return self._round.end


class _Round:
    """One round's tasks. All but `found` belongs to the event loop."""

    def __init__(self, proposer: ModelProposer, problem: Problem, trials: tuple[Trial, ...], number: int) -> None:
        self._by = proposer
        self._problem = problem
        self._trials = trials
        self._number = number
        self.found: SimpleQueue[Candidate | None] = SimpleQueue()
        self.end: Stop | None = None
        self._waiting: dict[str, list[asyncio.Future[Trial]]] = {}
        self._recorded: dict[str, Reply] = {}

    def heard(self, trial: Trial) -> None:
        """The verdict on a candidate, for every direction that proposed it."""
        for waiting in self._waiting.pop(trial.candidate.id, ()):
            if not waiting.done():
                waiting.set_result(trial)

    async def run(self) -> None:
        manner, journal = self._by.manner, self._by._journal
        self._purse = Purse(manner.limits.usd, manner.limits.tokens)
        for reply in journal.facts(Reply):
            self._recorded[reply.key] = reply
            self._purse.paid(reply)
        late = {ending.key for ending in journal.facts(Ending) if ending.outcome == "late"}
        pool = select(self._trials, manner.width.candidate_pool_size, await self._clusters())
        causes = {trial.candidate.id: await self._diagnosed(trial) for trial in pool}
        shown = {trial.candidate.id: vector(trial, manner.taxonomy) for trial in pool}
        ways = directions(pool, self._number, manner.width)
        tasks = {
            asyncio.create_task(
                self._follow(way, parent_of(way, pool), causes, frozenset().union(*shown.values()), ordinal)
            ): way
            for ordinal, way in enumerate(ways, start=(self._number - 1) * len(ways))
            if way.key not in late
        }
        if not tasks:
            return
        try:
            done, left = await asyncio.wait(tasks, timeout=manner.round_seconds)
            for task in left:
                journal.note(Ending(tasks[task].key, "late", "the round's deadline passed"))
            outcomes = [task.result() for task in done]
            asked = [self._by._models[name] for name in manner.width.models]
            if "unpaid" in outcomes:
                self.end = self._purse.empty
            elif all(model.set_aside for model in asked):
                self.end = Stop.EXHAUSTED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # One direction ---------------------------------------------------------------------------------------------------

    async def _follow(
        self,
        way: Direction,
        parent: Trial | None,
        causes: dict[str, tuple[Profile | None, tuple[Bottleneck, ...]]],
        techniques: frozenset[str],
        ordinal: int,
    ) -> Outcome:
        """From the prompt to the last verdict; how it ended is recorded."""
        prompt = self._prompt(way, parent, causes, techniques)
        outcome: Outcome = "no reply"
        message = ""
        for attempt in range(1 + self._by.manner.repairs):
            try:
                reply = await self._asked(way.model, prompt, f"{way.key}/{attempt}", ordinal, attempt)
            except Unpaid:
                outcome, message = "unpaid", "a budget has no room for the next call"
                break
            if reply.fault is not None:
                outcome, message = ("no reply", reply.fault) if attempt == 0 else (outcome, reply.fault)
                break
            fault: Verdict | NoCode
            try:
                source = code_block(reply.text)
            except NoCode as error:
                outcome, message, fault = "no code", str(error), error
            else:
                candidate = Candidate(source, way.model, parent.candidate.id if parent else None, way, attempt)
                judged = await self._judged(candidate)
                outcome, message = ("known" if judged.round < self._number else "judged"), ""
                if isinstance(judged.verdict, Correct):
                    break
                fault = judged.verdict
            prompt = repair(prompt, reply.text, fault)
        self._by._journal.note(Ending(way.key, outcome, message))
        return outcome

    def _prompt(
        self,
        way: Direction,
        parent: Trial | None,
        causes: dict[str, tuple[Profile | None, tuple[Bottleneck, ...]]],
        techniques: frozenset[str],
    ) -> Prompt:
        taxonomy = self._by.manner.taxonomy
        start = next((trial for trial in self._trials if trial.candidate.origin == "start"), None)
        profile, bottlenecks = causes[parent.candidate.id] if parent else (None, ())
        scene = Scene(
            problem=self._problem,
            gpu=self._by._place.gpu,
            parent=parent,
            profile=profile,
            bottleneck=bottlenecks[way.rank - 1] if bottlenecks else None,
            rank=way.rank,
            history=history(parent, self._trials, lambda trial: vector(trial, taxonomy)),
            taxonomy=tuple((entry.name, entry.description) for entry in taxonomy.entries),
            techniques=techniques,
            baseline_us=start.time_us if start else None,
            measured=self._by._place.measured,
        )
        return first(scene) if parent else write_from_reference(scene)

    async def _judged(self, candidate: Candidate) -> Trial:
        answer: asyncio.Future[Trial] = asyncio.get_running_loop().create_future()
        # Before it is offered: the verdict may be known already.
        self._waiting.setdefault(candidate.id, []).append(answer)
        self.found.put(candidate)
        return await answer

    async def _asked(self, name: str, prompt: Prompt, what: str, ordinal: int = 0, attempt: int = 0) -> Reply:
        """A recorded reply, or a new one. Raises `Unpaid`."""
        key = f"{what}/{prompt.id}"
        if key in self._recorded:
            return self._recorded[key]
        manner, model = self._by.manner, self._by._models[name]
        call = Call(key, ordinal, attempt, manner.call_seconds, manner.max_output_tokens)
        async with self._purse.hold(model.estimate_usd(prompt, call), model.estimate_tokens(prompt, call)):
            reply = await model.ask(prompt, call)
            self._purse.paid(reply)
        self._by._journal.note(reply)
        self._recorded[key] = reply
        return reply

    # Before the directions -------------------------------------------------------------------------------------------

    async def _clusters(self) -> Callable[[Trial], frozenset[str]] | None:
        """By what the pool is kept diverse; kernels that only a model can classify are asked about first."""
        diversity, journal = self._by.manner.diversity, self._by._journal
        if diversity is None:
            return None
        taxonomy, model, width = diversity.taxonomy, diversity.model, self._by.manner.width.candidate_pool_size
        if model is not None:
            turns = asyncio.Semaphore(diversity.max_concurrency)

            async def classify(trial: Trial) -> None:
                prompt = classification_prompt(taxonomy, trial.candidate.source, trial.launches)
                try:
                    async with turns:
                        reply = await self._asked(model, prompt, f"techniques/{kernel_id(trial)}")
                except Unpaid:
                    classified(trial, taxonomy, model, None, journal)
                    return
                vector_ = classified(trial, taxonomy, model, None if reply.fault else reply.text, journal)
                if vector_.classifier != model:
                    self._by.once(f"{model} gave no readable classification of a kernel; what its code shows stands in")

            both = diversity.both
            while left := unclassified(self._trials, taxonomy, model, journal, width, both=both):
                # A few at a time: what they turn out to be may make the rest needless.
                await asyncio.gather(*(classify(trial) for trial in left[: diversity.max_concurrency]))
        return clusters(self._trials, taxonomy, journal, model, both=diversity.both)

    async def _diagnosed(self, trial: Trial) -> tuple[Profile | None, tuple[Bottleneck, ...]]:
        """Once for each parent of a round: its profile, and its bottlenecks, the worst first."""
        profile = await asyncio.get_running_loop().run_in_executor(None, self._profiled, trial)
        manner, journal, gpu = self._by.manner, self._by._journal, self._by._place.gpu
        count = manner.width.num_bottlenecks
        seen = profile.source if profile else "none"
        key = analysis_key(kernel_id(trial), gpu.name, manner.analyst, seen, count)
        if known := journal.recall(Analysis, key):
            return profile, known.bottlenecks
        analysis = Analysis(key, BY_RULES, by_rules(trial, profile, gpu, count).bottlenecks)
        if manner.analyst != BY_RULES:
            prompt = analysis_prompt(self._problem, gpu, trial, profile, count)
            try:
                reply = await self._asked(manner.analyst, prompt, f"analysis/{kernel_id(trial)}")
                if reply.fault is not None:
                    raise BadAnalysis(reply.fault)
                analysis = Analysis(key, manner.analyst, read_analysis(reply.text, count))
            except (BadAnalysis, Unpaid) as error:
                self._by.once(f"{manner.analyst} ranked no bottlenecks ({error or 'no budget is left'}); rules did")
        journal.note(analysis)
        return profile, analysis.bottlenecks

    def _profiled(self, trial: Trial) -> Profile | None:
        """By counters where they can be read, once for a fingerprint and GPU in this journal; else the estimate."""
        place, journal = self._by._place, self._by._journal
        key = f"{kernel_id(trial)}/{place.gpu.name}"
        known = journal.recall(Profiled, key)
        if known is not None and known.profile is not None:
            return known.profile
        try:
            profile = place.profile(self._problem, trial)
        except MachineError as error:
            self._by.once(f"profiles are estimates: {error}")
            if known is None:
                journal.note(Profiled(key, None, str(error)))
            return trial.profile
        if profile.source != "estimate":
            journal.note(Profiled(key, profile))
        return profile
