"""Runs are begun, written, found, listed and resumed; every fault of the file is one sentence, and loses nothing."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tilesmith.core.budget import Stop
from tilesmith.core.errors import JournalError, MachineError, TilesmithError
from tilesmith.core.facts import Ending
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.trial import Candidate, Correct, Estimate, Failed, Timing, Trial
from tilesmith.journal import Run, RunOptions, Store, open_store
from tilesmith.journal.database import SYNC_S

PROBLEM = Problem("net", "class Model: ...", Settings("fp16", small={"M": (1, 2)}), start="def kernel_function(): ...")
OPTIONS = RunOptions('{"seed": 3}')


def trial(number: int, time_us: float | None = None) -> Trial:
    verdict = Failed("compile", "no") if time_us is None else Correct(Estimate(time_us), 0.5)
    return Trial(Candidate(f"# {number}", f"test:{number}", f"parent {number}"), verdict, round=number)


def said(error: pytest.ExceptionInfo[TilesmithError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tilesmith.db"


def test_a_run_is_what_was_recorded(path: Path) -> None:
    trials = [trial(0, 5.0), trial(1), trial(2, 3.0)]
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        for one in trials:
            run.record(one)
        run.stop(Stop.TRIALS)
        assert run.trials() == tuple(trials)
    with open_store(path, must_exist=True) as store:
        again = store.run(run.id)
        assert (again.problem, again.options, again.stops) == (PROBLEM, OPTIONS, (Stop.TRIALS,))
        assert again.trials() == tuple(trials)
        assert [(t.candidate.origin, t.candidate.parent) for t in again.trials()] == [
            (t.candidate.origin, t.candidate.parent) for t in trials
        ]


def test_what_was_read_stays_as_it_was(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        before = run.trials()
        run.record(trial(0))
        assert (len(before), len(run.trials())) == (0, 1)


def test_odd_sources_survive(path: Path) -> None:
    sources = ["", "\0", "\udcff", "é漢\r\n", "x" * 1_000_000]
    with open_store(path) as store:
        run = store.create(Problem("odd", "\udc80"), OPTIONS)
        for source in sources:
            run.record(Trial(Candidate(source), Failed("admit", source[:10])))
    with open_store(path) as store:
        assert store.run(run.id).problem.source == "\udc80"
        assert [t.candidate.source for t in store.run(run.id).trials()] == sources


def test_a_source_is_kept_once(path: Path) -> None:
    with open_store(path) as store:
        for _ in range(2):
            run = store.create(PROBLEM, OPTIONS)
            for _ in range(3):
                run.record(trial(1))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sources").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM events WHERE kind = 'trial'").fetchone() == (6,)
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = '{}'",
        "DELETE FROM events WHERE kind = 'trial'",
        "UPDATE sources SET text = x''",
        "DELETE FROM sources",
        "INSERT INTO sources SELECT id, x'00' FROM sources",
        "INSERT OR IGNORE INTO sources SELECT id, x'00' FROM sources",
        "INSERT OR REPLACE INTO sources SELECT id, x'00' FROM sources",
    ],
)
def test_nothing_recorded_can_be_changed(path: Path, sql: str) -> None:
    with open_store(path) as store:
        store.create(PROBLEM, OPTIONS).record(trial(0))
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|two texts with one id"):
        connection.execute(sql)
    connection.close()


def test_runs_are_listed_with_their_best(path: Path) -> None:
    with open_store(path) as store:
        empty = store.create(Problem("empty", ""), OPTIONS)
        full = store.create(PROBLEM, OPTIONS)
        measured = Trial(Candidate("m"), Correct(Timing(2.0, 1.0, 3.0, 5), 0.1))
        for one in (trial(0, 3.0), measured, trial(1, 2.0), trial(2)):
            full.record(one)
        full.stop(Stop.ROUNDS)
        first, second = store.runs()
    assert (first.id, first.problem, first.trials, first.best, first.stop) == (empty.id, "empty", 0, None, None)
    assert (second.id, second.problem, second.trials, second.stop) == (full.id, "net", 4, Stop.ROUNDS)
    assert second.best == measured
    assert first.began_s <= second.began_s <= time.time()
    assert first.id[:8] <= second.id[:8]
    assert len(first.id) == 11


def test_a_resumed_run_has_not_stopped(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        run.stop(Stop.INTERRUPTED)
        run.record(trial(0))
        assert store.runs()[0].stop is None
        run.stop(Stop.ROUNDS)
        assert store.runs()[0].stop is Stop.ROUNDS
        assert run.stops == (Stop.INTERRUPTED, Stop.ROUNDS)


def test_a_run_is_found_by_the_start_of_its_id(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(path) as store:
        with pytest.raises(JournalError) as caught:
            store.run("1")
        assert "No run begins with '1'" in said(caught)
        assert "holds none" in said(caught)
        ids = iter(["1abc", "1abd", "2xyz", *(f"3{n:02}" for n in range(12))])
        monkeypatch.setattr("tilesmith.journal.store._new_id", lambda: next(ids))
        for _ in range(15):
            store.create(PROBLEM, OPTIONS)
        assert store.run("2").id == store.run("2XYZ").id == "2xyz"
        with pytest.raises(JournalError) as caught:
            store.run("1ab")
        assert "More than one run begins with '1ab'" in said(caught)
        assert "choose from 1abc, 1abd." in said(caught)
        with pytest.raises(JournalError) as caught:
            store.run("1abcd")
        assert "302, 303" in said(caught)
        assert "and 5 older ones" in said(caught)


def test_two_stores_share_a_journal_and_see_each_other(path: Path) -> None:
    with open_store(path) as one, open_store(path) as two:
        run = one.create(PROBLEM, OPTIONS)
        view = two.run(run.id)
        for number in range(3):
            run.record(trial(number))
            assert view.trials() == run.trials()
        assert view.problem == PROBLEM
        other = two.create(PROBLEM, OPTIONS)
        other.record(trial(9))
        run.record(trial(3))
        assert [len(one.run(r.id).trials()) for r in one.runs()] == [4, 1]


def test_threads_share_a_run(path: Path) -> None:
    """A display reads in its own thread while the search records."""
    wrong: list[object] = []
    done = threading.Event()
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)

        def watch() -> None:
            while not done.is_set():
                rounds = [one.round for one in run.trials()]
                if rounds != list(range(len(rounds))) or not store.runs():
                    wrong.append(rounds)

        threads = [threading.Thread(target=watch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(100):
            run.record(trial(number))
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert [one.round for one in run.trials()] == list(range(100))


def test_what_was_recorded_here_is_not_read_again(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        one = trial(0)
        run.record(one)
        assert run.trials()[0] is one
        assert run.trials() is run.trials()


def test_one_writer_a_run(path: Path) -> None:
    with open_store(path) as one, open_store(path) as two:
        run = one.create(PROBLEM, OPTIONS)
        assert two.runs()[0].live
        second = two.run(run.id)
        for refused in (second.claim, lambda: second.record(trial(0)), lambda: second.stop(Stop.ROUNDS)):
            with pytest.raises(JournalError) as caught:
                refused()
            assert f"Run {run.id} is being written by another process" in said(caught)
        assert second.trials() == ()
        run.record(trial(0))
        run.release()
        assert not two.runs()[0].live
        second.claim()
        assert second.trials() == (trial(0),)
        second.record(trial(1))
        with pytest.raises(JournalError):
            run.record(trial(2))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


WRITER = """
import sys
from pathlib import Path
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Candidate, Failed, Trial
from tilesmith.journal import RunOptions, open_store

