"""Running ncu with real processes: a program named ncu stands in for it, and says what ncu says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tilesmith.bench import counters
from tilesmith.bench.counters import Unavailable, available, find, profile
from tilesmith.bench.gpus import Device
from tilesmith.bench.ncu import METRICS
from tilesmith.bench.profiled import UNDER_NCU
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem, Settings

RECORDED = Path(__file__).parents[2] / "golden" / "ncu" / "full_vector_add_h200.csv"
PROBLEM = Problem("p", "problem source", Settings("bf16", large={"N": 7, "shape": (1, 2)}, small={"N": 3}))
DEVICE = Device(0, "GPU-of-a-test", "NVIDIA H200", 1 << 30, "580.159.04", 90, target("h200"))

PRELUDE = f"""#!{sys.executable}
import json, os, signal, subprocess, sys, time
from pathlib import Path
job_path = Path(sys.argv[-1])
job = json.loads(job_path.read_text())
scratch = Path(job["scratch"])
metrics = sys.argv[sys.argv.index("--metrics") + 1].split(",")
print("==PROF== Connected to process 864 (python3)")

def report(**told):
    (scratch / "profiled.json").write_text(json.dumps(told))

def error(words, status=1):
    print("==ERROR==", words)
    sys.exit(status)

def table():
    sys.stdout.write(Path({str(RECORDED)!r}).read_text())
"""
GOOD = "report(calls=3)\ntable()\n"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(counters, "_UNKNOWN", {})
    return StandIn(tmp_path, monkeypatch)


class StandIn:
    """A program named ncu, first on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes = folder / "notes"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._program = folder / "bin" / "ncu"
        self._program.parent.mkdir()
        monkeypatch.setenv("PATH", f"{self._program.parent}:{os.environ['PATH']}")

    def does(self, body: str) -> None:
        self._program.write_text(f"{PRELUDE}notes = Path({str(self.notes)!r})\n{textwrap.dedent(body)}")
        self._program.chmod(0o755)

    def profile(self, timeout_s: float = 30.0) -> counters.Profile:
        return profile(DEVICE, PROBLEM, "candidate source", str(self.scratch), timeout_s)


def test_a_profile(stand_in: StandIn) -> None:
    stand_in.does(GOOD)
    found = stand_in.profile()
    assert (found.source, found.target) == ("ncu", "h200")
    assert [(kernel.kernel, kernel.limiter) for kernel in found.kernels] == [("add", "dram")]
    assert list(stand_in.scratch.iterdir()) == []


