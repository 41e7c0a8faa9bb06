"""What models were asked, what it cost and what came of it: summed per model, per round and per run.

Everything is a function of what the journal holds, so that a run that was killed, or resumed, reads the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilesmith.core.facts import Ending
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.search import best, lineage
from tilesmith.core.trial import Correct, Trial
from tilesmith.report.words import figure, time_of


@dataclass(frozen=True, slots=True)
class ModelSpending:
    """One model of a run: what it was asked, and what its kernels came to."""

    model: str
    """ "provider:name"."""
    calls: int
    """Calls that were made; one that is set aside is called no more."""
    faults: int
    """Calls that brought no usable text."""
    usage: Usage
    usd: float | None
    """None where no price is known."""
    seconds: float
    """The sum over calls; they run side by side."""
    proposals: int
    """Kernels that it was the first to propose."""
    correct: int
    improved: int
    """Correct ones that are faster than the kernel they were made from."""
    best: Trial | None
    """The fastest of them."""


@dataclass(frozen=True, slots=True)
class RoundSpending:
    """One round; 0 is the start kernel's."""

    number: int
    trials: int
    usd: float
    """As far as prices are known."""
    tokens: int
    outcomes: tuple[tuple[str, int], ...]
    """How many of its directions ended how; see `tilesmith.core.facts.Ending`."""

    @property
    def ended(self) -> int:
        """Directions that have ended."""
        return sum(count for _, count in self.outcomes)


@dataclass(frozen=True, slots=True)
class Spending:
    """A run."""

    usd: float
    """As far as prices are known."""
    tokens: int
    models: tuple[ModelSpending, ...]
    """In the order in which they were first heard of."""
    rounds: tuple[RoundSpending, ...]

    @property
    def calls(self) -> int:
        return sum(each.calls for each in self.models)

    @property
    def faults(self) -> int:
        return sum(each.faults for each in self.models)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Models whose cost is not among `usd`."""
        return tuple(each.model for each in self.models if each.usd is None)


def spending(trials: Sequence[Trial], replies: Sequence[Reply], endings: Sequence[Ending]) -> Spending:
    """Sums everything up. Of two endings of one direction, as a resumed round has them, the later counts."""
    numbers = rounds_of(replies)
    ended = {ending.key: ending.outcome for ending in endings}
    outcomes: dict[int, Counter[str]] = {}
    for key, outcome in ended.items():
        outcomes.setdefault(_round(key) or 0, Counter())[outcome] += 1
    rounds = []
    for number in sorted({*numbers, *outcomes, *(trial.round for trial in trials)}):
        own = [reply for reply, at in zip(replies, numbers, strict=True) if at == number]
        rounds.append(
            RoundSpending(
                number,
                sum(trial.round == number for trial in trials),
                usd_of(own),
                tokens_of(own),
                tuple(sorted(outcomes.get(number, Counter()).items())),
            )
        )
    times = {trial.candidate.id: trial for trial in reversed(trials)}
    names = dict.fromkeys([*(reply.model for reply in replies), *(name for name in map(_author, trials) if name)])
    models = tuple(
        _model(
            name,
            [reply for reply in replies if reply.model == name],
            [trial for trial in trials if _author(trial) == name],
            times,
        )
        for name in names
    )
    return Spending(usd_of(replies), tokens_of(replies), models, tuple(rounds))


def rounds_of(replies: Sequence[Reply]) -> tuple[int, ...]:
    """The round of each reply. One that belongs to no direction, an analyst's or a classifier's, was asked for before
    the directions of its round were: the next reply tells; where none came, it is the round after the last.
    """
    found: list[int] = []
    known = max((_round(reply.key) or 0 for reply in replies), default=0) + 1
    for reply in reversed(replies):
        known = _round(reply.key) or known
        found.append(known)
    return tuple(reversed(found))


def usd_of(replies: Iterable[Reply]) -> float:
    """What these replies cost, as far as prices are known."""
    return math.fsum(reply.usd or 0.0 for reply in replies)


def tokens_of(replies: Iterable[Reply]) -> int:
    """Tokens of every kind."""
    return sum(reply.usage.tokens for reply in replies)


def line_replies(trial: Trial, trials: Sequence[Trial], replies: Sequence[Reply]) -> tuple[Reply, ...]:
    """The replies of the directions that led to a trial: its own and its ancestors', what failed on the way too."""
    ways = [each.candidate.direction for each in lineage(trial, trials)]
    prefixes = tuple(f"{way.key}/" for way in ways if way is not None)
    return tuple(reply for reply in replies if prefixes and reply.key.startswith(prefixes))


