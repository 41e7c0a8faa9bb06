"""A child process that compiles sources for Hopper, with no GPU, and says what became of their kernels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = {
    "arch": 90, "name": "h200", "block_shared_bytes": 232448, "shared_bytes": 233472, "registers": 65536, "warps": 64,
    "multiprocessors": 132, "clock_hz": 1.98e9, "memory_bytes": 141 << 30, "l2_bytes": 50 << 20,
}  # fmt: skip
Given = tuple[tuple[int, ...], str]
"""The shape and dtype of an input."""


@dataclass(frozen=True)
class Made:
    """A kernel as it was compiled."""

    ptx: str
    grid: tuple[int, ...]
    warps: int
    shared_bytes: int
    registers: int
    spilled_bytes: int
    remarks: str
    """What the assembler says beside."""

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.ptx))


def compiled(cases: Sequence[tuple[str, Sequence[Given]]]) -> list[Made]:
    """The one kernel of each source, for inputs of such shapes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TRITON_CACHE_DIR": str(Path(folder, "cache")), "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("TRITON_INTERPRET", None)
        for number, (source, inputs) in enumerate(cases):
            Path(folder, f"candidate{number}.py").write_text(source, encoding="utf-8")
            Path(folder, f"candidate{number}.json").write_text(json.dumps(inputs), encoding="utf-8")
        run = subprocess.run(
            [sys.executable, __file__, str(len(cases))],
            check=False, capture_output=True, text=True, env=environment, timeout=240, cwd=folder,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        said = [json.loads(line) for line in run.stdout.splitlines()]
    return [Made(**{**each, "grid": tuple(each["grid"])}) for each in said]


def main() -> None:
    import importlib.util

    import torch
    import triton.backends.nvidia
    from torch._subclasses.fake_tensor import FakeTensorMode

    from tilesmith.bench import stub

    def launched(kernel: Any, metadata: Any, grid: tuple[int, ...], _: Any) -> None:
        Path("kernel.ptx").write_text(kernel.asm["ptx"], encoding="utf-8")
        tool = Path(triton.backends.nvidia.__file__).with_name("bin") / "ptxas"
        command = [str(tool), "-v", "--gpu-name=sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers, spills = re.search(r"Used (\d+) registers", said), re.findall(r"(\d+) bytes spill", said)
        assert registers is not None, said
        print(json.dumps({
            "ptx": kernel.asm["ptx"], "grid": grid, "warps": metadata.num_warps, "shared_bytes": metadata.shared,
            "registers": int(registers[1]), "spilled_bytes": sum(map(int, spills)),
            "remarks": "\n".join(line for line in said.splitlines() if "(C" in line),
        }))  # fmt: skip

    stub.pretend(TARGET, launched, lambda *_, **__: 0.0)
    # Memory that is not there lies where an allocator would put it.
    torch.Tensor.data_ptr = lambda _: 0x7F00_0000_0000
    for number in range(int(sys.argv[1])):
        path = Path(f"candidate{number}.py")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        inputs = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with FakeTensorMode(allow_non_fake_inputs=True):
            module.kernel_function(*(torch.empty(s, dtype=getattr(torch, d), device="cuda") for s, d in inputs))


if __name__ == "__main__":
    main()
