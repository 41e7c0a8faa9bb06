"""A real Ray cluster of several nodes on this machine, whose nodes can be started with an environment and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STORE_BYTES = 80 << 20
"""Of each node's object store: about the least that Ray takes."""


class LocalCluster:
    """A head that lends nothing, and nodes: each a raylet with its processes. A context manager."""

    def __enter__(self) -> Self:
        # Unix sockets have short paths, so not in pytest's folder.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        head = self._start(
            "head", "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={self._folder.name}", "--num-cpus=0"
        )
        self.address = self._address(head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._nodes)):
            self.kill(name)
        self._folder.cleanup()

    def add(self, name: str, cpus: int = 1, gpus: int = 0, environment: Mapping[str, str] | None = None) -> None:
        """One node more; it is there when Ray says so."""
        self._start(name, f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}", more=environment)

    def kill(self, name: str) -> None:
        """End a node with all its processes at once, as a machine that loses power does."""
        process = self._nodes.pop(name)
        family = [process.pid, *descendants(process.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def _start(self, name: str, *words: str, more: Mapping[str, str] | None = None) -> Path:
        log = Path(self._folder.name, f"{name}.log")
        command = [
            *(sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())", "start"),
            *("--block", "--disable-usage-stats", f"--object-store-memory={STORE_BYTES}", *words),
        ]
        with log.open("wb") as file:
            self._nodes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, "RAY_AUTH_MODE": "disabled", **(more or {})},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while "--block" not in log.read_text(errors="replace"):
            assert self._nodes[name].poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        return log

    def _address(self, log: Path) -> str:
        found = re.search(r"--address='([\d.]+:\d+)'", log.read_text(errors="replace"))
        assert found, log.read_text(errors="replace")
        return found[1]


def descendants(pid: int) -> list[int]:
    """The processes that this one started, and those that these did."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def within(seconds: float, holds: Callable[[], bool]) -> None:
    """Wait until it holds; fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
