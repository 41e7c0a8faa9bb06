"""What every journal promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilesmith.core.facts import Analysis, Bottleneck, Derivation, Ending, Fact, Profiled, TechniqueVector
from tilesmith.core.profile import KernelProfile, Launch, Profile
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.seams import Journal
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Duplicate,
    Environment,
    Estimate,
    Failed,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Wrong,
)

TRIALS = (
    Trial(Candidate("correct", "start"), Correct(Estimate(12.5), 0.25), "f0", protection="process"),
    Trial(
        Candidate("timed", "rewrite:tile", Candidate("correct").id),
        Correct(Timing(9.0, 8.5, 9.5, 101, Candidate("correct").id, 12.0), 0.5),
        "f1",
        (Launch("k", (132, 1, 1), 4, 2, 1024, 64, 0, (("N", 7), ("x", "fp16[7]")), frozenset({"mma"})),),
        Profile("ncu", "h200", (KernelProfile("k", 9.0, "dram", 1e6, 2e6, 3e6, 0.5, 1.25),)),
        Cost(1.5, 0.5, 0.25),
        Environment("local", "sm_90", "NVIDIA H200", "570.1", "2.11.0", "3.6.0", "3.11.9"),
        round=1,
    ),
    Trial(Candidate("wrong"), Wrong("2 of 7 differ", 40.0), "f2", round=1),
    Trial(Candidate("shapes"), Wrong("the shape is (7, 1), not (7,)"), round=1),
    Trial(Candidate("rejected"), Rejected("reads a file"), round=2),
    Trial(Candidate("failed"), Failed("compile", 'of a "kind":\nit says no'), round=2),
    Trial(Candidate("duplicate"), Duplicate(Candidate("timed").id), "f1", round=3),
    Trial(Candidate("unchecked"), Unchecked("no GPU", Estimate(3.0)), "f3", round=3),
)
"""One of every verdict."""

FACTS: tuple[Fact, ...] = (
    Reply("k", "a:b", "no", fault="a deadline"),
    Reply("k", "a:b", "```python\n```", Usage(10, 20, 30, 40), 0.25, 1.5, 2),
    Analysis("f0/h200/rules", "rules", (Bottleneck("dram", "it reads 12 GB", "read less"),)),
    Profiled("f0/h200", None, "no permission"),
    TechniqueVector("f0/compiled", "compiled", frozenset({"tensor_cores", "split_k"})),
    Ending("k", "no code", "three blocks"),
    Derivation("c0", '{"inputs": []}', "0123456789abcdef", "rows 16, 4 warps", 12.5),
)
"""One of every kind, and a second reply."""


class JournalConformance:
    """Inherit, and give `journal`, empty; and where trials outlive the object, override `reopened`."""

    @pytest.fixture
    def journal(self) -> Journal:
        raise NotImplementedError

    def reopened(self, journal: Journal) -> Journal:
        """The same journal as another process would find it."""
        return journal

    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        assert tuple(journal.trials()) == ()

    def test_every_trial_in_the_order_of_recording(self, journal: Journal) -> None:
        for count, trial in enumerate(TRIALS):
            assert tuple(journal.trials()) == TRIALS[:count]
            journal.record(trial)
        assert tuple(journal.trials()) == TRIALS

    def test_trials_outlive_the_object(self, journal: Journal) -> None:
        for trial in TRIALS:
            journal.record(trial)
        found = tuple(self.reopened(journal).trials())
        assert found == TRIALS
        # The equality of candidates leaves these out.
        assert [(t.candidate.origin, t.candidate.parent) for t in found] == [
            (t.candidate.origin, t.candidate.parent) for t in TRIALS
        ]

    def test_what_was_read_stays_as_it_was(self, journal: Journal) -> None:
        journal.record(TRIALS[0])
        before = journal.trials()
        journal.record(TRIALS[1])
        assert tuple(before) == TRIALS[:1]

    def test_nothing_is_merged(self, journal: Journal) -> None:
        for _ in range(3):
            journal.record(TRIALS[0])
        assert tuple(journal.trials()) == TRIALS[:1] * 3

    def test_sources_are_kept_to_the_letter(self, journal: Journal) -> None:
        sources = ["", " \n", "é\r\n", "\N{MATHEMATICAL BOLD SMALL X}", "'\";--", "x" * 200_000]
        for source in sources:
            journal.record(Trial(Candidate(source), Failed("admit", source[:20])))
        found = self.reopened(journal).trials()
        assert [trial.candidate.source for trial in found] == sources
        assert [trial.verdict for trial in found] == [Failed("admit", source[:20]) for source in sources]

    def test_confirmations_are_no_trials(self, journal: Journal) -> None:
        journal.record(TRIALS[1])
        for verdict in (Wrong("in the second run", 3.0), TRIALS[1].verdict):
            journal.confirmed(replace(TRIALS[1], verdict=verdict, confirmed=True))
        found = self.reopened(journal)
        assert tuple(found.trials()) == TRIALS[1:2]
        assert [trial.verdict for trial in found.confirmations()] == [
            Wrong("in the second run", 3.0),
            TRIALS[1].verdict,
        ]
        assert all(trial.confirmed for trial in found.confirmations())

    def test_facts_by_kind_and_by_key(self, journal: Journal) -> None:
        for fact in FACTS:
            journal.note(fact)
        found = self.reopened(journal)
        assert tuple(found.trials()) == ()
        assert tuple(found.facts(Reply)) == FACTS[:2]
        assert tuple(found.facts(Analysis)) == FACTS[2:3]
        assert tuple(found.facts(TechniqueVector)) == FACTS[4:5]
        assert found.recall(Reply, "k") == FACTS[1], "the last with that key"
        assert found.recall(Profiled, "f0/h200") == FACTS[3]
        assert found.recall(Ending, "k") == FACTS[5]
        assert found.recall(Derivation, "c0") == FACTS[6]
        assert found.recall(Analysis, "k") is None
