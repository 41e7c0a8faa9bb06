"""The warm runner: a process that has imported torch and Triton, has never touched CUDA, and forks a child a candidate.

Run as `python -m tilesmith.bench.zygote MODE DESCRIPTOR`. It holds neither expected values nor the judge's code, and it
never runs candidate code itself. The controller asks for two things:

    {"do": "fork", "scratch": FOLDER, "readable": [FILES], "memory_bytes": N}  with the child's socket
                                       -> {"pid": the warden's, "walls": [names]}
    {"do": "end", "pid": PID}          -> {"status": wait status, "limit": what it used too much of, or ""}

A thread of the zygote takes namespaces for itself and forks the warden into them; the warden forks the child, which
raises its walls before it hears of a candidate. Ending the warden ends whatever the child started. When the controller
is gone, so are the zygote, every warden and every child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from tilesmith.bench import namespaces, walls, warden
from tilesmith.bench.syscalls import die_with_parent as die_with_parent
from tilesmith.bench.wire import Gone, Late, Wire, adopt

MEMORY_SHARE = 0.75
"""Of the machine's memory, for one candidate where the controller sets no limit."""
TASKS = 512
"""Processes and threads of one candidate at most, beside some for each core."""
ALWAYS = ("clean environment", "limits on memory, processes and files")
"""The walls that need nothing of the kernel."""
START_S = 30.0
"""A child that has no walls by then is ended."""
FAULT = 70
"""Exit status of a child that could not do what it is for."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A candidate's warden, as the zygote knows it."""

    pid: int
    reports: BinaryIO
    """Two lines of JSON: the walls that stand, when they do; how the candidate ended, when it has."""
    thread: threading.Thread
    released: threading.Event
    told: list[dict[str, Any]] = field(default_factory=list)
    """Those of the reports that have been read."""


def main(mode: str, descriptor: int, *, walled: bool) -> None:
    """Serve until the controller hangs up. Without walls a child is a plain fork, to measure what they cost."""
    # The threads that wait for wardens hold nothing that a forked process could wait for.
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    spaces = namespaces.available() if walled else ()
    die_with_parent()
    wire = adopt(descriptor)
    session = importlib.import_module(f"tilesmith.bench.{mode}")
    session.warm()
    # The children cannot read this package's files any more.
    importlib.import_module("tilesmith.bench.modules")
    walls.prepare(mode)
    gc.collect()
    gc.freeze()
    wire.send({"ready": True})
    children: dict[int, Kept] = {}
    try:
        while True:
            message, sock = _receive(wire)
            if message["do"] == "fork" and sock is not None:
                kept = start(Start(session, mode, message, walled), sock, spaces)
                sock.close()
                children[kept.pid] = kept
                wire.send({"pid": kept.pid, "walls": standing(kept)})
            else:
                status, limit = end(children.pop(message["pid"]))
                wire.send({"status": status, "limit": limit})
    except Gone:
        for kept in children.values():
            end(kept)


@dataclass(frozen=True, slots=True)
class Start:
    """What a child is to be."""

    session: Any
    mode: str
    message: dict[str, Any]
    walled: bool


def start(wanted: Start, sock: socket.socket, spaces: tuple[str, ...]) -> Kept:
    """Fork a warden that forks a child for one candidate."""
    reader, writer = os.pipe()
    pids: list[int] = []
    forked, released = threading.Event(), threading.Event()

    def keep() -> None:
        # Namespaces are a thread's own; and the warden ends with the thread that forked it, so the thread waits.
        entered = spaces
        try:
            namespaces.enter(spaces)
        except OSError:
            entered = ()
        pid = os.fork()
        if pid == 0:
            (_warden if wanted.walled else _child)(wanted, sock, writer, entered)
        pids.append(pid)
        forked.set()
        released.wait()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    forked.wait()
    os.close(writer)
    return Kept(pids[0], os.fdopen(reader, "rb"), thread, released)


def standing(kept: Kept) -> list[str]:
    """The walls that a child has raised; of one that has ended before, none."""
    if not select.select([kept.reports], [], [], START_S)[0]:
        os.kill(kept.pid, signal.SIGKILL)
    kept.told.append(json.loads(kept.reports.readline() or b"{}"))
    return list(kept.told[0].get("walls", ()))


def end(kept: Kept) -> tuple[int, str]:
    """End a child and all that it started; its wait status, and the limit that it broke."""
    os.kill(kept.pid, signal.SIGTERM)
    status = os.waitpid(kept.pid, 0)[1]
    kept.released.set()
    kept.thread.join()
    with kept.reports:
        kept.told.extend(json.loads(line) for line in kept.reports)
    # A warden that was itself ended says nothing.
    return next(((told["status"], told["limit"]) for told in kept.told if "status" in told), (status, ""))


def _warden(wanted: Start, sock: socket.socket, reports: int, spaces: tuple[str, ...]) -> NoReturn:
    """The forked process: it forks the child, watches it, and says how it ended."""
    try:
        first = namespaces.PROCESSES in spaces
        warden.prepare(first=first)
        _close_all_but(sock.fileno(), reports)
        if first:
            namespaces.furnish(TASKS + 8 * (os.cpu_count() or 1))
        pid = os.fork()
        if pid == 0:
            _child(wanted, sock, reports, spaces)
        sock.close()
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        allowance = warden.Allowance(wanted.message["memory_bytes"] or int(MEMORY_SHARE * machine_bytes))
        status, limit = warden.watch(pid, allowance, first=first)
        os.write(reports, json.dumps({"status": status, "limit": limit}).encode() + b"\n")
    except BaseException:
        os._exit(FAULT)
    os._exit(0)


def _receive(wire: Wire) -> tuple[dict[str, Any], socket.socket | None]:
    """The next request; a fork request is followed by one byte that carries the child's socket."""
    while True:
        try:
            message, _ = wire.receive(3600.0)
            break
        except Late:
            continue
    if message["do"] != "fork":
        return message, None
    wire.socket.setblocking(True)
    _, descriptors, _, _ = socket.recv_fds(wire.socket, 1, 1)
    wire.socket.setblocking(False)
    os.set_inheritable(descriptors[0], False)
    return message, socket.socket(fileno=descriptors[0])


def _child(wanted: Start, sock: socket.socket, reports: int, spaces: tuple[str, ...]) -> NoReturn:
    """Never returns: what a candidate does to this process ends with it."""
    try:
        warden.release()
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        scratch = wanted.message["scratch"]
        os.chdir(scratch)
        os.environ["HOME"] = os.environ["TMPDIR"] = scratch
        tempfile.tempdir = None  # look at TMPDIR again
        os.environ["TRITON_CACHE_DIR"] = os.path.join(scratch, "triton")  # noqa: PTH118  pathlib is slow to import
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        standing: tuple[str, ...] = ()
        if wanted.walled:
            walls.limit(wanted.message["memory_bytes"])
            raised = walls.raise_walls(wanted.mode, scratch, wanted.message["readable"])
            standing = (*ALWAYS, *spaces, *raised)
        os.write(reports, json.dumps({"walls": standing}).encode() + b"\n")
        os.close(reports)
        wanted.session.serve(Wire(sock), scratch, watched=wanted.walled)
    except BaseException:
        os._exit(FAULT)
    os._exit(0)


def _close_all_but(*kept: int) -> None:
    """Close what is the zygote's own, or another candidate's."""
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]), walled=sys.argv[2] == "walled")
