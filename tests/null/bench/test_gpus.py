"""Models of GPUs, finding them without a driver's help, and leases that end with their holder."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilesmith.bench.gpus import find, lease
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import DEFAULT, TABLE, Gpu, target

# Models --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", TABLE.values(), ids=lambda gpu: gpu.name)
def test_a_row_is_plausible_and_dense(gpu: Gpu) -> None:
    """Tables that print sparse rates give themselves away: no chip does more than this a clock and multiprocessor."""
    flops_per_clock = gpu.fp16_flops / gpu.multiprocessors / gpu.clock_hz
    most = {80: 2_048, 89: 1_024, 90: 4_096, 100: 8_192, 120: 1_024}[gpu.arch]
    if gpu.name.startswith("rtx"):
        most //= 2  # GeForce sums in float32 at half the rate
    assert 0.7 * most <= flops_per_clock <= 1.05 * most
    assert gpu.fp16_flops / gpu.tf32_flops == pytest.approx(2, rel=0.03)
    assert gpu.fp8_flops is None or gpu.fp8_flops / gpu.fp16_flops == pytest.approx(2, rel=0.03)
    assert gpu.fp32_flops <= 256 * 1.08 * gpu.multiprocessors * gpu.clock_hz
    assert gpu.block_shared_bytes + 1024 == gpu.shared_bytes
    assert gpu.dram_bytes_per_s > gpu.readable_bytes_per_s > 0.8 * gpu.dram_bytes_per_s


def test_what_was_measured_on_the_h200() -> None:
    assert target("h200").readable_bytes_per_s == pytest.approx(4.42e12)
    assert target("h200").matrix_flops("fp16") == pytest.approx(750e12)


def test_without_fp8_units_operands_are_widened() -> None:
    assert target("a100-80").matrix_flops("fp8") == target("a100-80").matrix_flops("fp16")


def test_a_target_is_found_however_it_is_written() -> None:
    assert target() is TABLE[DEFAULT]
    assert target("H100_SXM") is target("h100 sxm") is TABLE["h100-sxm"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("h100", "h100-sxm, h100-pcie, h100-nvl"),
        ("h20", "h200"),
        ("rtx-4090", "rtx4090"),
        ("mi300", "a100-40, a100-80"),
    ],
)
def test_an_unknown_target_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(OptionError, match=f"'{name}'.*{near}"):
        target(name)


# This host -----------------------------------------------------------------------------------------------------------

ROWS = """\
0, GPU-aaaa1111, NVIDIA H200, 143771, 580.159.04, 9.0
1, GPU-aaaa2222, NVIDIA A100-SXM4-40GB, 40960, 580.159.04, 8.0
2, GPU-bbbb3333, NVIDIA H100 PCIe, 81559, 580.159.04, 9.0
3, GPU-cccc4444, NVIDIA A10G, 23028, 580.159.04, 8.6
4, GPU-dddd5555, NVIDIA GB10, [N/A], 580.159.04, 12.1
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that prints `ROWS`, and no CUDA_VISIBLE_DEVICES."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{ROWS}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


