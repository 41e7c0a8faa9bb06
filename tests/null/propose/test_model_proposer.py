"""Rounds with models: a real provider's server, the real journal, the real loop, and a bench that looks verdicts up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.core.budget import Limits, Stop
from tilesmith.core.errors import MachineError
from tilesmith.core.facts import Analysis, Ending, Profiled, TechniqueVector
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.seams import Given
from tilesmith.core.search import search
from tilesmith.core.trial import Candidate, Correct, Trial, Verdict, Wrong
from tilesmith.journal import Run, RunOptions, Store, open_store
from tilesmith.propose.analysis import by_rules
from tilesmith.propose.beam import select
from tilesmith.propose.chat import ModelBook, Models, Price, Provider, Rates, Retry, open_models, read_book
from tilesmith.propose.directions import Width
from tilesmith.propose.joined import JoinedProposer
from tilesmith.propose.model import Diversity, Manner, ModelProposer, Place
from tilesmith.propose.taxonomy import default
from tilesmith.testing.fakes import TableBench, correct
from tilesmith.testing.provider import Asked, Behaviour, ProviderServer, Script

PROBLEM = Problem("net", "import torch\n", start="def kernel_function(x):\n    return 100\n")
QUICK = Retry(attempts=2, base_s=0.001, cap_s=0.002)
MANNER = Manner(Width(2, 2, ("local:a", "local:b"), 2), repairs=1)


def code(number: object, words: str = "") -> str:
    """A reply whose kernel takes so many microseconds."""
    return f"Here.\n```python\ndef kernel_function(x):\n    return {number}\n```\n{words}"


def judge(candidate: Candidate) -> Verdict:
    """A kernel takes the time that it returns; what returns no number is wrong."""
    told = re.search(r"return (\d+)", candidate.source)
    return correct(float(told[1])) if told else Wrong("output 0 is off")


def counting(asked: Asked) -> Behaviour:
    """Another kernel for every question, the slower the later."""
    return Behaviour(code(50 + asked.number), usage=Usage(100, 10))


class Setting:
    """A run and everything around it."""

    def __init__(self, path: Path, script: Script, manner: Manner = MANNER, problem: Problem = PROBLEM) -> None:
        self.path, self.script, self.manner, self.problem = path, script, manner, problem
        self.bench = TableBench(judge)
        self.said: list[str] = []
        self.profiled: list[str] = []
        self.profile: Callable[[Problem, Trial], Profile] = self.no_counters
        self.asked: list[Asked] = []

    def no_counters(self, problem: Problem, trial: Trial) -> Profile:
        del problem
        self.profiled.append(trial.candidate.id)
        raise MachineError("counters are for administrators")

    def models(self, server: ProviderServer) -> Models:
        provider = Provider("local", "openai", server.openai_url, concurrent=100)
        prices = {f"local:{name}": Price(Rates(1000.0, 1000.0, 0.0, 0.0)) for name in "abc"}
        return open_models(self.manner.models, ModelBook({"local": provider}, prices), {}, self.said.append, QUICK)

    def run(self, store: Store, run: Run | None = None, limits: Limits | None = None) -> tuple[Run, Stop]:
        limits = limits or Limits(rounds=2)
        run = run or store.create(self.problem, RunOptions("{}"))
        with ProviderServer(self.script) as server:
            place = Place(target("h200"), self.profile, True)
            manner = replace(self.manner, limits=limits)
            with ModelProposer(manner, self.models(server), run, place, self.said.append) as proposer:
                try:
                    stop = search(self.problem, proposer, self.bench, run, limits)
                finally:
                    self.asked += server.asked
        return run, stop


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "tilesmith.db") as store:
        yield store


def test_every_round_has_full_width_and_every_direction_its_place(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, counting)
    run, stop = setting.run(store)
    assert stop is Stop.ROUNDS
    trials = run.trials()
    assert Counter(trial.round for trial in trials) == {0: 1, 1: 16, 2: 16}
    for number in (1, 2):
        ways = [trial.candidate.direction for trial in trials if trial.round == number]
        assert len({way.key for way in ways if way}) == 16
        assert {(way.place, way.rank, way.model) for way in ways if way} == {
            (place, rank, model) for place in (1, 2) for rank in (1, 2) for model in ("local:a", "local:b")
        }
    # From prompt to journal: what a direction asked is what its rank says.
    start = trials[0]
    causes = by_rules(start, None, target("h200"), 2).bottlenecks
    first = [asked for asked in setting.asked if asked.number < 16]
    assert Counter(next(n for n, c in enumerate(causes, 1) if c.cause in a.prompt.turns[0]) for a in first) == {
        1: 8,
        2: 8,
    }
    assert [ending.outcome for ending in run.facts(Ending)] == ["judged"] * 32
    assert len(run.facts(Reply)) == 32


def test_round_two_expands_the_pool(tmp_path: Path, store: Store) -> None:
    run, _ = Setting(tmp_path, counting).run(store)
    complete = [trial for trial in run.trials() if trial.round < 2]
    pool = {trial.candidate.id for trial in select(complete, 2)}
    assert {trial.candidate.parent for trial in run.trials() if trial.round == 2} == pool


def test_a_verdict_goes_back_to_its_model(tmp_path: Path, store: Store) -> None:
    def script(asked: Asked) -> Behaviour:
        if len(asked.prompt.turns) == 1:
            return Behaviour(code("x" if asked.number % 2 else 60 + asked.number))
        assert "output 0 is off" in asked.prompt.turns[-1]
        assert "return x" in asked.prompt.turns[1]
        return Behaviour(code(40 + asked.number))

    setting = Setting(tmp_path, script)
    run, _ = setting.run(store, limits=Limits(rounds=1))
    mended = [trial for trial in run.trials() if trial.candidate.attempt == 1]
    assert mended
    assert all(isinstance(trial.verdict, Correct) for trial in mended)
    assert {ending.outcome for ending in run.facts(Ending)} == {"judged"}


def test_replies_without_code_are_asked_again_and_recorded(tmp_path: Path, store: Store) -> None:
    run, stop = Setting(tmp_path, lambda _: Behaviour("I would profile it first.")).run(store)
    assert stop is Stop.ROUNDS
    assert {ending.outcome for ending in run.facts(Ending)} == {"no code"}
    assert len(run.facts(Reply)) == 2 * 2 * 16, "each once more, with what was missing; and both rounds were tried"
    assert len({reply.key for reply in run.facts(Reply)}) == 64


def test_one_kernel_from_many_directions_is_judged_once(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, lambda asked: Behaviour(code(33), latency_s=0.01 * (asked.number % 3)))
    run, _ = setting.run(store)
    assert len(run.trials()) == 2
    endings = [ending.outcome for ending in run.facts(Ending)]
    assert endings[:16] == ["judged"] * 16
    assert endings[16:] == ["known"] * 16


def test_the_parent_given_back_unchanged_is_known(tmp_path: Path, store: Store) -> None:
    run, _ = Setting(tmp_path, lambda _: Behaviour(code(100).replace("Here.", "No change."))).run(
        store, limits=Limits(rounds=1)
    )
    assert len(run.trials()) == 1
    assert {ending.outcome for ending in run.facts(Ending)} == {"known"}


class Killed(BaseException):
    pass


def dying(after: int) -> TableBench:
    """A bench under which the run is killed after so many judgements."""
    left = iter(range(after))

    def verdict(candidate: Candidate) -> Verdict:
        if next(left, None) is None:
            raise Killed
        return judge(candidate)

    return TableBench(verdict)


@pytest.mark.parametrize("after", [1, 5, 16, 18, 30])
def test_a_killed_run_pays_for_no_reply_twice(tmp_path: Path, after: int) -> None:
    setting = Setting(tmp_path, counting)
    setting.bench = dying(after)
    with open_store(tmp_path / "tilesmith.db") as store:
        with pytest.raises(Killed):
            setting.run(store)
        (summary,) = store.runs()
    with open_store(tmp_path / "tilesmith.db") as store:
        run = store.run(summary.id)
        before, asked = {reply.key for reply in run.facts(Reply)}, len(setting.asked)
        setting.bench = TableBench(judge)
        assert setting.run(store, run)[1] is Stop.ROUNDS
        keys = [reply.key for reply in run.facts(Reply)]
        assert before <= set(keys)
        assert len(keys) == len(set(keys)) == 32
        # What was on its way when it was killed is asked again, and nothing else.
        assert len(setting.asked) - asked == len(keys) - len(before)


@pytest.mark.parametrize("after", [1, 6, 13, 20])
def test_a_killed_run_ends_in_the_pool_of_one_that_was_not(tmp_path: Path, after: int) -> None:
    replies = [
        {"text": code("x" if number % 4 == 0 else 40 + number * 7 % 50), "repairs": [code(30 + number)]}
        for number in range(32)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(reply) for reply in replies))
    manner = replace(MANNER, width=Width(2, 2, (f"replay:{tmp_path}/a.jsonl",), 4))

    def searched(name: str, *benches: TableBench) -> tuple[Trial, ...]:
        for bench in benches:
            with open_store(tmp_path / name) as store:
                run = store.run(store.runs()[0].id) if store.runs() else store.create(PROBLEM, RunOptions("{}"))
                opened = open_models(manner.models, read_book(), {})
                place = Place(target("h200"), Setting(tmp_path, counting).no_counters, True)
                with suppress(Killed), ModelProposer(manner, opened, run, place) as proposer:
                    search(PROBLEM, proposer, bench, run, Limits(rounds=2))
                trials = run.trials()
        return trials

    whole = searched("whole.db", TableBench(judge))
    resumed = searched("killed.db", dying(after), TableBench(judge))
    for number in (1, 2, 3):
        first, second = ([t for t in trials if t.round < number] for trials in (whole, resumed))
        assert [t.candidate.id for t in select(first, 4)] == [t.candidate.id for t in select(second, 4)]
    assert {trial.candidate.id for trial in whole} == {trial.candidate.id for trial in resumed}


def test_money_is_never_overspent(tmp_path: Path, store: Store) -> None:
    # A question of some 3,000 tokens at 1,000 USD a million, and an answer of at most 100.
    manner = replace(MANNER, max_output_tokens=100)
    setting = Setting(tmp_path, lambda asked: Behaviour(code(asked.number), usage=Usage(2500, 100)), manner)
    run, stop = setting.run(store, limits=Limits(rounds=5, usd=30.0))
    spent = sum(reply.usd or 0.0 for reply in run.facts(Reply))
    assert stop is Stop.USD
    assert 0 < spent <= 30.0
    assert "unpaid" in {ending.outcome for ending in run.facts(Ending)}


def test_tokens_have_a_limit_too(tmp_path: Path, store: Store) -> None:
    manner = replace(MANNER, max_output_tokens=100)
    setting = Setting(tmp_path, lambda asked: Behaviour(code(asked.number), usage=Usage(900, 100)), manner)
    run, stop = setting.run(store, limits=Limits(rounds=5, tokens=50_000))
    assert stop is Stop.TOKENS
    assert 0 < sum(reply.usage.tokens for reply in run.facts(Reply)) <= 50_000


def test_a_model_that_keeps_failing_is_set_aside_and_said(tmp_path: Path, store: Store) -> None:
    def script(asked: Asked) -> Behaviour:
        if asked.model == "b":
            return Behaviour(status=400, message="no such deployment")
        return counting(asked)

    setting = Setting(tmp_path, script)
    run, stop = setting.run(store)
    assert stop is Stop.ROUNDS
    assert [words for words in setting.said if "set aside" in words and "local:b" in words]
    outcomes = Counter((ending.key.split("/")[3], ending.outcome) for ending in run.facts(Ending))
    assert outcomes == {("local:a", "judged"): 16, ("local:b", "no reply"): 16}


def test_when_nobody_answers_the_search_ends(tmp_path: Path, store: Store) -> None:
    run, stop = Setting(tmp_path, lambda _: Behaviour(status=400)).run(store, limits=Limits(rounds=50))
    assert stop is Stop.EXHAUSTED
    assert len(run.trials()) == 1


def test_a_round_s_deadline_leaves_nobody_waiting(tmp_path: Path, store: Store) -> None:
    def script(asked: Asked) -> Behaviour:
        return Behaviour(code(50 + asked.number), latency_s=30.0 if asked.model == "b" else 0.0)

    setting = Setting(tmp_path, script, replace(MANNER, round_seconds=1.0))
    run, stop = setting.run(store, limits=Limits(rounds=1))
    assert stop is Stop.ROUNDS
    outcomes = Counter((ending.key.split("/")[3], ending.outcome) for ending in run.facts(Ending))
    assert outcomes == {("local:a", "judged"): 8, ("local:b", "late"): 8}


def test_the_time_budget_ends_a_round_that_waits_for_models(tmp_path: Path, store: Store) -> None:
    run, stop = Setting(tmp_path, lambda _: Behaviour(code(1), latency_s=60.0)).run(store, limits=Limits(seconds=1.0))
    assert stop is Stop.SECONDS
    assert run.facts(Ending) == ()


def test_without_counters_it_says_so_once_and_goes_on(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, counting)
    run, _ = setting.run(store)
    assert sum("counters are for administrators" in words for words in setting.said) == 1
    assert len(run.facts(Analysis)) == len(setting.profiled) == 3, "once for each parent"


def test_a_profile_is_made_once_for_a_fingerprint(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, counting)

    def profile(problem: Problem, trial: Trial) -> Profile:
        del problem
        setting.profiled.append(trial.candidate.id)
        return Profile("ncu", "h200", ())

    setting.profile = profile
    run, _ = setting.run(store)
    assert len(setting.profiled) == len(set(setting.profiled)) == len(run.facts(Profiled)) == 3
    again, _ = setting.run(store)
    assert len(setting.profiled) <= 5, "the start kernel's was known"
    assert all(known.profile is not None for known in again.facts(Profiled))


def test_an_analyst_that_is_a_model_is_asked_once_a_parent(tmp_path: Path, store: Store) -> None:
    ranking = (
        '{"bottlenecks": [{"limiter": "l2", "cause": "THE FIRST", "advice": "do"},'
        ' {"limiter": "alu", "cause": "THE SECOND", "advice": "do"}]}'
    )

    def script(asked: Asked) -> Behaviour:
        return Behaviour(ranking) if asked.model == "c" else counting(asked)

    setting = Setting(tmp_path, script, replace(MANNER, analyst="local:c"))
    run, _ = setting.run(store, limits=Limits(rounds=1))
    assert [analysis.analyst for analysis in run.facts(Analysis)] == ["local:c"]
    told = Counter(
        next(w for w in ("THE FIRST", "THE SECOND") if w in a.prompt.turns[0]) for a in setting.asked if a.model != "c"
    )
    assert told == {"THE FIRST": 8, "THE SECOND": 8}


def test_an_analyst_that_rambles_is_replaced_by_rules_and_said(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, counting, replace(MANNER, analyst="local:c"))
    run, _ = setting.run(store, limits=Limits(rounds=1))
    assert [analysis.analyst for analysis in run.facts(Analysis)] == ["rules"]
    assert any("ranked no bottlenecks" in words for words in setting.said)


def test_a_classifier_that_is_a_model_is_asked_for_new_kernels_alone(tmp_path: Path, store: Store) -> None:
    names = default().names

    def script(asked: Asked) -> Behaviour:
        if asked.model == "c":
            row = ", ".join(f'"{name}": {int(number == asked.number % 3)}' for number, name in enumerate(names))
            return Behaviour("{" + row + "}")
        return counting(asked)

    manner = replace(MANNER, diversity=Diversity(default(), "local:c", max_concurrency=2))
    setting = Setting(tmp_path, script, manner)
    run, _ = setting.run(store)
    keys = [fact.key for fact in run.facts(TechniqueVector) if fact.classifier == "local:c"]
    assert keys
    assert len(keys) == len(set(keys)) == sum(asked.model == "c" for asked in setting.asked)


def test_with_no_start_kernel_models_write_one(tmp_path: Path, store: Store) -> None:
    setting = Setting(tmp_path, counting, problem=Problem("net", "import torch\n"))
    run, _ = setting.run(store)
    assert Counter(trial.round for trial in run.trials()) == {1: 16, 2: 16}
    assert {trial.candidate.parent for trial in run.trials() if trial.round == 1} == {None}


def test_models_beside_a_table_of_rewrites(tmp_path: Path, store: Store) -> None:
    class Rewrites:
        def propose(self, problem: Problem, trials: object, number: int) -> Given:
            del problem, trials
            return Given([Candidate(f"def kernel_function(x):\n    return {200 + number}\n", "rewrite:x")])

    setting = Setting(tmp_path, counting)
    run = store.create(PROBLEM, RunOptions("{}"))
    with ProviderServer(setting.script) as server:
        place = Place(target("h200"), setting.no_counters, True)
        with ModelProposer(MANNER, setting.models(server), run, place) as by_models:
            search(PROBLEM, JoinedProposer([Rewrites(), by_models]), setting.bench, run, Limits(rounds=2))
    assert Counter((t.round, t.candidate.origin) for t in run.trials() if t.round) == {
        (number, origin): count
        for number in (1, 2)
        for origin, count in (("rewrite:x", 1), ("local:a", 8), ("local:b", 8))
    }


def test_many_directions_leave_no_thread_behind(tmp_path: Path, store: Store) -> None:
    before = threading.active_count()
    manner = replace(MANNER, width=Width(5, 3, ("local:a", "local:b", "local:c"), 5))
    setting = Setting(tmp_path, lambda asked: Behaviour(code(1000 + asked.number)), manner)
    run, _ = setting.run(store, limits=Limits(rounds=1))
    assert len(run.trials()) == 226
    # Idle threads of an executor end when they are told so, a moment later.
    deadline = time.monotonic() + 10.0
    while threading.active_count() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before + 1, [thread.name for thread in threading.enumerate()]
