"""The roofline against its own laws, and against times that were measured on one H200."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_kernels import Kernel, Texts, compile_kernels

from tilesmith.bench.compiled import Choice, Compiled, Operator, Pointer
from tilesmith.bench.features import features
from tilesmith.bench.roofline import choose, estimate, resident
from tilesmith.core.gpu import FIRST_LAUNCH_S, TABLE, target
from tilesmith.core.profile import KernelProfile, Launch

H200 = target("h200")

MATVEC = """
@triton.jit
def matvec(a_ptr, x_ptr, o_ptr, M, K, BM: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    acc = tl.zeros((BM, BK), tl.float32)
    part = K // SPLIT
    for k in range(tl.program_id(1) * part, tl.program_id(1) * part + part, BK):
        c = k + tl.arange(0, BK)
        a = tl.load(a_ptr + rows[:, None].to(tl.int64) * K + c[None, :]).to(tl.float32)
        acc += a * tl.load(x_ptr + c).to(tl.float32)[None, :]
    if SPLIT == 1:
        tl.store(o_ptr + rows, tl.sum(acc, 1))
    else:
        tl.atomic_add(o_ptr + rows, tl.sum(acc, 1))
"""
MATMUL = """
@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, G: tl.constexpr):
    pid = tl.program_id(0)
    group = G * tl.cdiv(N, BN)
    first = pid // group * G
    size = min(tl.cdiv(M, BM) - first, G)
    m = (first + (pid % group) % size) * BM + tl.arange(0, BM)
    n = (pid % group) // size * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    a = a_ptr + m[:, None] * K + k[None, :]
    b = b_ptr + k[:, None] * N + n[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, K, BK):
        acc = tl.dot(tl.load(a, mask=m[:, None] < M, other=0.0), tl.load(b), acc)
        a += BK
        b += BK * N
    tl.store(c_ptr + m[:, None] * N + n[None, :], acc.to(tl.float16), mask=m[:, None] < M)
"""
READER = """
@triton.jit
def reader(x_ptr, o_ptr, n, BLOCK: tl.constexpr):
    acc = tl.zeros((BLOCK,), tl.float32)
    for t in range(tl.program_id(0) * BLOCK, n, tl.num_programs(0) * BLOCK):
        acc += tl.load(x_ptr + t + tl.arange(0, BLOCK)).to(tl.float32)
    tl.store(o_ptr + tl.program_id(0), tl.sum(acc, 0))
