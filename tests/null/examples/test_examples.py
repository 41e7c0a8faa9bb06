"""Every example loads and runs at its small shapes; every start kernel agrees with its reference there.

Torch and Triton run in child processes: Triton decides at import whether it interprets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tilesmith.bench.constants import apply_constants
from tilesmith.config import load_problem, read_candidate
from tilesmith.core.trial import Candidate

EXAMPLES = Path(__file__).parents[3] / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/problem.py"))
STARTED = sorted(path.parent for path in EXAMPLES.glob("*/kernel.py"))

# The dtype and the shape of what each program computes, at full size.
OUTPUTS = {
    "fused_gate_up": ("bf16", [512, 24576]),
    "gated_mlp": ("fp16", [8, 4096]),
    "gqa": ("fp16", [2, 256, 64]),
    "lora": ("fp16", [16, 4096]),
    "matvec": ("bf16", [2048, 1]),
    "max_pool3d": ("bf16", [16, 32, 62, 62, 62]),
    "norm_transformer": ("fp16", [8, 4096]),
    "qknorm_gqa": ("fp16", [2, 256, 64]),
    "rmsnorm_linear": ("fp16", [2, 6144]),
    "rmsnorm_nchw": ("bf16", [112, 64, 512, 512]),
    "transformer_layer": ("fp16", [1, 256, 512]),
}

# Runs every small problem, and builds every full one without memory.
RUN = """
import json, sys, torch
from torch._subclasses.fake_tensor import FakeTensorMode

def load(source):
    names = {"__name__": "problem"}
    exec(source, names)
    return names

torch.set_num_threads(1)
answers = {}
for name, (small, full) in json.load(sys.stdin).items():
    problem = load(small)
    model = problem["Model"](*problem["get_init_inputs"]())
    inputs = problem["get_inputs"]()
    first, second = model(*inputs), model(*inputs)
    again = load(small)["Model"](*problem["get_init_inputs"]())
    same = torch.equal(first, second) and torch.equal(first, again(*inputs))
    with FakeTensorMode():
        problem = load(full)
        shape = list(problem["Model"](*problem["get_init_inputs"]())(*problem["get_inputs"]()).shape)
    elements = max(x.numel() for x in (*inputs, *model.parameters(), first))
    answers[name] = (same, bool(first.isfinite().all()), first.std().item() > 0, elements, shape)
print(json.dumps(answers))
"""

# The greatest error of one start kernel, in units of the reference's own rounding error at that dtype.
AGREE = """
import importlib.util, json, sys, torch

source, kernel, dtype = json.load(sys.stdin)
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("kernel", kernel)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
problem = {"__name__": "problem"}
exec(source, problem)
torch.manual_seed(0)
inputs = [x.to(getattr(torch, dtype)) for x in problem["get_inputs"]()]
model = problem["Model"](*problem["get_init_inputs"]())
exact = model(*(x.double() for x in inputs))
got = module.kernel_function(*inputs)
assert got.dtype == inputs[0].dtype and got.shape == exact.shape and not any(x is got for x in inputs)
error = ((got.double() - exact).abs() / (exact.abs() + exact.std())).max().item()
print(error / torch.finfo(got.dtype).eps)
"""


def child(code: str, value: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        input=json.dumps(value),
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_are_the_published_programs() -> None:
    assert [folder.name for folder in FOLDERS] == sorted(OUTPUTS)
    assert [folder.name for folder in STARTED] == ["fused_gate_up", "gated_mlp", "matvec", "rmsnorm_linear"]
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in OUTPUTS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_loads(folder: Path) -> None:
    problem = load_problem(folder)
    assert problem.name == folder.name
    assert problem.settings.dtype == OUTPUTS[folder.name][0]
    assert problem.settings.small
    assert (problem.start is not None) == (folder in STARTED)
    if problem.start is not None:
        assert read_candidate(folder / "kernel.py") == Candidate(problem.start)


def test_it_runs_small_and_has_the_published_shape_at_full_size() -> None:
    problems = {folder.name: load_problem(folder) for folder in FOLDERS}
    sources = {name: (apply_constants(p.source, p.settings.small), p.source) for name, p in problems.items()}
    answers = json.loads(child(RUN, sources))
    assert set(answers) == set(OUTPUTS)
    for name, (same, finite, varied, elements, shape) in answers.items():
        assert same, name
        assert finite, name
        assert varied, name
        assert elements <= 300_000, name
        assert shape == OUTPUTS[name][1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("folder", STARTED, ids=lambda folder: folder.name)
def test_start_kernels_agree_with_their_reference(folder: Path, dtype: str) -> None:
    problem = load_problem(folder)
    source = apply_constants(problem.source, problem.settings.small)
    assert float(child(AGREE, (source, str(folder / "kernel.py"), dtype))) < 16
