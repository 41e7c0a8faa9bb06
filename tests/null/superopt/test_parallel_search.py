"""Threads, orders and ranks find what one thread finds, in its order; what dies leaves what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Limits
from tilesmith.superopt import concrete
from tilesmith.superopt import engine as engines
from tilesmith.superopt.build import Program
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.programs import PROGRAMS, norm_lora
from tilesmith.superopt.ranks import launcher, rescued
from tilesmith.superopt.schema import to_json
from tilesmith.superopt.search import Results, Worker, search
from tilesmith.superopt.table import named
from tilesmith.superopt.timeline import trace_json

THREE = Limits(graph_defined_kernels=3, block_ops=9)
NORM_LORA = norm_lora(256, 512, 1024)


def answer(results: Results) -> tuple[object, ...]:
    """What must not depend on who searched."""
    return results.stop, results.candidates, [(f.hash, f.graph, f.estimate_us) for f in results.graphs]


@pytest.fixture(scope="module")
def alone() -> Results:
    return search(NORM_LORA, THREE, Plan(keep=6))


@pytest.mark.parametrize("schedule", ["static", "openmp"])
@pytest.mark.parametrize("order", ["dfs", "bfs"])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_find_what_one_finds(alone: Results, schedule: Any, order: Any, threads: int) -> None:
    frontier_bytes = 30_000 if threads == 3 else 64 << 20
    plan = Plan(keep=6, schedule=schedule, order=order, threads=threads, frontier_bytes=frontier_bytes)
    results = search(NORM_LORA, THREE, plan)
    assert answer(results) == answer(alone)
    assert results.states == alone.states, "no block search is made twice"
    assert len(results.workers) == threads
    assert sum(worker.states for worker in results.workers) == alone.states


@pytest.mark.parametrize("order", ["dfs", "bfs"])
def test_the_first_graphs_are_the_same_ones(order: Any) -> None:
    plan = Plan(keep=6, order=order, max_graphs=40)
    first = search(NORM_LORA, THREE, plan)
    assert first.stop == "graphs"
    assert first.candidates >= 40
    for threads in (2, 5):
        assert answer(search(NORM_LORA, THREE, replace(plan, threads=threads))) == answer(first)


def test_interrupted_threads_keep_what_they_have() -> None:
    limits = Limits(kernel_ops=7, graph_defined_kernels=7)
    made = engines.engine(named(NORM_LORA, limits), limits, Plan(keep=2, threads=3), target())
    timer = threading.Timer(1.0, made.interrupt)
    timer.start()
    result = engines.run(made)
    timer.join()
    assert result.stop == "interrupted"
    assert sum(worker.counters.states for worker in result.workers) > 0
    assert len(made.graphs()) <= 2


def test_a_budget_of_seconds_ends_all_threads() -> None:
    results = search(
        NORM_LORA, Limits(kernel_ops=7, graph_defined_kernels=7), Plan(keep=1, threads=3, order="bfs", seconds=0.5)
    )
    assert results.stop == "seconds"


def accounted(worker: Worker) -> None:
    """One thing after another, all of the time, and its sums are those of the worker."""
    sums = dict.fromkeys(("busy", "waiting", "stealing", "oracle"), 0.0)
    for (name, start_s, end_s), (other, next_s, _) in pairwise((*worker.spans, ("", worker.spans[-1][2], 0.0))):
        assert start_s <= end_s == next_s
        assert name != other
        sums[name] += end_s - start_s
    assert sums["busy"] == pytest.approx(worker.busy_seconds, abs=1e-6)
    assert sums["waiting"] == pytest.approx(worker.wait_seconds, abs=1e-6)
    assert sums["stealing"] == pytest.approx(worker.steal_seconds, abs=1e-6)
    assert sums["oracle"] == pytest.approx(worker.oracle_seconds, abs=1e-6)


def test_a_timeline_accounts_for_all_of_the_time(alone: Results) -> None:
    results = search(NORM_LORA, THREE, Plan(keep=1, threads=2, timeline=True))
    assert results.candidates == alone.candidates
    assert sum(worker.given for worker in results.workers) <= sum(worker.items for worker in results.workers)
    for worker in results.workers:
        accounted(worker)
    events = json.loads(trace_json([results.workers]))["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    assert {event["tid"] for event in events} == {0, 1}


CONCRETE = Plan(space="concrete", rules="paper", keep=1, threads=2, timeline=True)


@pytest.mark.parametrize("schedule", ["static", "openmp"])
@pytest.mark.parametrize("order", ["dfs", "bfs"])
def test_a_timeline_of_the_concrete_space(schedule: Any, order: Any) -> None:
    """A table is asked in nanoseconds: that is no event."""
    plan = replace(CONCRETE, schedule=schedule, order=order)
    limits = Limits(kernel_ops=1, block_ops=6, inputs=2)
    workers = concrete.search(PROGRAMS["rmsnorm_linear"](), limits, plan).workers
    assert len(workers) == 2
    for worker in workers:
        accounted(worker)
        assert worker.oracle_seconds == 0
    moved = sum(worker.given for worker in workers)
    # To it and from it, the giver's turns and the taker's, and what comes before and after.
    assert sum(len(worker.spans) for worker in workers) <= 6 * moved + 8
    assert moved == 0 or schedule == "openmp"
    events = json.loads(trace_json([workers]))["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} >= {"busy", "waiting"}


@pytest.mark.parametrize("cache", ["none", "thread", "shared"])
def test_every_call_of_a_solver_is_an_event(cache: Any) -> None:
    b = Program()
    x, w = b.input("X", (16, 64)), b.input("W", (64, 32))
    b.output(x @ w)
    limits = Limits(kernel_ops=1, block_ops=4, inputs=2)
    plan = replace(CONCRETE, oracle="z3", oracle_cache=cache, oracle_effort=20_000, seconds=2)
    results = concrete.search(b.graph(), limits, plan)
    assert results.oracle.calls > 10
    for worker in results.workers:
        accounted(worker)
    calls = sum(name == "oracle" for worker in results.workers for name, _, _ in worker.spans)
    # What z3's words cannot say is counted, and not asked.
    assert 0 < calls <= results.oracle.calls
    assert sum(worker.oracle_seconds for worker in results.workers) == pytest.approx(results.oracle.seconds)


def test_closures_have_no_order() -> None:
    with pytest.raises(OptionError, match="--order is of the listing"):
        search(PROGRAMS["lora"](), Limits(), Plan(kernels="closure", order="bfs"))


def test_a_closure_dealt_out_is_the_same() -> None:
    plan = Plan(keep=3, kernels="closure")
    first = search(PROGRAMS["lora"](), Limits(), plan)
    for schedule in ("static", "openmp"):
        assert answer(search(PROGRAMS["lora"](), Limits(), replace(plan, schedule=schedule, threads=3))) == answer(
            first
        )


# Ranks

LONG = Path("transformer_layer")
"""A published program that takes minutes."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "norm_lora.json"
    path.write_text(to_json(NORM_LORA), "utf-8")
    return path