path, run, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open_store(path) as store:
    one = store.run(run) if run else store.create(Problem("net", "source"), RunOptions(""))
    one.claim()
    print(one.id, len(one.trials()), flush=True)
    for number in range(first, first + count):
        one.record(Trial(Candidate(f"# {number}" + "x" * 2000), Failed("compile", "no"), round=number))
        print(number, flush=True)
    sys.stdin.read()
"""


def writer(path: Path, run: str = "", first: int = 0, count: int = 10**9) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), run, str(first), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_nothing_and_breaks_nothing(path: Path) -> None:
    run, acknowledged = "", 0
    for turn in range(8):
        process = writer(path, run, acknowledged)
        assert process.stdin is not None
        assert process.stdout is not None
        run, known = process.stdout.readline().split()
        assert int(known) == acknowledged
        for _ in range(turn * 7 + 1):
            process.stdout.readline()
        time.sleep(0.0007 * turn)
        process.kill()
        # What the process said before it died, complete lines only, was recorded before it was said.
        said_last = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        process.stdin.close()
        process.stdout.close()
        with open_store(path) as store:
            rounds = [one.round for one in store.run(run).trials()]
            # It may have died after recording and before saying so.
            assert rounds == list(range(len(rounds)))
            assert len(rounds) > acknowledged + turn * 7
            assert not said_last or rounds[-1] - int(said_last[-1]) in (0, 1)
            assert not store.runs()[0].live
            acknowledged = len(rounds)
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_two_processes_write_one_journal(path: Path) -> None:
    processes = [writer(path, count=60) for _ in range(3)]
    runs = []
    for process in processes:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(61)]
        runs.append(lines[0].split()[0])
        assert [int(line) for line in lines[1:]] == list(range(60))
    with open_store(path) as store:
        assert all(one.live for one in store.runs())
        with pytest.raises(JournalError, match="being written by another process"):
            store.run(runs[0]).claim()
    for process in processes:
        process.communicate("")
        assert process.returncode == 0
    with open_store(path) as store:
        assert sorted(one.id for one in store.runs()) == sorted(runs)
        assert len(set(runs)) == 3
        for run in runs:
            assert [one.round for one in store.run(run).trials()] == list(range(60))


def record_many(run: Run) -> None:
    for number in range(1000):
        run.record(Trial(Candidate(f"{number}" * 500), Failed("compile", "no"), round=number))


def fill(store: Store) -> int:
    """Records until the disk refuses, and tells how many trials it took."""
    run = store.create(PROBLEM, OPTIONS)
    with pytest.raises(MachineError) as caught:
        record_many(run)
    assert "disk under the journal" in said(caught)
    assert "nothing that was recorded is lost" in said(caught)
    rounds = [one.round for one in run.trials()]
    assert rounds == list(range(len(rounds)))
    return len(rounds)


def test_a_full_disk_loses_nothing(path: Path) -> None:
    with open_store(path) as store:
        ((pages,),) = store._database.read("PRAGMA page_count")
        store._database.read(f"PRAGMA max_page_count = {int(pages or 0) + 12}")
        recorded = fill(store)
        assert recorded > 3
        store._database.read("PRAGMA max_page_count = 1000000")
        store.run(store.runs()[0].id).release()
    with open_store(path) as store:
        run = store.run("")
        assert len(run.trials()) == recorded
        run.record(trial(recorded))
        assert [one.round for one in run.trials()] == list(range(recorded + 1))


LIMITED = """
import sys
from pathlib import Path
from test_store import fill, open_store
with open_store(Path(sys.argv[1])) as store:
    print(fill(store))