# In words ------------------------------------------------------------------------------------------------------------


def money(usd: float) -> str:
    """ "12.34 USD", "0.0042 USD", "0 USD"."""
    if usd == 0:
        return "0 USD"
    if usd < 0.0001:
        return "less than 0.0001 USD"
    return f"{usd:,.2f} USD" if usd >= 1 else f"{usd:.4f} USD"


def told_tokens(tokens: int) -> str:
    """ "12,345 tokens"."""
    return f"{tokens:,} token{'' if tokens == 1 else 's'}"


def told_calls(calls: int, faults: int) -> str:
    """ "31 calls, 2 without a usable reply"."""
    failed = f", {faults} without a usable reply" if faults else ""
    return f"{calls:,} call{'' if calls == 1 else 's'}{failed}"


def spending_words(spent: Spending) -> str:
    """A run's bill in one line: "1.23 USD, 45,678 tokens, 31 calls"."""
    least = "at least " if spent.unpriced else ""
    unknown = f"; the price of {', '.join(spent.unpriced)} is not known" if spent.unpriced else ""
    return f"{least}{money(spent.usd)}, {told_tokens(spent.tokens)}, {told_calls(spent.calls, spent.faults)}{unknown}"


def model_words(spent: ModelSpending) -> str:
    """One model in one line: "0.50 USD, 12,000 tokens, 10 calls: 8 kernels, 5 correct, 2 faster than their parents"."""
    price = "price not known" if spent.usd is None else money(spent.usd)
    bill = f"{price}, {told_tokens(spent.usage.tokens)}, {told_calls(spent.calls, spent.faults)}"
    if not spent.proposals:
        return bill
    time = time_of(spent.best.verdict) if spent.best else None
    fastest = f", the fastest {figure(time)}" if time else ""
    kernels = f"{spent.proposals} kernel{'' if spent.proposals == 1 else 's'}"
    return f"{bill}: {kernels}, {spent.correct} correct, {spent.improved} faster than the parent{fastest}"


def outcome_words(spent: RoundSpending) -> str:
    """ "10 judged, 2 no code"."""
    return ", ".join(f"{count} {outcome}" for outcome, count in spent.outcomes)


# How the sums are made ------------------------------------------------------------------------------------------------


def _model(name: str, replies: Sequence[Reply], own: Sequence[Trial], times: dict[str, Trial]) -> ModelSpending:
    called = [reply for reply in replies if reply.attempts]
    return ModelSpending(
        model=name,
        calls=len(called),
        faults=sum(reply.fault is not None for reply in called),
        usage=Usage(
            sum(reply.usage.input_tokens for reply in replies),
            sum(reply.usage.output_tokens for reply in replies),
            sum(reply.usage.cache_read_tokens for reply in replies),
            sum(reply.usage.cache_write_tokens for reply in replies),
        ),
        usd=None if any(reply.usd is None for reply in replies) else usd_of(replies),
        seconds=math.fsum(reply.seconds for reply in replies),
        proposals=len(own),
        correct=sum(isinstance(trial.verdict, Correct) for trial in own),
        improved=sum(_faster(trial, times.get(trial.candidate.parent or "")) for trial in own),
        best=best(own),
    )


def _faster(trial: Trial, parent: Trial | None) -> bool:
    """Whether it is faster than its parent; an estimate is compared with no measurement."""
    if parent is None or trial.time_us is None or parent.time_us is None:
        return False
    return type(time_of(trial.verdict)) is type(time_of(parent.verdict)) and trial.time_us < parent.time_us


def _author(trial: Trial) -> str | None:
    """The model that wrote it."""
    return trial.candidate.direction.model if trial.candidate.direction else None


def _round(key: str) -> int | None:
    """The round in a key that begins with a direction's."""
    first = key.partition("/")[0]
    return int(first) if first.isascii() and first.isdigit() else None
