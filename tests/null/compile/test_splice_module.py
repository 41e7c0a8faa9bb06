"""`tilesmith.compile` and the backend as people meet them, on a machine without a GPU."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from splice_modules import CASES, made
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional

import tilesmith
from tilesmith.bench.gpus import Device
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import target
from tilesmith.core.trial import Timing
from tilesmith.splice import backend as backends
from tilesmith.splice.contest import contest, faster, slower_words


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backends, "_BY_OPTIONS", {})
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_importing_the_package_imports_no_torch() -> None:
    script = "import sys, tilesmith; sys.exit('torch' in sys.modules or 'tilesmith.splice' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_a_gpu_nothing_is_replaced_and_it_says_why() -> None:
    module, values = made(CASES["layer"])
    compiled = tilesmith.compile(module)
    assert str(compiled.explain()) == "nothing was captured yet: call the module first"
    with torch.no_grad():
        assert torch.equal(compiled(*values), module(*values))
    explained = compiled.explain()
    (graph,) = explained.graphs
    assert explained.replaced == 0
    assert "its tensors are on cpu, where nothing can be timed against PyTorch" in graph.reason
    assert [part.count for part in graph.parts] == [1, 1, 1, 1]
    assert graph.search_seconds == 0
    assert "0 of 4 parts replaced" in str(explained)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_backend_has_its_name(mode: Any) -> None:
    module, values = made(CASES["twice"])
    assert "tilesmith" in torch._dynamo.list_backends()
    compiled = torch.compile(module, backend="tilesmith")
    with mode():
        assert torch.equal(compiled(*values), module(*values))
    (graph,) = tilesmith.explain().graphs
    assert graph.rest == ("aten.cumsum.default",)
    assert [part.count for part in graph.parts] == [2, 2, 2, 2]


def test_gradients_are_refused() -> None:
    module, (x,) = made(CASES["layer"])
    compiled = tilesmith.compile(module)
    with pytest.raises(OptionError, match=r"torch\.no_grad\(\).*\.eval\(\)"):
        compiled(x)
    with pytest.raises(OptionError, match=r"for inference"):
        tilesmith.compile(lambda y: y * 2)(x.clone().requires_grad_())
    with pytest.raises(BackendCompilerFailed, match=r"for inference"):
        torch.compile(module, backend="tilesmith")(x)
    # The module itself still trains.
    module(x).sum().backward()
    with torch.no_grad():
        assert torch.equal(compiled(x), module(x))


def test_other_shapes_are_new_graphs() -> None:
    module, values = made(CASES["layer"])
    compiled = tilesmith.compile(module)
    with torch.no_grad():
        compiled(*values)
        longer = torch.randn(3, 8, 32)
        assert torch.equal(compiled(longer), module(longer))
        compiled(*values)
    assert [graph.inputs for graph in compiled.explain().graphs] == ["fp32 2x8x32", "fp32 3x8x32"]


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


class Picks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum() + torch.nonzero(x).shape[0]


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None, int]:
        return (x * 3).to(torch.int64).sort().values, None, 7


class Quarters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.float8_e5m2).to(torch.float32) * 2).to(torch.complex64)


@pytest.mark.parametrize("kind", [Branches, Counts, Picks, Sorts, Quarters])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_taken_stays_as_it_is(kind: type[nn.Module]) -> None:
    """Control flow, state in place, shapes that depend on data, integers, dtypes that µGraphs have not."""
    compiled, module = tilesmith.compile(kind()), kind()
    with torch.no_grad():
        for value in (torch.ones(4), -torch.ones(4), torch.arange(4.0)):
            got, expected = compiled(value), module(value)
            for one, other in zip(_listed(got), _listed(expected), strict=True):
                assert one is other or one == other if not isinstance(one, Tensor) else torch.equal(one, other)
    assert all(graph.reason for graph in compiled.explain().graphs)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def test_state_in_place_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    compiled = tilesmith.compile(Counts())
    with torch.no_grad(), caplog.at_level(logging.WARNING, "tilesmith"):
        for size in (2, 3, 4):
            compiled(torch.ones(size))
    assert len(caplog.records) == 1
    assert "changes its inputs or buffers" in caplog.text
    assert "changes its inputs or buffers" in str(compiled.explain())


def test_dynamic_shapes_fall_back() -> None:
    compiled = torch.compile(lambda x: x * 2, backend="tilesmith", dynamic=True)
    with torch.no_grad():
        for size in (3, 4):
            assert torch.equal(compiled(torch.ones(size)), torch.full((size,), 2.0))
    assert "dynamic shapes" in tilesmith.explain().graphs[0].reason


def test_estimates_need_triton_to_interpret() -> None:
    module, values = made(CASES["layer"])
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match="TRITON_INTERPRET=1"):
        tilesmith.compile(module, estimates=True)(*values)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"budget_seconds": 0}, "budget_seconds is 0; it must be a number above 0"),
        ({"budget_seconds": float("nan")}, "budget_seconds is nan"),
        ({"largest": 0}, "largest is 0; it must be a whole number of at least 1"),
        ({"rest": "tilesmith"}, "must name another backend"),
        ({"target": "h9000"}, "is not a known GPU"),
        ({"estimates": 1}, "estimates is 1; it must be True or False"),
    ],
)
def test_options_that_cannot_be_used_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        tilesmith.compile(nn.ReLU(), **given)


def test_unknown_options_of_the_backend_are_told() -> None:
    compiled = torch.compile(nn.ReLU(), backend="tilesmith", options={"budget": 3})
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match="has no option 'budget'; it has budget_seconds"):
        compiled(torch.ones(3))


def test_what_is_no_module_is_told() -> None:
    with pytest.raises(OptionError, match="not a str"):
        tilesmith.compile("model")  # type: ignore[arg-type]


def test_a_cache_folder_of_everybody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MachineError, match="can be written by other users"):
        tilesmith.compile(nn.ReLU(), cache=tmp_path / "open")


def test_a_compiled_module_is_a_module_like_the_original() -> None:
    module, _ = made(CASES["layer"])
    compiled = tilesmith.compile(module)
    assert compiled.original is module
    assert {id(each) for each in compiled.parameters()} == {id(each) for each in module.parameters()}
    assert not compiled.eval().training


def test_what_has_no_inputs_stays_as_it_is() -> None:
    compiled = tilesmith.compile(lambda: torch.ones(3) * 2)
    with torch.no_grad():
        assert torch.equal(compiled(), torch.full((3,), 2.0))
    assert [graph.reason for graph in compiled.explain().graphs] == ["it has no inputs"]


PART = """
import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x0):
        return x0 * 2


