"""A finalist under compute-sanitizer: memory that it must not touch, and races in shared memory.

The program, its walls and its keeper are those of hardware profiles (`tilesmith.bench.profiled`, `counters`). Only the
candidate's own kernels are watched, by name; the framework's memory is given out piece by piece, so that what lies
beside a tensor belongs to nobody.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tilesmith.bench.counters import environment, job_file, reported, run_kept
from tilesmith.bench.gpus import Device
from tilesmith.bench.profiled import REPORT
from tilesmith.core.errors import MachineError
from tilesmith.core.problem import Problem

TOOLS = ("memcheck", "racecheck")
_SUMMARY = re.compile(r"^=+ (?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", re.MULTILINE)
_FIRST = re.compile(
    r"^=+ (?!COMPUTE-SANITIZER|ERROR SUMMARY|RACECHECK SUMMARY|Target application)(\S.*)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one tool said."""

    tool: str
    clean: bool | None
    """None where it could not be run to its end."""
    words: str

    def __str__(self) -> str:
        return f"compute-sanitizer {self.tool}: {self.words}"


def find() -> str | None:
    """compute-sanitizer, on PATH or in a CUDA toolkit."""
    homes = [home for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    folders = [*homes, *map(str, sorted(Path("/usr/local").glob("cuda*"), reverse=True))]
    places = [path for folder in folders for path in Path(folder).glob("**/compute-sanitizer") if path.is_file()]
    return shutil.which("compute-sanitizer") or next((str(path) for path in places if os.access(path, os.X_OK)), None)


def sanitize(
    device: Device,
    problem: Problem,
    source: str,
    kernels: Sequence[str],
    scratch: str,
    timeout_s: float,
    *,
    barriers: bool,
) -> tuple[Finding, ...]:
    """One finding a tool, for these kernels of one candidate; to be called under a lease of the GPU.

    With `barriers` some of them wait on mbarriers, which racecheck does not follow: it calls honest kernels guilty.
    """
    program = find()
    if program is None:
        return (Finding("", None, "is not installed"),)
    named = [part for kernel in sorted(set(kernels)) for part in ("--kernel-name", f"kernel_name={kernel}")]

    def watched(tool: str) -> Finding:
        with tempfile.TemporaryDirectory(dir=scratch, prefix="san-", ignore_cleanup_errors=True) as folder:
            job = job_file(problem, source, folder, ())
            target = [sys.executable, "-P", "-m", "tilesmith.bench.profiled", str(job)]
            options = ["--tool", tool, "--print-limit", "1", "--show-backtrace", "no", *named]
            try:
                output = run_kept(
                    [program, *options, *target],
                    {**environment(device, folder), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                    time.monotonic() + timeout_s,
                )[1]
            except MachineError:
                return Finding(tool, None, f"had not ended after {timeout_s:.0f} s")
            finding = read(tool, output, finished="calls" in reported(Path(folder, REPORT)))
            return unfollowed(finding) if barriers and tool == "racecheck" else finding

    with ThreadPoolExecutor(len(TOOLS)) as pool:
        return tuple(pool.map(watched, TOOLS))


def unfollowed(finding: Finding) -> Finding:
    """Hazards that are reported of kernels whose way of waiting the tool does not know tell nothing."""
    if finding.clean is not False:
        return finding
    words = f"cannot follow the barriers for copies that its kernels wait on, and reports: {finding.words}"
    return Finding(finding.tool, None, words)


def read(tool: str, output: str, *, finished: bool) -> Finding:
    """What a tool's output says."""
    summary = _SUMMARY.search(output)
    count = int(summary[1] or summary[2]) if summary else None
    first = _FIRST.search(output)
    if count:
        return Finding(tool, False, first[1][:300] if first else f"{count} errors")
    if count == 0 and finished:
        return Finding(tool, True, "clean")
    return Finding(tool, None, f"could not watch it: {first[1][:300] if first else 'it says nothing'}")
