"""Compiles small kernels with the installed Triton, in one process of its own that never sees a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEADER = "import triton\nimport triton.language as tl\n\n\n"


@dataclass(frozen=True)
class Kernel:
    """`signature` maps every parameter to "*fp32", "i32", ... or to "constexpr", whose value is in `constants`."""

    source: str
    name: str
    signature: dict[str, str]
    constants: dict[str, int] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3
    file: str = "kernel.py"


@dataclass(frozen=True)
class Texts:
    ttir: str
    ptx: str
    shared_bytes: int
    registers: int
    spills: int


def compile_kernels(kernels: list[Kernel]) -> list[Texts]:
    """One process for all; the order is kept."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, folder],
            input=json.dumps([asdict(kernel) for kernel in kernels]),
            env={**os.environ, "TRITON_CACHE_DIR": f"{folder}/cache", "TRITON_INTERPRET": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return [Texts(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _compile(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    import importlib.util
    import re

    import triton
    import triton.backends.nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    path = folder / row["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + row["source"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kinds = list(row["signature"].values())
    aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(kinds) if kind[0] == "*" or kind == "i32"}
    source = ASTSource(getattr(module, row["name"]), row["signature"], row["constants"], aligned)
    made = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": row["warps"], "num_stages": row["stages"]}
    )
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    dump = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    usage = subprocess.run([dump, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None
    return {
        "ttir": made.asm["ttir"],
        "ptx": made.asm["ptx"],
        "shared_bytes": made.metadata.shared,
        "registers": int(found.group(1)),
        "spills": int(found.group(2)) // 4,
    }


if __name__ == "__main__":
    rows = json.load(sys.stdin)
    texts = [_compile(row, Path(sys.argv[1]) / str(number)) for number, row in enumerate(rows)]
    print(json.dumps(texts))