def get_inputs():
    return [torch.randn(4)]
"""


def test_a_contest_that_cannot_be_held_is_told() -> None:
    absent = Device(0, "GPU-of-no-machine", "none", 1 << 30, "0", 90, target("h200"))
    kernel = "def kernel_function(x0):\n    return x0 * 2\n"
    answer = contest(PART, kernel, absent, tf32=False)
    assert isinstance(answer, str)
    assert answer.startswith("it could not be timed against torch.compile: ")


@pytest.mark.parametrize(
    ("low_us", "high_us", "rival_low_us", "rival_high_us", "is_faster"),
    [(9.9, 10.1, 10.2, 10.4, True), (9.9, 10.1, 10.0, 10.4, False), (9.9, 10.1, 9.0, 9.2, False)],
)
def test_faster_is_faster_wherever_both_times_lie(
    low_us: float, high_us: float, rival_low_us: float, rival_high_us: float, is_faster: bool
) -> None:
    middle = (rival_low_us + rival_high_us) / 2
    timing = Timing(10.0, low_us, high_us, 300, "torch.compile", middle, rival_low_us, rival_high_us)
    assert faster(timing) == is_faster
    assert f"{middle / 10:.2f} times as fast as torch.compile of the same part" in slower_words("torch.compile", timing)
    assert not faster(Timing(10.0, 9.9, 10.1, 300))


class Drops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.norm(self.inner(x)), 0.5, self.training)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x) * 2


def changes_its_input(x: Tensor) -> Tensor:
    return x.add_(1) * 2


def changes_what_it_made(x: Tensor) -> Tensor:
    y = x * 2
    y.add_(1)
    y[0] = 3.0
    return y.relu_()


def returns_views(x: Tensor) -> tuple[Tensor, ...]:
    return x, x.view(-1), x * 2, x.t()


def repeats(x: Tensor) -> Tensor:
    for _ in range(int(x.shape[0])):
        x = x * 2 + 1
    return x


@pytest.mark.parametrize(
    "model",
    [Drops(), Drops().eval(), Mixed(), changes_its_input, changes_what_it_made, returns_views, repeats],
    ids=lambda model: getattr(model, "__name__", type(model).__name__),
)
def test_whatever_it_does_the_answer_is_its_own(model: Any) -> None:
    """State, random numbers and inputs change as they would; inputs that want gradients are no hindrance."""
    inputs = [torch.randn(rows, 8) for rows in (4, 4, 3)]
    plain = copy.deepcopy(model)
    ways = [tilesmith.compile(copy.deepcopy(model)), torch.compile(copy.deepcopy(model), backend="tilesmith")]
    for x in inputs:
        given = [x.clone().requires_grad_() for _ in range(3)]
        with torch.no_grad():
            torch.manual_seed(3)
            expected = plain(given[0])
            for way, mine in zip(ways, given[1:], strict=True):
                torch.manual_seed(3)
                torch.testing.assert_close(way(mine), expected)
                torch.testing.assert_close(mine, given[0])
    assert tilesmith.explain().graphs


def test_bfloat16_is_taken() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).bfloat16().eval()
    compiled = tilesmith.compile(module)
    x = torch.randn(4, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(compiled(x), module(x))
    (part,) = compiled.explain().graphs[0].parts
    assert sorted(part.inputs.split(", ")) == ["bf16 4x8", "bf16 8", "bf16 8x8"]
