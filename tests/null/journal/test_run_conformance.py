"""A run in SQLite passes the suite of journals, and a search that is killed resumes from it as if it had not been."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tilesmith.core.budget import Stop
from tilesmith.core.facts import Fact
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Journal
from tilesmith.journal import Run, RunOptions, Store, open_store
from tilesmith.testing.fakes import ListJournal
from tilesmith.testing.journal import JournalConformance


class TestRun(JournalConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with open_store(tmp_path / "tilesmith.db") as store:
            yield store

    @pytest.fixture
    def journal(self, store: Store) -> Journal:
        return store.create(Problem("net", "source"), RunOptions(""))

    def reopened(self, journal: Journal) -> Journal:
        assert isinstance(journal, Run)
        with open_store(journal.path) as other:
            found = other.run(journal.id)
            facts = [fact for kind in get_args(Fact) for fact in found.facts(kind)]
            return ListJournal(found.trials(), found.confirmations(), facts)


SEARCH = """
import sys, time
from pathlib import Path
from typing import get_args
from tilesmith.core.budget import Limits
from tilesmith.core.facts import Fact
from tilesmith.core.problem import Problem
from tilesmith.core.search import best, search
from tilesmith.core.seams import Given
from tilesmith.core.trial import Candidate, Failed
from tilesmith.journal import RunOptions, open_store
from tilesmith.testing.fakes import TableBench, correct

class Children:
    def propose(self, problem, trials, number):
        parent = best(trials).candidate
        return Given(Candidate(f"{parent.source}{n}", f"child {n}", parent.id) for n in range(7))

def verdict(candidate):
    time.sleep(0.002)
    number = sum(map(ord, candidate.source)) * 7919 % 101
    if number % 5 == 0 and candidate.source != "s":
        return Failed("compile", "no")
    return correct(1000 / len(candidate.source) + number)

path, run = Path(sys.argv[1]), sys.argv[2]
with open_store(path) as store:
    one = store.run(run) if run else store.create(Problem("net", "source", start="s"), RunOptions(""))
    print(one.id, flush=True)
    one.stop(search(one.problem, Children(), TableBench(verdict), one, Limits(trials=50)))
"""


def test_a_search_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    def start(path: Path, run: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SEARCH, str(path), run]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole.db")
    whole_run = whole.communicate()[0].strip()
    assert whole.returncode == 0
    path = tmp_path / "killed.db"
    run, turns = "", 0
    while True:
        process = start(path, run)
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        time.sleep(0.02 + 0.013 * turns)
        process.kill()
        process.communicate()
        turns += 1
        with open_store(path) as store:
            if store.run(run).stops:
                break
    assert turns > 2
    with open_store(path) as store, open_store(tmp_path / "whole.db") as other:
        killed, unkilled = store.run(run), other.run(whole_run)
        assert killed.stops == unkilled.stops == (Stop.TRIALS,)
        assert killed.trials() == unkilled.trials()
        assert len(killed.trials()) == 50
