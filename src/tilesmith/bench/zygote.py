"""The warm runner: a process that has imported torch and Triton, has never touched CUDA, and forks a child a candidate.

Run as `python -m tilesmith.bench.zygote MODE DESCRIPTOR`. It holds neither expected values nor the judge's code, and it
never runs candidate code itself. The controller asks for two things:

    {"do": "fork", "scratch": FOLDER, "memory_bytes": N}  with the child's socket  -> {"pid": PID}
    {"do": "end", "pid": PID}                                                      -> {"status": wait status}

A child leads its own session, so that ending its process group ends whatever it started. When the controller is gone,
so are the zygote and every child.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
import socket
import sys
from typing import Any

from tilesmith.bench.wire import Gone, Late, Wire, adopt

MODES = ("capture", "interpret", "device")
FILE_BYTES = 16 << 30
PR_SET_PDEATHSIG = 1


def main(mode: str, descriptor: int) -> None:
    """Serve until the controller hangs up."""
    die_with_parent()
    wire = adopt(descriptor)
    session = importlib.import_module(f"tilesmith.bench.{mode}")
    session.warm()
    gc.collect()
    gc.freeze()
    wire.send({"ready": True})
    children: set[int] = set()
    try:
        while True:
            message, sock = _receive(wire)
            if message["do"] == "fork" and sock is not None:
                pid = os.fork()
                if pid == 0:
                    wire.close()
                    _child(session, sock, message)
                sock.close()
                children.add(pid)
                wire.send({"pid": pid})
            else:
                children.discard(message["pid"])
                wire.send({"status": _end(message["pid"])})
    except Gone:
        for pid in children:
            _end(pid)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


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
    return message, socket.socket(fileno=descriptors[0])


def _child(session: Any, sock: socket.socket, message: dict[str, Any]) -> None:
    """Never returns: what a candidate does to this process ends with it."""
    try:
        os.setsid()
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        scratch = message["scratch"]
        os.chdir(scratch)
        os.environ["HOME"] = os.environ["TMPDIR"] = scratch
        os.environ["TRITON_CACHE_DIR"] = os.path.join(scratch, "triton")  # noqa: PTH118  pathlib is slow to import
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
        if message["memory_bytes"]:
            _limit(resource.RLIMIT_AS, message["memory_bytes"])
        session.serve(Wire(sock), scratch)
    except BaseException:
        os._exit(70)
    os._exit(0)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _end(pid: int) -> int:
    """End a child and all of its process group; the wait status."""
    for target in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            target(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
