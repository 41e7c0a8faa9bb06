"""What the commands answer: documents, exit statuses, files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import Answer, WordBench, kernel

Tilesmith = Callable[..., Answer]
EVALUATION = {
    "verdict", "stage", "message", "error", "fingerprint", "launches", "time_us", "estimate_us", "evidence",
    "protection",
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "verdict", "stage", "status"),
    [
        ("12.5", "correct", None, 0),
        ("wrong", "wrong", "check", 1),
        ("rejected", "rejected", None, 1),
        ("failed", "failed", "compile", 1),
        ("unchecked", "unchecked", None, 1),
    ],
)
def test_evaluate_says_the_verdict(
    tilesmith: Tilesmith, place: Path, word: str, verdict: str, stage: str | None, status: int
) -> None:
    (place / "mine.py").write_text(kernel(word))
    answer = tilesmith("evaluate", "toy", "mine.py", "--json")
    document = answer.document
    assert document.keys() == EVALUATION
    assert (answer.status, document["verdict"], document["stage"]) == (status, verdict, stage)
    assert (document["message"] is None) == (verdict == "correct")
    assert document["time_us"] is None
    plain = tilesmith("evaluate", "toy", "mine.py")
    assert plain.status == status
    assert verdict in plain.out


def test_evaluate_gives_the_evidence(tilesmith: Tilesmith, place: Path) -> None:
    (place / "mine.py").write_text(kernel("12.5"))
    document = tilesmith("evaluate", "toy", "mine.py", "--json").document
    assert document["estimate_us"] == 12.5
    assert document["error"] == 0.25
    assert document["protection"] == "namespaces"
    [launch] = document["launches"]
    assert launch == {
        "kernel": "kernel", "grid": [132, 1, 1], "warps": 4, "stages": 3,
        "shared_bytes": 1024, "registers": 32, "spills": 0,
    }  # fmt: skip


def test_a_number_that_is_none_stays_out_of_the_document(tilesmith: Tilesmith, place: Path) -> None:
    (place / "mine.py").write_text(kernel("wrong"))
    assert tilesmith("evaluate", "toy", "mine.py", "--json").document["error"] is None


def test_optimize_writes_the_winner(tilesmith: Tilesmith, place: Path) -> None:
    answer = tilesmith("optimize", "toy", "--json", "--bench", "offline")
    document = answer.document
    assert answer.status == 0
    assert document["stop"] == "exhausted"
    assert document["trials"] == 1 + 3 * 6
    assert document["costs"]["wall_s"] == pytest.approx(0.5 * 19)
    best = document["best"]
    assert best["origin"] == "rewrite:halve"
    assert best["lineage"] == ["start", *["rewrite:halve"] * 6]
    assert (best["estimate_us"], best["time_us"], best["baseline_us"]) == (1.0, None, 64.0)
    assert best["path"] == str(place / "toy_tilesmith.py")
    assert tilesmith("evaluate", "toy", best["path"], "--json").document["estimate_us"] == 1.0


def test_optimize_tells_people_the_same(tilesmith: Tilesmith, place: Path) -> None:
    answer = tilesmith("optimize", "toy", "--budget-trials", "6")
    assert answer.status == 0
    assert "1.6" not in answer.out
    assert "16 µs estimated, 4.00 times as fast as the start kernel (64 µs estimated)" in answer.out
    assert f"written to {place / 'toy_tilesmith.py'}" in answer.out
    assert "bench: offline (no GPU found" in answer.err
    assert "round 1" in answer.err


def test_no_improvement_is_said_and_still_written(tilesmith: Tilesmith, place: Path) -> None:
    answer = tilesmith("optimize", "toy", "--budget-trials", "1")
    assert answer.status == 0
    assert "no improvement" in answer.out
    assert (place / "toy_tilesmith.py").exists()


def test_a_wrong_start_kernel_ends_the_run(tilesmith: Tilesmith, place: Path) -> None:
    (place / "toy" / "kernel.py").write_text(kernel("failed"))
    answer = tilesmith("optimize", "toy", "--json")
    document = answer.document
    assert (answer.status, document["verdict"], document["stop"]) == (1, "failed", "start")
    assert document["best"] is None
    assert "no such operator" in document["message"]
    assert not (place / "toy_tilesmith.py").exists()


def test_resume_extends_the_budget_and_ends_as_an_unbroken_run(tilesmith: Tilesmith, bench: WordBench) -> None:
    first = tilesmith("optimize", "toy", "--json", "--budget-trials", "6", "--journal", "one.db").document
    again = tilesmith("resume", first["run"][:6], "--json", "--budget-trials", "12", "--journal", "one.db").document
    judged = bench.judged.copy()
    bench.judged.clear()
    whole = tilesmith("optimize", "toy", "--json", "--budget-trials", "12", "--journal", "two.db").document
    assert (first["trials"], again["trials"], first["run"]) == (6, 12, again["run"])
    assert again["best"] == whole["best"]
    assert judged == bench.judged


def test_runs_and_show(tilesmith: Tilesmith, place: Path) -> None:
    run = tilesmith("optimize", "toy", "--json", "--budget-trials", "6").document["run"]
    [row] = tilesmith("runs", "--json").document["runs"]
    assert (row["run"], row["problem"], row["trials"], row["stop"]) == (run, "toy", 6, "trials")
    assert run in tilesmith("runs").out
    shown = tilesmith("show", run, "--json").document
    assert [r["trial"] for r in shown["rows"]] == [1, 2, 3, 4, 5, 6]
    assert (shown["outcome"], shown["stops"], shown["best"]["estimate_us"]) == ("correct", ["trials"], 16.0)
    page = tilesmith("show", run[:7]).out
    for words in ("limit on trials", "rewrite:halve", "torch 2.13.0", "start > rewrite:halve > rewrite:halve"):
        assert words in page
    assert tilesmith("show", run, "--trial", "1", "--source").out == (place / "toy" / "kernel.py").read_text()
    assert tilesmith("show", run, "--source").out == kernel("16.0")
    assert tilesmith("show", run, "--trial", "2", "--source", "--json").document["trial"]["source"] == kernel("32.0")
    assert "wrong" in tilesmith("show", run, "--trial", "3").out


def test_an_empty_place_has_no_runs(tilesmith: Tilesmith, place: Path) -> None:
    assert tilesmith("runs", "--json").document["runs"] == []
    assert not (place / "tilesmith.db").exists()


def test_the_journal_may_stand_elsewhere(tilesmith: Tilesmith, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESMITH_JOURNAL", str(place / "other.db"))
    run = tilesmith("optimize", "toy", "--json", "--budget-trials", "2").document["run"]
    assert not (place / "tilesmith.db").exists()
    assert [row["run"] for row in tilesmith("runs", "--json").document["runs"]] == [run]


def test_an_interrupt_keeps_everything(tilesmith: Tilesmith, bench: WordBench, place: Path) -> None:
    def interrupt(_: object) -> None:
        if len(bench.judged) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    bench.before = interrupt
    handler = signal.getsignal(signal.SIGINT)
    document = tilesmith("optimize", "toy", "--json").document
    assert signal.getsignal(signal.SIGINT) is handler
    assert (document["verdict"], document["stop"], document["trials"]) == ("correct", "interrupted", 4)
    assert (place / "toy_tilesmith.py").exists()
    bench.before = lambda _: None
    assert tilesmith("resume", document["run"], "--json").document["trials"] == 19
    assert tilesmith("show", document["run"], "--json").document["stops"] == ["interrupted", "exhausted"]


def test_an_interrupt_before_the_first_verdict_has_found_nothing(tilesmith: Tilesmith, bench: WordBench) -> None:
    bench.before = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    answer = tilesmith("optimize", "toy", "--json")
    assert (answer.status, answer.document["stop"], answer.document["best"]) == (1, "interrupted", None)


def test_doctor(tilesmith: Tilesmith) -> None:
    answer = tilesmith("doctor", "--json")
    assert answer.status == 0
    document = answer.document
    assert {bench["bench"]: bench["works"] for bench in document["benches"]} == {"offline": True, "local": False}
    names = {finding["name"] for finding in document["findings"]}
    assert {"python", "torch", "triton", "gpus", "hardware counters", "ptxas", "landlock", "journal folder"} <= names
    assert all(finding["mend"] for finding in document["findings"] if finding["state"] != "ok")
    assert "bench offline: works" in tilesmith("doctor").out


def test_help_and_version(tilesmith: Tilesmith) -> None:
    assert tilesmith("--version").out == "tilesmith 0.1.0\n"
    page = tilesmith("--help")
    assert page.status == 0
    assert all(name in page.out for name in ("optimize", "evaluate", "resume", "runs", "show", "doctor"))
    assert tilesmith().out == page.out
    words = tilesmith("optimize", "--help").out
    for flag in (
        "--rounds", "--candidate-pool-size", "--num-bottlenecks", "--target", "--bench", "--budget-trials",
        "--budget-seconds", "--budget-gpu-seconds", "--gpus", "--workers-per-gpu", "--proposers", "--seed",
        "--journal", "--out", "--json",
    ):  # fmt: skip
        assert flag in words


def test_a_document_is_one_line_of_ascii(tilesmith: Tilesmith, place: Path) -> None:
    (place / "mine.py").write_text(kernel("failed"))
    out = tilesmith("evaluate", "toy", "mine.py", "--json").out
    assert out.isascii()
    assert json.loads(out)["message"] == "no such operator\nat line 3"


def test_names_that_are_no_text(tilesmith: Tilesmith, place: Path) -> None:
    name = os.fsdecode(b"t\xff\ny")
    (place / "toy").rename(place / name)
    document = tilesmith("optimize", name, "--json", "--budget-trials", "3").document
    assert document["verdict"] == "correct"
    [file] = place.glob("t*_tilesmith.py")
    assert tilesmith("evaluate", name, str(file), "--json").document["verdict"] == "correct"
    assert tilesmith("show", document["run"]).status == 0
    assert tilesmith("runs").status == 0
