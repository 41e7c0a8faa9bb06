"""`superoptimize` as a user sees it: a program from PyTorch, one from a file, and what cannot be searched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilesmith.cli import main
from tilesmith.superopt.build import Program as Builder
from tilesmith.superopt.programs import PROGRAMS
from tilesmith.superopt.schema import from_json, to_json

EXAMPLES = Path(__file__).parents[3] / "examples"
KEYS = {
    "program", "verdict", "message", "stop", "seconds", "states", "candidates", "pruned", "oracle", "verified",
    "error_bound", "graphs", "workers", "table_seconds",
}  # fmt: skip


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "lora.json"
    path.write_text(to_json(PROGRAMS["lora"]()))
    return path


def test_a_graph_from_a_file(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["superoptimize", str(lora), "--keep", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() >= KEYS
    assert (document["program"], document["stop"]) == ("lora", "exhausted")
    assert document["verified"] == len(document["graphs"]) == 3
    times = [graph["estimate_us"] for graph in document["graphs"]]
    assert times == sorted(times)
    for graph in document["graphs"]:
        assert len(graph["kernels"]) == 1
        assert from_json(json.dumps(graph["graph"])).outputs
    assert 0 < document["error_bound"] < 1e-6


def test_the_same_seed_gives_the_same_answer(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for threads in ("1", "2"):
        assert main(["superoptimize", str(lora), "--json", "--threads", threads]) == 0
        answers.append([graph["hash"] for graph in json.loads(capsys.readouterr().out)["graphs"]])
    assert answers[0] == answers[1]


def test_the_published_search_of_a_program_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--space", "concrete", "--keep", "2", "--json", "--threads", "2", "--draw", str(tmp_path)]
    assert main(["superoptimize", "rmsnorm_linear", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() >= KEYS
    assert (document["program"], document["stop"], document["candidates"]) == ("rmsnorm_linear", "exhausted", 26)
    assert document["verified"] == len(document["graphs"]) == 2
    assert document["pruned"]["table"] > document["states"] > 10_000
    assert document["oracle"]["name"] == "table"
    assert document["oracle"]["classes"] > 0
    assert len(document["workers"]) == 2
    assert all(worker["busy_seconds"] + worker["wait_seconds"] > 0 for worker in document["workers"])
    assert 0 < document["first_seconds"] <= document["seconds"]
    for graph in document["graphs"]:
        assert Path(graph["drawing"]).read_text().startswith("<svg")
        assert from_json(json.dumps(graph["graph"])).outputs


@pytest.mark.parametrize("cache", ["none", "thread", "shared"])
def test_what_z3_was_asked_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: str) -> None:
    b = Builder()
    x, w = b.input("X", (32, 64)), b.input("W", (64, 32))
    b.output(x @ w)
    (tmp_path / "product.json").write_text(to_json(b.graph()))
    options = [
        "--oracle",
        "z3",
        "--oracle-cache",
        cache,
        "--kernel-ops",
        "1",
        "--block-ops",
        "3",
        "--inputs",
        "2",
        "--budget-seconds",
        "2",
    ]
    main(["superoptimize", str(tmp_path / "product.json"), "--space", "concrete", *options, "--json"])
    document = json.loads(capsys.readouterr().out)
    oracle = document["oracle"]
    assert oracle["name"] == "z3"
    assert oracle["calls"] + oracle["hits"] == oracle["probes"] > 0
    assert (oracle["hits"] > 0) == (cache != "none")
    assert 0 < oracle["seconds"] < document["seconds"]
    assert sum(worker["oracle_seconds"] for worker in document["workers"]) <= oracle["seconds"]


def test_a_problem_is_traced_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = EXAMPLES / "norm_transformer"
    assert main(["superoptimize", str(problem), "--keep", "2", "--draw", str(tmp_path / "new" / "here")]) == 0
    out = capsys.readouterr().out
    assert "us estimated" in out
    drawings = sorted((tmp_path / "new" / "here").glob("*.svg"))
    assert len(drawings) == 2
    assert all(path.read_text().startswith("<svg") and path.with_suffix(".dot").exists() for path in drawings)


def test_nothing_found_says_what_stood_in_the_way(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["superoptimize", str(lora), "--block-ops", "3"]) == 1
    out = capsys.readouterr().out
    assert "nothing was found within these limits" in out
    assert "--block-ops" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--block-ops", "0"], "--block-ops is 0"),
        (["--schedule", "mpo"], "it must be static or openmp"),
        (["--budget-seconds", "0"], "--budget-seconds is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--target", "h20000"], "is not a known GPU"),
        (["--space", "concreet"], "--space is 'concreet'; it must be symbolic or concrete"),
        (["--oracle", "z4"], "--oracle is 'z4'; it must be table or z3 or egraph"),
        (["--oracle", "z3"], "--oracle z3 is of the concrete space"),
        (["--oracle", "egraph", "--space", "concrete"], "--oracle egraph is for cross-checks"),
        (["--oracle-cache", "mine", "--space", "concrete"], "--oracle-cache is 'mine'"),
        (["--oracle-cache", "none", "--space", "concrete"], "the table needs none"),
        (["--oracle-every", "2"], "--oracle-every 2 is of the concrete space"),
        (["--oracle-every", "0", "--space", "concrete"], "--oracle-every is 0"),
        (["--rules", "paper"], "--rules paper is of the concrete space"),
        (["--kernels", "closure", "--space", "concrete"], "--kernels closure is of the symbolic space"),
        (["--block-ops", "25", "--space", "concrete"], "the concrete space takes 2 to 24"),
    ],
)
def test_options_of_nothing(lora: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert main(["superoptimize", str(lora), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"), [("{", "x.json"), ('{"a": 1}', "x.json"), ("[1, 2]", "x.json"), ("\udc80", "x.json")]
)
def test_a_file_that_is_no_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["superoptimize", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert "internal error" not in error


def test_a_limit_that_hides_everything_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "layer.json"
    path.write_text(to_json(PROGRAMS["transformer_layer"](width=64, heads=2, dim=32, inner=96, tokens=16)))
    assert main(["superoptimize", str(path), "--json"]) == 1
    assert "reads 8 tensors" in json.loads(capsys.readouterr().out)["closest"]
    assert main(["superoptimize", str(path)]) == 1
    out = capsys.readouterr().out
    assert "nothing was found within these limits. The program reads 8 tensors" in out
    assert "--kernels closure" in out


def test_an_over_large_program_is_cut_and_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of four products, which have five dimensions between them."""
    monkeypatch.setattr("tilesmith.superopt.table.MOST_NAMES", 4)
    b = Builder()
    x, *weights = (b.input(f"x{i}", (16 * i + 16, 16 * i + 32)) for i in range(5))
    for weight in weights:
        x = x @ weight
    b.output(x)
    path = tmp_path / "chain.json"
    path.write_text(to_json(b.graph()))
    assert main(["superoptimize", str(path), "--json"]) == 0
    said = capsys.readouterr()
    assert "cut into 2 parts of 2 operators at most" in said.err
    assert "6 distinct dimensions, and a search takes 4" in said.err
    parts = json.loads(said.out)["parts"]
    assert len(parts) == 2
    assert all(part["graphs"] for part in parts)


