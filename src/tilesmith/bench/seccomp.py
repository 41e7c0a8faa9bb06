"""Seccomp: the system calls that a process, and all that it starts, is refused. Needs no privilege.

The filter is a program for the kernel's classic packet filter, run before each call: see seccomp(2) and bpf(2). What is
refused here no honest candidate needs; namespaces, landlock and dropped capabilities stand behind most of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tilesmith.bench import syscalls

_NUMBERS = {
    # name: (x86-64, aarch64); None where the architecture has no such call
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fork": (57, None),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sendto": (44, 206),
    "setns": (308, 268),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vfork": (58, None),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Column of the table, the kernel's name for the architecture, the number of seccomp itself."""
_X32 = 0x40000000
"""From here on, numbers on x86-64 are another table's."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_MODE_FILTER, _SPEC_ALLOW = 1, 4
_WHOLE = 0xFFFFFFFF

_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 1, 5, 0xF
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on an argument's lower 32 bits (half 0) or upper ones (half 1), under a mask."""

    argument: int
    values: tuple[int, ...]
    allowed: bool
    """Whether these values are the only good ones, or the only bad ones."""
    mask: int = _WHOLE
    half: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A call is refused if it fails one of the checks, or if there is none."""

    call: str
    checks: tuple[Check, ...] = ()
    error: int = errno.EPERM


_LOCAL = (Check(0, (_AF_UNIX,), True), Check(1, (_SOCK_STREAM, _SOCK_SEQPACKET), True, _SOCK_TYPE))
_REFUSED = """
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd mount umount2 open_tree move_mount fsopen
    fsconfig fsmount fspick mount_setattr unshare setns pivot_root chroot bpf perf_event_open userfaultfd add_key
    request_key keyctl init_module finit_module delete_module reboot kexec_load kexec_file_load swapon swapoff
    io_uring_setup io_uring_enter io_uring_register personality acct quotactl quotactl_fd open_by_handle_at
    fanotify_init syslog
"""
ALWAYS = (
    *(Rule(call) for call in _REFUSED.split()),
    # Flags of clone3 lie in memory, where no filter can see them. The C library then takes clone.
    Rule("clone3", error=errno.ENOSYS),
    Rule("clone", (Check(0, (0,), True, _CLONE_NEW),)),
    # Pairs of local sockets are all that is left: datagram sockets could be sent from without being connected.
    Rule("socket", _LOCAL),
    Rule("socketpair", _LOCAL),
    Rule("connect", error=errno.ECONNREFUSED),
    Rule("sendto", (Check(4, (0,), True), Check(4, (0,), True, half=1))),
    Rule("ioctl", (Check(1, (_TIOCSTI, _TIOCLINUX), False),)),
    # Nobody outlives the warden.
    Rule("prctl", (Check(0, (syscalls.PR_SET_PDEATHSIG,), False),)),
)
NO_HIDDEN_MEMORY = tuple(Rule(call, error=errno.ENOSYS) for call in ("memfd_create", "memfd_secret", "shmget"))
"""Memory that belongs to no process's resident set, so that the warden would not count it."""
NO_PROCESSES = (
    *(Rule(call) for call in ("execve", "execveat", "fork", "vfork")),
    Rule("clone", (Check(0, (_CLONE_THREAD,), True, _CLONE_THREAD),)),
)
"""Threads only."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def number(call: str, machine: str | None = None) -> int | None:
    """A call's number on this machine or another; None where it has no such call."""
    return _NUMBERS[call][_ARCHITECTURES[machine or os.uname().machine][0]]


def restrict(rules: Iterable[Rule]) -> bool:
    """Refuse these calls to the calling thread, for good; whether this machine's architecture is a known one.

    Needs no_new_privs. Raises `OSError` where the kernel refuses.
    """
    if os.uname().machine not in _ARCHITECTURES:
        return False
    code = assemble(rules, os.uname().machine)
    # Without the last flag, older kernels would also slow down the process's speculation.
    itself = _ARCHITECTURES[os.uname().machine][2]
    syscalls.syscall(itself, _SET_MODE_FILTER, _SPEC_ALLOW, _Program(len(code) // 8, code))
    return True


def assemble(rules: Iterable[Rule], machine: str) -> bytes:
    """The filter as the kernel takes it: eight bytes an instruction."""
    architecture = _ARCHITECTURES[machine][1]
    foreign = _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    code = _instruction(_LOAD, 4) + _instruction(_EQUAL, architecture, 1, 0) + foreign + _instruction(_LOAD, 0)
    if machine == "x86_64":
        code += _instruction(_AT_LEAST, _X32, 0, 1) + foreign
    for rule in rules:
        if (called := number(rule.call, machine)) is not None:
            body = _body(rule)
            code += _instruction(_EQUAL, called, 0, len(body) // 8) + body
    return code + _instruction(_RETURN, _ALLOW)


def _body(rule: Rule) -> bytes:
    """What runs for one call; it falls through, with the number loaded again, where no check fails."""
    refuse = _instruction(_RETURN, _ERRNO | rule.error)
    if not rule.checks:
        return refuse
    code = b""
    for check in rule.checks:
        code += _instruction(_LOAD, 16 + 8 * check.argument + 4 * check.half) + _instruction(_AND, check.mask)
        last = len(check.values) - 1
        for place, value in enumerate(check.values):
            if check.allowed:
                # Past the other values and the refusal after them.
                code += _instruction(_EQUAL, value, last - place + 1, 0)
            else:
                code += _instruction(_EQUAL, value, 0, 1) + refuse
        if check.allowed:
            code += refuse
    return code + _instruction(_LOAD, 0)


def _instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)
