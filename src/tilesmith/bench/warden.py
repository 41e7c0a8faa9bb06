"""The warden of one candidate: its first process's parent, which ends it and all that it started.

Where process namespaces can be had it is the first process of one: the kernel ends everything in it together with the
warden, and the warden's own /proc lists the candidate's processes and no others. Elsewhere it adopts orphans and
follows parents. It runs no candidate code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tilesmith.bench import syscalls

INTERVAL_S = 0.05
_AWAITED = (signal.SIGCHLD, signal.SIGTERM)

Limit = Literal["", "memory", "processes"]
"""Why a warden ended its candidate before it was told to."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a candidate's processes may use together."""

    memory_bytes: int
    processes: int = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A process as /proc describes it."""

    parent: int
    resident_bytes: int


def prepare(*, first: bool) -> None:
    """Before the candidate's process is forked: no signal goes astray, no descendant is lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    # The first process of a namespace takes all others with it. Another must do that itself, so it must live to do it.
    syscalls.die_with_parent(signal.SIGKILL if first else signal.SIGTERM)
    if not first:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def release() -> None:
    """In the candidate's process: signals work again, and the warden's end is its end."""
    syscalls.die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)


def watch(candidate: int, allowance: Allowance, *, first: bool) -> tuple[int, Limit]:
    """Until the candidate ends, uses too much, or is to be ended (SIGTERM). Its wait status, and the limit it broke."""
    limit: Limit = ""
    status = None
    due = time.monotonic() + INTERVAL_S
    while status is None and not limit:
        caught = signal.sigtimedwait(_AWAITED, max(0.0, due - time.monotonic()))
        status = _reap(candidate)
        if caught is not None and caught.si_signo == signal.SIGTERM:
            break
        # By the clock, so that no flood of ending processes keeps the warden from counting.
        if status is None and (began := time.monotonic()) >= due:
            limit = _broken(_descendants(first=first), allowance)
            due = time.monotonic() + max(INTERVAL_S, 5 * (time.monotonic() - began))
    if status is None:
        os.kill(candidate, signal.SIGKILL)
        status = os.waitpid(candidate, 0)[1]
    _end_all(first=first)
    return status, limit


def _reap(candidate: int) -> int | None:
    """Collect what has ended; the candidate's status if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == candidate:
                found = status
    return found


def _end_all(*, first: bool) -> None:
    if first:
        return  # the kernel does, as soon as this process exits
    while pids := _descendants(first=False):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(0)
        signal.sigtimedwait((signal.SIGCHLD,), 0.01)


def _broken(rows: dict[int, Row], allowance: Allowance) -> Limit:
    if len(rows) > allowance.processes:
        return "processes"
    if sum(row.resident_bytes for row in rows.values()) <= allowance.memory_bytes:
        return ""
    # Pages that processes share were counted once for each. The exact count is slow, and only now worth its time.
    return "memory" if sum(_proportional_bytes(pid) for pid in rows) > allowance.memory_bytes else ""


def _descendants(*, first: bool) -> dict[int, Row]:
    """Every process of the candidate that has not ended."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    rows = {pid: row for pid in pids if (row := _row(pid))}
    me = os.getpid()
    if first:
        rows.pop(me, None)
        return rows
    found: dict[int, Row] = {}
    fresh = {me}
    while fresh:
        fresh = {pid for pid, row in rows.items() if row.parent in fresh and pid not in found}
        found.update((pid, rows[pid]) for pid in fresh)
    return found


def _row(pid: int) -> Row | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Row(int(fields[1]), int(fields[21]) * _PAGE_BYTES)


def _proportional_bytes(pid: int) -> int:
    """Resident bytes, each shared page divided among those that share it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
