"""To a Ray cluster and back: an address that does not answer is one sentence within seconds.

Ray itself tries for more than a minute, then sends its own process SIGTERM. So the address is tried first: by what any
gRPC server says at once, then by Ray in a process of its own, which may end as it likes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tilesmith.core.errors import MachineError, OptionError

GREETING_S = 3.0
TRIAL_S = 30.0
FREE_S = 15.0
"""For a cluster to let in who shows no token."""
TRIES = 3
"""A head that is busy, or has just begun, may turn away who comes: Ray waits for it a second and no longer."""
HERE = "local"
"""Instead of an address: a cluster of this machine alone, for as long as the bench is open."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""How an HTTP/2 client begins (RFC 9113, 3.4), with empty settings; a server answers with its own."""
_SETTINGS = 4
_TRIAL = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
"""


def chosen(address: str | None) -> str:
    """The address to use: the one given, else what RAY_ADDRESS says, else `HERE`.

    Raises `OptionError` for one that can be none, and where Ray is not installed. Looks at nothing.
    """
    if importlib.util.find_spec("ray") is None:
        raise OptionError("--bench ray needs Ray, which is not installed: pip install 'tilesmith[cluster]'")
    wanted = address or os.environ.get("RAY_ADDRESS") or HERE
    if wanted.startswith("ray://"):
        raise OptionError(
            f"--address is {wanted}, which is Ray's client port; start Tilesmith on a node of the cluster with "
            "--address HOST:6379, or submit it with `ray job submit`"
        )
    if wanted not in (HERE, "auto") and not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", wanted):
        raise OptionError(f"--address is {wanted!r}; it must be HOST:PORT of a Ray cluster, auto, or {HERE}")
    return wanted


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to this `chosen` address until the block ends; a connection that was there is used and stays.

    Raises `MachineError` where nothing answers, or a cluster does that this Ray or this Python cannot join.
    """
    # Before Ray is imported, which reads it: nothing here reports to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address != HERE and "RAY_AUTH_MODE" not in os.environ and _token_is_here():
        greet(address)
        os.environ["RAY_AUTH_MODE"] = "disabled" if _lets_in(address) else "token"
    import ray

    if ray.is_initialized():
        if address not in (HERE, "auto", there := ray.get_runtime_context().gcs_address):
            raise MachineError(f"this process is connected to the Ray cluster at {there} already, not to {address}")
        with _silenced():
            yield ray
        return
    with _signals():
        if address == HERE:
            with _told(address):
                ray.init(address="local", include_dashboard=False, **_QUIET)
        else:
            greet(address)
            _try(address)
            with _told(address):
                for left in reversed(range(TRIES)):
                    try:
                        ray.init(address=address, **_QUIET)
                        break
                    except ConnectionError:
                        if not left:
                            raise
                        time.sleep(1.0)
    try:
        with _silenced():
            yield ray
    finally:
        with _signals():
            ray.shutdown()


def _token_is_here() -> bool:
    """Whether Ray would find a token, as it makes one wherever it begins a cluster that asks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _lets_in(address: str) -> bool:
    """Whether a cluster lets in who shows no token. Who shows one to a cluster without gets no worker started."""
    try:
        tried = _trial(address, FREE_S, {"RAY_AUTH_MODE": "disabled"})
    except subprocess.TimeoutExpired:
        return False
    return not tried.returncode


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Ray prints what it notices of nodes to stdout, which belongs to the answer; what matters of it is said anyway."""
    # Ray's own progress bars do the same; there is no public name for it.
    inner: Any = importlib.import_module("ray._private.worker")
    before = getattr(inner, "_worker_logs_enabled", True)
    inner._worker_logs_enabled = False
    try:
        yield
    finally:
        inner._worker_logs_enabled = before


_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def greet(address: str) -> None:
    """Raises `MachineError` where no gRPC server listens at this `chosen` address. Takes seconds at most."""
    if address in (HERE, "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), GREETING_S) as connection:
            connection.settimeout(GREETING_S)
            connection.sendall(_PREFACE)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        # Not the error's own words alone: those of a timeout do not name what was tried.
        raise MachineError(
            f"no Ray cluster answers at {address} ({str(error) or type(error).__name__}); see that `ray start --head` "
            "runs there and that the port can be reached from here"
        ) from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise MachineError(
            f"what answers at {address} is no Ray cluster; name the port of its head, 6379 unless `ray start` was told "
            "another"
        )


def _trial(address: str, within_s: float, more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Ray in a process of its own, with these variables besides. Raises `subprocess.TimeoutExpired`."""
    return subprocess.run(
        [sys.executable, "-c", _TRIAL, address],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=within_s,
        check=False,
        env={**os.environ, **more},
    )


def _try(address: str) -> None:
    """Raises `MachineError`, with Ray's own reason, where Ray cannot connect."""
    deadline = time.monotonic() + TRIAL_S
    for left in reversed(range(TRIES)):
        try:
            tried = _trial(address, max(1.0, deadline - time.monotonic()), {})
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"the Ray cluster at {address} did not let this process in within {TRIAL_S:.0f} s; see `ray status` "
                "there, and that the port is that of its head"
            ) from None
        if not tried.returncode:
            return
        if not left or "ConnectionError" not in tried.stderr:
            raise MachineError(f"the Ray cluster at {address} cannot be joined: {_reason(tried.stderr)}")
        time.sleep(1.0)


def _reason(words: str) -> str:
    """What Ray's own words come to."""
    found = re.search(r"Version mismatch.*?Ray: (\S+).*?Python: (\S+).*?Ray: (\S+).*?Python: (\S+)", words, re.DOTALL)
    if found:
        theirs, their_python, ours, our_python = (part.rstrip(".") for part in found.groups())
        return (
            f"it has Ray {theirs} and Python {their_python}, and here are Ray {ours} and Python {our_python}; "
            "install the same on both"
        )
    if "InvalidAuthToken" in words:
        return (
            "it turns this process away as unknown; see that its tokens, where it has any, are here too, and try again"
        )
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "Ray gives no reason"


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, OSError, ValueError, SystemExit) as error:
        raise MachineError(f"the Ray cluster at {address} cannot be joined: {_reason(str(error))}") from error


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Ray exchanges what SIGTERM does to this process; whoever set that before meant it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
