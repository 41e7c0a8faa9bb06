"""The folder of a bench goes with it; one that was killed leaves a folder that is known as nobody's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tilesmith.bench.workshop import abandoned, remove, workshop

HOLDER = """
import sys
from pathlib import Path
from tilesmith.bench.workshop import workshop
with workshop() as folder:
    Path(folder, "big").write_bytes(b"x" * 10_000)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_the_living_use_is_not_abandoned(place: Path) -> None:
    with workshop() as folder:
        assert Path(folder).parent == place
        assert abandoned() == ()
    assert not Path(folder).exists()


def test_what_the_dead_left_is(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(place)},
    )  # fmt: skip
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert abandoned() == ()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (found,) = abandoned()
    assert found.path == folder
    assert found.size_bytes >= 10_000
    assert remove(found)
    assert not folder.exists()
    assert abandoned() == ()


def test_other_folders_are_left_alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (place / "tilesmith-0").mkdir()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "owner.lock").touch()
    (place / "tilesmith-link").symlink_to(elsewhere)
    (place / "tilesmith-file.log").touch()
    assert abandoned() == ()