def test_what_ncu_and_the_profiled_program_are_given(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    stand_in.does(
        """
        import resource
        report(calls=3)
        table()
        told = dict(arguments=sys.argv, job=job, environment=dict(os.environ), session=os.getsid(0))
        told["privileges"] = "NoNewPrivs:\\t1" not in Path("/proc/self/status").read_text()
        told["core"] = resource.getrlimit(resource.RLIMIT_CORE)[0]
        notes.write_text(json.dumps(told))
        """
    )
    stand_in.profile()
    told = json.loads(stand_in.notes.read_text())
    assert told["arguments"][-4:-1] == ["-P", "-m", "tilesmith.bench.profiled"]
    assert told["job"]["problem"] == "problem source"
    assert told["job"]["candidate"] == "candidate source"
    assert told["job"]["constants"] == {"N": 7, "shape": [1, 2]}
    assert told["job"]["dtype"] == "bf16"
    assert told["job"]["walls"] == list(UNDER_NCU)
    environment, folder = told["environment"], told["job"]["scratch"]
    assert "SOME_API_KEY" not in environment
    assert environment["HOME"] == environment["TMPDIR"] == folder
    assert environment["TRITON_CACHE_DIR"].startswith(folder)
    assert folder.startswith(str(stand_in.scratch))
    assert environment["CUDA_VISIBLE_DEVICES"] == DEVICE.uuid
    assert environment["LC_ALL"] == "C"
    assert told["session"] != os.getsid(0)
    assert not told["privileges"]
    assert told["core"] == 0


FORBIDDEN = """
report(fault="CUDA error: invalid argument")
print("the program prints")
error("ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the target "
      "device 0. For instructions on enabling permissions see https://developer.nvidia.com/ERR_NVGPUCTRPERM")
"""
INCOMPATIBLE = """
print("==ERROR== An error was reported by the driver:")
error("Cuda driver is not compatible with Nsight Compute.", 255)
"""
BUSY = """
error("Profiling failed because a driver resource was unavailable. Ensure that no other tool (like DCGM) is "
      "concurrently collecting profiling data.")
"""
FAULTY = """
report(fault="RuntimeError: boom (line 3)")
error("The application returned an error code (1).")
"""
CUT = f"report(calls=3)\nsys.stdout.write(Path({str(RECORDED)!r}).read_text()[:150000])"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (FORBIDDEN, "for administrators"),
        (INCOMPATIBLE, "does not suit the NVIDIA driver"),
        ('error("Profiling is not supported on device 0.")', "cannot profile this GPU"),
        ('error("Failed to initialize the profiler: LibraryNotLoaded")', "cannot load the driver's profiling library"),
    ],
    ids=["forbidden", "incompatible", "no such GPU", "no library"],
)
def test_what_no_candidate_can_change(stand_in: StandIn, body: str, words: str) -> None:
    stand_in.does(body)
    with pytest.raises(Unavailable, match=words):
        stand_in.profile()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BUSY, "another tool"),
        (FAULTY, r"failed while it was profiled: RuntimeError: boom \(line 3\)"),
        ("report(calls=3)\ntable()\nerror('Failed to profile \"add\" in process 7')", "ncu failed: Failed to"),
        ('report(calls=3)\nprint("==WARNING== No kernels were profiled.")', "saw no kernel"),
        ("table()", "exit status 0 before a call was profiled"),
        ('print("odd words")\nsys.exit(9)', "exit status 9 before a call was profiled: odd words"),
        ("sys.stdout.flush()\nos.kill(os.getpid(), 11)", "exit status 139"),
        ('(scratch / "profiled.json").write_text("[1, 2")\ntable()', "before a call was profiled"),
        (CUT, "cut short"),
    ],
    ids=["busy", "fault", "one launch", "no kernel", "no report", "odd", "killed", "garbled report", "cut short"],
)
def test_what_ends_one_profile(stand_in: StandIn, body: str, words: str) -> None:
    stand_in.does(body)
    with pytest.raises(MachineError, match=words) as caught:
        stand_in.profile()
    assert not isinstance(caught.value, Unavailable)
    assert "\n" not in str(caught.value)


def test_metrics_that_ncu_does_not_know_are_left_out_and_asked_for_no_more(stand_in: StandIn) -> None:
    stand_in.does(
        """
        with notes.open("a") as file:
            file.write(f"{len(metrics)}\\n")
        if "launch__waves_per_multiprocessor" in metrics:
            print("==ERROR== Failed to find metric regex:^launch__waves_per_multiprocessor$")
            sys.exit(1)
        report(calls=3)
        table()
        """
    )
    assert len(stand_in.profile().kernels) == 1
    assert len(stand_in.profile().kernels) == 1
    asked = [int(line) for line in stand_in.notes.read_text().split()]
    assert asked == [len(METRICS), len(METRICS) - 1, len(METRICS) - 1]