@pytest.mark.usefixtures("smi")
def test_devices_get_their_model() -> None:
    h200, a100, h100, a10g = find()
    assert (h200.index, h200.uuid, h200.driver, h200.arch) == (0, "GPU-aaaa1111", "580.159.04", 90)
    assert (h200.gpu, a100.gpu, h100.gpu) == (TABLE["h200"], TABLE["a100-40"], TABLE["h100-pcie"])
    assert h200.memory_bytes == 143771 << 20
    assert (a10g.gpu.name, a10g.gpu.arch, a10g.gpu.memory_bytes) == ("a10g", 86, 23028 << 20)
    assert a10g.gpu.multiprocessors == TABLE["a100-40"].multiprocessors


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize(
    ("variable", "indices"),
    [
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("0,9,1", [0]),
        ("0,0", []),
        ("GPU-bbbb", [2]),
        ("gpu-cccc4444,1", [3, 1]),
        ("GPU-aaaa", []),
        ("MIG-1234", []),
        ("0,,1", [0]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(
    variable: str, indices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert [device.index for device in find()] == indices


@pytest.mark.parametrize("body", ["exit 9", "echo 'no devices were found'", "printf '\\377\\376'", "kill -9 $$"])
def test_a_driver_that_fails_shows_nothing(smi: Path, body: str) -> None:
    smi.write_text(f"#!/bin/sh\n{body}\n")
    assert find() == ()


def test_without_a_driver_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find() == ()


def test_nothing_heavy_is_imported() -> None:
    code = """
import sys
from tilesmith.bench import compiled, features, fingerprint, gpus, roofline, ttir
gpus.find()
sys.exit(len({"torch", "triton", "numpy"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Leases --------------------------------------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from tilesmith.bench.gpus import lease
with lease("GPU-test", sys.argv[1]):
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    sys.stdin.readline()
print("freed", flush=True)
"""


class Holder:
    """Another process that holds the lease until told."""

    def __init__(self, mode: str, how: str = "plain") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, mode, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def says(self, word: str, within_s: float = 20.0) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], within_s)
        return bool(ready) and self.process.stdout.readline() == f"{word}\n"

    def free(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.says("freed")


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Holder]]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    started: list[Holder] = []
    yield started
    for holder in started:
        os.killpg(holder.process.pid, signal.SIGKILL)
        holder.process.communicate()


def start(holders: list[Holder], mode: str, how: str = "plain") -> Holder:
    holders.append(Holder(mode, how))
    return holders[-1]


def test_an_exclusive_lease_keeps_everyone_out_and_names_its_holder(holders: list[Holder]) -> None:
    holder = start(holders, "exclusive")
    assert holder.says("held")
    for mode in ("shared", "exclusive"):
        refused = pytest.raises(MachineError, match=f"GPU-test is in use by process {holder.process.pid};")
        with refused, lease("GPU-test", mode, timeout_s=0.02):  # type: ignore[arg-type]
            pass
    with lease("GPU-other", "exclusive", timeout_s=0):
        pass
    holder.free()
    with lease("GPU-test", "exclusive", timeout_s=0):
        pass


def test_shared_leases_share(holders: list[Holder]) -> None:
    assert start(holders, "shared").says("held")
    with lease("GPU-test", "shared", timeout_s=0):
        pass
    with pytest.raises(MachineError), lease("GPU-test", "exclusive", timeout_s=0.02):
        pass


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_a_killed_holder_frees_the_gpu_even_when_its_children_live(holders: list[Holder], how: str) -> None:
    holder = start(holders, "exclusive", how)
    assert holder.says("held")
    os.kill(holder.process.pid, signal.SIGKILL)
    with lease("GPU-test", "exclusive", timeout_s=10):
        pass


def test_shared_leases_cannot_starve_an_exclusive_one(holders: list[Holder]) -> None:
    first = start(holders, "shared")
    assert first.says("held")
    waiter = start(holders, "exclusive")
    deadline = time.monotonic() + 20
    refusal = ""
    while not refusal and time.monotonic() < deadline:
        try:
            with lease("GPU-test", "shared", timeout_s=0):
                time.sleep(0.01)
        except MachineError as error:
            refusal = str(error)
    # Named is who holds the GPU, not who waits for it.
    assert f"process {first.process.pid};" in refusal
    first.free()
    assert waiter.says("held")


def test_an_error_inside_frees_the_gpu(holders: list[Holder]) -> None:
    assert holders == []
    with pytest.raises(KeyError), lease("GPU-test", "exclusive"):
        raise KeyError("x")
    with lease("GPU-test", "exclusive", timeout_s=0):
        pass


def test_the_folder_is_the_users_own(holders: list[Holder], tmp_path: Path) -> None:
    assert holders == []
    with lease("GPU/../../x", "shared"):
        folder = tmp_path / f"tilesmith-{os.geteuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert sorted(file.name for file in folder.iterdir()) == ["GPU_______x.lock", "GPU_______x.turn"]
    folder.chmod(0o777)
    with pytest.raises(MachineError, match="open to other users"), lease("GPU-test", "shared"):
        pass
