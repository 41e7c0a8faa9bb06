"""Landlock: the files that a process, and all that it starts, may still reach. Needs no privilege.

From the kernel's own description (Documentation/userspace-api/landlock.rst). What has no rule is refused. A rule holds
for a file, or for a folder and all beneath it. Statting a file, and entering a folder, cannot be refused.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from enum import IntFlag

from tilesmith.bench.syscalls import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
OLDEST = 2
"""Version 1 refuses every rename from one folder to another, which Triton's cache cannot do without."""


class Access(IntFlag):
    """What may be done with a file or a folder; the kernel's bits."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""What a rule for a single file may grant."""
_HANDLED = {2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 0b11
"""To bind to a port, and to connect to one."""
_SCOPES = 0b11
"""Abstract sockets and signals of processes outside."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """The version that the kernel has; 0 where it has none, or has it turned off."""
    try:
        return syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict(rules: Mapping[str, Access]) -> int:
    """Confine the calling thread to these rules; a path that is not there is passed over. The version in force, or 0.

    Needs no_new_privs. Raises `OSError` where the kernel refuses.
    """
    known = version()
    if known < OLDEST:
        return 0
    handled = _HANDLED[min(known, max(_HANDLED))]
    ruleset = _Ruleset(handled, _TCP if known >= 4 else 0, _SCOPES if known >= 6 else 0)
    size = 8 * (1 + (known >= 4) + (known >= 6))
    descriptor = syscall(_CREATE_RULESET, ruleset, size, 0)
    try:
        for path, access in rules.items():
            _allow(descriptor, path, access & handled)
        syscall(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    return known


def _allow(descriptor: int, path: str, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        syscall(_ADD_RULE, descriptor, _RULE_PATH_BENEATH, _Beneath(access, target), 0)
    except OSError:
        # A file, for which rights that only folders have are refused.
        syscall(_ADD_RULE, descriptor, _RULE_PATH_BENEATH, _Beneath(access & OF_FILES, target), 0)
    finally:
        os.close(target)
