"""The recorded replies load, are what their labels say, and repairs belong to replies."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tilesmith.bench.offline import OfflineBench
from tilesmith.config import load_problem
from tilesmith.core.gpu import target
from tilesmith.core.trial import Candidate, Verdict
from tilesmith.propose.chat.recorded import read_replies
from tilesmith.propose.code import ENTRY_POINTS, NoCode, code_block

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ("fused_gate_up", "matvec")
REPLIES = [path for name in NAMES for path in sorted((EXAMPLES / "replies" / name).glob("*.md"))]
REPAIRS = [path for name in NAMES for path in sorted((EXAMPLES / "replies" / name / "repairs").glob("*.md"))]
LABELS = {"correct", "wrong", "rejected", "failed", "unchecked", "duplicate", "no code"}


def split(path: Path) -> tuple[dict[str, Any], str]:
    empty, front, text = path.read_text("utf-8").split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), text


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_of_every_kind(name: str) -> None:
    replies = read_replies(EXAMPLES / "replies" / name)
    assert len(replies) >= 24
    assert {reply.label for reply in replies} == LABELS
    assert sum(reply.strong for reply in replies) >= 6
    assert all(reply.author == "written by hand" and reply.note for reply in replies)


@pytest.mark.parametrize("path", [*REPLIES, *REPAIRS], ids=named)
def test_it_says_what_it_is_and_its_code_can_be_taken(path: Path) -> None:
    front, text = split(path)
    assert set(front) <= {"author", "label", "note", "repairs", "of", "strong"}
    assert front["author"] == "written by hand"
    assert front["label"] in LABELS
    if front["label"] == "no code":
        with pytest.raises(NoCode):
            code_block(text)
        return
    tree = ast.parse(code_block(text))
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert len(defined & set(ENTRY_POINTS)) == 1


@pytest.mark.parametrize("path", REPLIES, ids=named)
def test_what_it_points_to_is_there(path: Path) -> None:
    front, _ = split(path)
    assert all((path.parent / repair).is_file() for repair in front.get("repairs", []))
    assert ("of" in front) == (front["label"] == "duplicate")
    original = front.get("of", "start")
    if original == "start":
        assert load_problem(EXAMPLES / path.parent.name).start is not None
    else:
        assert split(path.with_name(original))[0]["label"] == "correct"
        assert original < path.name


def test_every_repair_answers_one_reply() -> None:
    wanted = [path.parent / repair for path in REPLIES for repair in split(path)[0].get("repairs", [])]
    assert sorted(wanted) == sorted(REPAIRS)
    assert not any("repairs" in split(path)[0] for path in REPAIRS)


@pytest.mark.parametrize("name", NAMES)
def test_a_reply_that_fails_ends_in_a_correct_repair(name: str) -> None:
    for path in (path for path in REPLIES if path.parent.name == name):
        front, _ = split(path)
        if front.get("repairs"):
            assert split(path.parent / front["repairs"][-1])[0]["label"] == "correct"


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(target("h200"), jobs=1) as bench:
        yield bench


@pytest.mark.triton
@pytest.mark.parametrize(
    "reply",
    [
        "matvec/02-smaller-row-blocks.md",
        "matvec/03-library-matmul.md",
        "matvec/14-missing-import.md",
        "matvec/21-float32-answer.md",
        "matvec/29-parent-unchanged.md",
        "matvec/30-gluon-rows.md",
        "fused_gate_up/12-gluon-three-teams.md",
        "fused_gate_up/31-specialized-by-the-compiler.md",
    ],
)
def test_its_label_is_its_verdict(bench: OfflineBench, reply: str) -> None:
    path = EXAMPLES / "replies" / reply
    front, text = split(path)
    problem = load_problem(EXAMPLES / path.parent.name)
    candidates = [Candidate(code_block(text))]
    if front.get("of") == "start":
        candidates.insert(0, Candidate(problem.start or ""))
    verdict: Verdict = list(bench.judge(problem, candidates, ()))[-1].verdict
    assert type(verdict).__name__.lower() == front["label"]
