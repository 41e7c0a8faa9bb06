"""The benchmark that measures a GPU's ceilings, as far as it goes without one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tilesmith.core.gpu import target

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "ceilings_gpu.py"
H200 = target("h200")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("ceilings_gpu", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["ceilings_gpu"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


def ceilings(script: ModuleType, read: float = 4.42e12, fp16: float = 7.4e14, bf16: float = 7.5e14) -> Any:
    return script.Ceilings(read, 4.27e12, fp16, bf16, 3.9e14, 3.3, 1.5)


def test_measured_shares_replace_those_of_the_table(script: ModuleType) -> None:
    found = script.measured(H200, ceilings(script))
    assert found.readable_bytes_per_s == pytest.approx(4.42e12)
    assert found.matrix_flops("fp16") == pytest.approx(7.5e14)
    assert found.dram_bytes_per_s == H200.dram_bytes_per_s
    assert (found.readable, found.practical) == (pytest.approx(H200.readable), pytest.approx(H200.practical, rel=0.01))


@pytest.mark.parametrize(
    ("read", "bf16", "words"), [(5.5e12, 7.5e14, "memory bandwidth"), (4.42e12, 1.2e15, "matrix rate")]
)
def test_more_than_the_datasheet_is_another_gpus(script: ModuleType, read: float, bf16: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        script.measured(H200, ceilings(script, read, bf16=bf16))


def test_the_entry_is_in_the_tables_form(script: ModuleType) -> None:
    assert script.entry(H200, ceilings(script)) == '"h200": readable=4_420 / 4_800, practical=750 / 989'


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from tilesmith.bench.candidate import load
module = load(sys.argv[1], sys.argv[2])
for name, signature in {
    "read": {"source": "*fp32", "sums": "*fp32", "block": "constexpr"},
    "copy": {"source": "*fp32", "target": "*fp32", "block": "constexpr"},
    "empty": {"source": "*fp32"},
}.items():
    constants = {"block": 4096} if "block" in signature else {}
    triton.compile(ASTSource(getattr(module, name), signature, constants), target=GPUTarget("cuda", 90, 32))
"""


def test_its_kernels_compile(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    command = [sys.executable, "-c", COMPILE, script.KERNELS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
