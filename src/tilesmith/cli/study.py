"""`tilesmith study search`: schedules, orders and oracles of the superoptimizer in comparison, with plots.

Every cell is a search in a process of its own. What it measured is one line of OUT/cells.jsonl, written when the cell
is done and never changed: an interrupted study goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from tilesmith.cli.screen import answer, say
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.names import unknown
from tilesmith.report import study_plots
from tilesmith.report.study import COPIES, Cell, Measured, Row, agreements, disagreements, from_line, measured, rows
from tilesmith.superopt.schema import to_json
from tilesmith.superopt.workloads import WORKLOADS

SCHEDULES = ("static", "openmp", "mpi", COPIES)
ORDERS = ("dfs", "bfs")
ORACLES = ("table", "z3-none", "z3-thread", "z3-shared")
CELLS = "cells.jsonl"
GRACE_S = 60.0
"""Beyond its budget, for the start of a process, ranking and verification."""


@dataclass(frozen=True, slots=True)
class Study:
    """What to compare: every combination that there is. Raises `OptionError` for a name that nobody knows."""

    programs: tuple[str, ...]
    schedules: tuple[str, ...]
    orders: tuple[str, ...]
    oracles: tuple[str, ...]
    threads: tuple[int, ...]
    ranks: tuple[int, ...]
    repeats: int
    budget_seconds: float
    """Of one cell."""

    def __post_init__(self) -> None:
        for flag, given, known in (
            ("programs", self.programs, tuple(WORKLOADS)),
            ("schedules", self.schedules, SCHEDULES),
            ("orders", self.orders, ORDERS),
            ("oracles", tuple(name.partition("/")[0] for name in self.oracles), ORACLES),
        ):
            if not given:
                raise OptionError(f"--{flag} is empty; known are: {', '.join(known)}")
            if wrong := [name for name in given if name not in known]:
                raise OptionError(f"--{flag}: {unknown('name', wrong[0], known)}")
        for name in self.oracles:
            _, slash, every = name.partition("/")
            if slash and not (every.isascii() and every.isdigit() and 1 <= int(every) <= 64):
                raise OptionError(f"--oracles: {name!r} must end in /N, N from 1 to 64, as in table/2")
        for flag, numbers in (("threads", self.threads), ("ranks", self.ranks), ("repeats", (self.repeats,))):
            if not numbers or not all(1 <= number <= 1024 for number in numbers):
                raise OptionError(f"--{flag} takes numbers from 1 to 1024")
        if not self.budget_seconds > 0:
            raise OptionError(f"--budget-seconds is {self.budget_seconds}; give more than 0.")

    def cells(self) -> tuple[Cell, ...]:
        """All combinations, repeats last, so that an interrupted study has something of each."""
        made: list[Cell] = []
        for repeat, program, oracle in product(range(self.repeats), self.programs, self.oracles):
            for order, schedule in product(self.orders, self.schedules):
                for ranks, threads in product(self.ranks if schedule == "mpi" else (1,), self.threads):
                    # Copies are what the serial search is; z3 belongs to the concrete space.
                    if schedule == COPIES and (order != "dfs" or oracle != "table"):
                        continue
                    if program.startswith("symbolic/") and oracle != "table":
                        continue
                    made.append(Cell(program, schedule, order, oracle, threads, ranks, repeat))
        return tuple(dict.fromkeys(made))


def numbers(flag: str, words: str) -> tuple[int, ...]:
    """Numbers between commas, each once. Raises `OptionError`."""
    parts = [part.strip() for part in words.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise OptionError(f"--{flag} is {words!r}; it must be numbers such as 1,2,4")
    return tuple(dict.fromkeys(int(part) for part in parts))


def study_search(study: Study, out: Path, as_json: bool) -> int:
    """0 where every cell was measured, 1 where one was not, or where the study was interrupted."""
    done = _known(out)
    cells = study.cells()
    faults: list[str] = []
    reused = sum(cell in done for cell in cells)
    if reused:
        say(f"{reused} of {len(cells)} cells are in {out / CELLS} already")
    interrupted = False
    for number, cell in enumerate(cells, start=1):
        if cell in done:
            continue
        try:
            found = _measure(cell, out, study.budget_seconds)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; what was measured is kept, and the same command goes on from it")
            break
        if isinstance(found, str):
            faults.append(f"{cell}: {found}")
            say(f"[{number}/{len(cells)}] {faults[-1]}")
            continue
        with (out / CELLS).open("a", encoding="utf-8") as lines:
            lines.write(found.to_line() + "\n")
        done[cell] = found
        say(f"[{number}/{len(cells)}] {cell}: {found.stop}, {found.seconds:.2f} s, {found.states:,} states")
    wanted = [done[cell] for cell in cells if cell in done]
    table, differ, same = rows(wanted), disagreements(wanted), agreements(wanted)
    document: dict[str, Any] = {
        "verdict": None,
        "message": None,
        "stop": "interrupted" if interrupted else "exhausted",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cells": len(wanted),
        "reused": reused,
        "faults": faults,
        "disagreements": list(differ),
        "agreements": [asdict(one) for one in same],
        "rows": [asdict(row) for row in table],
    }
    try:
        (out / "study.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
        document["plots"] = [str(path) for path in study_plots.write(table, out)]
    except OSError as error:
        raise MachineError(f"the plots cannot be written to {out}: {error.strerror}") from error
    if as_json:
        answer(json.dumps(document, allow_nan=False))
    else:
        for row in table:
            answer(_line(row))
        for sentence in (*same, *differ, *faults):
            answer(str(sentence))
        answer(f"plots, study.json and {CELLS} are in {out}")
    return 1 if interrupted or faults or differ else 0


def _line(row: Row) -> str:
    words = [f"{row.cell!s:72}", f"{row.seconds:8.2f} s", row.stop]
    if row.speedup is not None:
        words.append(f"{row.speedup:5.2f} times {row.baseline}" if str(row.cell) != row.baseline else "the baseline")
    if row.cpu_speedup is not None:
        words.append(f"balanced {row.cpu_speedup:.2f}")
    words.append(f"imbalance {row.imbalance:.2f}")
    if row.given:
        words.append(f"{row.given:,} pieces moved")
    if row.calls:
        words.append(f"{row.oracle_seconds:.2f} s in the solver, {row.lock_seconds:.4f} s waiting for shared answers")
    return "  ".join(words)


def _known(out: Path) -> dict[Cell, Measured]:
    """What an earlier study left. Raises `OptionError` where nothing can be kept."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = (out / CELLS).read_text("utf-8") if (out / CELLS).exists() else ""
        if text and not text.endswith("\n"):
            # The last line was cut off; the next one must not join it.
            with (out / CELLS).open("a", encoding="utf-8") as lines:
                lines.write("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--out: {out} cannot hold a study: {error}") from None
    read = [from_line(line) for line in text.splitlines()]
    return {one.cell: one for one in read if one is not None}


