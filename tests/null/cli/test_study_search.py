"""`study search`: what it compares, what it keeps when it is interrupted, and names that nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilesmith.cli import main
from tilesmith.cli import study as studies
from tilesmith.report.study import from_line
from tilesmith.superopt.workloads import WORKLOADS, Workload, concrete, small_product

QUICK = Workload(small_product, concrete(4))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workload that is exhausted before its process has started."""
    monkeypatch.setitem(WORKLOADS, "concrete/quick", QUICK)


def study(out: Path, *more: str) -> int:
    return main(["study", "search", "--programs", "concrete/quick", "--out", str(out), *more])


def test_schedules_are_compared_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "here"
    assert study(out, "--schedules", "static,openmp,copies", "--threads", "1,2", "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["stop"], document["cells"], document["reused"]) == ("exhausted", 6, 0)
    assert document["faults"] == document["disagreements"] == []
    assert said.err.count("concrete/quick") == 6
    rows = {(row["cell"]["schedule"], row["cell"]["threads"]): row for row in document["rows"]}
    assert rows["static", 1]["speedup"] == rows["static", 1]["efficiency"] == 1.0
    assert rows["openmp", 2]["baseline"].startswith("concrete/quick, static, dfs, table")
    assert rows["openmp", 2]["states"] == rows["static", 1]["states"] > 0
    assert rows["openmp", 2]["imbalance"] >= 1
    assert rows["openmp", 2]["peak_bytes"] > 1 << 20
    assert rows["copies", 2]["speedup"] is None
    drawn = {Path(path).name for path in document["plots"]}
    assert [(one["searches"], one["ways"], one["repeats"]) for one in document["agreements"]] == [(6, 6, 1)]
    assert {"speedup.svg", "speedup.png", "efficiency.svg", "imbalance.svg", "memory.svg"} <= drawn
    assert (out / "speedup.svg").read_text().startswith("<svg")
    assert json.loads((out / "study.json").read_text())["rows"] == document["rows"]


def test_what_was_measured_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path, "--schedules", "static", "--threads", "1") == 0
    first = (tmp_path / "cells.jsonl").read_text()
    # As if the next one had been cut off while it was written.
    (tmp_path / "cells.jsonl").write_text(first + first[:40])
    capsys.readouterr()
    assert study(tmp_path, "--schedules", "static,openmp", "--threads", "1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["cells"], document["reused"]) == (2, 1)
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    assert lines[0] + "\n" == first
    assert [from_line(line) is not None for line in lines] == [True, False, True]


def test_an_interrupted_study_keeps_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = studies._measure

    def once(*given: object) -> object:
        if (tmp_path / "cells.jsonl").exists():
            raise KeyboardInterrupt
        return measure(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(studies, "_measure", once)
    assert study(tmp_path, "--schedules", "static", "--threads", "1,2", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["stop"], document["cells"]) == ("interrupted", 1)
    monkeypatch.setattr(studies, "_measure", measure)
    assert study(tmp_path, "--schedules", "static", "--threads", "1,2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["stop"], document["cells"], document["reused"]) == ("exhausted", 2, 1)


def test_repeats_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--schedules", "openmp", "--orders", "dfs,bfs", "--threads", "2", "--repeats", "2"]
    assert study(tmp_path, *options) == 0
    said = capsys.readouterr().out
    assert "concrete/quick, table: result sets identical, 2 ways, 2 repeats (4 searches)" in said


def test_oracles_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--schedules", "openmp", "--threads", "1", "--oracles", "table,table/2,z3-thread"]
    assert study(tmp_path, *options, "--budget-seconds", "3") == 0
    assert capsys.readouterr().out.count("s waiting for shared answers") == 1
    assert study(tmp_path, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["cell"]["oracle"]: row for row in document["rows"]}
    assert rows["table"]["calls"] == 0 < rows["z3-thread"]["calls"]
    assert rows["z3-thread"]["oracle_seconds"] > 0
    assert rows["z3-thread"]["hits"] > rows["z3-thread"]["calls"]
    assert rows["table/2"]["states"] > rows["table"]["states"]
    assert (tmp_path / "oracle.svg").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--programs", "concrete/loa"], "did you mean concrete/lora?"),
        (["--programs", ""], "--programs is empty"),
        (["--schedules", "statik"], "did you mean static?"),
        (["--orders", "dsf"], "--orders: unknown name 'dsf'"),
        (["--oracles", "z4"], "--oracles: unknown name 'z4'"),
        (["--oracles", "table/0"], "must end in /N"),
        (["--threads", "two"], "--threads is 'two'"),
        (["--threads", "0"], "--threads takes numbers from 1"),
        (["--repeats", "0"], "--repeats takes numbers from 1"),
        (["--budget-seconds", "0"], "--budget-seconds is 0"),
    ],
)
def test_names_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["study", "search", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_hold_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert study(tmp_path / "file") == 2
    assert "--out" in capsys.readouterr().err


def test_a_search_that_fails_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORKLOADS, "concrete/quick", Workload(small_product, concrete(99)))
    assert study(tmp_path, "--schedules", "static", "--threads", "1", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert "--block-ops is 99" in document["faults"][0]
    assert document["rows"] == []
