"""From PyTorch: what a problem's model applies to its inputs.

The problem is executed by a child process (`tracing`), under fake tensors, and its ATen operators are translated here
(`aten`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from tilesmith.core.errors import MachineError, ProblemError
from tilesmith.core.problem import Constant, Problem
from tilesmith.superopt.aten import translate
from tilesmith.superopt.traced import Traced

TIMEOUT_S = 300.0
PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")
"""All that the child gets of the environment: no key, no token."""


def trace(problem: Problem, constants: Mapping[str, Constant] | None = None) -> Traced:
    """What the problem's model computes, at the constants given, or else at its full size.

    Raises `ProblemError` where it cannot be executed or its shapes depend on data, `MachineError` without torch.
    """
    chosen = problem.settings.large if constants is None else constants
    request = {"source": problem.source, "constants": list(chosen.items()), "dtype": problem.settings.dtype}
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="tilesmith-trace-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "tilesmith.superopt.tracing"],
                input=json.dumps(request, allow_nan=False).encode(),
                capture_output=True,
                env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""},
                cwd=folder,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProblemError(f"Tracing {problem.name} took more than {TIMEOUT_S:.0f} s and was ended.") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise _silent(problem, done) from None
    if "fault" in answer:
        raise ProblemError(f"{problem.name}: {answer['fault']}")
    return translate(answer)


def _silent(problem: Problem, done: subprocess.CompletedProcess[bytes]) -> ProblemError | MachineError:
    """Why the process ended without an answer."""
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    if "No module named 'torch'" in last:
        return MachineError("Tracing a problem needs PyTorch; install tilesmith[torch], or write the graph as JSON.")
    return ProblemError(f"{problem.name} ended the process that traced it (status {done.returncode}): {last}.")
