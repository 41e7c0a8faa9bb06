"""What does it cost that a search could be made by many workers, when one makes it?

Expected: at most 3 % more processor time than plain serial code takes, for the depth-first search that shares its work
with whoever is idle, and the same as one rank where the search takes 20 ms and more. Plain serial is the same source
built for one thread: no locks, no atomics, no OpenMP. Both are built here (cmake and a C++ compiler), and run in turns:
the least processor time of each, and the median over the rounds of one over the other. Instructions are what valgrind
counts for one search more, where it is installed: no neighbour changes them. What is dealt out and what goes
breadth-first do other work and have no limit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from lib.answer import ROOT, answer, parser, say

MOST = 0.03
RANKS_FROM_MS = 20.0
WORKLOADS = (("blk", 3, 11), ("qkvlora", 3, 11), ("blk", 4, 11), ("qkvlora", 4, 9))
"""Programs of `csrc/test/programs.cpp`, kernels, operators of each: attention with projection and residual, and LoRA on
queries, keys and values."""


def built(folder: Path, serial: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"-DTILESMITH_SERIAL={'ON' if serial else 'OFF'}"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), "-DTILESMITH_TESTS=ON", wanted],
        ["cmake", "--build", str(folder), "--parallel", "2", "--target", "one_worker"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "one_worker"


def searched(program: Path, workload: tuple[str, int, int], way: str, repeats: int) -> tuple[float, str]:
    """The least seconds, and what was found."""
    command = [str(program), *map(str, workload), way, str(repeats)]
    *seconds, found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return min(map(float, seconds)), found


def instructions(program: Path, workload: tuple[str, int, int], way: str) -> int:
    """Of one search: what two take more than one."""

    def counted(repeats: int) -> int:
        with tempfile.NamedTemporaryFile() as out:
            tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}"]
            command = [*tool, str(program), *map(str, workload), way, str(repeats)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        collected = re.search(r"Collected : (\d+)", done.stderr)
        assert collected, "valgrind says what it collected"
        return int(collected[1])

    return counted(2) - counted(1)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--repeats", type=int, default=10, help="searches of a round")
    options.add_argument("--build", type=Path, default=ROOT / "build" / "one_worker")
    given = options.parse_args()
    if not shutil.which("cmake"):
        say("cmake is needed to build the search without locks")
        return 2
    serial, parallel = built(given.build / "serial", True), built(given.build / "parallel", False)
    rows = []
    for workload in WORKLOADS:
        named = "/".join(map(str, workload))
        plain_instructions = instructions(serial, workload, "shared") if shutil.which("valgrind") else None
        for way in ("shared", "ranks", "dealt", "bfs"):
            plain: list[float] = []
            ours: list[float] = []
            found = set()
            for turn in range(given.rounds):
                for program, seconds in ((serial, plain), (parallel, ours))[:: 1 if turn % 2 else -1]:
                    least_s, what = searched(program, workload, "shared" if program == serial else way, given.repeats)
                    seconds.append(least_s)
                    # One rank tells its graphs to nobody here.
                    found.add(what.split()[0] if way == "ranks" else what)
            more = None
            if plain_instructions and way != "ranks":
                more = instructions(parallel, workload, way) / plain_instructions - 1
            overhead = min(ours) / min(plain) - 1
            limited = way == "shared" or (way == "ranks" and 1000 * min(plain) >= RANKS_FROM_MS)
            rows.append(
                {
                    "workload": named,
                    "way": way,
                    "serial_ms": 1000 * min(plain),
                    "parallel_ms": 1000 * min(ours),
                    "overhead": overhead,
                    "median_overhead": median([b / a for a, b in zip(plain, ours, strict=True)]) - 1,
                    "instructions": more,
                    "same": len(found) == 1,
                    "holds": len(found) == 1 and (not limited or overhead <= MOST),
                }
            )
            say(f"{named} {way}: {overhead:+.2%}")
    document = {"holds": all(row["holds"] for row in rows), "runs": rows}
    answer(document, given.json)
    return 0 if document["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
