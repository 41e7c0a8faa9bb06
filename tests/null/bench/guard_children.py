"""Run as `python guard_children.py`: one JSON object of sources on stdin, one of what became of each on stdout.

Imports torch and Triton once and forks a child a source, as a warm runner does. The child is watched, loads the source,
calls `kernel_function()` where it is defined, and compares snapshots.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import types
from pathlib import Path

LIMIT_S = 60.0


def judge(source: str, scratch: str, report: int) -> None:
    """In a child: what the guard says of a source, written to a descriptor."""
    from tilesmith.bench import guard, snapshot

    # Sources exchange functions, these too.
    encode, write, leave, clock = json.JSONEncoder().encode, os.write, os._exit, time.perf_counter

    def tell(**words: object) -> None:
        write(report, encode(words).encode())
        leave(0)

    os.chdir(scratch)
    os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = scratch
    os.environ["TRITON_CACHE_DIR"] = f"{scratch}/triton"
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    file = f"{scratch}/candidate.py"
    Path(file).write_text(source, encoding="utf-8")
    guard.watch(file, scratch, lambda reason: tell(reason=reason))  # type: ignore[arg-type, return-value]
    start = clock()
    before = snapshot.Snapshot.take()
    took = clock() - start
    spec = importlib.util.spec_from_file_location("candidate", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["candidate"] = module
    fault = None
    try:
        spec.loader.exec_module(module)
        function = getattr(module, "kernel_function", None)
        if function is not None:
            function()
    except BaseException as error:
        fault = f"{type(error).__name__}: {error}"
    spent = []
    for _ in range(5):
        start = clock()
        changed = before.changed()
        spent.append(clock() - start)
    tell(changed=changed, fault=fault, take_s=took, compare_s=min(spent))


def stand_in_for_the_driver() -> types.ModuleType:
    """A module with a function that builds a launcher as Triton's driver does, from the driver's own file."""
    import triton.backends.nvidia.driver as driver

    module = types.ModuleType("driver_stand_in")
    text = "from triton.runtime.build import compile_module_from_src\n"
    text += "def build(source): return compile_module_from_src(src=source, name='stand_in')\n"
    exec(compile(text, str(driver.__file__), "exec"), vars(module))
    return module


def main() -> None:
    import numpy
    import torch
    import torch.utils._python_dispatch
    import triton.language
    import triton.testing

    del numpy, torch, triton
    sources = json.load(sys.stdin)
    importlib.import_module("tilesmith.bench.guard")
    importlib.import_module("tilesmith.bench.snapshot")
    sys.modules["driver_stand_in"] = stand_in_for_the_driver()
    gc.collect()
    gc.freeze()
    found = {}
    for name, source in sources.items():
        with tempfile.TemporaryDirectory() as scratch:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                signal.alarm(int(LIMIT_S))
                judge(source, scratch, writer)
            os.close(writer)
            with os.fdopen(reader, "rb") as answer:
                said = answer.read()
            os.waitpid(pid, 0)
            found[name] = json.loads(said) if said else {"died": True}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