"""
COPY = """
@triton.jit
def copy(x_ptr, o_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(o_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n)
"""
COUNT = """
@triton.jit
def count(o_ptr, BLOCK: tl.constexpr):
    tl.atomic_add(o_ptr + tl.arange(0, BLOCK) % 1, 1.0)
"""
VECTOR = {"a_ptr": "*bf16", "x_ptr": "*bf16", "o_ptr": "*fp32", "M": "i32", "K": "i32"}
MATRIX = {"a_ptr": "*fp16", "b_ptr": "*fp16", "c_ptr": "*fp16", "M": "i32", "N": "i32", "K": "i32"}
STREAM = {"x_ptr": "*bf16", "o_ptr": "*fp32", "n": "i32"}


def constants(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "constexpr")


def matvec(bm: int, bk: int, split: int, warps: int) -> Kernel:
    sizes = {"BM": bm, "BK": bk, "SPLIT": split}
    return Kernel(MATVEC, "matvec", VECTOR | constants(*sizes), sizes, warps)


def matmul(bm: int, bn: int, bk: int, group: int, warps: int, stages: int) -> Kernel:
    sizes = {"BM": bm, "BN": bn, "BK": bk, "G": group}
    return Kernel(MATMUL, "matmul", MATRIX | constants(*sizes), sizes, warps, stages)


def stream(source: str, name: str, block: int, warps: int) -> Kernel:
    types = STREAM | ({"o_ptr": "*bf16"} if name == "copy" else {})
    return Kernel(source, name, types | constants("BLOCK"), {"BLOCK": block}, warps)


M, K = 2048, 1 << 20
TALL = {"M": M, "K": K}
BYTES = {"a_ptr": 2 * M * K, "x_ptr": 2 * K, "o_ptr": 4 * M}
SQUARE = {"M": 4096, "N": 4096, "K": 4096}
FLAT = {"M": 2, "N": 6144, "K": 4096}


def matrices(sizes: dict[str, int]) -> dict[str, int]:
    m, n, k = sizes["M"], sizes["N"], sizes["K"]
    return {"a_ptr": 2 * m * k, "b_ptr": 2 * k * n, "c_ptr": 2 * m * n}


# Microseconds measured on one H200 with a cold L2 cache: kernel, grid, scalars, bytes of the tensors, median.
MEASURED: dict[str, tuple[Kernel, tuple[int, int, int], dict[str, int], dict[str, int], float]] = {
    "matvec start": (matvec(128, 256, 1, 8), (16, 1, 1), TALL, BYTES, 4556.4),
    "matvec 128 programs": (matvec(16, 256, 1, 4), (128, 1, 1), TALL, BYTES, 2603.9),
    "matvec narrow": (matvec(4, 256, 1, 4), (512, 1, 1), TALL, BYTES, 2104.5),
    "matvec wider": (matvec(16, 1024, 1, 8), (128, 1, 1), TALL, BYTES, 1080.2),
    "matvec ragged": (matvec(2, 2048, 1, 4), (1024, 1, 1), TALL, BYTES, 1367.9),
    "matvec best": (matvec(4, 4096, 4, 8), (512, 4, 1), TALL, BYTES, 936.3),
    "matmul 128x256": (matmul(128, 256, 64, 8, 8, 3), (512, 1, 1), SQUARE, matrices(SQUARE), 202.2),
    "matmul 64x64": (matmul(64, 64, 32, 8, 4, 3), (4096, 1, 1), SQUARE, matrices(SQUARE), 466.0),
    "matmul 32x32": (matmul(32, 32, 32, 8, 4, 3), (16384, 1, 1), SQUARE, matrices(SQUARE), 1002.8),
    "flat 16x128": (matmul(16, 128, 64, 1, 4, 4), (48, 1, 1), FLAT, matrices(FLAT), 32.3),
    "reader 528": (stream(READER, "reader", 4096, 8), (528, 1, 1), {"n": 24969216}, {"x_ptr": 49938432}, 21.5),
    "reader 132": (stream(READER, "reader", 4096, 4), (132, 1, 1), {"n": 24969216}, {"x_ptr": 49938432}, 55.5),
    "reader 16": (stream(READER, "reader", 4096, 4), (16, 1, 1), {"n": 24969216}, {"x_ptr": 49938432}, 334.1),
    "copy 8192": (
        stream(COPY, "copy", 8192, 8), (32768, 1, 1), {"n": 1 << 28}, {"x_ptr": 1 << 29, "o_ptr": 1 << 29}, 269.5
    ),
    "copy 128": (
        stream(COPY, "copy", 128, 1), (1 << 21, 1, 1), {"n": 1 << 28}, {"x_ptr": 1 << 29, "o_ptr": 1 << 29}, 1265.3
    ),
    "count 1": (Kernel(COUNT, "count", {"o_ptr": "*fp32", "BLOCK": "constexpr"}, {"BLOCK": 1024}), (1024, 1, 1), {},
                {"o_ptr": 4}, 1847.3),
}  # fmt: skip


def compiled(
    kernel: Kernel, text: Texts, grid: tuple[int, int, int], scalars: dict[str, int], nbytes: dict[str, int]
) -> Compiled:
    launch = Launch(
        kernel=kernel.name,
        grid=grid,
        warps=kernel.warps,
        stages=kernel.stages,
        shared_bytes=text.shared_bytes,
        registers=text.registers,
        spills=text.spills,
        arguments=tuple(sorted({**scalars, **kernel.constants}.items())),
        features=features(text.ptx),
    )
    names = list(kernel.signature)
    pointers = [Pointer(name, names.index(name), kernel.signature[name][1:], size) for name, size in nbytes.items()]
    return Compiled(launch, text.ttir, text.ptx, tuple(pointers))


@pytest.fixture(scope="module")
def launches() -> dict[str, Compiled]:
    texts = compile_kernels([row[0] for row in MEASURED.values()])
    return {
        name: compiled(kernel, text, grid, scalars, nbytes)
        for (name, (kernel, grid, scalars, nbytes, _)), text in zip(MEASURED.items(), texts, strict=True)
    }


def only(launch: Compiled, gpu: str = "h200") -> KernelProfile:
    (kernel,) = estimate((launch,), target(gpu)).kernels
    return kernel


# Against measurements ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
def test_an_estimate_is_within_a_factor_of_two(launches: dict[str, Compiled], name: str) -> None:
    assert 0.5 < only(launches[name]).time_us / MEASURED[name][-1] < 2


def test_estimates_rank_as_measurements_do(launches: dict[str, Compiled]) -> None:
    measured = sorted(MEASURED, key=lambda name: MEASURED[name][-1])
    estimated = sorted(MEASURED, key=lambda name: only(launches[name]).time_us)
    count = len(MEASURED)
    apart = sum((measured.index(name) - estimated.index(name)) ** 2 for name in MEASURED)
    assert 1 - 6 * apart / (count * (count**2 - 1)) > 0.95


def test_limiters_are_what_a_person_would_say(launches: dict[str, Compiled]) -> None:
    limits = {name: only(launch).limiter for name, launch in launches.items()}
    assert limits["matvec start"] == limits["reader 16"] == "parallelism"
    assert limits["matvec best"] == limits["copy 8192"] == limits["reader 528"] == "dram"
    assert limits["matvec narrow"] == limits["matvec 128 programs"] == "latency"
    assert limits["matmul 32x32"] == "l2"
    assert limits["copy 128"] == "launch"
    assert limits["count 1"] == "atomics"


# Laws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", TABLE)
@pytest.mark.parametrize("name", MEASURED)
def test_no_kernel_beats_the_hardware(launches: dict[str, Compiled], name: str, gpu: str) -> None:
    chip = target(gpu)
    kernel = only(launches[name], gpu)
    assert kernel.time_us > 1e6 * FIRST_LAUNCH_S
    assert kernel.time_us >= 1e6 * kernel.dram_bytes / chip.readable_bytes_per_s
    if launches[name].launch.kernel == "matmul":
        products = 2.0 * math.prod(MEASURED[name][2].values())
        assert kernel.flops >= products
        assert kernel.time_us >= 1e6 * products / chip.matrix_flops("fp16")
    assert 0 < kernel.occupancy <= 1
    assert kernel.waves > 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(["matvec start", "matvec best", "matmul 64x64"]))
def test_a_longer_sum_never_takes_less(launches: dict[str, Compiled], one: int, two: int, name: str) -> None:
    """More bytes and more operations, on the same grid."""
    launch = launches[name]

    def grown(factor: int) -> Compiled:
        step = 16_384 if "matvec" in name else 32
        arguments = {**dict(launch.launch.arguments), "K": step * factor}
        scaled = replace(launch.launch, arguments=tuple(sorted(arguments.items())))
        return replace(launch, launch=scaled, pointers=())

    short, long = sorted((one, two))
    assert only(grown(short)).time_us <= only(grown(long)).time_us * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40_000), st.integers(1, 40_000), st.sampled_from(["copy 8192", "reader 528", "matvec best"]))
def test_more_programs_of_one_size_never_take_less(
    launches: dict[str, Compiled], one: int, two: int, name: str
) -> None:
    launch = launches[name]

    def spread(programs: int) -> Compiled:
        # The rows of `reader` are shared out; each of its programs gets ten blocks.
        arguments = {**dict(launch.launch.arguments), "n": programs * 10 * 4096}
        grid = replace(launch.launch, grid=(programs, 1, 1), arguments=tuple(sorted(arguments.items())))
        return replace(launch, launch=grid, pointers=())

    few, many = sorted((one, two))
    assert only(spread(few)).time_us <= only(spread(many)).time_us * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 255), st.integers(0, 232_448), st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from(list(TABLE))
)
def test_occupancy_is_a_share(registers: int, shared_bytes: int, warps: int, gpu: str) -> None:
    launch = Launch("k", (1, 1, 1), warps, 1, shared_bytes, registers, 0)
    empty = Compiled(launch, "", "")
    held = resident(empty, target(gpu))
    assert held >= 1
    assert 0 < only(empty, gpu).occupancy <= 1
    tighter = replace(empty, launch=replace(launch, registers=registers + 8, shared_bytes=shared_bytes + 1024))
    assert resident(tighter, target(gpu)) <= held


def test_occupancy_follows_the_scarcest_resource() -> None:
    def held(registers: int, shared_bytes: int, warps: int) -> int:
        return resident(Compiled(Launch("k", (1, 1, 1), warps, 1, shared_bytes, registers, 0), "", ""), H200)

    assert held(32, 0, 4) == 16  # 64 warps
    assert held(128, 0, 4) == 4  # 65,536 registers
    assert held(32, 100_000, 4) == 2  # 228 KiB
    assert held(16, 0, 1) == 32  # 32 blocks


# Calls ---------------------------------------------------------------------------------------------------------------


def test_a_call_is_the_sum_of_its_steps(launches: dict[str, Compiled]) -> None:
    fill = Operator("aten.zeros", "fill", 1 << 30)
    one, two = launches["reader 528"], launches["matmul 64x64"]
    profile = estimate((fill, one, two), H200)
    assert [kernel.kernel for kernel in profile.kernels] == ["aten.zeros", "reader", "matmul"]
    assert (profile.source, profile.target) == ("estimate", "h200")
    assert profile.kernels[0].time_us > 1e6 * (1 << 30) / H200.readable_bytes_per_s
    assert profile.kernels[0].limiter == "dram"
    assert estimate((one, one), H200).time_us < 2 * estimate((one,), H200).time_us
    assert estimate((), H200).time_us == 0


def test_what_the_launch_before_left_in_the_cache_is_found_there(launches: dict[str, Compiled]) -> None:
    launch = launches["flat 16x128"]
    known = replace(launch, pointers=tuple(replace(pointer, tensor=pointer.name) for pointer in launch.pointers))
    small = replace(known, pointers=tuple(replace(pointer, nbytes=1 << 20) for pointer in known.pointers))
    first, again = estimate((small, small), H200).kernels
    assert again.dram_bytes < first.dram_bytes


def test_spilled_registers_cost(launches: dict[str, Compiled]) -> None:
    launch = launches["matvec best"]
    times = [only(replace(launch, launch=replace(launch.launch, spills=spills))).time_us for spills in (0, 20, 200)]
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]


def test_a_choice_takes_its_fastest_configuration_until_one_is_chosen(launches: dict[str, Compiled]) -> None:
    slow, fast = launches["matvec start"], launches["matvec best"]
    assert choose(Choice((slow, fast)), H200) == 1
    assert choose(Choice((fast, fast)), H200) == 0
    assert estimate((Choice((slow, fast)),), H200) == estimate((fast,), H200)
    assert estimate((Choice((slow, fast), chosen=0),), H200) == estimate((slow,), H200)


def test_a_kernel_without_ir_is_an_empty_one() -> None:
    kernel = only(Compiled(Launch("k", (132, 1, 1), 4, 3, 0, 32, 0), "", ""))
    assert 3 < kernel.time_us < 5
    assert kernel.limiter == "launch"
