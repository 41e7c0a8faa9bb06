"""Which nodes of a cluster are used, for what, and which sentence says why one cannot be."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray_cluster import LocalCluster, within

from tilesmith.bench.gpus import Device, model
from tilesmith.bench.ray import RayBench
from tilesmith.bench.ray.nodes import Node, alive, plan
from tilesmith.bench.ray.reach import chosen, connected
from tilesmith.core.errors import MachineError, OptionError

VERSIONS = {"tilesmith": "1", "torch": "2.13.0", "triton": "3.6.0"}
KINDS = ("NVIDIA H200", "NVIDIA L40S", "NVIDIA B200")


def node(name: str, cpus: int, gpus: int, *kinds: str, **versions: str | None) -> Node:
    devices = tuple(
        Device(at, f"GPU-{name}-{at}", kind, 1 << 37, "580.1", 90, model(kind, 90, 1 << 37))
        for at, kind in enumerate(kinds)
    )
    return Node(name, name, cpus, gpus, {**VERSIONS, **versions}, devices)


nodes = st.lists(
    st.builds(
        lambda name, cpus, gpus, kinds: node(name, cpus, gpus, *kinds),
        st.text("abc", min_size=1, max_size=3),
        st.integers(1, 64),
        st.integers(0, 4),
        st.lists(st.sampled_from(KINDS), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(nodes)
@settings(deadline=None)
def test_one_kind_is_used_and_it_is_the_one_of_which_there_are_most(found: list[Node]) -> None:
    made = plan(found, "1", None, "b200")
    lent = {kind: sum(each.lends(kind) for each in found) for kind in KINDS}
    if made.measured:
        assert made.kind is not None
        assert lent[made.kind] == max(lent.values()) > 0
        assert made.gpu.name == model(made.kind, 90, 1 << 37).name
    else:
        assert max(lent.values()) == 0
        assert made.gpu.name == "b200"
    others = {device.name for each in found for device in each.devices if each.gpus} - {made.kind}
    assert made.measured is False or bool(made.remarks) is bool(others)


@given(nodes, st.sampled_from(["h200", "l40s"]))
@settings(deadline=None)
def test_a_target_chooses_among_the_kinds_that_are_there(found: list[Node], wanted: str) -> None:
    there = {device.name for each in found for device in each.devices if each.lends(device.name)}
    kind = f"NVIDIA {wanted.upper()}"
    if there and kind not in there:
        with pytest.raises(OptionError, match=f"--target is {wanted}, and the Ray cluster has"):
            plan(found, "1", wanted)
    else:
        assert plan(found, "1", wanted).gpu.name == wanted
        assert plan(found, "1", wanted).kind == (kind if there else None)


@given(nodes, st.permutations(range(5)))
@settings(deadline=None)
def test_the_order_in_which_nodes_are_found_decides_nothing(found: list[Node], order: list[int]) -> None:
    shuffled = [found[at] for at in order if at < len(found)]
    assert (plan(found, "1", None).gpu, plan(found, "1", None).kind) == (
        plan(shuffled, "1", None).gpu,
        plan(shuffled, "1", None).kind,
    )


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"torch": "2.11.0"}, "different versions: torch is 2.11.0 on node b and 2.13.0 on node a; install the same"),
        ({"triton": "3.7.0"}, "different versions: triton is 3.7.0 on node b and 3.6.0 on node a"),
        ({"tilesmith": "2"}, "different versions: tilesmith is 2 on node b and 1 on this machine"),
        ({"tilesmith": None}, "node b of the Ray cluster has no tilesmith"),
        ({"torch": None}, "node b of the Ray cluster has no torch"),
    ],
)
def test_versions_must_agree(other: dict[str, str | None], told: str) -> None:
    with pytest.raises(MachineError, match=re.escape(told)):
        plan([node("a", 1, 0), node("b", 1, 0, **other)], "1", None)


def test_gpus_that_nvidia_smi_does_not_show_are_not_used() -> None:
    made = plan([node("a", 8, 2)], "1", None)
    assert not made.measured
    assert made.remarks == ("node a lends GPUs but nvidia-smi shows none there, so times are estimates",)
    with pytest.raises(MachineError, match="no node that lends CPUs or GPUs"):
        plan([], "1", None)


def test_nodes_that_lend_nothing_are_none() -> None:
    rows = [
        {"NodeID": "a", "Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"NodeID": "b", "Alive": False, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 8.0}},
        {"NodeID": "c", "Alive": True, "NodeManagerAddress": "10.0.0.3", "Resources": {"memory": 1.0}},
    ]
    assert alive(rows) == {"a": Node("a", "10.0.0.1", 8, 2, {})}


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ray://here:10001", "here", "here:port", "http://here:6379", ":6379"])
def test_what_can_be_no_address(address: str) -> None:
    with pytest.raises(OptionError, match="--address is") as caught:
        chosen(address)
    assert address in str(caught.value)


def test_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert chosen(None) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert chosen(None) == "10.0.0.1:6379"
    assert chosen("[::1]:7000") == "[::1]:7000"


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that lets anyone in and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def other() -> Iterator[str]:
    """A server that speaks something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_addresses_that_do_not_answer(mute: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    for address, told in [(closed, "no Ray cluster answers at"), (mute, "no Ray cluster answers at")]:
        with pytest.raises(MachineError, match=f"{told} {address}"), connected(address):
            pass
    with pytest.raises(MachineError, match=f"what answers at {other} is no Ray cluster"), connected(other):
        pass
    # Ray alone takes more than a minute for each, and then ends the process.
    assert time.monotonic() - began < 30


# A real cluster -------------------------------------------------------------------------------------------------------


SMI = """#!/bin/sh
echo "0, GPU-{name}-0, {name}, 143771, 580.1, 9.0"
echo "1, GPU-{name}-1, {name}, 143771, 580.1, 9.0"
"""


def test_nodes_that_do_not_fit_together(tmp_path: Path) -> None:
    """Kinds of GPUs, and versions, as real nodes report them: through an nvidia-smi and a package of their own."""
    other = tmp_path / "other" / "torch-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    paths = {}
    for name in ("NVIDIA H200", "NVIDIA L40S"):
        program = tmp_path / name.split()[-1] / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(SMI.format(name=name))
        program.chmod(0o755)
        paths[name] = {"PATH": f"{program.parent}:/usr/bin:/bin", "RAY_OVERRIDE_ACCELERATORS": "1"}
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with LocalCluster() as cluster:
        with pytest.raises(MachineError, match="no node that lends CPUs or GPUs"), RayBench(cluster.address):
            pass
        cluster.add("a", gpus=1, environment=paths["NVIDIA L40S"])
        cluster.add("b", gpus=2, environment=paths["NVIDIA H200"])
        with RayBench(cluster.address, say=said.append) as bench:
            assert (bench.measured, bench.gpu.name) == (True, "h200")
            assert bench.environment.gpu == "NVIDIA H200"
            within(60, lambda: len(bench._crew._hands) == 3)
            # The node of the other kind lends its cores.
            assert sorted(hand.duty.measured for hand in bench._crew._hands) == [False, True, True]
            assert bench._crew.places("check") == 2 * 3
        assert said == ["GPUs of different kinds are never compared: NVIDIA H200 is used, NVIDIA L40S left aside"]
        with RayBench(cluster.address, "l40s") as bench:
            assert bench.environment.gpu == "NVIDIA L40S"
        cluster.add("c", environment={"PYTHONPATH": str(other.parent)})
        with pytest.raises(MachineError) as caught, RayBench(cluster.address):
            pass
        assert re.search(r"different versions: torch is \S+ on node \S+ and \S+ on node", str(caught.value))
        assert "9.9" in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) is before
