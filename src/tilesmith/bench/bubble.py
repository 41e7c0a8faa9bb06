"""A bubble for the warm runner, where bubblewrap is installed: a file system in which there is only what it needs.

The runner gets no capabilities, and its own network, shared memory and host name. It keeps the machine's process
numbers and all of /proc: only so can each child have process numbers, and a /proc, of its own. It appears as another
user in the bubble, because who appears as root without root's capabilities may have no namespaces.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tilesmith.bench import walls

TRIAL_S = 10.0
NOBODY = "65534"


def bubble(command: Sequence[str], writable: Iterable[str], *, gpu: bool) -> list[str]:
    """The command that runs this one in a bubble; the command itself where there is no bubblewrap that works.

    In the bubble are the system's libraries, Python, everything on its path, and these folders, writable; with `gpu`
    the GPUs' device nodes, and the shared memory through which processes lend each other GPU memory.
    """
    return [*_prefix(tuple(writable), gpu), *command]


@functools.cache
def _prefix(writable: tuple[str, ...], gpu: bool) -> tuple[str, ...]:
    program = shutil.which("bwrap")
    if program is None:
        return ()
    prefix = (program, *_confinement(), *_files(writable, gpu), "--")
    try:
        # Namespaces may be forbidden here, or a folder missing: only a trial can tell.
        trial = subprocess.run(
            [*prefix, sys.executable, "-I", "-S", "-c", ""],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TRIAL_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return prefix if trial.returncode == 0 else ()


def _confinement() -> tuple[str, ...]:
    apart = ("--unshare-user", "--unshare-net", "--unshare-ipc", "--unshare-uts")
    return ("--die-with-parent", *apart, "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL")


def _files(writable: tuple[str, ...], gpu: bool) -> Iterable[str]:
    yield from ("--tmpfs", "/tmp")
    for path in dict.fromkeys((*walls.SYSTEM, *walls.SETTINGS, *walls.python(), *walls.toolkits())):
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        elif Path(path).exists():
            yield from ("--ro-bind", path, path)
    # After those, which may hold it: bind mounts cover what is beneath them.
    yield from ("--bind", "/proc", "/proc", "--ro-bind", "/sys", "/sys", "--dev", "/dev")
    if gpu:
        for node in sorted(Path("/dev").glob("nvidia*")):
            yield from ("--dev-bind", str(node), str(node))
        yield from ("--bind", "/dev/shm", "/dev/shm")
    for path in writable:
        yield from ("--bind", path, path)
    yield from ("--chdir", os.sep)
