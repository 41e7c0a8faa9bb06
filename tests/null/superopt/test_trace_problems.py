"""Problems in PyTorch become graphs that compute the same, and what has no operator stays PyTorch's, with its place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from problem_sources import FAULTS, SUPPORTED, problem

from tilesmith.core.errors import ProblemError
from tilesmith.core.graph import Op
from tilesmith.core.graph_hash import graph_hash
from tilesmith.core.problem import Problem, Settings
from tilesmith.superopt.partition import partition
from tilesmith.superopt.programs import PROGRAMS
from tilesmith.superopt.trace import trace
from tilesmith.superopt.traced import Opaque

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = {
    "rmsnorm_linear": {"K": 12, "N": 10}, "gated_mlp": {"K": 12, "N": 10}, "lora": {"K": 8, "N": 9, "RANK": 3},
    "gqa": {"ROWS": 4, "KEYS": 6, "DIM": 5}, "qknorm_gqa": {"ROWS": 4, "KEYS": 6, "DIM": 5},
    "norm_transformer": {"WIDTH": 12}, "fused_gate_up": {"ROWS": 4, "HIDDEN": 6, "INNER": 8},
    "transformer_layer": {"TOKENS": 5, "WIDTH": 12, "HEADS": 3, "HEAD_DIM": 4, "INNER": 7},
}  # fmt: skip


@pytest.fixture(scope="module")
def traced() -> dict[str, dict[str, object]]:
    """What one process with torch says of all problems: importing it takes seconds."""
    rows = {
        name: {"source": source, "constants": [], "dtype": "fp64", "compare": True}
        for name, source in SUPPORTED.items()
    }
    for name, (source, _) in FAULTS.items():
        rows[name] = {"source": source, "constants": [], "dtype": "fp64", "compare": False}
    for name, small in SMALL.items():
        source = (EXAMPLES / name / "problem.py").read_text(encoding="utf-8")
        rows[name] = {"source": source, "constants": [], "dtype": "fp16", "compare": False}
        resized = "\n".join(
            f"{line.partition(' = ')[0]} = {small[line.partition(' = ')[0]]}"
            if line.partition(" = ")[0] in small
            else line
            for line in source.splitlines()
        )
        rows[f"small {name}"] = {"source": resized, "constants": [], "dtype": "fp64", "compare": True}
    rows["fused_gate_up"]["dtype"] = "bf16"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trace_check.py"))],
        input=json.dumps(rows).encode(),
        capture_output=True,
        check=True,
    )
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("name", [*SUPPORTED, *(f"small {name}" for name in SMALL)])
def test_a_traced_graph_computes_what_the_model_computes(traced: dict[str, dict[str, float]], name: str) -> None:
    assert traced[name]["error"] < 1e-9


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_examples_are_the_programs_written_without_torch(traced: dict[str, dict[str, str]], name: str) -> None:
    assert traced[name]["hash"] == graph_hash(PROGRAMS[name]())


def test_what_has_no_operator_stays_with_its_place() -> None:
    source = problem(
        "print('not the answer')\ny = torch.relu(x @ w)\ny = torch.cumsum(y, 1)\nreturn torch.relu(y @ w)",
        "x=torch.randn(ROWS, 8); w=torch.randn(8, 8)",
    )
    program = trace(Problem("mixed", source, Settings(dtype="bf16", large={"ROWS": 10})))
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "cumsum" in text)
    assert program.opaque == (f"aten.cumsum.default (problem.py, line {line})",)
    assert program.inputs[0].dims == (10, 8)
    assert {value.dtype for value in program.inputs} == {"bf16"}
    with pytest.raises(ProblemError, match=f"cumsum.default .problem.py, line {line}."):
        program.graph()
    parts = partition(program)
    # Both are relu(a @ b) of the same extents: one search serves both.
    assert [[node.operator for node in part.graph.nodes if isinstance(node, Op)] for part in parts.parts] == [
        ["matmul", "relu"], ["matmul", "relu"]
    ]  # fmt: skip
    assert len(parts.distinct) == 1
    assert [isinstance(program.nodes[place], Opaque) for place in parts.rest] == [True]


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_traced_is_said_in_one_sentence(traced: dict[str, dict[str, str]], name: str) -> None:
    assert re.search(FAULTS[name][1], traced[name]["fault"])
    assert "\n" not in traced[name]["fault"]


def test_a_problem_that_ends_its_process_is_said() -> None:
    with pytest.raises(ProblemError, match="status 3"):
        trace(Problem("bad", problem("import os\nos._exit(3)", "x=torch.randn(5)")))
