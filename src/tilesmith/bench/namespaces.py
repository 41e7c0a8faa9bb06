"""Namespaces: a view of the machine in which a process finds only itself. No other processes, no network.

The user's own namespace is taken only where the others cannot be had without: by who is not root.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tilesmith.bench import syscalls

KINDS = {
    "own mounts": syscalls.CLONE_NEWNS,
    "no network": syscalls.CLONE_NEWNET,
    "own shared memory": syscalls.CLONE_NEWIPC,
    "own host name": syscalls.CLONE_NEWUTS,
    "own processes": syscalls.CLONE_NEWPID,
}
MOUNTS, PROCESSES = "own mounts", "own processes"
RESERVED_PIDS = 300
"""A namespace's process numbers, once they have wrapped around, begin here."""
_LOCAL_PID_MAX = (6, 14)
"""The kernel since which the highest process number is a namespace's own. Before, it is the machine's: hands off."""


def available() -> tuple[str, ...]:
    """Those that the calling process can have, found out by trying in a child; enters a user namespace where it must.

    To be called while the process has one thread.
    """
    if found := _tried(with_user=False):
        return found
    if found := _tried(with_user=True):
        _enter_user()
    return found


def enter(kinds: tuple[str, ...]) -> None:
    """Give them to the calling thread. The next process that it forks is the first of the new process namespace."""
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind]
    if flags:
        syscalls.unshare(flags)


def furnish(tasks: int) -> None:
    """In the first process of a new process namespace: its own /proc; at most about so many processes and threads."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    if _kernel() >= _LOCAL_PID_MAX:
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel/pid_max").write_text(str(RESERVED_PIDS + tasks))


def _tried(*, with_user: bool) -> tuple[str, ...]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            if with_user:
                _enter_user()
            os.write(writer, "\n".join(_working()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = tuple(file.read().decode().splitlines())
    os.waitpid(pid, 0)
    return found


def _working() -> list[str]:
    found: list[str] = []
    for kind, flag in KINDS.items():
        # A process namespace is of use only with a /proc of its own: CUDA needs one that fits, and so does the warden.
        if kind == PROCESSES and MOUNTS not in found:
            continue
        with contextlib.suppress(OSError):
            syscalls.unshare(flag)
            if kind != PROCESSES or _furnishes():
                found.append(kind)
    return found


def _furnishes() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            furnish(4096)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _enter_user() -> None:
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)
