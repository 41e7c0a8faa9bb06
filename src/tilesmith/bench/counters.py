"""Hardware profiles: ncu run on one candidate, from its start to the end of everything it started.

ncu starts `tilesmith.bench.profiled`, which runs the candidate. Between this process and ncu stands a keeper, run as
`python -m tilesmith.bench.counters COMMAND...`: it adopts every process that loses its parent, so that none outlives a
deadline, a Ctrl-C or this process, whatever it does to its session or its parents. Nothing is ever run with more
rights than this process has: where counters are for administrators, a sentence says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tilesmith.bench import syscalls, walls, warden
from tilesmith.bench.gpus import Device, lease
from tilesmith.bench.ncu import METRICS, command, kernel_profiles, lacking, parse
from tilesmith.bench.processes import PASSED_ON
from tilesmith.bench.profiled import REPORT, UNDER_NCU
from tilesmith.bench.zygote import MEMORY_SHARE
from tilesmith.core.errors import MachineError
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile

TIMEOUT_S = 180.0
END_S = 10.0
"""The keeper may take so long to end what it keeps."""
REPORT_BYTES = 64 << 10
OUTPUT_BYTES = 64 << 20

_LIMIT_STATUS: dict[str, int] = {"memory": 201, "processes": 202}
_CAP_SYS_ADMIN = 21


class Unavailable(MachineError):
    """No candidate can be profiled here, this one or another."""


_ABSENT = (
    "hardware counters need ncu, which is not on PATH, in CUDA_HOME, in /usr/local/cuda* or in /opt/nvidia; "
    "install Nsight Compute, or go on with estimates"
)
_FORBIDDEN = (
    "the NVIDIA driver keeps hardware counters for administrators (ERR_NVGPUCTRPERM); load it with "
    "NVreg_RestrictProfilingToAdminUsers=0, or run with the capability SYS_ADMIN"
)
_LASTING = (
    (r"ERR_NVGPUCTRPERM|does not have permission", _FORBIDDEN),
    (
        r"driver is not compatible",
        "ncu does not suit the NVIDIA driver; install the Nsight Compute of the driver's CUDA version",
    ),
    (
        r"Profiling is not supported on",
        "this ncu cannot profile this GPU; install a newer Nsight Compute, or go on with estimates",
    ),
    (
        r"LibraryNotLoaded|Failed to initialize the profiler",
        "ncu cannot load the driver's profiling library here, as in some virtual machines; go on with estimates",
    ),
)
"""What ncu says of the machine, and what it means."""
_BUSY = "another tool reads the hardware counters of this GPU, as DCGM does; stop it for the time of the run"
_UNKNOWN: dict[tuple[str, int], frozenset[str]] = {}
"""Metrics that an ncu does not know on an architecture, so that it is told of them once."""


def find(root: str = "/") -> str | None:
    """ncu: on PATH, in the CUDA that the environment names, or where its packages install it, the newest first."""
    homes = [home for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    usual = [*Path(root, "usr/local").glob("cuda*/bin/ncu"), *Path(root, "opt/nvidia/nsight-compute").glob("*/ncu")]
    places = [*(Path(home, "bin/ncu") for home in homes), *sorted(usual, key=_version, reverse=True)]
    return shutil.which("ncu") or next((str(path) for path in places if os.access(path, os.X_OK)), None)


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def available(root: str = "/") -> str | None:
    """What stands between this machine and hardware counters, and the mend; None where nothing is seen to.

    Looks at files alone: only a profile shows for certain.
    """
    if not Path(root, "proc/driver/nvidia/version").exists() and not Path(root, "dev/nvidiactl").exists():
        return "hardware counters need an NVIDIA driver, and there is none; profiles are estimates"
    if find(root) is None:
        return _ABSENT
    with contextlib.suppress(OSError):
        parameters = Path(root, "proc/driver/nvidia/params").read_text()
        if re.search(r"^RmProfilingAdminOnly:\s*1$", parameters, re.MULTILINE) and not _may_administer():
            return _FORBIDDEN
    return None


def _may_administer() -> bool:
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> _CAP_SYS_ADMIN & 1)


def profile(
    device: Device,
    problem: Problem,
    source: str,
    scratch: str,
    timeout_s: float = TIMEOUT_S,
    raised: Sequence[str] = UNDER_NCU,
) -> Profile:
    """What the hardware counters say of every kernel that one call of a correct candidate launches.

    Takes the exclusive lease of the GPU itself, so the caller must hold none; 5 to 10 s on an H200. `scratch` is a
    folder for this candidate; what is made there is removed. `raised` names walls of `profiled.WALLS`.
    Raises `Unavailable`, a `MachineError`, where no profile can be had on this machine, and `MachineError` where this
    one could not.
    """
    ncu = find()
    if ncu is None:
        raise Unavailable(_ABSENT)
    known = (ncu, device.arch)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="ncu-", ignore_cleanup_errors=True) as folder:
        job = job_file(problem, source, folder, raised)
        target = [sys.executable, "-P", "-m", "tilesmith.bench.profiled", str(job)]
        with lease(device.uuid, "exclusive"):
            deadline = time.monotonic() + timeout_s
            while True:
                metrics = [metric for metric in METRICS if metric not in _UNKNOWN.get(known, ())]
                status, output, errors = run_kept(command(ncu, target, metrics), environment(device, folder), deadline)
                unknown = lacking(output + errors, metrics)
                if not unknown:
                    break
                _UNKNOWN[known] = _UNKNOWN.get(known, frozenset()) | unknown
        told = reported(Path(folder, REPORT))
    _refuse(status, f"{output}\n{errors}", told)
    rows = parse(output)
    if not rows:
        raise MachineError("ncu saw no kernel in the call that it profiled")
    return Profile("ncu", device.gpu.name, kernel_profiles(rows, device.gpu))


def job_file(problem: Problem, source: str, folder: str, raised: Sequence[str]) -> Path:
    path = Path(folder, "job.json")
    job = {
        "problem": problem.source,
        "constants": dict(problem.settings.large),
        "dtype": problem.settings.dtype,
        "candidate": source,
        "scratch": folder,
        "walls": list(raised),
    }
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def environment(device: Device, folder: str) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": folder,
        # ncu keeps its lock and its sockets here; another user's lock in a shared folder would stop it.
        "TMPDIR": folder,
        "TRITON_CACHE_DIR": str(Path(folder, "triton")),
        "CUDA_VISIBLE_DEVICES": device.uuid,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Elsewhere ncu writes 1,5 for one and a half.
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRITON_DISABLE_LINE_INFO": "1",
        # Or ncu copies its section files to the home folder first.
        "NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT": "1",
    }


def run_kept(ncu: Sequence[str], environment: Mapping[str, str], deadline: float) -> tuple[int, str, str]:
    """ncu's exit status and what it wrote. Raises `MachineError` when the deadline passes; then all has ended."""
    # Files, not pipes: whoever holds a pipe open would keep its reader waiting.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "tilesmith.bench.counters", *ncu],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            keeper.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise MachineError("profiling with ncu passed its deadline and was ended") from None
        finally:
            _end(keeper)
        return keeper.returncode, _text(output), _text(errors)


