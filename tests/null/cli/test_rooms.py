"""Which bench is chosen, and what each of them is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_fakes import PROBLEM, WordBench, kernel

from tilesmith.bench import gpus
from tilesmith.bench.gpus import Device
from tilesmith.cli import rooms
from tilesmith.cli.options import BenchOptions, Options, gpu_list, name_list
from tilesmith.core.errors import JournalError, OptionError
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.trial import Candidate
from tilesmith.journal import RunOptions, open_store
from tilesmith.propose import RewriteProposer

TOY = Problem("toy", PROBLEM)
H200 = target("h200")
HOST = tuple(Device(index, f"GPU-{index}", "NVIDIA H200", 141 << 30, "580.159.04", 90, H200) for index in (0, 1))


def host(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
    monkeypatch.setattr(gpus, "find", lambda: devices)


def test_auto_takes_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host(monkeypatch, *HOST)
    assert rooms.chosen(BenchOptions(), TOY).bench == "local"
    assert "bench: local (NVIDIA H200, NVIDIA H200)" in capsys.readouterr().err
    host(monkeypatch)
    assert rooms.chosen(BenchOptions(), TOY) == BenchOptions("offline", "h200")
    assert "bench: offline" in capsys.readouterr().err


def test_the_target_is_the_options_or_the_problems_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    problem = Problem("toy", PROBLEM, Settings(target="b200"))
    assert rooms.chosen(BenchOptions("offline"), TOY).target == "h200"
    assert rooms.chosen(BenchOptions("offline"), problem).target == "b200"
    assert rooms.chosen(BenchOptions("offline", "L40S"), problem).target == "l40s"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (BenchOptions("local", gpus=(0, 3)), "--gpus names 3"),
        (BenchOptions("local", target="b200"), "--target is b200"),
        (BenchOptions("offline", gpus=(0,)), "--gpus"),
    ],
)
def test_options_that_contradict_this_machine(
    monkeypatch: pytest.MonkeyPatch, options: BenchOptions, told: str
) -> None:
    host(monkeypatch, *HOST)
    with pytest.raises(OptionError, match=told):
        rooms.chosen(options, TOY)


def test_a_target_that_is_the_gpu_here_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, *HOST)
    assert rooms.chosen(BenchOptions("local", "h200", (1,)), TOY).bench == "local"


def test_a_replay_answers_from_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "tilesmith.db"
    with open_store(journal) as store:
        run = store.create(TOY, RunOptions("{}"))
        [trial] = WordBench().judge(TOY, [candidate()], ())
        run.record(trial)
        name = run.id
    options = BenchOptions(f"replay:{name[:8]}")
    assert rooms.chosen(options, TOY) == options
    with rooms.bench(options, journal) as bench:
        [again] = bench.judge(TOY, [candidate()], ())
    assert again.verdict == trial.verdict


def candidate() -> Candidate:
    return Candidate(kernel("12.5"))


def test_options_survive_the_journal() -> None:
    options = Options("toy", "out.py", BenchOptions("local", None, (0, 2), 3), 5, 3, ("rewrite",), 7, 2, 10, 1.5, 0.25)
    assert Options.from_json(options.to_json()) == options
    assert Options.from_json(Options("toy", "").to_json()) == Options("toy", "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bench": {"gpus": null}, "proposers": []}', '{"bench": 3}'])
def test_options_that_no_run_wrote(text: str) -> None:
    with pytest.raises(JournalError, match="start a new run"):
        Options.from_json(text)


def test_lists() -> None:
    assert gpu_list(None) is None
    assert gpu_list("all") is None
    assert gpu_list("2, 0") == (2, 0)
    assert name_list(" a,b,a,") == ("a", "b")
    for words in ("", "0,0", "-1", "٣"):
        with pytest.raises(OptionError, match="--gpus"):
            gpu_list(words)


def test_the_beam_is_told_its_width() -> None:
    options = Options("toy", "", candidate_pool_size=7, num_bottlenecks=3, proposers=("rewrite",), seed=9)
    with rooms.proposer(options, None, None, None) as proposer:  # type: ignore[arg-type]
        assert proposer == RewriteProposer(candidate_pool_size=7, num_bottlenecks=3, seed=9)
