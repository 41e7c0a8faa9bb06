"""What this machine has of what the benches need, found without importing torch or Triton and without touching CUDA."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tilesmith.bench import counters, gpus, landlock, sanitizer, syscalls

State = Literal["ok", "limited", "missing"]

DISK_BYTES = 2 << 30
"""Compiled kernels of a long run take about this much."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """limited: the product works without it, but less well."""
    found: str
    mend: str = ""
    """What to do about it; empty where nothing needs doing."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether a bench will work here."""

    bench: str
    works: bool
    why: str


def examine(folder: Path) -> tuple[Finding, ...]:
    """Look at everything; `folder` is where the journal would be. Never raises, and takes well under a second."""
    return (
        _python(),
        _torch(),
        _triton(),
        _numpy(),
        _gpus(),
        _counters(),
        _sanitizer(),
        _c_compiler(),
        _ptxas(),
        _bubblewrap(),
        _landlock(),
        _namespaces(),
        _mpi(),
        _ray(),
        _folder(folder),
        _disk(folder),
    )


def outlooks(findings: Sequence[Finding]) -> tuple[Outlook, ...]:
    """For each bench whether what it needs is there, and what is in its way."""
    both = ("python", "torch", "triton", "ptxas", "journal folder")
    return (
        _outlook("offline", (*both, "numpy"), findings),
        _outlook("local", (*both, "gpus", "c compiler"), findings),
    )


def _outlook(bench: str, needs: Sequence[str], findings: Sequence[Finding]) -> Outlook:
    lacking = [finding for finding in findings if finding.name in needs and finding.state == "missing"]
    if lacking:
        return Outlook(bench, False, "; ".join(f"{finding.name}: {finding.found}" for finding in lacking))
    return Outlook(bench, True, "measures on GPUs" if bench == "local" else "checks numbers, estimates times")


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()}, {sys.executable}")


def _torch() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding("torch", "missing", "not installed", "pip install torch==2.13.0, or what suits your GPU")
    if not (2, 11) <= _numbers(version) < (2, 14):
        return Finding("torch", "limited", f"{version}, which nobody has tried", "install torch 2.11 to 2.13")
    return Finding("torch", "ok", version)


def _triton() -> Finding:
    version = _version("triton")
    if version is None:
        return Finding("triton", "missing", "not installed", "pip install triton==3.6.0, or what suits your torch")
    if not (3, 6) <= _numbers(version) < (3, 10):
        return Finding("triton", "limited", f"{version}, which nobody has tried", "install Triton 3.6 to 3.9")
    return Finding("triton", "ok", version)


def _numpy() -> Finding:
    version, triton = _version("numpy"), _version("triton")
    if version is None:
        return Finding("numpy", "missing", "not installed", "pip install 'numpy<2.4'")
    if triton is not None and _numbers(triton) < (3, 7) and _numbers(version) >= (2, 4):
        broken = f"{version}, with which the interpreter of Triton {triton} fails on loops"
        return Finding("numpy", "missing", broken, "pip install 'numpy<2.4'")
    return Finding("numpy", "ok", version)


def _gpus() -> Finding:
    found = gpus.find()
    if found:
        names = ", ".join(device.name for device in found)
        return Finding("gpus", "ok", f"{names}; driver {found[0].driver}")
    if not _has_driver():
        return Finding("gpus", "missing", "no NVIDIA driver", "none is needed to compile, check and estimate")
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return Finding("gpus", "missing", "CUDA_VISIBLE_DEVICES hides them all", "unset CUDA_VISIBLE_DEVICES")
    return Finding("gpus", "missing", "a driver, but nvidia-smi shows no GPU", "see what nvidia-smi says")


def _counters() -> Finding:
    name = "hardware counters"
    if reason := counters.available():
        why, _, mend = reason.partition("; ")
        return Finding(name, "limited", why, mend)
    return Finding(name, "ok", f"{counters.find()} may read them")


def _sanitizer() -> Finding:
    name = "compute-sanitizer"
    if program := sanitizer.find():
        return Finding(name, "ok", program)
    mend = "install the CUDA toolkit, so that finalists are watched for bad memory and races"
    return Finding(name, "limited", "not installed", mend)


def _c_compiler() -> Finding:
    found = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found is None or shutil.which(found) is None:
        return Finding("c compiler", "missing", "none on PATH", "install gcc: Triton builds its launchers with it")
    return Finding("c compiler", "ok", found)


def _ptxas() -> Finding:
    spec = importlib.util.find_spec("triton")
    for place in spec.submodule_search_locations or () if spec else ():
        if os.access(assembler := Path(place) / "backends" / "nvidia" / "bin" / "ptxas", os.X_OK):
            return Finding("ptxas", "ok", str(assembler))
    return Finding("ptxas", "missing", "not in the Triton that is installed", "install Triton again, from its wheel")


def _bubblewrap() -> Finding:
    mend = "nothing needs it: namespaces, landlock and seccomp stand without it"
    if shutil.which("bwrap") is None:
        return Finding("bubblewrap", "limited", "not installed", mend)
    if not _succeeds("bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"):
        return Finding("bubblewrap", "limited", "installed, but not allowed here", "allow user namespaces")
    return Finding("bubblewrap", "ok", "works")


def _landlock() -> Finding:
    known = landlock.version()
    if known < landlock.OLDEST:
        found = f"version {known}, too old" if known else "not in this kernel"
        return Finding("landlock", "limited", found, "use Linux 5.19 or newer with landlock enabled")
    return Finding("landlock", "ok", f"version {known}")


def _namespaces() -> Finding:
    # In another process: whoever has taken a user namespace cannot give it back.
    attempt = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({syscalls.CLONE_NEWUSER}) != 0)"
    if _succeeds(sys.executable, "-I", "-S", "-c", attempt):
        return Finding("user namespaces", "ok", "allowed")
    mend = "allow unprivileged user namespaces, or rely on landlock"
    return Finding("user namespaces", "limited", "not allowed", mend)


def _mpi() -> Finding:
    if found := shutil.which("mpiexec"):
        return Finding("mpiexec", "ok", found)
    return Finding(
        "mpiexec", "limited", "not on PATH", "pip install 'tilesmith[mpi]', for searches by several ranks alone"
    )


def _ray() -> Finding:
    version = _version("ray")
    if version is None:
        return Finding("ray", "limited", "not installed", "pip install 'tilesmith[cluster]', for --bench ray alone")
    return Finding("ray", "ok", version)


def _folder(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding("journal folder", "ok", str(folder.resolve()))
    except OSError as error:
        mend = "go to a folder that can be written, or set TILESMITH_JOURNAL"
        return Finding("journal folder", "missing", f"{folder}: {error.strerror}", mend)


def _disk(folder: Path) -> Finding:
    try:
        free = min(shutil.disk_usage(place).free for place in (folder, Path(tempfile.gettempdir())))
    except OSError as error:
        return Finding("disk space", "limited", f"unknown: {error.strerror}")
    words = f"{free / 2**30:.1f} GiB free"
    if free < DISK_BYTES:
        return Finding("disk space", "limited", words, "free some: compiled kernels of a long run take 2 GiB")
    return Finding("disk space", "ok", words)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, int]:
    """ "3.6.0+git" as (3, 6); (0, 0) for what has no numbers."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def _succeeds(*command: str) -> bool:
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 0