def _measure(cell: Cell, out: Path, budget_seconds: float) -> Measured | str:
    """What a cell takes, or in one sentence why nobody knows."""
    path = out / f"{cell.workload.replace('/', '-')}.json"
    path.write_text(to_json(WORKLOADS[cell.workload].graph()) + "\n", "utf-8")
    command = [sys.executable, "-m", "tilesmith.cli", "superoptimize", str(path), *WORKLOADS[cell.workload].options]
    command += [*_options(cell), "--budget-seconds", str(budget_seconds), "--json"]
    if cell.schedule == "mpi":
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(cell.ranks), *command]
    copies = cell.threads if cell.schedule == COPIES else 1
    answers = _run([command] * copies, budget_seconds + GRACE_S)
    if isinstance(answers, str):
        return answers
    try:
        found = [measured(cell, document) for document in answers]
    except (KeyError, TypeError):
        return str(answers[0].get("message") or "its answer is none of a search")
    # Copies that run at once: the mean is what one of them takes.
    return replace(found[0], seconds=fmean(one.seconds for one in found)) if copies > 1 else found[0]


def _options(cell: Cell) -> list[str]:
    oracle, _, every = cell.oracle.partition("/")
    kind, _, cache = oracle.partition("-")
    schedule = "openmp" if cell.schedule == COPIES else cell.schedule
    options = ["--schedule", schedule, "--order", cell.order, "--oracle", kind]
    options += ["--threads", "1" if cell.schedule == COPIES else str(cell.threads)]
    options += ["--oracle-cache", cache] if cache else []
    return [*options, "--oracle-every", every] if every else options


def _run(commands: Sequence[Sequence[str]], limit_s: float) -> list[dict[str, Any]] | str:
    """The JSON answers of processes that run at once, or in one sentence why there are none."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(number) for number in range(len(commands))]
        try:
            for command, path in zip(commands, outputs, strict=True):
                with path.open("wb") as output, path.with_suffix(".err").open("wb") as errors:
                    processes.append(
                        subprocess.Popen(
                            command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True
                        )
                    )
            deadline_s = time.monotonic() + limit_s
            for process in processes:
                process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"it did not end within {limit_s:.0f} s"
        finally:
            for process in processes:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        found: list[dict[str, Any]] = []
        for path in outputs:
            try:
                found.append(json.loads(path.read_text("utf-8")))
            except ValueError:
                words = path.with_suffix(".err").read_text("utf-8", "replace").strip().splitlines()
                return words[-1] if words else "it gave no answer"
        return found
