"""One small compilation before any fork, so that no child pays for what every first compilation does.

Triton hashes all of its own files, asks the assembler for its version and sets LLVM up: about a second, once a process.
"""

from __future__ import annotations

import os
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit  # type: ignore[untyped-decorator]
def _touch(pointer, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, block)
    tl.store(pointer + at, tl.load(pointer + at, mask=at < count) + 1.0, mask=at < count)


def compile_once(arch: int) -> None:
    """Compile a kernel for the target and throw it away. Needs no GPU and touches none."""
    source = ASTSource(_touch, {"pointer": "*fp32", "count": "i32", "block": "constexpr"}, {"block": 128})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        triton.compile(source, target=GPUTarget("cuda", arch, 32))
        del os.environ["TRITON_CACHE_DIR"]
