"""What stands between a candidate's process and everything else, raised from inside before its code is loaded.

Readable are the Python installation without this package, the system's libraries, /proc and /sys; writable is the
scratch folder. Nothing may be executed but, where kernels are compiled, the compilers. Each wall stands where the
kernel has it; the names of those that do are the answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import tilesmith
from tilesmith.bench import landlock, seccomp, syscalls
from tilesmith.bench.landlock import Access

FILE_BYTES = 2 << 30
FILES = 4096
"""Open at once."""

READ = Access.READ_FILE | Access.READ_DIR
RUN = READ | Access.EXECUTE
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.TRUNCATE
    | Access.MAKE_REG
    | Access.MAKE_DIR
    | Access.REMOVE_FILE
    | Access.REMOVE_DIR
    | Access.REFER
)
"""No links, pipes or sockets: who reads the scratch folder afterwards finds files and folders."""

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin")
_SETTINGS = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "passwd", "group", "nsswitch.conf", "nvidia")
SETTINGS = tuple(f"/etc/{name}" for name in (*_SETTINGS, "alternatives"))
_DEVICES = ("zero", "full", "random", "urandom")
_COMPILERS = ("cc", "gcc", "clang", "as", "ld", "collect2", "ldconfig")
_COMPILER_FOLDERS = ("usr/lib/gcc", "usr/libexec/gcc", "usr/lib/llvm*")
_LOADERS = ("lib*/ld-linux*.so*", "lib/ld-musl*.so*")
_REFUSED = {
    "capture": (*seccomp.ALWAYS, *seccomp.NO_HIDDEN_MEMORY),
    "interpret": (*seccomp.ALWAYS, *seccomp.NO_HIDDEN_MEMORY, *seccomp.NO_PROCESSES),
    "device": seccomp.ALWAYS,
}


def prepare(mode: str) -> None:
    """Look up once, before any fork, what every child of a mode may reach."""
    _common(mode)


def limit(memory_bytes: int) -> None:
    """Limits on this process alone: address space (0 is none), the size of a file, open files, no core dumps."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, FILES)
    if memory_bytes:
        _limit(resource.RLIMIT_AS, memory_bytes)
    # Should the machine run out of memory, this process is the one to end.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def raise_walls(mode: str, scratch: str, readable: Iterable[str]) -> tuple[str, ...]:
    """Confine this process, and all that it will start, for good. The names of the walls that stand.

    `readable` are files outside the scratch folder. To be called by a process with one thread.
    """
    standing = []
    with contextlib.suppress(OSError):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        standing.append("no new privileges")
    with contextlib.suppress(OSError):
        rules = {**_common(mode), **_gpus(mode), **dict.fromkeys(readable, Access.READ_FILE), scratch: WRITE}
        if known := landlock.restrict(rules):
            standing.append(f"files by list (landlock {known})")
    with contextlib.suppress(OSError):
        syscalls.drop_capabilities()
        standing.append("no capabilities")
    with contextlib.suppress(OSError):
        if seccomp.restrict(_REFUSED[mode]):
            standing.append("system calls by list (seccomp)")
    return tuple(standing)


def python() -> tuple[str, ...]:
    """The folders of this Python's installation, and those that it imports from."""
    return (sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if path))


def toolkits() -> tuple[str, ...]:
    """The folders that the environment names for libraries and for CUDA."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return tuple(filter(None, (*libraries, os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))))


@functools.cache
def _common(mode: str) -> dict[str, Access]:
    """The rules that hold for every child of a mode."""
    hidden = os.path.realpath(Path(tilesmith.__file__).parent)
    rules: dict[str, Access] = {}

    def add(path: str, access: Access) -> None:
        for part, granted in around(os.path.realpath(path), hidden, access):
            rules[part] = rules.get(part, Access(0)) | granted

    for path in (*SETTINGS, *python(), *toolkits(), "/proc", "/sys"):
        add(path, READ)
    for path in SYSTEM:
        # On a device Triton builds launchers with the host's compiler, which may be a script that calls others.
        add(path, RUN if mode == "device" else READ)
    for name in _DEVICES:
        add(f"/dev/{name}", Access.READ_FILE)
    add(os.devnull, Access.READ_FILE | Access.WRITE_FILE)
    for path in executables(mode):
        add(path, RUN)
    return rules


def _gpus(mode: str) -> dict[str, Access]:
    """Device nodes, some of which the driver makes when it is first used; shared memory, for memory that is lent."""
    if mode != "device":
        return {}
    nodes = {str(node): DEVICE | READ for node in Path("/dev").glob("nvidia*")}
    # The driver names its threads, and fails with "OS call failed" where it may not.
    return {"/dev/shm": WRITE, "/proc/self/task": READ | Access.WRITE_FILE | Access.TRUNCATE, **nodes}


def around(path: str, hidden: str, access: Access) -> list[tuple[str, Access]]:
    """The path, or all in it that is not `hidden`. What leads to the hidden folder can be listed, for imports."""
    if _within(path, hidden):
        return []
    if not _within(hidden, path):
        return [(path, access)]
    found = [(path, access & Access.READ_DIR)]
    for entry in os.scandir(path):
        if not entry.is_symlink():
            found += around(entry.path, hidden, access)
            continue
        # A link into the hidden folder, or to one that holds it, would be a way around.
        there = os.path.realpath(entry.path)
        if not _within(there, hidden) and not _within(hidden, there):
            found.append((entry.path, access))
    return found


def _within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def executables(mode: str) -> Iterator[str]:
    """What a mode needs to execute: Triton's assembler and its companions; on a device the host's C compiler, too."""
    if mode == "interpret":
        return
    patterns = _LOADERS if mode == "capture" else (*_LOADERS, *_COMPILER_FOLDERS)
    yield from (str(path) for pattern in patterns for path in Path("/").glob(pattern))
    yield from (str(Path(folder, "triton/backends/nvidia/bin")) for folder in sys.path)
    if mode == "device":
        compilers = (shutil.which(name) for name in (os.environ.get("CC", ""), *_COMPILERS))
        for path in filter(None, (*compilers, "/sbin/ldconfig")):
            yield path
            # A tool chain in a folder of its own has its parts there; one of the system's is listed above.
            home = Path(os.path.realpath(path)).parent.parent
            if not any(_within(str(home), folder) for folder in SYSTEM) and len(home.parts) > 2:
                yield str(home)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
