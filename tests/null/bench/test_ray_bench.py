"""The bench on a real Ray cluster keeps every bench's promises, and loses nothing when a node is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from ray_cluster import LocalCluster, within

from tilesmith.bench.effort import Effort
from tilesmith.bench.ray import RayBench
from tilesmith.core.errors import MachineError
from tilesmith.core.trial import Candidate, Correct, Duplicate, Trial
from tilesmith.testing.bench import RunningBenchConformance, judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

pytestmark = pytest.mark.triton

EFFORT = Effort(capture_s=25.0, check_s=25.0, full_s=25.0)
SECRET = "TILESMITH_TEST_SECRET"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        for name in ("one", "two"):
            cluster.add(name, environment={SECRET: "only the controller may know"})
        yield cluster


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def bench(cluster: LocalCluster, said: list[str]) -> Iterator[RayBench]:
    with RayBench(cluster.address, effort=EFFORT, say=said.append) as bench:
        yield bench


class TestRayBench(RunningBenchConformance):
    @pytest.fixture
    def bench(self, bench: RayBench) -> RayBench:
        return bench


def test_without_gpus_it_estimates(bench: RayBench) -> None:
    assert (bench.measured, bench.gpu.name) == (False, "h200")
    (trial,) = judge(bench, PROBLEM, [SAMPLES.correct])
    assert trial.environment is not None
    assert (trial.environment.bench, trial.environment.target, trial.environment.gpu) == ("ray", "h200", None)
    assert trial.cost.wall_s > 0


def test_confirm_and_profile(bench: RayBench) -> None:
    (trial,) = judge(bench, PROBLEM, [SAMPLES.correct])
    again = bench.confirm(PROBLEM, replace(trial, round=3), None)
    assert isinstance(again.verdict, Correct)
    assert (again.round, again.fingerprint) == (3, trial.fingerprint)
    assert bench.profile(PROBLEM, trial) == trial.profile


def test_nothing_of_ray_reaches_a_process_of_the_bench(bench: RayBench) -> None:
    """Its environment is a few names, its descriptors are its own."""
    judge(bench, PROBLEM, [SAMPLES.correct])
    seen = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"tilesmith.bench." not in (process / "cmdline").read_bytes():
                continue
            environment = (process / "environ").read_bytes()
            assert SECRET.encode() not in environment
            assert b"RAY_" not in environment
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
            assert not [name for name in opened if "ray" in name]
            seen += 1
    assert seen >= 4, "an oracle and a capturing zygote on each node, to say the least"


def variants(count: int) -> list[str]:
    """Correct kernels that compile to different code."""
    return [SAMPLES.correct.replace("256", str(2**at)) for at in range(4, 4 + count)]


def test_a_node_is_killed_in_the_middle(cluster: LocalCluster, bench: RayBench, said: list[str]) -> None:
    cluster.add("doomed")
    within(60, lambda: bench._crew.places("check") == 3 and len(bench._crew._hands) == 3)
    doomed = bench._crew._hands[-1]
    given = [*variants(6), SAMPLES.renamed, *variants(8)[6:], SAMPLES.wrong, SAMPLES.commented]
    trials: list[Trial] = []
    for trial in bench.judge(PROBLEM, [Candidate(source, "test") for source in given], ()):
        if not trials:
            within(60, lambda: min(doomed.free.values()) == 0)
            cluster.kill("doomed")
        trials.append(trial)
    assert sorted(trial.candidate.source for trial in trials) == sorted(given), "one trial each, none twice"
    verdicts = {trial.candidate.source: trial.verdict for trial in trials}
    assert all(isinstance(verdicts[source], Correct) for source in variants(8))
    same = Candidate(variants(8)[4]).id
    assert verdicts[SAMPLES.renamed] == verdicts[SAMPLES.commented] == Duplicate(same)
    assert any("was lost, what it had begun is judged again" in line for line in said)
    assert doomed not in bench._crew._hands
    # Until Ray knows that the node is gone, a worker in place of the lost one is asked for there.
    within(60, lambda: bench._crew.places("check") == 2)


def test_all_nodes_are_lost_and_one_comes_back(cluster: LocalCluster, bench: RayBench) -> None:
    (first,) = judge(bench, PROBLEM, [SAMPLES.correct])
    for name in ("one", "two"):
        cluster.kill(name)
    coming = threading.Timer(3.0, cluster.add, ["three"])
    coming.start()
    (trial,) = judge(bench, PROBLEM, [SAMPLES.other], [first])
    coming.join()
    assert isinstance(trial.verdict, Correct)


def test_times_of_another_kind_are_not_compared(bench: RayBench) -> None:
    (trial,) = judge(bench, PROBLEM, [SAMPLES.correct])
    assert trial.environment is not None
    other = replace(trial, environment=replace(trial.environment, target="b200"))
    with pytest.raises(MachineError, match=r"estimates for b200, and the Ray cluster estimates for h200: .* never"):
        judge(bench, PROBLEM, [SAMPLES.other], [other])
