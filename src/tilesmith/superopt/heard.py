"""Ctrl-C while C++ runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def heard(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Does it on a thread of its own, so that Ctrl-C is heard meanwhile: it ends the work early, not the program.

    What the work raises is raised here.
    """
    results: list[T] = []
    faults: list[BaseException] = []
    # Not `join`: in Python 3.11 a join that was interrupted takes the thread for ended.
    over = threading.Event()

    def attempt() -> None:
        try:
            results.append(work())
        except BaseException as fault:  # carried over to the thread that waits
            faults.append(fault)
        finally:
            over.set()

    threading.Thread(target=attempt, name="search", daemon=True).start()
    while not over.is_set():
        try:
            over.wait()
        except KeyboardInterrupt:
            interrupt()
    if faults:
        raise faults[0]
    return results[0]
