"""GPUs: what is known of each model, which of them this host has, and who may use one now."""

from __future__ import annotations

import csv
import difflib
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

from tilesmith.core.errors import MachineError, OptionError

# Models --------------------------------------------------------------------------------------------------------------

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU. Rates are peaks of the whole chip, per second; matrix rates are DENSE and sum in float32."""

    name: str
    arch: int
    """The compute capability without its dot: 90 is 9.0."""
    multiprocessors: int
    shared_bytes: int
    """Of one multiprocessor."""
    block_shared_bytes: int
    """The most that one program can have."""
    warps: int
    """The most that one multiprocessor holds."""
    blocks: int
    """The most programs that one multiprocessor holds."""
    l2_bytes: int
    memory_bytes: int
    dram_bytes_per_s: float
    """The datasheet's."""
    fp16_flops: float
    """Of float16 and bfloat16."""
    tf32_flops: float
    fp8_flops: float | None
    """None where the matrix units know no fp8."""
    fp32_flops: float
    """Outside the matrix units, two for a multiplication and addition."""
    clock_hz: float
    readable: float = 0.92
    """The share of `dram_bytes_per_s` that a kernel can read. Measured on the H200; assumed of the others."""
    practical: float = 0.85
    """The share of the matrix peaks that a good kernel sustains. Measured on the H200; assumed of the others."""
    registers: int = 65_536
    """Of one multiprocessor, each 4 bytes."""

    @property
    def readable_bytes_per_s(self) -> float:
        """What a kernel can read from device memory."""
        return self.dram_bytes_per_s * self.readable

    def matrix_flops(self, kind: Literal["fp16", "tf32", "fp8"]) -> float:
        """What the matrix units sustain. Without units for fp8 its operands are widened to fp16."""
        peak = {"fp16": self.fp16_flops, "tf32": self.tf32_flops, "fp8": self.fp8_flops or self.fp16_flops}[kind]
        return peak * self.practical


_A100 = Gpu(
    "a100-80", 80, 108, 164 * KIB, 163 * KIB, 64, 32, 40 * MIB, 80 * GIB,
    2_039e9, 312e12, 156e12, None, 19.5e12, 1.41e9,
)  # fmt: skip
_H100 = Gpu(
    "h100-sxm", 90, 132, 228 * KIB, 227 * KIB, 64, 32, 50 * MIB, 80 * GIB,
    3_350e9, 989e12, 494e12, 1_979e12, 66.9e12, 1.98e9, practical=0.76,
)  # fmt: skip

TABLE: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        replace(_A100, name="a100-40", memory_bytes=40 * GIB, dram_bytes_per_s=1_555e9),
        _A100,
        _H100,
        replace(
            _H100, name="h100-pcie", multiprocessors=114, dram_bytes_per_s=2_039e9,
            fp16_flops=756e12, tf32_flops=378e12, fp8_flops=1_513e12, fp32_flops=51.2e12, clock_hz=1.755e9,
        ),
        replace(
            _H100, name="h100-nvl", memory_bytes=94 * GIB, dram_bytes_per_s=3_938e9,
            fp16_flops=835e12, tf32_flops=417e12, fp8_flops=1_671e12, fp32_flops=60e12, clock_hz=1.785e9,
        ),
        # 4.42 TB/s and 750 TFLOP/s measured.
        replace(
            _H100, name="h200", l2_bytes=60 * MIB, memory_bytes=150_109_880_320, dram_bytes_per_s=4_800e9,
            readable=4_420 / 4_800, practical=750 / 989,
        ),
        Gpu(
            "b200", 100, 148, 228 * KIB, 227 * KIB, 64, 32, 126 * MIB, 180 * GIB,
            8_000e9, 2_250e12, 1_100e12, 4_500e12, 75e12, 1.965e9, practical=0.76,
        ),
        Gpu(
            "l40s", 89, 142, 100 * KIB, 99 * KIB, 48, 24, 96 * MIB, 48 * GIB,
            864e9, 362e12, 183e12, 733e12, 91.6e12, 2.52e9,
        ),
        Gpu(
            "rtx4090", 89, 128, 100 * KIB, 99 * KIB, 48, 24, 72 * MIB, 24 * GIB,
            1_008e9, 165.2e12, 82.6e12, 330.3e12, 82.6e12, 2.52e9,
        ),
        Gpu(
            "rtx5090", 120, 170, 100 * KIB, 99 * KIB, 48, 24, 96 * MIB, 32 * GIB,
            1_792e9, 209.5e12, 104.8e12, 419e12, 104.8e12, 2.407e9,
        ),
    )
}  # fmt: skip
"""Figures of the makers' datasheets. Those print matrix rates with sparsity, twice the dense ones that stand here."""

DEFAULT = "h200"


def target(name: str | None = None) -> Gpu:
    """The model of this name, `DEFAULT` without one. Raises `OptionError` for one that nobody knows."""
    wanted = (name or DEFAULT).strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in TABLE:
        return TABLE[wanted]
    near = [known for known in TABLE if known.startswith(wanted)] if wanted else []
    near = near or difflib.get_close_matches(wanted, TABLE, n=3, cutoff=0.5) or list(TABLE)
    raise OptionError(f"target {name!r} is not a known GPU; use one of {', '.join(near)}")


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
        return Device(int(index), uuid, name, memory_bytes, driver, arch, _model(name, arch, memory_bytes))
    except ValueError:
        return None


def _model(name: str, arch: int, memory_bytes: int) -> Gpu:
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