def test_a_dimension_that_no_tile_divides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every extent is prime: it is cut into single elements or not at all."""
    b = Builder()
    x, w = b.input("x", (4099, 257)), b.input("w", (257, 61))
    b.output(b.rms_norm(x) @ w)
    path = tmp_path / "primes.json"
    path.write_text(to_json(b.graph()))
    assert main(["superoptimize", str(path), "--json", "--keep", "3"]) == 0
    for graph in json.loads(capsys.readouterr().out)["graphs"]:
        for kernel in graph["kernels"]:
            assert set(kernel["grid"]) <= {1, 61, 4099}
            assert kernel["loop"] in (1, 257)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": [{"op": "blur", "operands": [0]}]}, "node 0 (blur): there is no operator 'blur'"),
        ({"nodes": [{"op": "exp", "operands": [9]}]}, "node 0 (exp): value 9 is not made before it"),
        (
            {"inputs": [{"name": "x", "dims": ["n", 8], "dtype": "fp16"}]},
            "inputs.0.dims.0: Input should be a valid integer",
        ),
        ({"inputs": [{"name": "x", "dims": [8, 0], "dtype": "fp16"}]}, "inputs.0.dims.1"),
        ({"inputs": [{"name": "x", "dims": [8, 8], "dtype": "int8"}]}, "inputs.0.dtype"),
        ({"outputs": []}, "outputs"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_with_a_graph_is_said_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    document: dict[str, object] = {
        "inputs": [{"name": "x", "dims": [8, 8], "dtype": "fp16"}],
        "nodes": [{"op": "exp", "operands": [0]}],
        "outputs": [1],
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**document, **change}))
    assert main(["superoptimize", str(path)]) == 2
    error = capsys.readouterr().err
    assert "x.json" in error
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("operator", "axes"), [("amax", (1,)), ("softplus", ())])
def test_an_unsupported_operator_is_named_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], operator: str, axes: tuple[int, ...]
) -> None:
    path = tmp_path / "x.json"
    node = {"op": operator, "operands": [1], **({"axes": list(axes)} if axes else {})}
    document = {
        "inputs": [{"name": "x", "dims": [8, 8], "dtype": "fp16"}],
        "nodes": [{"op": "exp", "operands": [0]}, node],
        "outputs": [2],
    }
    path.write_text(json.dumps(document))
    assert main(["superoptimize", str(path)]) == 2
    assert f"node 1 ({operator})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return x[x > 0] * 2", "shapes that depend on data"),
        ("return x * 2 if x.sum() > 0 else x", "problem.py, line 5"),
        ("return torch.cumsum(x, 1)", "aten.cumsum.default (problem.py, line 5) stays PyTorch's"),
    ],
)
def test_what_cannot_be_traced_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    path = tmp_path / "problem.py"
    path.write_text(
        f"import torch\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        {body}\n\n"
        "def get_inputs(): return [torch.randn(8, 8)]\ndef get_init_inputs(): return []\n"
    )
    assert main(["superoptimize", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_program_that_stays_pytorch_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["superoptimize", str(EXAMPLES / "max_pool3d")]) == 2
    error = capsys.readouterr().err
    assert "nothing to superoptimize" in error
    assert "max_pool3d" in error
    assert "line" in error
