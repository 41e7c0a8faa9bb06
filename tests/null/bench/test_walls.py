"""What candidate code can do from behind the walls: nothing that it should not, and all that it must."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilesmith
from tilesmith.bench import landlock, seccomp, walls
from tilesmith.bench.bubble import bubble
from tilesmith.bench.processes import Ended

HOST = """
import ctypes, errno, glob, json, os, signal, socket, subprocess, sys, threading, time, types
from pathlib import Path
from tilesmith.bench import namespaces, walls, zygote
from tilesmith.bench.wire import Wire, WireError

order = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if order["user"]:
    os.setgroups([]); os.setgid(order["user"]); os.setuid(order["user"])
    libc.prctl(4, 1, 0, 0, 0)  # dumpable, as a process is that has always been this user's
here = os.getpid()
secret = os.urandom(16)
secret_at = id(secret)

def tried(call, *arguments):
    try:
        return str(call(*arguments))
    except BaseException as error:
        return type(error).__name__

def raw(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return "done"

def serve(wire, scratch, watched):
    names = {**globals(), "scratch": scratch, "answer": None}
    code = wire.receive(10)[0]["code"]
    try:
        exec(code, names)
    except BaseException as error:
        names["answer"] = repr(error)
    wire.send({"answer": names["answer"]})
    if "then" in names:
        names["then"]()

session = types.SimpleNamespace(serve=serve)
spaces = namespaces.available() if order["namespaces"] else ()
walls.prepare(order["mode"])
kept = []
for row in order["rows"]:
    ours, theirs = socket.socketpair()
    message = {"scratch": row["scratch"], "readable": row.get("readable", []), "memory_bytes": row.get("memory", 0)}
    one = zygote.start(zygote.Start(session, order["mode"], message, True), theirs, spaces)
    theirs.close()
    wire = Wire(ours)
    standing = zygote.standing(one)
    wire.send({"code": row["code"].replace("HOST_PID", str(here)).replace("SECRET_AT", str(secret_at))})
    kept.append((one, wire, standing, time.monotonic() + row.get("wait", 10.0)))
for one, wire, standing, deadline in kept:
    try:
        answer = wire.receive(deadline - time.monotonic())[0]["answer"]
    except WireError as error:
        answer = type(error).__name__
    began = time.monotonic()
    status, limit = zygote.end(one)
    print(json.dumps({"answer": answer, "walls": standing, "status": status, "limit": limit,
                      "end_s": time.monotonic() - began}), flush=True)
"""


@dataclass(frozen=True)
class Told:
    answer: Any
    walls: list[str]
    status: int
    limit: str
    end_s: float


class Host:
    """Runs code behind the walls, as a zygote would run a candidate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.bubbled: Callable[[list[str]], list[str]] | None = None

    def scratch(self, user: int = 0) -> Path:
        self.count += 1
        path = self.folder / f"scratch{self.count}"
        path.mkdir()
        if user:
            os.chown(path, user, user)
        return path

    def run(
        self, *codes: str, mode: str = "interpret", user: int = 0, namespaces: bool = True, **of_each: Any
    ) -> list[Told]:
        rows = [{"scratch": str(self.scratch(user)), "code": code, **of_each} for code in codes]
        order = {"mode": mode, "user": user, "namespaces": namespaces, "rows": rows}
        command = [sys.executable, "-P", "-c", HOST, json.dumps(order)]
        clean = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        done = subprocess.run(
            self.bubbled(command) if self.bubbled else command,
            env=clean,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [Told(**json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # another user is to find its scratch in it
        yield Host(Path(folder))


FILES = landlock.version() >= landlock.OLDEST
OTHER_USER = 65534 if os.getuid() == 0 else 0
"""Only root can try as somebody else; anybody else is somebody else."""
SPACES = pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "no namespaces"])


def left(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and Path(entry, "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


LOOKS_AROUND = """
answer = {
    "shadow": tried(open, "/etc/shadow"),
    "package": tried(open, "PACKAGE/bench/oracle.py"),
    "judge": tried(__import__, "tilesmith.bench.oracle"),
    "other scratch": tried(open, "OTHER/secret"),
    "home": tried(os.listdir, "HOME"),
    "temp": tried(os.listdir, "/tmp"),
    "write beside": tried(open, scratch + "x", "w"),
    "write system": tried(open, "/usr/x", "w"),
    "write input": tried(open, "OTHER/input", "w"),
    "write sysctl": tried(open, "/proc/sys/kernel/hostname", "w"),
    "link": tried(os.symlink, "/etc/passwd", scratch + "/link"),
    "pipe": tried(os.mkfifo, scratch + "/pipe"),
    "warden": tried(open, f"/proc/{os.getppid()}/mem", "rb"),
    "warden's environment": tried(open, f"/proc/{os.getppid()}/environ", "rb"),
}
good = {
    "input": tried(lambda: open("OTHER/input").read()),
    "scratch": tried(lambda: Path(scratch, "a").write_text("b")),
    "rename": tried(lambda: (os.mkdir("d"), os.rename("a", "d/a"), os.remove("d/a"), os.rmdir("d"))[0]),
    "null": tried(lambda: open("/dev/null", "w").close()),
    "random": tried(lambda: len(open("/dev/urandom", "rb").read(4))),
    "python": tried(lambda: len(os.listdir(os.path.dirname(os.__file__))) > 9),
    "proc": tried(lambda: open("/proc/self/stat").read(1) != ""),
}
answer = [answer, good]
"""


@pytest.mark.parametrize("user", [0, OTHER_USER], ids=["this user", "another user"])
@SPACES
def test_files_of_others_are_out_of_reach(host: Host, user: int, namespaces: bool) -> None:
    other = host.scratch()
    other.chmod(0o755)
    (other / "secret").write_text("secret")
    (other / "input").write_text("input")
    (other / "input").chmod(0o666)
    code = LOOKS_AROUND.replace("OTHER", str(other)).replace("HOME", str(Path.home()))
    code = code.replace("PACKAGE", str(Path(tilesmith.__file__).parent))
    readable = [str(other / "input")]
    (told,) = host.run(code, user=user, namespaces=namespaces, readable=readable)
    if user:
        told.answer[1].pop("python")  # which another user need not have
    refused, good = told.answer
    assert good == {
        "input": "input",
        "scratch": "1",
        "rename": "None",
        "null": "None",
        "random": "4",
        "proc": "True",
        **({} if user else {"python": "True"}),
    }
    if FILES:
        assert set(refused.values()) <= {"PermissionError"}, refused
        assert any("landlock" in wall for wall in told.walls)


@SPACES
def test_no_way_out_by_the_network(host: Host, namespaces: bool) -> None:
    code = """
def reach(kind, family=socket.AF_INET):
    socket.socket(family, kind).connect(("127.0.0.1", 9))

def notify():
    socket.socketpair()[0].sendto(b"x", "/run/systemd/notify")

answer = [
    tried(reach, socket.SOCK_STREAM), tried(reach, socket.SOCK_DGRAM), tried(reach, 1, socket.AF_INET6),
    tried(socket.socket, 16, socket.SOCK_RAW), tried(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM), tried(notify),
]
try:
    socket.create_connection(("example.com", 80), timeout=5)
    answer.append("connected")
except OSError:
    pass
local = socket.socket(socket.AF_UNIX)
answer.append(tried(local.connect, "/run/docker.sock"))
a, b = socket.socketpair()
a.send(b"still")
answer.append(b.recv(9).decode())
"""
    (told,) = host.run(code, namespaces=namespaces)
    assert told.answer == [*["PermissionError"] * 6, "ConnectionRefusedError", "still"]


@SPACES
def test_no_other_process_can_be_touched(host: Host, namespaces: bool) -> None:
    numbers = {name: seccomp.number(name) for name in ("ptrace", "process_vm_readv", "unshare", "mount", "pidfd_getfd")}
    code = f"""
numbers = {numbers}
answer = [
    raw(numbers["ptrace"], 16, HOST_PID, 0, 0),
    raw(numbers["process_vm_readv"], HOST_PID, 0, 0, 0, 0, 0),
    raw(numbers["unshare"], 0x10000000),
    raw(numbers["mount"], 0, 0, 0, 0, 0),
    raw(numbers["pidfd_getfd"], 0, 0, 0),
    tried(open, "/proc/HOST_PID/mem", "rb") in ("PermissionError", "FileNotFoundError"),
    tried(os.kill, HOST_PID, 0) in ("PermissionError", "ProcessLookupError") or {not FILES},
    tried(os.fork), tried(subprocess.run, ["/bin/true"]), tried(os.execv, "/bin/true", ["true"]),
    sorted(int(name) for name in os.listdir("/proc/self/fd"))[:4],
    [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))],
]
"""
    (told,) = host.run(code, namespaces=namespaces)
    *answers, descriptors, status = told.answer
    assert answers == [*["EPERM"] * 5, True, True, *["PermissionError"] * 3]
    assert len(descriptors) == 4  # three standard ones and the child's own; the fifth is the listing's
    assert status == ["0000000000000000", "0000000000000000", "1"] or os.getuid() != 0


def test_namespaces_hide_all_that_is_outside(host: Host) -> None:
    (told,) = host.run('answer = sorted(int(n) for n in os.listdir("/proc") if n.isdigit())')
    if "own processes" in told.walls:
        assert told.answer == [1, 2]
    else:
        assert os.getpid() in told.answer


DAEMON = """
def forget(first):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    while True:
        Path(scratch, "beat").write_text(str(time.time()))
        time.sleep(0.01)

forget(0)
while not Path(scratch, "beat").exists():
    time.sleep(0.01)
answer = "left a daemon"
"""


@SPACES
@pytest.mark.parametrize("user", [0, OTHER_USER], ids=["this user", "another user"])
def test_a_daemon_ends_with_its_child(host: Host, user: int, namespaces: bool) -> None:
    (told,) = host.run(DAEMON, mode="capture", user=user, namespaces=namespaces)
    assert told.answer == "left a daemon"
    assert left(host.folder) == []


@SPACES
def test_an_endless_loop_ends_with_its_deadline(host: Host, namespaces: bool) -> None:
    code = "for kind in range(1, 65):\n    tried(signal.signal, kind, signal.SIG_IGN)\nwhile True: pass"
    (told,) = host.run(code, wait=0.3, namespaces=namespaces)
    assert (told.answer, told.limit) == ("Late", "")
    assert told.end_s < 5
    assert left(host.folder) == []


@SPACES
def test_nothing_outlives_a_killed_runner(host: Host, namespaces: bool) -> None:
    scratch = host.scratch()
    order = {"mode": "capture", "user": 0, "namespaces": namespaces}
    rows = [{"scratch": str(scratch), "code": DAEMON + "\nwhile True: pass"}]
    with subprocess.Popen([sys.executable, "-P", "-c", HOST, json.dumps({**order, "rows": rows})]) as runner:
        until((scratch / "beat").exists)
        assert len(left(scratch)) >= 2
        runner.send_signal(signal.SIGKILL)
    until(lambda: left(scratch) == [])


STORM = """
for _ in range(100):
    if os.fork() == 0:
        time.sleep(60)
time.sleep(60)
"""
HOG = """
for _ in range(4):
    if os.fork() == 0:
        break
held = bytearray(os.urandom(1)) * (150 << 20)
time.sleep(60)
"""
GLUTTON = """
try:
    bytearray(1 << 40)
except MemoryError:
    answer = "MemoryError"
"""
HONEST = 'time.sleep(1.0)\nanswer = "done"'


@SPACES
def test_who_takes_too_much_is_ended_and_others_go_on(host: Host, namespaces: bool) -> None:
    codes = (STORM, HOG, GLUTTON, HONEST)
    storm, hog, glutton, honest = host.run(*codes, mode="capture", namespaces=namespaces, memory=512 << 20)
    assert (storm.answer, storm.limit) == ("Gone", "processes")
    assert (hog.answer, hog.limit) == ("Gone", "memory")
    assert (glutton.answer, glutton.limit) == ("MemoryError", "")
    assert (honest.answer, honest.limit) == ("done", "")
    assert left(host.folder) == []
    assert Ended(hog.status, hog.limit).stage == "memory"
    assert str(Ended(hog.status, hog.limit)) == "it was ended because it used too much memory"
    assert str(Ended(storm.status, storm.limit)) == "it was ended because it used too many processes"


@SPACES
def test_pages_that_processes_share_count_once(host: Host, namespaces: bool) -> None:
    code = """
held = bytearray(os.urandom(1)) * (150 << 20)
for _ in range(6):
    if os.fork() == 0:
        time.sleep(60)
time.sleep(0.3)
answer = "done"
"""
    (told,) = host.run(code, mode="capture", namespaces=namespaces, memory=512 << 20)
    assert (told.answer, told.limit) == ("done", "")


@SPACES
def test_how_a_child_ended_is_what_is_said(host: Host, namespaces: bool) -> None:
    codes = (
        "os._exit(3)",
        "os._exit(71)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.abort()",
        "ctypes.string_at(0)",
        'def then(): os._exit(5)\nanswer = "first"',
    )
    told = host.run(*codes, namespaces=namespaces)
    assert [each.answer for each in told] == [*["Gone"] * 5, "first"]
    said = [str(Ended(each.status, each.limit)) for each in told[:5]]
    assert said == [
        "it ended with exit status 3 before it had answered",
        "it ended with exit status 71 before it had answered",
        "it was ended by signal 9 (SIGKILL)",
        "it was ended by signal 6 (SIGABRT)",
        "it was ended by signal 11 (SIGSEGV)",
    ]
    assert {each.limit for each in told} == {""}


def test_a_candidate_cannot_speak_for_its_warden(host: Host) -> None:
    code = """
for number in range(3, 64):
    try:
        os.write(number, b'{"status": 1, "limit": "memory"}\\n')
    except OSError:
        pass
time.sleep(60)
"""
    (told,) = host.run(code)
    assert (told.answer, told.status, told.limit) == ("Garbled", signal.SIGKILL, "")


def test_a_device_child_can_compile_for_the_host_and_run_nothing_of_its_own(host: Host) -> None:
    code = """
Path("a.c").write_text("int one(void) { return 1; }")
done = subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", "a.so", "a.c"], capture_output=True, text=True)
Path("own").write_bytes(Path("/usr/bin/id").read_bytes())
Path("own").chmod(0o755)
answer = [done.returncode, done.stderr, ctypes.CDLL("./a.so").one(), tried(subprocess.run, ["./own"])]
"""
    (told,) = host.run(code, mode="device")
    assert told.answer == [0, "", 1, "PermissionError" if FILES else told.answer[3]]


def test_a_capturing_child_executes_no_compiler_but_the_assembler(host: Host) -> None:
    code = """
import importlib.util
folder = Path(importlib.util.find_spec("triton").origin).parent / "backends/nvidia/bin"
done = subprocess.run([folder / "ptxas", "--version"], capture_output=True, text=True)
answer = [done.returncode, *(tried(subprocess.run, [name]) for name in ("/usr/bin/cc", "/usr/bin/id", sys.executable))]
"""
    (told,) = host.run(code, mode="capture")
    assert told.answer[0] == 0
    assert told.answer[1:] == ["PermissionError"] * 3 or not FILES


# What stands where


def test_what_leads_around_a_hidden_folder_is_granted_and_it_is_not(tmp_path: Path) -> None:
    hidden = tmp_path / "site" / "tilesmith"
    (hidden / "bench").mkdir(parents=True)
    (tmp_path / "site" / "torch").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "site" / "alias").symlink_to(hidden)
    (tmp_path / "site" / "inside").symlink_to(hidden / "bench")
    (tmp_path / "site" / "linked").symlink_to(tmp_path / "other")
    granted = dict(walls.around(str(tmp_path), str(hidden), walls.READ))
    assert granted == {
        str(tmp_path): landlock.Access.READ_DIR,
        str(tmp_path / "site"): landlock.Access.READ_DIR,
        str(tmp_path / "site" / "torch"): walls.READ,
        str(tmp_path / "site" / "linked"): walls.READ,
        str(tmp_path / "other"): walls.READ,
    }
    assert walls.around(str(hidden), str(hidden), walls.READ) == []
    assert walls.around(str(hidden / "bench"), str(hidden), walls.READ) == []
    assert walls.around(str(tmp_path / "other"), str(hidden), walls.READ) == [(str(tmp_path / "other"), walls.READ)]


# The filter


def refused(code: bytes, architecture: int, number: int, arguments: list[int]) -> int:
    """What a filter answers to a call: 0, or the error. An interpreter of the few instructions that there are."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    program = list(struct.iter_unpack("=HBBI", code))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x15:
            at += if_true if accumulator == value else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= value else if_false
        else:
            assert operation == 0x06
            return 0 if value == 0x7FFF0000 else value & 0xFFFF


RULES = (*seccomp.ALWAYS, *seccomp.NO_HIDDEN_MEMORY, *seccomp.NO_PROCESSES)
WORDS = st.one_of(
    st.sampled_from([0, 1, 2, 5, 16, 0x5412, 0x10000, 0x10000000, 0x80001, 1 << 32]), st.integers(0, 2**64 - 1)
)


def meant(rule: seccomp.Rule, arguments: list[int]) -> bool:
    """Whether a rule refuses a call with these arguments."""
    halves = [((arguments[check.argument] >> (32 * check.half)) & check.mask, check) for check in rule.checks]
    return not rule.checks or any((value in check.values) != check.allowed for value, check in halves)


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
@given(data=st.data(), arguments=st.lists(WORDS, min_size=6, max_size=6))
def test_the_filter_answers_as_its_rules_mean(
    machine: str, architecture: int, data: st.DataObject, arguments: list[int]
) -> None:
    code = seccomp.assemble(RULES, machine)
    rule = data.draw(st.sampled_from([rule for rule in RULES if seccomp.number(rule.call, machine) is not None]))
    number = seccomp.number(rule.call, machine)
    assert number is not None
    applying = [each for each in RULES if each.call == rule.call and meant(each, arguments)]
    assert refused(code, architecture, number, arguments) == (applying[0].error if applying else 0)
    assert refused(code, architecture ^ 1, number, arguments) == errno.ENOSYS


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
@given(number=st.integers(0, 600))
def test_the_filter_lets_all_other_calls_pass(machine: str, architecture: int, number: int) -> None:
    code = seccomp.assemble(RULES, machine)
    if number not in {seccomp.number(rule.call, machine) for rule in RULES}:
        assert refused(code, architecture, number, [0] * 6) == 0
    if machine == "x86_64":
        assert refused(code, architecture, number | 0x40000000, [0] * 6) == errno.ENOSYS


# The bubble


def test_a_bubble_holds_what_is_needed_and_nothing_else(host: Host) -> None:
    inside, outside = host.scratch(), host.scratch()
    (outside / "secret").write_text("secret")
    look = """
import os, sys
def tried(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return type(error).__name__
inside, outside = sys.argv[1:]
print([tried(os.listdir, inside), tried(os.listdir, outside), tried(open, "/usr/made", "w"),
       tried(os.stat, "/etc/shadow"), tried(os.mkdir, inside + "/made")])
"""
    command = [sys.executable, "-I", "-c", look, str(inside), str(outside)]
    bubbled = bubble(command, [str(inside)], gpu=False)
    done = subprocess.run(bubbled, capture_output=True, text=True, check=True)
    if bubbled != command:
        expected = [[], "FileNotFoundError", "OSError", "FileNotFoundError", None]
        assert done.stdout.strip() == str(expected)
    assert (inside / "made").is_dir()


def test_walls_stand_in_a_bubble_too(host: Host) -> None:
    folder = str(host.folder)
    host.bubbled = lambda command: bubble(command, [folder], gpu=False)
    daemon, honest, storm = host.run(DAEMON, HONEST, STORM, mode="capture")
    assert (daemon.answer, honest.answer, storm.limit) == ("left a daemon", "done", "processes")
    assert any("seccomp" in wall for wall in honest.walls)
    if FILES:
        assert any("landlock" in wall for wall in honest.walls)
    assert left(host.folder) == []


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexec sleep 60\n", "no program"])
def test_without_a_bubblewrap_that_works_there_is_no_bubble(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "bwrap").write_text(script)
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    monkeypatch.setattr("tilesmith.bench.bubble.TRIAL_S", 0.3)
    command = ["/bin/echo", "hello"]
    assert bubble(command, [str(tmp_path)], gpu=False) == command


def until(come: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)
