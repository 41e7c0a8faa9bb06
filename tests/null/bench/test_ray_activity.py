"""Who watches a Ray bench sees which GPU of which node has which candidate, and so does who reads the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ray_cluster import LocalCluster, within

from tilesmith.bench.ray import RayBench
from tilesmith.core.activity import Board, Step
from tilesmith.core.budget import Limits
from tilesmith.core.trial import Candidate, Correct
from tilesmith.report.live import Progress, rows
from tilesmith.testing.bench import judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

pytestmark = pytest.mark.triton

SMI = """#!/bin/sh
echo "0, GPU-{node}-0, NVIDIA H200, 143771, 580.1, 9.0"
echo "1, GPU-{node}-1, NVIDIA H200, 143771, 580.1, 9.0"
"""
STATION = """
import time
from tilesmith.bench.local import Judged, Station
from tilesmith.core.trial import Correct, Timing

def judge(self, admitted, scene, rival, leases, *, alone):
    with self._held("shared", admitted.candidate, leases):
        time.sleep(0.8)
    with self._held("exclusive", admitted.candidate, leases):
        time.sleep(0.8)
    return Judged(Correct(Timing(10.0, 9.0, 11.0, 50), 0.1), leases=tuple(leases))

Station.load = lambda self, problem: None
Station.judge = judge
"""
"""What a node's Python begins with: leases of its GPUs are real, only what would run on the device is not."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    (tmp_path / "sitecustomize.py").write_text(STATION)
    (tmp_path / "nvidia-smi").write_text(SMI.format(node="a"))
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path),
        "RAY_OVERRIDE_ACCELERATORS": "1",
        "TMPDIR": str(tmp_path),
    }
    with LocalCluster() as cluster:
        cluster.add("a", cpus=2, gpus=2, environment=environment)
        yield cluster


def test_leases_of_a_cluster_are_seen_while_they_are_held(cluster: LocalCluster) -> None:
    board, seen = Board(), list[Step]()

    def notice(step: Step) -> None:
        seen.append(step)
        board(step)

    with RayBench(cluster.address, workers_per_gpu=1, notice=notice) as bench:
        within(60, lambda: len(bench.devices) == 2)
        first, second = bench.devices
        assert (first.partition("/")[2], second.partition("/")[2]) == ("0", "1")
        sources = [SAMPLES.correct.replace("256", str(2**at)) for at in range(5, 9)]
        pictures: list[dict[str, str]] = []
        for trial in bench.judge(PROBLEM, (Candidate(source, f"by:{at}") for at, source in enumerate(sources)), ()):
            assert isinstance(trial.verdict, Correct)
            assert {lease.device for lease in trial.leases} <= {first, second}
            assert [lease.exclusive for lease in trial.leases] == [False, True]
            now = Progress("p", "r", "ray", Limits(), [trial], 0.0, steps=board.steps, devices=bench.devices)
            pictures.append(dict(rows(now)))
        assert board.steps == ()
        (late,) = judge(bench, PROBLEM, [SAMPLES.other])
        assert late.leases
        time.sleep(1.0)
        assert board.steps == (), "nothing that is heard late brings back who is done"
    told = [step for step in seen if step.device]
    assert {step.device for step in told} == {first, second}
    for source in sources:
        mine = [step for step in told if step.candidate == Candidate(source).id]
        assert [step.exclusive for step in mine] == [False, True]
    assert any(words.startswith(("checking by:", "timing by:")) for each in pictures for words in each.values())


def test_who_is_done_is_heard_of_no_more() -> None:
    board, step = Board(), Step("c", "capturing")
    for state in ("capturing", "judging", "done", "judging"):
        board(replace(step, state=state))  # type: ignore[arg-type]
    assert board.steps == ()
    board(step)
    assert board.steps == (step,)