def command(ranks: int, program: Path, kernels: int, *flags: str) -> list[str]:
    tool = Path(sys.executable).parent / "tilesmith"
    tilesmith = [str(tool), "superoptimize", str(program), "--json", "--schedule", "mpi"]
    limits = ["--graph-defined-kernels", str(kernels), "--kernel-ops", str(kernels), "--block-ops", "9", "--keep", "6"]
    return [launcher(), "-n", str(ranks), *tilesmith, *limits, *flags]


def document(out: str) -> Any:
    """The one JSON document of all that ranks and launcher wrote."""
    found, _ = json.JSONDecoder().raw_decode(out[out.index("{") :])
    return found


def launched(ranks: int, program: Path, kernels: int, flags: Sequence[str] = ()) -> tuple[int, Any, str]:
    done = subprocess.run(
        command(ranks, program, kernels, *flags), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.count('"program"') == 1, done.stdout[-2000:] + done.stderr[-2000:]
    return done.returncode, document(done.stdout), done.stderr


@pytest.mark.parametrize(
    ("ranks", "flags"),
    [
        (1, []),
        (2, []),
        (2, ["--order", "bfs", "--threads", "2"]),
        (3, ["--pull", "requests"]),
    ],
)
def test_ranks_find_what_one_thread_finds(alone: Results, program: Path, ranks: int, flags: list[str]) -> None:
    status, found, _ = launched(ranks, program, 3, flags)
    assert status == 0
    assert (found["stop"], found["candidates"]) == (alone.stop, alone.candidates)
    assert [graph["hash"] for graph in found["graphs"]] == [graph.hash for graph in alone.graphs]
    assert [graph["estimate_us"] for graph in found["graphs"]] == [graph.estimate_us for graph in alone.graphs]
    assert {worker["rank"] for worker in found["workers"]} == set(range(ranks))
    assert found["states"] == alone.states, "no block search is made twice"


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_close_what_one_thread_closes(program: Path, ranks: int) -> None:
    alone = search(NORM_LORA, Limits(block_ops=9), Plan(keep=6, kernels="closure"))
    status, found, _ = launched(ranks, program, 1, ["--kernels", "closure", "--threads", "2"])
    assert status == 0
    assert (found["stop"], found["candidates"], found["states"]) == (alone.stop, alone.candidates, alone.states)
    assert [graph["hash"] for graph in found["graphs"]] == [graph.hash for graph in alone.graphs]
    assert [graph["estimate_us"] for graph in found["graphs"]] == [graph.estimate_us for graph in alone.graphs]
    assert {worker["rank"] for worker in found["workers"]} == set(range(ranks))


def test_what_ranks_told_of_a_closure_is_kept() -> None:
    limits, plan = Limits(block_ops=9), Plan(keep=3, kernels="closure")
    made = engines.engine(named(NORM_LORA, limits), limits, plan, target(), ranks=1)
    work = threading.Thread(target=made.run)
    work.start()
    told, next_chunk = [(b"B", b"closure")], 0
    while work.is_alive() or told[-1][1]:
        if made.ready and made.waiting < 2:
            made.offer(next_chunk)
            next_chunk += 1
        told.append((b"F", made.fresh() if made.ready else b""))
    work.join()
    alone = search(NORM_LORA, limits, plan)
    kept = rescued(NORM_LORA, limits, plan, told)
    assert kept is not None
    assert kept.stop == "interrupted"
    assert kept.graphs == alone.graphs
    some = rescued(NORM_LORA, limits, plan, [one for one in told if one[1]][:40])
    assert some is not None
    assert some.candidates < alone.candidates


IN_CONCRETE = ["--space", "concrete", "--rules", "paper", "--kernel-ops", "1", "--keep", "6", "--json"]


@pytest.mark.parametrize(
    ("ranks", "flags"), [(2, []), (3, ["--threads", "2"]), (2, ["--order", "bfs", "--timeline", "trace.json"])]
)
def test_ranks_in_the_concrete_space(ranks: int, flags: list[str], tmp_path: Path) -> None:
    limits = Limits(kernel_ops=1, block_ops=6, inputs=3, shared_bytes=96 << 10)
    alone = concrete.search(PROGRAMS["rmsnorm_linear"](), limits, Plan(space="concrete", rules="paper", keep=6))
    tool = str(Path(sys.executable).parent / "tilesmith")
    words = [tool, "superoptimize", "rmsnorm_linear", *IN_CONCRETE, "--block-ops", "6", "--schedule", "mpi", *flags]
    done = subprocess.run(
        [launcher(), "-n", str(ranks), *words], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    found = document(done.stdout)
    assert done.returncode == 0
    assert done.stdout.count('"program"') == 1
    assert (found["stop"], found["candidates"], found["states"]) == (alone.stop, alone.candidates, alone.states)
    assert [graph["hash"] for graph in found["graphs"]] == [graph.hash for graph in alone.graphs]
    assert {worker["rank"] for worker in found["workers"]} == set(range(ranks))
    assert found["pruned"] == {name: getattr(alone.pruned, name) for name in alone.pruned.__dataclass_fields__}
    assert (tmp_path / "trace.json").exists() == ("--timeline" in flags)


def test_the_first_graphs_of_ranks(program: Path) -> None:
    first = search(NORM_LORA, THREE, Plan(keep=6, max_graphs=40))
    status, found, _ = launched(2, program, 3, ["--max-graphs", "40"])
    assert (status, found["stop"], found["candidates"]) == (0, "graphs", first.candidates)
    assert [graph["hash"] for graph in found["graphs"]] == [graph.hash for graph in first.graphs]


def test_a_budget_ends_all_ranks() -> None:
    _, found, _ = launched(2, LONG, 7, ["--budget-seconds", "1.5"])
    assert found["stop"] == "seconds"


def _rank_of(pid: int) -> str:
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((pair.partition(b"=")[2].decode() for pair in pairs if pair.startswith(b"PMI_RANK=")), "")


def _busy_s(pid: int) -> float:
    """Processor time. Starting takes one or two seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _searching(program: Path, rank: str) -> list[int]:
    """Processes of a rank that have been searching this program for a while."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(entry.name)
        if str(program).encode() in words and _rank_of(pid) == rank and _busy_s(pid) > 4:
            found.append(pid)
    return found


@pytest.mark.parametrize("victim", ["0", "1"])
@pytest.mark.parametrize("concretely", [False, True])
def test_a_rank_that_dies_leaves_what_was_found(program: Path, victim: str, concretely: bool) -> None:
    flags = ["--space", "concrete", "--rules", "paper", "--block-ops", "10"] if concretely else []
    program, kernels = (program, 1) if concretely else (LONG, 7)
    job = subprocess.Popen(
        command(2, program, kernels, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while not (found := _searching(program, victim)) and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(found[0], signal.SIGKILL)
        out, errors = job.communicate(timeout=100)
    finally:
        job.kill()
    assert job.returncode != 0
    assert "A rank of the job ended before the search did" in errors
    kept = document(out)
    assert kept["stop"] == "interrupted"
    assert "a rank of the job ended" in kept["reason"]


def test_another_mpi_s_launcher_is_told(program: Path) -> None:
    """Every process would believe that it is alone."""
    env = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2"}
    done = subprocess.run(command(1, program, 3)[3:], capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 2
    assert "mpi4py's MPI sees one of them" in document(done.stdout)["message"]


def test_without_mpi4py_the_extra_is_named(program: Path, tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no module')", "utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(1, program, 3)[3:], capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 2
    assert "pip install 'tilesmith[mpi]'" in document(done.stdout)["message"]
