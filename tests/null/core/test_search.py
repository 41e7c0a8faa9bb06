"""The loop: why it stops, what it records, and that a run cut anywhere ends as one that was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core import search as loop
from tilesmith.core.budget import Limits, Stop
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Given, Proposer
from tilesmith.core.search import best, confirm, lineage, search, standing
from tilesmith.core.trial import Candidate, Cost, Duplicate, Failed, Trial, Verdict, Wrong
from tilesmith.testing.fakes import ListJournal, ListProposer, TableBench, correct

PROBLEM = Problem("net", "source")
STARTED = Problem("net", "source", start="start")
NO_LIMITS = Limits()


def named(*names: str) -> list[Candidate]:
    return [Candidate(name, "test") for name in names]


def sources(trials: Sequence[Trial]) -> list[tuple[int, str]]:
    return [(trial.round, trial.candidate.source) for trial in trials]


def all_correct() -> TableBench:
    """The longer the faster, so that children are faster than their parents."""
    return TableBench(lambda c: correct(9.0 / len(c.source)))


class Children:
    """Proposes three children of the fastest correct trial, whatever round that is from."""

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Given:  # noqa: ARG002
        parent = best(trials)
        stem, by = ("", None) if parent is None else (parent.candidate.source, parent.candidate.id)
        return Given(Candidate(stem + name, "child", by) for name in "abc")


def test_it_judges_round_after_round_until_nothing_is_new() -> None:
    journal = ListJournal()
    proposer = ListProposer(named("a", "b"), named("b", "c"), named("a"))
    assert search(PROBLEM, proposer, all_correct(), journal, NO_LIMITS) is Stop.EXHAUSTED
    assert sources(journal.trials()) == [(1, "a"), (1, "b"), (2, "c")]


def test_nothing_proposed_at_all() -> None:
    journal = ListJournal()
    assert search(PROBLEM, ListProposer(), all_correct(), journal, NO_LIMITS) is Stop.EXHAUSTED
    assert journal.trials() == ()


def test_the_start_kernel_is_round_zero() -> None:
    journal = ListJournal()
    search(STARTED, ListProposer(named("a")), all_correct(), journal, NO_LIMITS)
    assert sources(journal.trials()) == [(0, "start"), (1, "a")]
    assert journal.trials()[0].candidate.origin == "start"


@pytest.mark.parametrize("verdict", [Wrong("no"), Failed("compile", "no")])
def test_a_start_kernel_that_is_not_correct_ends_it(verdict: Verdict) -> None:
    journal = ListJournal()
    for _ in range(2):
        stop = search(STARTED, ListProposer(named("a")), TableBench(lambda _: verdict), journal, NO_LIMITS)
        assert stop is Stop.START
        assert sources(journal.trials()) == [(0, "start")]


def test_a_proposal_of_the_start_kernel_is_not_judged_again() -> None:
    journal, bench = ListJournal(), all_correct()
    search(STARTED, ListProposer(named("start", "a", "a")), bench, journal, NO_LIMITS)
    assert bench.asked == [Candidate("start").id, Candidate("a").id]


@pytest.mark.parametrize(("rounds", "trials"), [(0, 1), (1, 4), (2, 7)])
def test_the_limit_on_rounds(rounds: int, trials: int) -> None:
    journal = ListJournal()
    assert search(STARTED, Children(), all_correct(), journal, Limits(rounds=rounds)) is Stop.ROUNDS
    assert len(journal.trials()) == trials


@pytest.mark.parametrize("trials", range(1, 9))
def test_the_limit_on_trials_is_exact(trials: int) -> None:
    journal, bench = ListJournal(), all_correct()
    assert search(STARTED, Children(), bench, journal, Limits(trials=trials)) is Stop.TRIALS
    assert len(journal.trials()) == len(bench.asked) == trials


class Spendthrift:
    """Judges whatever is asked as soon as it is asked, as a bench with many workers does."""

    def __init__(self) -> None:
        self.judged = 0

    def judge(self, problem: Problem, candidates: Iterable[Candidate], trials: Sequence[Trial]) -> Iterator[Trial]:  # noqa: ARG002
        asked = list(candidates)
        self.judged += len(asked)
        return iter([Trial(candidate, correct(1.0)) for candidate in asked])


def test_a_bench_is_never_given_more_than_the_limit() -> None:
    bench = Spendthrift()
    search(PROBLEM, ListProposer(named(*map(str, range(100)))), bench, ListJournal(), Limits(trials=7))
    assert bench.judged == 7


def test_a_finished_run_goes_on_only_with_a_higher_limit() -> None:
    journal, bench = ListJournal(), all_correct()
    search(PROBLEM, Children(), bench, journal, Limits(trials=5))
    before = journal.trials()
    assert search(PROBLEM, Children(), bench, journal, Limits(trials=5)) is Stop.TRIALS
    assert journal.trials() == before
    assert search(PROBLEM, Children(), bench, journal, Limits(trials=8)) is Stop.TRIALS
    assert len(journal.trials()) == 8


def test_the_limit_on_gpu_seconds() -> None:
    bench = TableBench(lambda c: correct(9.0 / len(c.source)), cost=Cost(gpu_s=0.5))
    journal = ListJournal()
    assert search(PROBLEM, Children(), bench, journal, Limits(gpu_seconds=2.0)) is Stop.GPU_SECONDS
    assert len(journal.trials()) == 4


def test_the_limit_on_seconds_counts_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def verdict(_: Candidate) -> Verdict:
        now[0] += 1.0
        return correct(1.0)

    journal = ListJournal()
    for count in (3, 6):
        assert search(PROBLEM, Children(), TableBench(verdict), journal, Limits(seconds=3.0)) is Stop.SECONDS
        assert len(journal.trials()) == count


def test_every_trial_is_recorded_before_it_is_watched() -> None:
    journal = ListJournal()
    seen: list[Trial] = []

    def watch(trial: Trial) -> None:
        seen.append(trial)
        assert journal.trials() == tuple(seen)

    search(STARTED, Children(), all_correct(), journal, Limits(rounds=2), watch)
    assert tuple(seen) == journal.trials()


def test_what_a_watcher_raises_ends_the_search_with_its_trial_recorded() -> None:
    journal = ListJournal()

    def watch(_: Trial) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(PROBLEM, Children(), all_correct(), journal, NO_LIMITS, watch)
    assert len(journal.trials()) == 1


def test_duplicates_are_recorded_and_not_the_best() -> None:
    bench = TableBench(lambda c: correct(float(len(c.source))), lambda c: c.source[0])
    journal = ListJournal()
    search(PROBLEM, ListProposer(named("bb", "a", "b"), named("ac", "c")), bench, journal, NO_LIMITS)
    verdicts = [trial.verdict for trial in journal.trials()]
    assert verdicts[2] == Duplicate(Candidate("bb").id)
    assert verdicts[3] == Duplicate(Candidate("a").id)
    assert best(journal.trials()) == journal.trials()[1]


def test_the_best_of_equals_is_the_first() -> None:
    trials = [
        Trial(Candidate("a"), Wrong("no")),
        Trial(Candidate("b"), correct(2.0)),
        Trial(Candidate("c"), correct(1.0)),
        Trial(Candidate("d"), correct(1.0)),
    ]
    assert best(trials) == trials[2]
    assert best(trials[:1]) is None
    assert best([]) is None


def test_lineage_goes_back_to_the_root() -> None:
    root = Trial(Candidate("root"), correct(3.0))
    child = Trial(Candidate("child", parent=root.candidate.id), correct(2.0))
    leaf = Trial(Candidate("leaf", parent=child.candidate.id), correct(1.0))
    orphan = Trial(Candidate("orphan", parent="gone"), correct(1.0))
    trials = [root, child, leaf, orphan]
    assert lineage(leaf, trials) == (root, child, leaf)
    assert lineage(root, trials) == (root,)
    assert lineage(orphan, trials) == (orphan,)


def test_a_circle_of_parents_has_an_end() -> None:
    one = Trial(Candidate("one", parent=Candidate("two").id), correct(1.0))
    two = Trial(Candidate("two", parent=Candidate("one").id), correct(1.0))
    assert 2 <= len(lineage(one, [one, two])) <= 3


def ends_alike(proposer: Proposer, verdict: dict[str, Verdict], problem: Problem, limits: Limits) -> None:
    """Cut the journal after every trial: the end is always the same, and nothing is judged twice."""

    def judged() -> TableBench:
        return TableBench(
            lambda c: verdict.get(c.source[-1], correct(9.0 / len(c.source))), lambda c: c.source.casefold()
        )

    whole = ListJournal()
    stop = search(problem, proposer, judged(), whole, limits)
    for cut in range(len(whole.trials()) + 1):
        resumed, bench = ListJournal(whole.trials()[:cut]), judged()
        assert search(problem, proposer, bench, resumed, limits) is stop
        assert resumed.trials() == whole.trials()
        assert not {trial.candidate.id for trial in whole.trials()[:cut]} & set(bench.asked)


names = st.text("abcAB", min_size=1, max_size=3)
tables = st.dictionaries(
    st.sampled_from("abcAB"),
    st.one_of(st.just(Wrong("no")), st.just(Failed("compile", "no")), st.integers(1, 4).map(lambda n: correct(n / 2))),
)
budgets = st.builds(Limits, rounds=st.none() | st.integers(1, 4), trials=st.none() | st.integers(1, 12))


@given(st.lists(st.lists(names, max_size=6), max_size=5), tables, st.booleans(), budgets)
def test_a_run_cut_anywhere_ends_the_same(
    rounds: list[list[str]], verdicts: dict[str, Verdict], started: bool, limits: Limits
) -> None:
    proposer = ListProposer(*(named(*row) for row in rounds))
    ends_alike(proposer, verdicts, STARTED if started else PROBLEM, limits)


@given(tables, st.booleans(), st.integers(1, 14))
def test_a_run_that_climbs_ends_the_same_wherever_it_is_cut(
    verdicts: dict[str, Verdict], started: bool, trials: int
) -> None:
    ends_alike(Children(), verdicts, STARTED if started else PROBLEM, Limits(trials=trials))


# Confirmation --------------------------------------------------------------------------------------------------------


def test_a_finalist_that_falls_gives_way_to_the_next() -> None:
    times = {"start": 9.0, "lucky": 1.0, "sound": 2.0, "slow": 3.0}
    journal = ListJournal([Trial(Candidate(name, name), correct(time_us)) for name, time_us in times.items()])
    second = TableBench(lambda c: Wrong("in the second run") if c.source == "lucky" else correct(2.5))
    confirm(STARTED, second, journal)
    assert second.asked == [Candidate(name).id for name in ("lucky", "sound")]
    winner = best(standing(journal.trials(), journal.confirmations()))
    assert winner is not None
    assert (winner.candidate.source, winner.time_us, winner.confirmed) == ("sound", 2.5, True)
    confirm(STARTED, second, journal)
    assert len(second.asked) == 2, "what is recorded is not asked again"


def test_where_all_finalists_fall_nothing_unconfirmed_wins() -> None:
    journal = ListJournal([Trial(Candidate(str(n)), correct(float(n))) for n in range(1, 4)])
    confirm(PROBLEM, TableBench(lambda _: Wrong("in the second run")), journal)
    assert best(standing(journal.trials(), journal.confirmations())) is None
