"""From a module to kernels in its place and back from the cache, in processes of their own, by Triton's interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.triton

COMMON = """
    import json, logging, signal, sys
    from dataclasses import asdict
    from pathlib import Path
    import torch
    import tilesmith

    class Tail(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.full((32,), 0.5))

        def forward(self, x, y):
            return torch.relu(torch.cumsum(x, 0) * self.scale) + y

    torch.manual_seed(0)
    module, x, y = Tail().eval(), torch.randn(4, 32), torch.randn(4, 32)

    def close(got, expected):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    def told(explained):
        print(json.dumps([asdict(graph) for graph in explained.graphs] + list(explained.notes)))
"""

FIRST = """
    compiled = tilesmith.compile(module, estimates=True, budget_seconds=2)
    with torch.no_grad():
        close(compiled(x, y), module(x, y))
        # Other shapes, other dtypes, other places in memory: the module as it was.
        for a, b in ((x[:2], y[:2]), (x.double(), y.double()), (x.T.contiguous().T, y)):
            close(compiled(a, b), module(a, b))
        close(compiled(x, y), module(x, y))
    told(compiled.explain())
"""

SECOND = """
    options = {"estimates": True, "budget_seconds": 2}
    with torch.no_grad():
        for rest in ("eager", "aot_eager"):
            compiled = torch.compile(module, backend="tilesmith", options={**options, "rest": rest})
            close(compiled(x, y), module(x, y))
            torch.compiler.reset()
        (entry,) = Path(sys.argv[1], "parts").glob("*.json")
        entry.write_bytes(entry.read_bytes()[:-7])
        again = tilesmith.compile(module, **options)
        close(again(x, y), module(x, y))
    told(tilesmith.explain())
    told(again.explain())
"""


def run(folder: Path, script: str) -> tuple[list[list[Any]], str]:
    file = folder / "script.py"
    file.write_text(textwrap.dedent(COMMON) + textwrap.dedent(script))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TILESMITH_CACHE": str(folder / "cache")}
    command = [sys.executable, str(file), str(folder / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_second_process_starts_with_no_search(tmp_path: Path) -> None:
    [[first, *others]], _ = run(tmp_path, FIRST)
    (part,) = first["parts"]
    found = part["found"]
    assert first["rest"] == ["aten.cumsum.default"]
    assert part["calls"] == ["aten.mul.Tensor", "aten.relu.default", "aten.add.Tensor"]
    assert found["source"]
    assert not found["cached"]
    assert first["search_seconds"] > 0
    assert found["evidence"]["error"] <= 1
    assert found["evidence"]["estimate_us"] > 0
    assert found["evidence"]["measured"] is None
    assert found["evidence"]["bound"] < 1e-9
    assert found["evidence"]["lineage"][0].startswith("superopt:")
    assert [graph["inputs"] for graph in others] == [
        "fp32 2x32, fp32 2x32",
        "fp64 4x32, fp64 4x32",
        "fp32 4x32 with strides 1x4, fp32 4x32",
    ]
    assert not any(graph["parts"][0]["found"]["source"] for graph in others[:2])
    assert not any(graph["search_seconds"] for graph in others)

    [by_name, again], said = run(tmp_path, SECOND)
    for graph in by_name:
        (kept,) = graph["parts"]
        assert kept["found"] == {**found, "cached": True}
        assert graph["search_seconds"] == 0
    # What was cut short is said once, and searched anew.
    assert said.count("is corrupt; it is searched anew") == 1
    graph, note = again
    assert "is corrupt" in note
    assert graph["search_seconds"] > 0
    assert graph["parts"][0]["found"]["source"]


FAULTS = """
    folder = Path(sys.argv[1])
    options = {"estimates": True, "budget_seconds": 0.001}
    compiled = tilesmith.compile(module, **options)
    (folder / "tilesmith.db").write_bytes(b"no database of anybody" * 400)
    with torch.no_grad():
        close(compiled(x, y), module(x, y))
    told(compiled.explain())
    module(x, y).sum().backward()
"""

INTERRUPTED = """
    # What runs in the background inherits that it is to be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    compiled = tilesmith.compile(module, estimates=True, budget_seconds=60)
    logging.getLogger("tilesmith").setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO)
    try:
        with torch.no_grad():
            compiled(x, y)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    module(x, y).sum().backward()
    print("trains", flush=True)
"""


def test_a_damaged_journal_is_said_and_the_module_works(tmp_path: Path) -> None:
    [[graph, note]], said = run(tmp_path, FAULTS)
    (part,) = graph["parts"]
    assert "is not a journal of Tilesmith; remove it, or name another cache with TILESMITH_CACHE" in note
    assert note in part["found"]["reason"]
    assert said.count("is not a journal") == 1


def test_interrupted_in_its_search_it_ends_and_the_module_works(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(COMMON) + textwrap.dedent(INTERRUPTED))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TILESMITH_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(file), str(tmp_path / "cache")]
    # A group of its own: Ctrl-C reaches a program and all that it started.
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "searching part-" in line:
            break
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert out.split() == ["interrupted", "trains"], error
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    # Nothing is locked or half written.
    parts = list((tmp_path / "cache" / "parts").iterdir())
    assert [each.suffix for each in parts] == [".lock"]