"""


def test_a_file_that_cannot_grow_loses_nothing(path: Path) -> None:
    """A quota instead of a full disk: the operating system refuses the write itself."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert done.returncode == 0, done.stderr
    with open_store(path) as store:
        assert len(store.run("").trials()) == int(done.stdout) > 0


def test_a_locked_journal(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with open_store(path, patience_s=0.05) as store:
        run = store.run(run.id)
        with pytest.raises(JournalError) as caught:
            run.record(trial(0))
        assert "is locked by another program" in said(caught)
        with pytest.raises(JournalError):
            store.create(PROBLEM, OPTIONS)
        other.execute("ROLLBACK")
        run.record(trial(0))
        assert len(run.trials()) == 1
        assert len(store.runs()) == 1
    other.close()
    assert not list(path.parent.glob("*.lock"))


def test_an_exclusively_locked_journal(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="is locked by another program"):
        open_store(path, patience_s=0.05)
    other.close()


def test_a_journal_of_another_version(path: Path) -> None:
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError) as caught:
        open_store(path)
    assert "has version 99, and this Tilesmith reads up to version 3" in said(caught)


OLD_KEEPER = """
CREATE TRIGGER sources_are_kept BEFORE DELETE ON sources BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""
TO_2 = f"""
DROP INDEX events_of_a_source; DROP INDEX runs_of_a_start; DROP INDEX best_of_a_run; DROP TRIGGER sources_are_kept;
{OLD_KEEPER} PRAGMA user_version = 2;
"""
TO_1 = f"{TO_2} DROP INDEX facts_by_key; ALTER TABLE events DROP COLUMN key; PRAGMA user_version = 1;"


def shape(path: Path) -> list[tuple[str, str]]:
    """What is in the schema, by name."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, type FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize("back", [TO_1, TO_2], ids=["1", "2"])
