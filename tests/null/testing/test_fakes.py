"""The fakes keep the promises that the suites check, so that what is tested with them is tested with the real thing."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args

import pytest

from tilesmith.core.facts import Fact
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench, Journal, Proposer
from tilesmith.core.trial import Candidate, Trial
from tilesmith.testing.bench import BenchConformance
from tilesmith.testing.fakes import ListJournal, ListProposer, TableBench, correct
from tilesmith.testing.journal import JournalConformance
from tilesmith.testing.proposer import ProposerConformance
from tilesmith.testing.samples import FAULTS, PROBLEM, SAMPLES

SAME = {SAMPLES.correct, SAMPLES.renamed, SAMPLES.commented}


class TestTableBench(BenchConformance):
    @pytest.fixture
    def bench(self) -> Bench:
        return TableBench(
            lambda candidate: FAULTS.get(candidate.source, correct(1.0)),
            lambda candidate: "same" if candidate.source in SAME else candidate.id,
        )


class TestListJournal(JournalConformance):
    @pytest.fixture
    def journal(self) -> Journal:
        return ListJournal()

    def reopened(self, journal: Journal) -> Journal:
        facts = [fact for kind in get_args(Fact) for fact in journal.facts(kind)]
        return ListJournal(journal.trials(), journal.confirmations(), facts)


class TestListProposer(ProposerConformance):
    @pytest.fixture
    def proposer(self) -> Proposer:
        first = [Candidate(f"first {n}", "list") for n in range(6)]
        second = [Candidate(f"second {n}", "list", first[n % 2].id) for n in range(6)]
        return ListProposer(first, [*first, *second], second, [Candidate("last", "list")])

    @pytest.fixture
    def problem(self) -> Problem:
        return PROBLEM

    @pytest.fixture
    def trials(self) -> Sequence[Trial]:
        return [Trial(Candidate(f"first {n}"), correct(1.0)) for n in range(6)]


def test_duplicates_are_not_asked_about_twice() -> None:
    bench = TableBench(lambda _: correct(1.0), lambda candidate: candidate.source[0])
    trials = list(bench.judge(PROBLEM, [Candidate(source) for source in ("a1", "b1", "a2")], ()))
    list(bench.judge(PROBLEM, [Candidate("b2"), Candidate("c1")], trials))
    assert bench.asked == [Candidate(source).id for source in ("a1", "b1", "c1")]


def test_the_samples_differ_and_all_but_one_are_python() -> None:
    sources = [getattr(SAMPLES, field.name) for field in fields(SAMPLES)]
    assert len(set(sources)) == len(sources)
    for source in {*sources, PROBLEM.source} - {SAMPLES.malformed}:
        ast.parse(source)
    with pytest.raises(SyntaxError):
        ast.parse(SAMPLES.malformed)
