"""What is really started on a GPU: every kernel launch of this process, seen at the driver through CUPTI's callbacks.

In place before candidate code loads, and for good: nothing in Python can end the subscription. A callback costs a few
microseconds of host time and none of the device's, so it stays on while launches are timed: the clearing of the cache
before each keeps the device busy for longer. (The framework's profiler takes three seconds to start; this a few
milliseconds.)
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DRIVER_API = 1
_ENTER = 0
_IDS = range(1, 1200)
_WATCHED = re.compile(r"^cu(Launch\w*|GraphLaunch\w*|StreamBeginCapture\w*|CtxSetLimit|StreamSetAttribute\w*)$")

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


class _CallbackData(ctypes.Structure):
    """The head of CUpti_CallbackData, as cupti_callbacks.h has it since CUDA 6."""

    _fields_ = (
        ("site", ctypes.c_int),
        ("function_name", ctypes.c_char_p),
        ("function_params", ctypes.c_void_p),
        ("return_value", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
    )


_KERNEL_KINDS = (3, 10)
_CONCURRENT_KERNEL = 10
_BUFFER_BYTES = 1 << 20
_Wanted = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_Full = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


class _Kernel(ctypes.Structure):
    """The head of CUpti_ActivityKernel, as cupti_activity.h has it from version 4 of that record on."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("caches", ctypes.c_uint32),
        ("partitioned", ctypes.c_uint32 * 2),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("completed", ctypes.c_uint64),
        ("where", ctypes.c_uint32 * 3),
        ("grid", ctypes.c_int32 * 3),
        ("block", ctypes.c_int32 * 3),
        ("memory", ctypes.c_uint32 * 4),
        ("correlation", ctypes.c_uint32),
        ("grid_id", ctypes.c_int64),
        ("name", ctypes.c_char_p),
    )


class KernelTrace:
    """Counts launches by kernel name; other calls of interest by the driver function's name."""

    def __init__(self) -> None:
        """Raises `OSError` where CUPTI cannot be used."""
        self.launches: Counter[str] = Counter()
        self.streams: Counter[int] = Counter()
        self.others: Counter[str] = Counter()
        self.paused = False
        """While the session itself uses the GPU, between calls of the candidate."""
        self._library = ctypes.CDLL(str(_library()))
        self._callback = _Callback(self._called)
        self._subscriber = ctypes.c_void_p()
        self._ask("cuptiSubscribe", ctypes.byref(self._subscriber), self._callback, None)
        name = ctypes.c_char_p()
        for number in _IDS:
            if self._library.cuptiGetCallbackName(_DRIVER_API, number, ctypes.byref(name)):
                continue
            if name.value and _WATCHED.match(name.value.decode()):
                self._ask("cuptiEnableCallback", 1, self._subscriber, _DRIVER_API, number)

    def take(self) -> tuple[Counter[str], Counter[int], Counter[str]]:
        """What has been seen since the last taking: launches by kernel, launches by stream, other calls."""
        taken = self.launches, self.streams, self.others
        self.launches, self.streams, self.others = Counter(), Counter(), Counter()
        return taken

    @contextmanager
    def durations(self) -> Iterator[Counter[str]]:
        """Within, kernels are timed on the device; their nanoseconds by name are there when it is left."""
        spent: Counter[str] = Counter()
        buffers: dict[int, ctypes.Array[ctypes.c_char]] = {}

        def wanted(buffer: Any, size: Any, most: Any) -> None:
            fresh = ctypes.create_string_buffer(_BUFFER_BYTES + 8)
            # Records are aligned to eight bytes.
            address = (ctypes.addressof(fresh) + 7) & ~7
            buffers[address] = fresh
            buffer[0], size[0], most[0] = address, _BUFFER_BYTES, 0

        def full(_context: int, _stream: int, buffer: int, _size: int, valid: int) -> None:
            record = ctypes.c_void_p()
            while not self._library.cuptiActivityGetNextRecord(
                ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)
            ):
                kernel = _Kernel.from_address(record.value or 0)
                if kernel.kind in _KERNEL_KINDS:
                    spent[(kernel.name or b"").decode(errors="replace")] += kernel.end - kernel.start

        callbacks = _Wanted(wanted), _Full(full)
        self._ask("cuptiActivityRegisterCallbacks", *callbacks)
        self._ask("cuptiActivityEnable", _CONCURRENT_KERNEL)
        try:
            yield spent
        finally:
            self._ask("cuptiActivityFlushAll", 1)
            self._ask("cuptiActivityDisable", _CONCURRENT_KERNEL)
            self._kept = callbacks  # CUPTI may call them until the process ends

    def _called(self, _user: int, _domain: int, _number: int, data: int) -> None:
        head = _CallbackData.from_address(data)
        if self.paused or head.site != _ENTER:
            return
        function = (head.function_name or b"").decode(errors="replace")
        if not function.startswith("cuLaunch") or function.startswith("cuLaunchHostFunc"):
            self.others[function] += 1
            return
        self.launches[(head.symbol_name or b"a kernel without a name").decode(errors="replace")] += 1
        self.streams[_stream(function, head.function_params)] += 1

    def _ask(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise OSError(f"{function} answers {status}")


def _stream(function: str, params: int) -> int:
    """The stream of a launch, from the driver function's arguments."""
    if function.startswith("cuLaunchKernelEx"):
        # The first argument points to a CUlaunchConfig: grid, block and shared bytes, seven ints, then the stream.
        config = ctypes.c_void_p.from_address(params).value or 0
        return ctypes.c_void_p.from_address(config + 32).value or 0
    # The function, six sizes and the shared bytes come before the stream.
    return ctypes.c_void_p.from_address(params + 40).value or 0


def _library() -> Path:
    """The CUPTI that this process has loaded already, torch's own; else the one in Triton's package."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libcupti.so" in line:
            return Path(line.split()[-1])
    import triton.backends.nvidia

    folder = Path(triton.backends.nvidia.__file__).parent / "lib" / "cupti"
    for path in sorted(folder.glob("libcupti.so*")):
        return path
    raise OSError("there is no libcupti")