def _end(keeper: subprocess.Popen[bytes]) -> None:
    if keeper.poll() is not None:
        return
    keeper.terminate()
    try:
        keeper.wait(END_S)
    except subprocess.TimeoutExpired:
        # ncu ends with its keeper; so does the session of both.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(OUTPUT_BYTES).decode(errors="replace"))


def reported(report: Path) -> dict[str, Any]:
    """What the profiled program reports; it shares a process with the candidate, so this is data to be checked."""
    try:
        with report.open("rb") as file:
            told = json.loads(file.read(REPORT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _refuse(status: int, output: str, told: Mapping[str, Any]) -> None:
    """Raise what the output of a profile that failed calls for."""
    for limit, number in _LIMIT_STATUS.items():
        if status == number:
            raise MachineError(
                f"profiling was ended because it used too {'much' if limit == 'memory' else 'many'} {limit}"
            )
    said = [line.removeprefix("==ERROR==").strip() for line in output.splitlines() if line.startswith("==ERROR==")]
    for pattern, meaning in _LASTING:
        if any(re.search(pattern, line) for line in said):
            raise Unavailable(meaning)
    if any("driver resource was unavailable" in line for line in said):
        raise MachineError(_BUSY)
    if "fault" in told:
        raise MachineError(f"the kernel failed while it was profiled: {str(told['fault'])[:500]}")
    if said:
        raise MachineError(f"ncu failed: {' '.join(said)[:500]}")
    if status != 0 or "calls" not in told:
        last = output.strip().splitlines()[-1:] or ["it wrote nothing"]
        raise MachineError(f"ncu ended with exit status {status} before a call was profiled: {last[0][:300]}")


# The keeper ----------------------------------------------------------------------------------------------------------


def keep(arguments: Sequence[str]) -> int:
    """Run a command under a warden; its exit status, or one of `_LIMIT_STATUS` where it used too much."""
    warden.prepare(first=False)
    pid = os.fork()
    if pid == 0:
        _become(arguments)
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    status, limit = warden.watch(pid, warden.Allowance(int(MEMORY_SHARE * machine_bytes)), first=False)
    code = os.waitstatus_to_exitcode(status)
    return _LIMIT_STATUS[limit] if limit else code if code >= 0 else 128 - code


def _become(arguments: Sequence[str]) -> NoReturn:
    try:
        warden.release()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        walls.limit(0)
        with contextlib.suppress(OSError):
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        os.execv(arguments[0], list(arguments))
    except OSError as error:
        os.write(2, f"==ERROR== {arguments[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
