"""A GPU that is not there: Triton's driver and torch.cuda as a child needs them where nothing runs on a device."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilesmith.bench.candidate import Fault
from tilesmith.bench.wire import Message

Arguments = list[tuple[str, Any]]
Launched = Callable[[Any, Any, tuple[int, int, int], Arguments], None]
"""Called in place of each launch: the compiled kernel, its metadata, the grid, and arguments by name."""


def pretend(target: Message, launched: Launched, bench: Callable[..., Any]) -> None:
    """Install the stub driver and a torch.cuda that answers for the target; `bench` stands in for benchmarks."""
    import torch
    import triton

    triton.runtime.driver.set_active(_driver(target, launched, bench))
    _patch_cuda(torch, target)


def _driver(target: Message, launched: Launched, bench: Callable[..., Any]) -> Any:
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.compiler.compiler import CompiledKernel

    current: list[Any] = []
    init_handles = CompiledKernel._init_handles

    def remember(kernel: Any) -> None:
        current.append(kernel)
        try:
            init_handles(kernel)
        finally:
            current.pop()

    CompiledKernel._init_handles = remember

    class Tools:
        """Stands in for the driver's C functions."""

        def get_device_properties(self, _device: int) -> dict[str, int]:
            return {
                "max_shared_mem": target["block_shared_bytes"],
                "max_num_regs": target["registers"],
                "multiprocessor_count": target["multiprocessors"],
                "warpSize": 32,
                "sm_clock_rate": int(target["clock_hz"] / 1000),
                "mem_clock_rate": 3_201_000,
                "mem_bus_width": 6144,
            }

        def load_binary(
            self, name: str, kernel: bytes, _shared: int, _device: int
        ) -> tuple[object, str, int, int, int]:
            registers, local_bytes = resources(kernel)
            per_warp = max(1, -(-registers // 8) * 8) * 32
            return object(), name, registers, local_bytes // 4, min(1024, target["registers"] // per_warp * 32)

        def unload_module(self, _module: object) -> None:
            return None

        def fill_tma_descriptor(self, *_: Any) -> bytes:
            return bytes(128)

        def set_printf_fifo_size(self, _size: int) -> None:
            return None

        def cuOccupancyMaxActiveClusters(self, *_: Any) -> int:  # noqa: N802  Triton's name
            return int(target["multiprocessors"]) // 2

    class Launcher:
        def __init__(self, source: Any, metadata: Any) -> None:
            self.names = list(source.fn.arg_names) if hasattr(source, "fn") else []
            self.metadata = metadata
            self.kernel = current[-1]

        def __call__(self, x: int, y: int, z: int, *rest: Any) -> None:
            # stream, function, packed metadata, launch metadata, enter hook, exit hook, then the kernel's arguments
            launched(self.kernel, self.metadata, (x, y, z), list(zip(self.names, rest[6:], strict=False)))

    class StubDriver(DriverBase):
        def __init__(self) -> None:
            self.utils = Tools()
            self.launcher_cls = Launcher

        @classmethod
        def is_active(cls) -> bool:
            return True

        def map_python_to_cpp_type(self, ty: str) -> str:
            from triton.backends.nvidia.driver import ty_to_cpp

            return str(ty_to_cpp(ty))

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", target["arch"], 32)

        def get_current_device(self) -> int:
            return 0

        def set_current_device(self, _device: int) -> None:
            return None

        def get_current_stream(self, _device: int = 0) -> int:
            return 0

        def get_device_capability(self, _device: int = 0) -> tuple[int, int]:
            return target["arch"] // 10, target["arch"] % 10

        def get_active_torch_device(self) -> Any:
            return torch.device("cuda", 0)

        def get_device_interface(self) -> Any:
            return torch.cuda

        def get_benchmarker(self) -> Callable[..., Any]:
            return bench

        def get_empty_cache_for_benchmark(self) -> Any:
            return torch.empty(1)

        def clear_cache(self, _cache: Any) -> None:
            return None

    return StubDriver()


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of local memory a thread (stack and spills), of a cubin."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).with_name("bin") / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin", dir=".") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    match = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", run.stdout)
    if match is None:
        raise Fault("compile", f"cuobjdump reports no resource usage: {run.stdout[:200]}")
    registers, stack, local = map(int, match.groups())
    return registers, stack + local


def _patch_cuda(torch: Any, target: Message) -> None:
    properties = types.SimpleNamespace(
        name=target["name"],
        major=target["arch"] // 10,
        minor=target["arch"] % 10,
        multi_processor_count=target["multiprocessors"],
        total_memory=target["memory_bytes"],
        warp_size=32,
        L2_cache_size=target["l2_bytes"],
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=target["block_shared_bytes"],
        shared_memory_per_multiprocessor=target["shared_bytes"],
        regs_per_multiprocessor=target["registers"],
        max_threads_per_multi_processor=target["warps"] * 32,
    )
    cuda = torch.cuda
    cuda._lazy_init = lambda: None
    cuda.is_available = lambda: True
    cuda.is_initialized = lambda: True
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: 1
    cuda.synchronize = lambda *_: None
    cuda.set_device = lambda *_: None
    cuda.get_device_capability = lambda *_: (target["arch"] // 10, target["arch"] % 10)
    cuda.get_device_name = lambda *_: target["name"]
    cuda.device = lambda *_: contextlib.nullcontext()
    cuda.current_stream = lambda *_: types.SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    cuda.get_device_properties = lambda *_: properties
    for name in ("Stream", "ExternalStream", "CUDAGraph", "graph", "make_graphed_callables"):
        setattr(cuda, name, _refused(name))


def _refused(name: str) -> Callable[..., Any]:
    """Streams and graphs of its own are no part of a candidate: no event of ours would see their work end."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise Fault(
            "rejected", f"it uses torch.cuda.{name}: work is to be launched on the current stream, each time anew"
        )

    return refuse
