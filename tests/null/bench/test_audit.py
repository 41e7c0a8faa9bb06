"""`tilesmith audit` on classes of the corpus that are quick to judge: all stopped, none refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tilesmith.cli.audit import Cases
from tilesmith.config.corpus import load_corpus

pytestmark = pytest.mark.triton


def audit(*words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tilesmith.cli", "audit", "--bench", "offline", *words, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, json.loads(run.stdout)


def test_cheats_are_stopped_and_the_count_is_told() -> None:
    classes = "no_launch,lazy,entry_point"
    status, found = audit("--classes", classes)
    assert (found["accepted"], found["refused"]) == ([], [])
    assert (status, found["verdict"], found["message"]) == (0, "done", None)
    assert found["stopped"] == found["cheats"] > 25
    assert found["classes"] == 3
    assert sum(found["defences"].values()) == found["stopped"]


def test_shards_are_the_whole_together() -> None:
    corpus = load_corpus(Path(__file__).parents[2] / "exploits")
    parts = [Cases((), number, 7).of(corpus) for number in range(1, 8)]
    assert sorted(case.file for part in parts for case in part) == sorted(case.file for case in corpus)
    assert [case.kind for case in Cases(("lazy",)).of(corpus)] == ["lazy"] * 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--classes", "lazi"), "--classes: unknown class 'lazi'"),
        (("--shard", "0/3"), "--shard is '0/3'"),
        (("--shard", "2"), "--shard is '2'"),
        (("--shard", "9/9", "--classes", "graphs"), "--shard leaves no case"),
    ],
)
def test_a_choice_that_means_nothing_is_told(words: tuple[str, ...], told: str) -> None:
    status, found = audit(*words)
    assert (status, found["verdict"]) == (2, None)
    assert told in found["message"]
