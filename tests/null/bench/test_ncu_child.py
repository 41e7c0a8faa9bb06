"""The program that ncu profiles, as far as it goes without a GPU: inputs, warm-up, walls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tilesmith.bench.landlock import version as landlock_version
from tilesmith.bench.profiled import MOST_WARM_CALLS, WALLS, WARM_CALLS, warm

PROBLEM = """
import torch
from torch import nn

N = 4

class Model(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.full((N,), float(scale)))

    def forward(self, x):
        return x * self.weight

def get_inputs():
    return [torch.ones(N)]

def get_init_inputs():
    return [3.0]
"""


@pytest.mark.parametrize(
    ("tuning", "calls"),
    [((), WARM_CALLS), ((1,), WARM_CALLS), ((1, 3), 4), ((1, 2, 3, 4, 5), 6), (tuple(range(1, 99)), MOST_WARM_CALLS)],
)
def test_a_candidate_is_called_until_nothing_is_tuned(tuning: tuple[int, ...], calls: int) -> None:
    made: list[int] = []

    def call() -> None:
        made.append(len(made) + 1)

    assert warm(call, lambda: sum(number in tuning for number in made)) == calls
    assert len(made) == calls


def in_child(code: str, *arguments: str) -> Any:
    """What this code prints as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FUNCTION = """
def kernel_function(x, weight):
    return x + weight
"""
MODEL = """
import torch

class ModelNew(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return x * self.weight
"""
PRIVILEGES = """
from pathlib import Path
import torch

FOUND = [line for line in Path("/proc/thread-self/status").read_text().splitlines() if line.startswith("CapEff")]

def kernel_function(x):
    return torch.tensor(int(FOUND[0].split()[1], 16) == 0)
"""
LOAD = """
import json, sys
from tilesmith.bench import syscalls
from tilesmith.bench.profiled import load
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
results = [load(job, "cpu")() for job in json.loads(sys.argv[1])]
print(json.dumps([[str(result.dtype), result.tolist()] for result in results]))
"""


def job(scratch: Path, candidate: str, *walls: str) -> dict[str, object]:
    settings = {"constants": {"N": 6}, "dtype": "bf16", "scratch": str(scratch), "walls": walls}
    return {"problem": PROBLEM, "candidate": candidate, **settings}


def test_a_candidate_gets_the_problems_own_inputs_and_state(tmp_path: Path) -> None:
    jobs = [job(tmp_path, FUNCTION), job(tmp_path, MODEL), job(tmp_path, PRIVILEGES, "no capabilities")]
    assert in_child(LOAD, json.dumps(jobs)) == [
        ["torch.bfloat16", [4.0] * 6],
        ["torch.bfloat16", [3.0] * 6],
        # Walls stand before a candidate loads.
        ["torch.bool", True],
    ]


TUNED = """
import json
from triton.runtime.autotuner import Autotuner

def run(self, key):
    self.cache[key] = "a configuration"
    return key

Autotuner.run = run
from tilesmith.bench.profiled import count_tunings
tunings = count_tunings()
tuner = Autotuner.__new__(Autotuner)
tuner.cache = {}
print(json.dumps([tunings(), tuner.run(1), tunings(), tuner.run(1), tunings(), tuner.run(2), tunings()]))
"""


def test_tunings_of_tritons_autotuner_are_counted() -> None:
    assert in_child(TUNED) == [0, 1, 1, 1, 1, 2, 2]


REACH = """
import json, os, socket, sys
from pathlib import Path
from tilesmith.bench import syscalls
from tilesmith.bench.profiled import WALLS
scratch, secret, *walls = sys.argv[1:]
os.chdir(scratch)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
for name in walls:
    WALLS[name](scratch)
found = {}
for name, act in {
    "read": lambda: Path(secret).read_text(),
    "write": lambda: Path("note").write_text("x"),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "system": lambda: os.listdir("/usr"),
}.items():
    try:
        act()
        found[name] = ""
    except OSError as error:
        found[name] = type(error).__name__
lines = Path("/proc/thread-self/status").read_text().splitlines()
status = dict(line.split(":", 1) for line in lines)
print(json.dumps([found, int(status["CapEff"], 16), int(status["Seccomp"])]))
"""


@pytest.mark.parametrize("walls", [(), *((name,) for name in WALLS), tuple(WALLS)], ids=", ".join)
def test_each_wall_that_can_be_raised_while_profiling(tmp_path: Path, walls: tuple[str, ...]) -> None:
    scratch, secret = tmp_path / "scratch", tmp_path / "secret"
    scratch.mkdir()
    secret.write_text("s")
    found, capabilities, seccomp = in_child(REACH, str(scratch), str(secret), *walls)
    listed = "files by list" in walls and landlock_version() > 0
    filtered = "system calls by list" in walls
    assert found["write"] == found["system"] == ""
    assert found["read"] == ("PermissionError" if listed else "")
    refused = filtered or (listed and landlock_version() >= 4)
    assert found["connect"] == ("PermissionError" if refused else "ConnectionRefusedError")
    assert not filtered or seccomp == 2
    if "no capabilities" in walls:
        assert capabilities == 0
