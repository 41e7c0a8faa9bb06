"""`tilesmith` as a user runs it, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

TILESMITH = (sys.executable, "-m", "tilesmith.cli")


def environment(**more: str) -> dict[str, str]:
    """This process's, for one in another folder: relative entries of PYTHONPATH would be lost there."""
    entries = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*entries, str(Path(__file__).parents[1])]), **more}


def optimize(problem: Path, folder: Path, *options: str, log: IO[str] | None = None) -> tuple[int, dict[str, Any]]:
    """The exit status and the answer of a search whose journal and `winner.py` stay in the folder."""
    command = [*TILESMITH, "optimize", str(problem), *options, "--json"]
    command += ["--journal", str(folder / "tilesmith.db"), "--out", str(folder / "winner.py")]
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)
