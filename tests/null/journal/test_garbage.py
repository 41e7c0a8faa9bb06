"""Garbage is what nothing refers to, whatever was recorded in whatever order; and collecting it disturbs nobody."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import OPTIONS, PROBLEM, trial, writer

from tilesmith.core.problem import Problem, content_id
from tilesmith.core.trial import Candidate, Duplicate, Failed, Trial
from tilesmith.journal import Run, Store, open_store

TEXTS = st.sampled_from(["a", "b", "c", "d", "é\udcff", ""])
DEEDS = st.one_of(
    st.tuples(st.just("run"), TEXTS, st.none() | TEXTS),
    st.tuples(st.just("trial"), TEXTS),
    st.tuples(st.just("confirmation"), TEXTS),
    st.tuples(st.just("stray"), TEXTS),
    st.tuples(st.just("collect")),
)


def stray(path: Path, *texts: str) -> None:
    """Put sources there that nothing refers to, unless something does."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows = [(content_id(text), text.encode("utf-8", "surrogatepass")) for text in texts]
        connection.executemany("INSERT OR IGNORE INTO sources VALUES (?, ?)", rows)


def sources(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM sources")}


@given(st.lists(DEEDS, max_size=20))
@settings(max_examples=40, deadline=None)
def test_what_a_run_refers_to_is_kept_and_all_else_goes(deeds: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(path := Path(folder, "tilesmith.db")) as store:
        run: Run | None = None
        used: set[str] = set()
        told: list[tuple[Run, Trial]] = []
        for word, *texts in deeds:
            if word == "run":
                run = store.create(Problem("net", texts[0], start=texts[1]), OPTIONS)
                used |= {content_id(text) for text in texts if text is not None}
            elif word == "stray":
                stray(path, *texts)
            elif word == "collect":
                assert not set(store.collect(store.garbage()).sources) & used
            elif run is not None:
                one = Trial(Candidate(texts[0]), Duplicate("gone"), confirmed=word == "confirmation")
                (run.confirmed if one.confirmed else run.record)(one)
                used.add(one.candidate.id)
                told.append((run, one))
        found = store.garbage()
        assert set(found.sources) == sources(path) - used
        assert sources(path) >= used
        assert store.collect(found) == found
        assert sources(path) == used
        assert store.garbage().sources == ()
        for each, one in told:
            again = store.run(each.id)
            assert one in (again.confirmations() if one.confirmed else again.trials())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tilesmith.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(path) as store:
        yield store


def test_looking_changes_nothing(path: Path, store: Store) -> None:
    store.create(PROBLEM, OPTIONS).record(trial(0))
    stray(path, "x" * 1000, "y")
    before = sources(path)
    found = store.garbage()
    assert (len(found.sources), found.source_bytes) == (2, 1001)
    assert sources(path) == before


def test_a_source_that_is_referred_to_meanwhile_stays(path: Path, store: Store) -> None:
    stray(path, "# 1", "other")
    found = store.garbage()
    run = store.create(PROBLEM, OPTIONS)
    run.record(trial(1))
    assert store.collect(found).sources == (content_id("other"),)
    assert store.run(run.id).trials() == (trial(1),)


def test_the_schema_itself_keeps_what_is_referred_to(path: Path, store: Store) -> None:
    store.create(PROBLEM, OPTIONS).record(trial(0))
    assert PROBLEM.start is not None
    for text in (PROBLEM.source, PROBLEM.start, trial(0).candidate.source):
        with (
            contextlib.closing(sqlite3.connect(path)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            connection.execute("DELETE FROM sources WHERE id = ?", (content_id(text),))


def test_others_write_meanwhile(path: Path) -> None:
    with open_store(path) as store:
        stray(path, *(f"stray {number}" for number in range(2000)))
        process = writer(path, count=300)
        assert process.stdin is not None
        assert process.stdout is not None
        run = process.stdout.readline().split()[0]
        gone = 0
        while found := store.garbage().sources[:100]:
            part = type(store.garbage())(found, 0, ())
            gone += len(store.collect(part).sources)
            stray(path, *(f"# {number}" + "x" * 2000 for number in range(gone % 300)))
            if gone > 4000:
                break
        process.communicate("")
        assert process.returncode == 0
        assert gone >= 2000
        assert [one.round for one in store.run(run).trials()] == list(range(300))


KILLED = """
import os, sys
from pathlib import Path
from tilesmith.core.problem import Problem
from tilesmith.journal import RunOptions, open_store
open_store(Path(sys.argv[1])).create(Problem("net", "source"), RunOptions(""))
os._exit(1)
"""


def test_locks_of_the_dead_go_and_those_of_the_living_stay(path: Path, store: Store) -> None:
    living = store.create(PROBLEM, OPTIONS)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    locks = set(path.parent.glob("*.lock"))
    assert len(locks) == 2
    found = store.garbage()
    assert len(found.locks) == 1
    assert store.collect(found) == found
    assert set(path.parent.glob("*.lock")) == locks - set(found.locks)
    living.record(Trial(Candidate("a"), Failed("admit", "no")))
    assert store.runs()[0].live
