"""Commands run in this process, with a bench and a proposer that stand in for the real ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from cli_fakes import PROBLEM, Answer, Halving, WordBench, kernel

from tilesmith.cli import main, rooms
from tilesmith.core.seams import Bench


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> WordBench:
    """Stands where the real benches would be."""
    fake = WordBench()

    def enter(*_: object) -> AbstractContextManager[Bench]:
        return nullcontext(fake)

    monkeypatch.setattr(rooms, "bench", enter)
    monkeypatch.setattr(rooms, "proposer", lambda *_: nullcontext(Halving()))
    return fake


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a problem in it, whose start kernel takes 64 µs."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "problem.py").write_text(PROBLEM)
    (tmp_path / "toy" / "kernel.py").write_text(kernel("64.0"))
    return tmp_path


@pytest.fixture
def place(here: Path, monkeypatch: pytest.MonkeyPatch, bench: WordBench) -> Path:  # noqa: ARG001 (for its effect)
    """The current folder, with nothing else in it."""
    monkeypatch.chdir(here)
    monkeypatch.delenv("TILESMITH_JOURNAL", raising=False)
    monkeypatch.setattr(rooms.gpus, "find", tuple)
    return here


@pytest.fixture
def tilesmith(place: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:  # noqa: ARG001
    """Run one command; nothing of it may be a traceback."""

    def run(*words: str) -> Answer:
        status = main(words)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Answer(status, captured.out, captured.err)

    return run
