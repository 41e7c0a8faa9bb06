"""GPUs of this host: which it has, and who may use one now."""

from __future__ import annotations

import csv
import fcntl
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import MIB, TABLE, Gpu

# This host -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of this host."""

    index: int
    """As nvidia-smi counts; name a device to a child process by its `uuid`, which depends on no order."""
    uuid: str
    name: str
    memory_bytes: int
    driver: str
    arch: int
    gpu: Gpu
    """From `TABLE`; of a model that is not there the nearest one, with this device's name, architecture and memory."""


_QUERY = "index,uuid,name,memory.total,driver_version,compute_cap"

_MODELS = (
    (r"\bA100\b.*40GB", "a100-40"),
    (r"\bA100\b", "a100-80"),
    (r"\bH100 PCIe", "h100-pcie"),
    (r"\bH100 NVL", "h100-nvl"),
    (r"\bH100\b.*80GB HBM3", "h100-sxm"),
    (r"\bH200\b(?! NVL)", "h200"),
    (r"\bB200\b", "b200"),
    (r"\bL40S\b", "l40s"),
    (r"\bRTX 4090$", "rtx4090"),
    (r"\bRTX 5090$", "rtx5090"),
)


def find() -> tuple[Device, ...]:
    """The GPUs that CUDA would show this process, in its order; none where there is no driver. Never raises.

    Asks nvidia-smi, so that no CUDA context is made. `CUDA_VISIBLE_DEVICES` is read as CUDA reads it: numbers or the
    beginnings of UUIDs, up to the first entry that names no device. Numbers count in nvidia-smi's order, which on a
    host with several models is CUDA's only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`. Parts of a GPU (MIG) are not found.
    """
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    if asked.returncode != 0:
        return ()
    devices = [device for row in csv.reader(asked.stdout.splitlines()) if (device := _device(row))]
    return _visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _device(row: list[str]) -> Device | None:
    """None for a row that is no GPU, such as one that fell off the bus and has "[N/A]" for its memory."""
    try:
        index, uuid, name, memory_mib, driver, capability = (cell.strip() for cell in row)
        arch = int(capability.replace(".", ""))
        memory_bytes = int(memory_mib) * MIB
        return Device(int(index), uuid, name, memory_bytes, driver, arch, model(name, arch, memory_bytes))
    except ValueError:
        return None


def model(name: str, arch: int, memory_bytes: int) -> Gpu:
    """The row of `TABLE` for what nvidia-smi calls a GPU; of a model that is not there the nearest, made to fit.

    `arch` is the compute capability without its point: 90 is 9.0.
    """
    for pattern, known in _MODELS:
        if re.search(pattern, name):
            return TABLE[known]
    older = [gpu for gpu in TABLE.values() if gpu.arch <= arch] or list(TABLE.values())
    nearest = min(older, key=lambda gpu: (arch - gpu.arch, abs(memory_bytes - gpu.memory_bytes)))
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")
    return replace(nearest, name=plain, arch=arch, memory_bytes=memory_bytes)


def _visible(devices: list[Device], variable: str | None) -> tuple[Device, ...]:
    if variable is None:
        return tuple(devices)
    chosen: list[Device] = []
    for entry in (part.strip() for part in variable.split(",")):
        named = [device for device in devices if entry and _names(entry, device)]
        if len(named) != 1:
            break
        if named[0] in chosen:
            return ()
        chosen.append(named[0])
    return tuple(chosen)


def _names(entry: str, device: Device) -> bool:
    return entry == str(device.index) if entry.isdigit() else device.uuid.lower().startswith(entry.lower())


# Leases --------------------------------------------------------------------------------------------------------------

_LONGEST_PAUSE_S = 0.05


@contextmanager
def lease(uuid: str, mode: Literal["shared", "exclusive"], timeout_s: float = 600.0) -> Iterator[None]:
    """Hold one GPU: `shared` with others that check, `exclusive` to time.

    The lease is a lock of the operating system on a file of this user's, so it ends with its holder however that
    ends. Who waits for an exclusive lease is served before those who ask for a shared one later.
    Raises `MachineError` naming the holder when `timeout_s` have passed.
    """
    folder, name = _folder(), re.sub(r"[^\w-]", "_", uuid)
    deadline = time.monotonic() + timeout_s
    operation = fcntl.LOCK_EX if mode == "exclusive" else fcntl.LOCK_SH
    with ExitStack() as held:
        # A turnstile: an exclusive waiter stands in it, so that no stream of shared leases can starve it.
        with _locked(folder / f"{name}.turn", operation, deadline, uuid):
            held.enter_context(_locked(folder / f"{name}.lock", operation, deadline, uuid))
        yield


_open: set[int] = set()


def _close_inherited() -> None:
    """A forked child must not keep its parent's lease alive."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def _locked(path: Path, operation: int, deadline: float, uuid: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _open.add(descriptor)
    owner = os.getpid()
    try:
        pause_s = 0.001
        while True:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise MachineError(
                        f"GPU {uuid} is in use by {_holder(path.with_suffix('.lock'))}; wait for it to end, or end it"
                    ) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        yield
    finally:
        if os.getpid() == owner:
            _open.discard(descriptor)
            os.close(descriptor)


def _holder(path: Path) -> str:
    """ "process 1234", as the kernel's list of locks has it."""
    try:
        end = f":{path.stat().st_ino}"
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "another process"
    # "1: FLOCK ADVISORY WRITE 1234 fd:01:5678 0 EOF"; those of another pid namespace have no pid here.
    found = {row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(end)}
    pids = sorted(found - {"0", "-1"}, key=int)
    return f"process {', '.join(pids)}" if pids else "another process"


def _folder() -> Path:
    """This user's folder of lock files. Raises `MachineError` where it is not safely this user's."""
    folder = Path(tempfile.gettempdir()) / f"tilesmith-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise MachineError(f"the folder for GPU locks, {folder}, cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise MachineError(f"the folder for GPU locks, {folder}, is open to other users; remove it")
    return folder
