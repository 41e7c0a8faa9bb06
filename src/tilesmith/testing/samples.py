"""A small problem and candidates for it, good and bad, as source."""

from __future__ import annotations

from dataclasses import dataclass

from tilesmith.core.problem import Problem, Settings
from tilesmith.core.trial import Failed, Verdict, Wrong


@dataclass(frozen=True, slots=True)
class Samples:
    """Sources of candidates for one problem, by what a bench should say of them."""

    correct: str
    renamed: str
    """`correct` with other names for its kernel, arguments and variables, and other comments: a duplicate."""
    commented: str
    """`correct` with one more comment: a duplicate too."""
    other: str
    """Correct too, with another launch."""
    wrong: str
    raising: str
    """Raises an exception when it is called."""
    crashing: str
    """Kills its process when it is called."""
    hanging: str
    """Never returns when it is called."""
    malformed: str
    """Is not Python."""
    missing: str
    """Has no entry point."""


PROBLEM = Problem(
    "scaled_sum",
    """import torch
from torch import nn

N = 5000


class Model(nn.Module):
    def forward(self, x, y):
        return 2.0 * x + y


def get_inputs():
    return [torch.randn(N), torch.randn(N)]


def get_init_inputs():
    return []
""",
    Settings("fp32", small={"N": 700}),
)

_KERNEL = """import torch
import triton
import triton.language as tl


@triton.jit
def scaled_sum(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside)
    y = tl.load(y_ptr + at, mask=inside)
    tl.store(z_ptr + at, 2.0 * x + y, mask=inside)


def kernel_function(x, y):
    z = torch.empty_like(x)
    n = x.numel()
    scaled_sum[(triton.cdiv(n, 256),)](x, y, z, n, BLOCK=256)
    return z
"""

_RENAMED = '''"""The same kernel under other names."""
import torch
import triton
import triton.language as tl


@triton.jit
def twice_and_add(left, right, out, count, WIDTH: tl.constexpr):
    # Where this program works.
    offsets = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    mask = offsets < count

    a = tl.load(left + offsets, mask=mask)
    b = tl.load(right + offsets, mask=mask)
    tl.store(out + offsets, 2.0 * a + b, mask=mask)


def kernel_function(first, second):
    result = torch.empty_like(first)
    total = first.numel()
    twice_and_add[(triton.cdiv(total, 256),)](first, second, result, total, WIDTH=256)
    return result
'''

_BEFORE_RETURN = "    return z\n"

SAMPLES = Samples(
    correct=_KERNEL,
    renamed=_RENAMED,
    commented=_KERNEL + "\n# To be tuned.\n",
    other=_KERNEL.replace("256", "512"),
    wrong=_KERNEL.replace("2.0 * x + y", "2.0 * x - y"),
    raising=_KERNEL.replace(_BEFORE_RETURN, "    raise ValueError('no')\n"),
    crashing=_KERNEL.replace(_BEFORE_RETURN, "    import os, signal\n\n    os.kill(os.getpid(), signal.SIGSEGV)\n"),
    hanging=_KERNEL.replace(_BEFORE_RETURN, "    while True:\n        pass\n"),
    malformed=_KERNEL.replace("def kernel_function(x, y):", "def kernel_function(x, y:"),
    missing=_KERNEL.replace("kernel_function", "another_function"),
)

FAULTS: dict[str, Verdict] = {
    SAMPLES.wrong: Wrong("all of it", 50.0),
    SAMPLES.raising: Failed("check", "ValueError: no"),
    SAMPLES.crashing: Failed("crash", "died of signal 11"),
    SAMPLES.hanging: Failed("timeout", "no answer within 5 s"),
    SAMPLES.malformed: Failed("admit", "syntax error in line 16"),
    SAMPLES.missing: Failed("admit", "no entry point"),
}
"""What a bench that executes nothing may say of the faulty ones."""
