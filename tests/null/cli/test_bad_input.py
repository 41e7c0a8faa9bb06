"""Whatever is wrong with what a user gives: one sentence, the right exit status, one JSON object, nothing lost."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import PROBLEM, Answer, WordBench, kernel

from tilesmith.cli import rooms
from tilesmith.core.errors import MachineError, ProblemError, TilesmithError

Tilesmith = Callable[..., Answer]
Spoil = Callable[[Path], object]


def nothing(_: Path) -> None:
    """The fault is in the words of the command."""


FAULTS: list[tuple[str, Spoil, str, str]] = [
    # what is wrong; how; the command; a word of the sentence
    ("no command of that name", nothing, "optmize toy", "optimize"),
    ("an unknown option", nothing, "optimize toy --budget-trails 3", "--budget-trials"),
    ("no problem", nothing, "optimize", "PROBLEM"),
    ("no number", nothing, "optimize toy --rounds many", "--rounds"),
    ("no rounds", nothing, "optimize toy --rounds 0", "--rounds"),
    ("no pool", nothing, "optimize toy --candidate-pool-size 0", "--candidate-pool-size"),
    ("no bottlenecks", nothing, "optimize toy --num-bottlenecks -1", "--num-bottlenecks"),
    ("no trials", nothing, "optimize toy --budget-trials -5", "--budget-trials"),
    ("no seconds", nothing, "optimize toy --budget-seconds 0", "--budget-seconds"),
    ("seconds that are no number", nothing, "optimize toy --budget-seconds nan", "--budget-seconds"),
    ("endless seconds", nothing, "optimize toy --budget-gpu-seconds inf", "--budget-gpu-seconds"),
    ("no workers", nothing, "optimize toy --workers-per-gpu 0", "--workers-per-gpu"),
    ("an unknown bench", nothing, "optimize toy --bench ofline", "offline"),
    ("a replay of nothing", nothing, "optimize toy --bench replay:", "replay:RUN"),
    ("a GPU that nobody knows", nothing, "optimize toy --target h300", "h300"),
    ("no GPU", nothing, "optimize toy --bench local", "doctor"),
    ("GPUs for the bench without any", nothing, "optimize toy --bench offline --gpus 0", "--gpus"),
    ("an address without a cluster", nothing, "optimize toy --bench offline --address here:6379", "--bench ray"),
    ("an address that is none", nothing, "optimize toy --bench ray --address here", "HOST:PORT"),
    ("an address of another kind", nothing, "evaluate toy k.py --bench ray --address ray://h:1", "ray job submit"),
    ("GPUs of a cluster", nothing, "optimize toy --bench ray --gpus 0", "--gpus"),
    ("GPUs that are no numbers", nothing, "optimize toy --gpus zero", "--gpus"),
    ("an unknown proposer", nothing, "optimize toy --proposers rewrites", "rewrite"),
    ("no proposer", nothing, "optimize toy --proposers ,", "--proposers"),
    ("a problem that is not there", nothing, "optimize nowhere", "nowhere"),
    ("a folder without a problem", lambda here: (here / "empty").mkdir(), "optimize empty", "problem.py"),
    ("a problem without Model", lambda here: (here / "p.py").write_text("x = 1\n"), "evaluate p.py k.py", "Model"),
    ("a problem with an error of syntax", lambda here: (here / "p.py").write_text("def"), "evaluate p.py k.py", "p.py"),
    ("a problem that is no text", lambda here: (here / "p.py").write_bytes(b"\xff\xfe"), "evaluate p.py k.py", "UTF-8"),
    (
        "an unknown key",
        lambda here: (here / "toy" / "problem.toml").write_text("tolerence = 2.0\n"),
        "optimize toy",
        "tolerance",
    ),
    (
        "no start kernel",
        lambda here: (here / "p.py").write_text(PROBLEM),
        "optimize p.py --proposers rewrite",
        "kernel.py",
    ),
    ("a folder for the winner that is not there", nothing, "optimize toy --out no/where.py", "--out"),
    ("a folder for the winner itself", nothing, "optimize toy --out toy", "--out"),
    ("the problem for the winner", nothing, "optimize toy --out toy/problem.py", "--out"),
    ("a device for the winner", nothing, f"optimize toy --out {os.devnull}", "--out"),
    ("a journal that is none", lambda here: (here / "tilesmith.db").write_text("x" * 9999), "optimize toy", "journal"),
    ("a journal that is a folder", lambda here: (here / "tilesmith.db").mkdir(), "optimize toy", "tilesmith.db"),
    ("a journal in no folder", nothing, "optimize toy --journal no/where.db", "where.db"),
    ("no journal", nothing, "resume abc", "tilesmith.db"),
    ("a run that is not there", lambda here: sqlite3.connect(here / "j.db").close(), "show abc --journal j.db", "abc"),
]


@pytest.mark.parametrize(("spoil", "words", "told"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_fault_is_one_sentence_and_exit_status_2(
    tilesmith: Tilesmith, place: Path, bench: WordBench, spoil: Spoil, words: str, told: str
) -> None:
    (place / "k.py").write_text(kernel("12.5"))
    spoil(place)
    for json in ([], ["--json"]):
        answer = tilesmith(*words.split(), *json)
        assert answer.status == 2
        sentence = next(line for line in answer.err.splitlines() if line.startswith("tilesmith: "))
        assert told in sentence
        assert "internal error" not in sentence
        if json:
            assert answer.document["message"] in sentence
        else:
            assert answer.out == ""
    assert bench.judged == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "mine.py"),
        (b"", "empty"),
        (b"x = 1\n", "kernel_function"),
        (b"def kernel_function(:\n", "line 1"),
        (b"\xff\xfe\n", "UTF-8"),
    ],
)
def test_a_fault_of_the_candidate_is_a_verdict(
    tilesmith: Tilesmith, place: Path, content: bytes | None, told: str
) -> None:
    if content is not None:
        (place / "mine.py").write_bytes(content)
    answer = tilesmith("evaluate", "toy", "mine.py", "--json")
    assert (answer.status, answer.document["verdict"], answer.document["stage"]) == (1, "failed", "admit")
    assert told in answer.document["message"]


def test_a_journal_from_another_version(tilesmith: Tilesmith, place: Path) -> None:
    tilesmith("optimize", "toy", "--budget-trials", "1")
    with sqlite3.connect(place / "tilesmith.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    answer = tilesmith("runs", "--json")
    assert answer.status == 2
    assert "version 99" in answer.document["message"]


@pytest.mark.parametrize(
    "fault",
    [
        ProblemError("the reference returns NaN; make its inputs finite"),
        MachineError("the inputs take 9 GiB and the device has 8"),
        OSError(28, "No space left on device", "tilesmith.db"),
        MemoryError(),
    ],
)
def test_a_fault_in_the_middle_loses_nothing(
    tilesmith: Tilesmith, bench: WordBench, fault: Exception, place: Path
) -> None:
    def fail(_: object) -> None:
        if len(bench.judged) == 4:
            raise fault

    bench.before = fail
    answer = tilesmith("optimize", "toy", "--json")
    assert answer.status == 2
    assert "internal error" not in answer.document["message"]
    bench.before = lambda _: None
    [row] = tilesmith("runs", "--json").document["runs"]
    assert (row["trials"], row["stop"]) == (4, None)
    assert tilesmith("resume", row["run"], "--json").document["trials"] == 19
    assert not list(place.glob(".toy_tilesmith*"))


def test_an_internal_error_leaves_its_traceback_in_a_file(
    tilesmith: Tilesmith, bench: WordBench, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place))

    def fail(_: object) -> None:
        raise ZeroDivisionError("division of two\nlines by zero")

    bench.before = fail
    (place / "mine.py").write_text(kernel("1.0"))
    answer = tilesmith("evaluate", "toy", "mine.py", "--json")
    assert answer.status == 2
    assert "ZeroDivisionError" in answer.document["message"]
    [log] = place.glob("tilesmith-*.log")
    assert str(log) in answer.document["message"]
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("fault", [BrokenPipeError(32, "Broken pipe"), KeyboardInterrupt()])
def test_who_hangs_up_or_interrupts_sees_no_traceback(
    tilesmith: Tilesmith, monkeypatch: pytest.MonkeyPatch, fault: BaseException, place: Path
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(rooms, "chosen", fail)
    (place / "mine.py").write_text(kernel("1.0"))
    assert tilesmith("evaluate", "toy", "mine.py").status in {1, 2}


def test_an_old_run_whose_options_cannot_be_read(tilesmith: Tilesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tilesmith("optimize", "toy", "--json", "--budget-trials", "1").document["run"]
    monkeypatch.setattr("tilesmith.cli.options.PROPOSERS", ("other",))
    answer = tilesmith("resume", run, "--json")
    assert answer.status == 2
    assert "options" in answer.document["message"]


def test_every_error_has_a_sentence(tilesmith: Tilesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in TilesmithError.__subclasses__():

        def fail(*_: object, kind: type[TilesmithError] = kind) -> None:
            raise kind("what is wrong,\nand what to do")

        monkeypatch.setattr(rooms, "chosen", fail)
        answer = tilesmith("optimize", "toy", "--json")
        assert answer.document["message"] == "what is wrong, and what to do"
