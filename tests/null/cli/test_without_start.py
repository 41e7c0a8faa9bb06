"""Beginning without a start kernel, and the drawing of the µGraph that a winner descends from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cli_fakes import Answer, kernel

from tilesmith.cli import winner
from tilesmith.core.facts import Derivation
from tilesmith.core.trial import Candidate, Correct, Estimate, Trial
from tilesmith.superopt.programs import lora
from tilesmith.superopt.schema import to_json
from tilesmith.testing.fakes import ListJournal

Tilesmith = Callable[..., Answer]


def trial(word: str, origin: str, parent: str | None = None) -> Trial:
    return Trial(Candidate(kernel(word), origin, parent), Correct(Estimate(float(word)), 0.1))


def test_a_start_kernel_can_be_left_out(tilesmith: Tilesmith) -> None:
    answer = tilesmith("optimize", "toy", "--no-start-kernel", "--proposers", "rewrite", "--json")
    assert answer.status == 2
    assert "no start kernel" in answer.document["message"]


def test_the_winner_s_graph_is_drawn_beside_its_file(tmp_path: Path) -> None:
    root = trial("12.5", "superopt:rows 16")
    child = trial("9.5", "rewrite:warps", root.candidate.id)
    journal = ListJournal(facts=[Derivation(root.candidate.id, to_json(lora()), "0" * 16, "rows 16", 3.5)])
    path = winner.draw((root, child), journal, tmp_path / "best.py")
    assert path == tmp_path / "best.svg"
    assert path.read_text("utf-8").startswith("<svg")


def test_a_winner_without_a_graph_has_no_drawing(tmp_path: Path) -> None:
    assert winner.draw((trial("12.5", "start"),), ListJournal(), tmp_path / "best.py") is None
    assert not list(tmp_path.iterdir())