def ended(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_deadline_ends_every_descendant(stand_in: StandIn) -> None:
    # Its own session, an orphan, deaf to polite signals: and all the same it ends.
    stand_in.does(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                notes.write_text(f"{os.getppid()} {os.getpid()}")
                time.sleep(600)
            os._exit(0)
        while not notes.exists():
            time.sleep(0.01)
        with notes.open("a") as file:
            file.write(f" {os.getpid()}")
        time.sleep(600)
        """
    )
    began = time.monotonic()
    with pytest.raises(MachineError, match="deadline"):
        stand_in.profile(timeout_s=2.0)
    assert time.monotonic() - began < 15
    pids = [int(pid) for pid in stand_in.notes.read_text().split()]
    assert len(pids) == 3
    assert all(ended(pid) for pid in pids)
    assert list(stand_in.scratch.iterdir()) == []


CONTROLLER = """
import sys
from pathlib import Path
from tilesmith.bench import counters
from tilesmith.bench.gpus import Device
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
device = Device(0, "GPU-of-another-test", "NVIDIA H200", 1 << 30, "580", 90, target("h200"))
counters.profile(device, Problem("p", "problem source"), "candidate source", sys.argv[1])
"""


def test_a_killed_controller_takes_all_with_it(stand_in: StandIn) -> None:
    stand_in.does(
        """
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        notes.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
        notes.with_suffix(".new").rename(notes)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", CONTROLLER, str(stand_in.scratch)]) as controller:
        deadline = time.monotonic() + 60
        while not stand_in.notes.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        controller.kill()
    pids = [int(pid) for pid in stand_in.notes.read_text().split()]
    assert len(pids) == 2
    assert all(ended(pid) for pid in pids)


def test_what_a_profile_leaves_running_ends_with_it(stand_in: StandIn) -> None:
    stand_in.does(
        GOOD + "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\nnotes.write_text(str(child.pid))\n"
    )
    stand_in.profile()
    assert ended(int(stand_in.notes.read_text()))


def test_too_many_processes_end_a_profile(stand_in: StandIn) -> None:
    stand_in.does("for _ in range(100):\n    subprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n")
    with pytest.raises(MachineError, match="too many processes"):
        stand_in.profile()


def test_the_profiled_program_says_what_is_wrong_where_the_gpu_is_not_there(stand_in: StandIn) -> None:
    stand_in.does("at = sys.argv.index('--metrics') + 2\nsys.exit(subprocess.run(sys.argv[at:]).returncode)")
    with pytest.raises(MachineError, match=r"the kernel failed while it was profiled: .*(CUDA|NVIDIA)"):
        stand_in.profile(timeout_s=120.0)


# Finding ncu ---------------------------------------------------------------------------------------------------------


def installed(root: Path, *places: str) -> None:
    for place in places:
        path = root / place / "ncu"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A root without ncu, on a PATH without it."""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "root"


def test_ncu_is_found_where_it_usually_is(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(str(bare)) is None
    installed(bare, "opt/nvidia/nsight-compute/2024.3.2", "opt/nvidia/nsight-compute/2025.3.1")
    assert find(str(bare)) == str(bare / "opt/nvidia/nsight-compute/2025.3.1/ncu")
    installed(bare, "home/cuda/bin")
    monkeypatch.setenv("CUDA_HOME", str(bare / "home/cuda"))
    assert find(str(bare)) == str(bare / "home/cuda/bin/ncu")
    installed(bare, "path")
    monkeypatch.setenv("PATH", str(bare / "path"))
    assert find(str(bare)) == str(bare / "path/ncu")


def test_of_several_toolkits_the_newest(bare: Path) -> None:
    installed(bare, "usr/local/cuda-12.9/bin", "usr/local/cuda-13.0/bin", "usr/local/cuda-9.2/bin")
    assert find(str(bare)) == str(bare / "usr/local/cuda-13.0/bin/ncu")


def test_without_ncu_there_is_no_profile(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "find", lambda: None)
    with pytest.raises(Unavailable, match="install Nsight Compute"):
        profile(DEVICE, PROBLEM, "source", str(tmp_path))
    assert not bare.exists()


def test_what_is_missing_is_said(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NVIDIA driver" in (available(str(bare)) or "")
    driver = bare / "proc/driver/nvidia"
    driver.mkdir(parents=True)
    (driver / "version").write_text("NVRM version: 580\n")
    assert "install Nsight Compute" in (available(str(bare)) or "")
    installed(bare, "usr/local/cuda/bin")
    assert available(str(bare)) is None
    (driver / "params").write_text("ResmanDebugLevel: 4294967295\nRmProfilingAdminOnly: 1\n")
    monkeypatch.setattr(counters, "_may_administer", lambda: False)
    assert "NVreg_RestrictProfilingToAdminUsers=0" in (available(str(bare)) or "")
    monkeypatch.setattr(counters, "_may_administer", lambda: True)
    assert available(str(bare)) is None
    (driver / "params").write_text("RmProfilingAdminOnly: 0\n")
    monkeypatch.setattr(counters, "_may_administer", lambda: False)
    assert available(str(bare)) is None
