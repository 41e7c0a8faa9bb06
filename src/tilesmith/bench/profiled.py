"""The program that ncu profiles: one call of one candidate, everything else done before.

Run as `python -m tilesmith.bench.profiled JOB`, a JSON file with `problem` (its source), `constants`, `dtype`,
`candidate` (its source), `scratch` and `walls`. It makes the problem's inputs itself, from the problem's own source:
ncu replays kernels by saving and restoring the memory they reach, so that memory of the oracle's, lent as when judging,
would be taken back under its hands. Nothing is compared here. What became of it is in `REPORT` in the scratch folder:
{"calls": n} or {"fault": text}.

Only a candidate that was judged correct is profiled, behind these walls: a clean environment; a scratch folder as home,
temporary folder and cache; limits on memory, processes and files; no new privileges; and a warden that ends everything
it started (see `tilesmith.bench.counters`). When ncu's library has connected, just before the candidate loads, those of
`UNDER_NCU` are raised too; each was tried on an H200. Namespaces and bubblewrap are left out: the library finds its
other half by process number, and talks to it through sockets that they would hide.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tilesmith.bench import landlock, seccomp, syscalls, walls

REPORT = "profiled.json"
WARM_CALLS = 3
MOST_WARM_CALLS = 20


def files_by_list(scratch: str) -> None:
    """Readable: the system, Python, CUDA, where ncu is installed; writable: devices and the scratch folder."""
    tools = (
        *walls.executables("device"),
        *walls.toolkits(),
        "/opt/nvidia",
        *map(str, Path("/usr/local").glob("cuda*")),
    )
    landlock.restrict(
        {
            **dict.fromkeys((*walls.SETTINGS, *walls.python(), "/proc", "/sys", "/dev"), walls.READ),
            **dict.fromkeys((*walls.SYSTEM, *tools, *walls.python()), walls.RUN),
            **{str(node): walls.DEVICE | walls.READ for node in Path("/dev").glob("nvidia*")},
            os.devnull: landlock.Access.READ_FILE | landlock.Access.WRITE_FILE,
            "/dev/shm": walls.WRITE,
            "/proc/self/task": walls.READ | landlock.Access.WRITE_FILE | landlock.Access.TRUNCATE,
            scratch: walls.WRITE | landlock.Access.MAKE_SOCK | landlock.Access.MAKE_FIFO,
        }
    )


WALLS: Mapping[str, Callable[[str], object]] = {
    "files by list": files_by_list,
    "no capabilities": lambda _scratch: syscalls.drop_capabilities(),
    "system calls by list": lambda _scratch: seccomp.restrict(seccomp.ALWAYS),
}
"""Each confines the calling thread, and what it starts; it needs "no new privileges"."""
UNDER_NCU: tuple[str, ...] = ("files by list", "no capabilities", "system calls by list")
"""Those of `WALLS` that are raised while profiling."""


def load(job: Mapping[str, Any], device: str) -> Callable[[], object]:
    """One call of the candidate on the problem's own inputs, made on this device; walls stand before it loads."""
    import torch

    from tilesmith.bench.candidate import bind
    from tilesmith.bench.candidate import load as imported
    from tilesmith.bench.oracle import Program, packet

    program = Program(job["problem"], job["constants"], job["dtype"])
    with torch.no_grad():
        content = packet(program, program.make(1, device), lambda tensor: tensor)
    for name in job["walls"]:
        WALLS[name](job["scratch"])
    module = imported(job["candidate"], job["scratch"])
    with torch.no_grad(), torch.device(device):
        bound = bind(module, content)
    return lambda: bound.call(*content["inputs"])


def warm(call: Callable[[], object], tunings: Callable[[], int]) -> int:
    """Call until nothing is tuned any more; how often that was."""
    for count in range(1, MOST_WARM_CALLS + 1):
        before = tunings()
        call()
        if count >= WARM_CALLS and tunings() == before:
            break
    return count


def count_tunings() -> Callable[[], int]:
    """From here on Triton's autotuner is watched; what is returned says how often it has tuned."""
    from triton.runtime.autotuner import Autotuner

    run = Autotuner.run
    tuned = [0]

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = len(self.cache)
        result = run(self, *args, **kwargs)
        tuned[0] += len(self.cache) - known
        return result

    Autotuner.run = watched
    return lambda: tuned[0]


def profiled(job: Mapping[str, Any]) -> int:
    """Profile one call, and say how many came before it. ncu counts what is launched between start and stop."""
    import torch
    import torch.cuda.profiler

    torch.cuda.init()
    tunings = count_tunings()
    call = load(job, "cuda")
    # What making the inputs took and gave back would be saved before every replay, too.
    torch.cuda.empty_cache()
    with torch.no_grad():
        calls = warm(call, tunings)
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    return calls


def main(path: str) -> int:
    """The exit status: 0 when a call was profiled."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    report = Path(job["scratch"], REPORT)
    os.chdir(job["scratch"])
    # ncu's table comes over these, so nobody else writes there.
    with open(os.devnull, "r+b", buffering=0) as null:  # noqa: PTH123  a descriptor for all three
        for stream in (0, 1, 2):
            os.dup2(null.fileno(), stream)
    try:
        told: dict[str, object] = {"calls": profiled(job)}
    except BaseException as error:  # the border of the process: whatever it was, the controller hears of it
        from tilesmith.bench.candidate import explain

        told = {"fault": explain(error)}
    with contextlib.suppress(OSError):
        report.write_text(json.dumps(told), encoding="utf-8")
    return "fault" in told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