def test_a_journal_of_an_earlier_version_is_brought_up_to_date(path: Path, back: str) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        run.record(trial(1, 2.0))
        run.stop(Stop.ROUNDS)
    new = shape(path)
    connection = sqlite3.connect(path)
    connection.executescript(back)
    connection.close()
    assert shape(path) != new
    with open_store(path) as store:
        again = store.run(run.id)
        assert again.trials() == (trial(1, 2.0),)
        (line,) = store.runs()
        assert (line.stop, line.best) == (Stop.ROUNDS, trial(1, 2.0))
        again.note(Ending("k", "judged"))
        assert again.recall(Ending, "k") == Ending("k", "judged")
        assert again.problem == PROBLEM
    assert shape(path) == new


def test_a_record_of_another_version(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        insert = "INSERT INTO events (run, kind, at_s, source, body) SELECT run, 'trial', 0, source, '{}' FROM events"
        store._database.write([(insert, ())])
        with pytest.raises(JournalError) as caught:
            store.run(run.id).trials()
        assert "holds a record that this Tilesmith cannot read" in said(caught)


def test_files_that_are_no_journals(path: Path, tmp_path: Path) -> None:
    path.write_text("a shopping list, longer than the header of a database would be: " + "eggs, " * 100)
    with pytest.raises(JournalError) as caught:
        open_store(path)
    assert "is not a journal of Tilesmith" in said(caught)
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(JournalError) as caught:
        open_store(foreign)
    assert "database of another program" in said(caught)
    assert foreign.read_bytes() == before
    for other in (tmp_path, Path("/dev/full")):
        with pytest.raises(JournalError) as caught:
            open_store(other)
        assert "not a regular file" in said(caught)
    with pytest.raises(JournalError) as caught:
        open_store(tmp_path / "gone.db", must_exist=True)
    assert "There is no journal at" in said(caught)
    assert not (tmp_path / "gone.db").exists()


def test_a_damaged_journal(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        for number in range(50):
            run.record(Trial(Candidate(f"{number}" * 3000), Failed("compile", "no")))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(JournalError) as caught, open_store(path) as store:
        store.runs()
    assert "is damaged" in said(caught)


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    # Not even root can make a file there.
    for path in (tmp_path / "gone" / "x.db", Path("/proc/tilesmith.db")):
        with pytest.raises(JournalError) as caught:
            open_store(path)
        assert "cannot be opened for writing" in said(caught)


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    with open_store(path) as store:
        assert store.runs() == ()


def test_a_copied_journal_is_whole(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        run.record(trial(0))
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with open_store(copy) as store:
        assert store.run(run.id).trials() == (trial(0),)


def test_what_comes_in_haste_is_on_the_disk_soon_and_what_comes_alone_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(time.monotonic())

    monkeypatch.setattr("tilesmith.journal.database.os.fsync", watched)
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        levels = set()
        for number in range(50):
            run.record(trial(number))
            levels.add(store._database.read("PRAGMA synchronous")[0][0])
        last = time.monotonic()
        assert 1 in levels, "some trials shared a confirmation"
        while not synced or synced[-1] < last:
            assert time.monotonic() < last + 20, "what was recorded last was never confirmed"
            time.sleep(0.01)
        time.sleep(2 * SYNC_S)
        run.record(trial(50))
        assert store._database.read("PRAGMA synchronous") == [(2,)], "full"
        run.record(trial(51))
        run.stop(Stop.ROUNDS)
        assert store._database.read("PRAGMA synchronous") == [(2,)]
    with open_store(path) as store:
        assert [one.round for one in store.run("").trials()] == list(range(52))


def test_a_disk_that_fails_after_all_is_told_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        monkeypatch.setattr("tilesmith.journal.database.os.fsync", failing)
        with pytest.raises(MachineError) as caught:
            record_many(run)
        assert "The disk under the journal" in said(caught)
        assert "Input/output error" in said(caught)


def test_recording_is_quick_and_reading_again_is_cheap(path: Path) -> None:
    with open_store(path) as store:
        run = store.create(PROBLEM, OPTIONS)
        for number in range(200):
            run.record(trial(number))
        run.trials()
        began = time.perf_counter()
        for _ in range(200):
            run.trials()
        # A decoding of all 200 would take longer than this each time.
        assert (time.perf_counter() - began) / 200 < 0.002
