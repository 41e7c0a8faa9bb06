"""What a GPU's clocks do while it is measured, asked of the driver's management library.

A query takes microseconds and makes no CUDA context. Where the library is missing nothing is said, and the timing
shows that nothing is known.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

_SM = 1
_CAPS = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 8
"""Idle, clocks that an application set, sync boost and the display's: reasons that say nothing of a disturbance."""
_REASONS = {
    1 << 2: "power cap",
    1 << 3: "hardware slowdown",
    1 << 5: "software thermal slowdown",
    1 << 6: "hardware thermal slowdown",
    1 << 7: "power brake",
}
"""NVML's clock event reasons (nvml.h), without those in `_CAPS`."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The multiprocessors' clock at one moment, and why it is not higher."""

    sm_mhz: int
    throttled: frozenset[str]


def read(uuid: str) -> Clocks | None:
    """Of the GPU with this UUID; None where the driver does not tell."""
    library = _library()
    if library is None:
        return None
    handle, mhz, reasons = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_ulonglong()
    if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return None
    if library.nvmlDeviceGetClockInfo(handle, _SM, ctypes.byref(mhz)):
        return None
    if library.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(reasons)):
        return Clocks(mhz.value, frozenset())
    active = reasons.value & ~_CAPS
    return Clocks(mhz.value, frozenset(name for bit, name in _REASONS.items() if active & bit))


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None
