"""`tilesmith audit` on classes of the corpus that are quick to judge: all stopped, none refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.triton


def test_cheats_are_stopped_and_the_count_is_told() -> None:
    classes = "no_launch,lazy,entry_point"
    words = ["audit", "--bench", "offline", "--classes", classes, "--json"]
    run = subprocess.run([sys.executable, "-m", "tilesmith.cli", *words], capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    assert (found["accepted"], found["refused"]) == ([], [])
    assert (run.returncode, found["verdict"], found["message"]) == (0, "done", None)
    assert found["stopped"] == found["cheats"] > 25
    assert found["classes"] == 3
    assert sum(found["defences"].values()) == found["stopped"]
