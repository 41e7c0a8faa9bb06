"""`tilesmith gc` says what could go, and touches nothing until it is told to."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import PROBLEM, Answer

from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate, Failed, Trial
from tilesmith.journal import RunOptions, open_store

Tilesmith = Callable[..., Answer]


@pytest.fixture
def littered(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal with one run, a source that nobody refers to, and the lock and the folder of a dead process."""
    journal = place / "tilesmith.db"
    with open_store(journal) as store:
        run = store.create(Problem("toy", PROBLEM), RunOptions("{}"))
        run.record(Trial(Candidate("kept"), Failed("admit", "no")))
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("INSERT INTO sources VALUES ('stray', ?)", (b"x" * 3000,))
    (place / "tilesmith.db-gone.lock").touch()
    temporary = place / "tmp"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (temporary / "tilesmith-dead").mkdir(parents=True)
    (temporary / "tilesmith-dead" / "owner.lock").touch()
    (temporary / "tilesmith-dead" / "left").write_bytes(b"x" * 5000)
    return journal


def test_it_is_said_before_it_is_done(tilesmith: Tilesmith, littered: Path) -> None:
    before = sorted(littered.parent.rglob("*"))
    said = tilesmith("gc")
    assert said.status == 0
    assert "would delete: 1 sources (2.9 KiB), 1 lock files of runs that were killed, 1 folders of benches" in said.out
    assert "nothing was touched; --delete does it" in said.out
    assert sorted(littered.parent.rglob("*")) == before
    document = tilesmith("gc", "--json").document
    assert (document["verdict"], document["deleted"], document["sources"]) == ("done", False, 1)
    assert (document["source_bytes"], document["folder_bytes"]) == (3000, 5000)
    assert document["locks"] == [str(Path("tilesmith.db-gone.lock"))]


def test_it_is_done(tilesmith: Tilesmith, littered: Path) -> None:
    document = tilesmith("gc", "--delete", "--json").document
    assert (document["deleted"], document["sources"], len(document["folders"])) == (True, 1, 1)
    assert not list(littered.parent.glob("*.lock"))
    assert not list((littered.parent / "tmp").iterdir())
    assert tilesmith("gc").out == "nothing to delete: everything is referred to\n"
    with open_store(littered) as store:
        (trial,) = store.run("").trials()
        assert trial.candidate.source == "kept"


def test_where_there_is_no_journal_none_is_made(tilesmith: Tilesmith, littered: Path) -> None:
    assert tilesmith("gc", "--journal", "other.db", "--json").document["sources"] == 0
    assert not (littered.parent / "other.db").exists()
