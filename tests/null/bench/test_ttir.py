"""What a program does, against kernels whose traffic can be counted by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_kernels import Kernel, Texts, compile_kernels

from tilesmith.bench.triton_ir import parameters
from tilesmith.bench.ttir import Access, Work, work

SOURCES = {
    "add": """
@triton.jit
def add(x_ptr, y_ptr, o_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    y = tl.load(y_ptr + i, mask=i < n, eviction_policy="evict_first")
    tl.store(o_ptr + i, x + y, mask=i < n)
""",
    "matvec": """
@triton.jit
def matvec(a_ptr, x_ptr, o_ptr, K, SPLIT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    acc = tl.zeros((BM, BK), tl.float32)
    part = tl.cdiv(K, SPLIT)
    begin = tl.program_id(1) * part
    for k in range(begin, min(begin + part, K), BK):
        c = k + tl.arange(0, BK)
        a = tl.load(a_ptr + rows[:, None] * K + c[None, :], mask=c[None, :] < K, other=0.0)
        acc += a.to(tl.float32) * tl.load(x_ptr + c, mask=c < K, other=0.0).to(tl.float32)[None, :]
    tl.atomic_add(o_ptr + rows, tl.sum(acc, 1))
""",
    "matmul": """
@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    columns = tl.cdiv(N, BN)
    m = tl.program_id(0) // columns * BM + tl.arange(0, BM)
    n = tl.program_id(0) % columns * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    a = a_ptr + m[:, None] * K + k[None, :]
    b = b_ptr + k[:, None] * N + n[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for step in tl.range(0, tl.cdiv(K, BK), num_stages=4):
        left = tl.load(a, mask=k[None, :] < K - step * BK, other=0.0)
        acc = tl.dot(left, tl.load(b), acc)
        a += BK
        b += BK * N
    tl.store(c_ptr + m[:, None] * N + n[None, :], acc.to(tl.float16))
""",
    "persistent": """
@triton.jit
def persistent(x_ptr, o_ptr, rows, D, BLOCK: tl.constexpr):
    for r in range(tl.program_id(0), rows, tl.num_programs(0)):
        total = tl.zeros((BLOCK,), tl.float32)
        for i in range(0, D, BLOCK):
            c = i + tl.arange(0, BLOCK)
            total += tl.load(x_ptr + r * D + c, mask=c < D, other=0.0)
        tl.store(o_ptr + r, tl.sum(total, 0))
""",
    "triangle": """
@triton.jit
def triangle(x_ptr, o_ptr, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(0, tl.program_id(0) + 1):
        for j in range(0, i):
            total += tl.load(x_ptr + (i + j) * BLOCK + tl.arange(0, BLOCK))
    tl.store(o_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), total)
""",
    "turns": """
@triton.jit
def turns(x_ptr, o_ptr, n, BLOCK: tl.constexpr):
    tile = tl.program_id(0)
    while tile < tl.cdiv(n, BLOCK):
        i = tile * BLOCK + tl.arange(0, BLOCK)
        tl.store(o_ptr + i, tl.exp2(tl.load(x_ptr + i, mask=i < n)), mask=i < n)
        tile += tl.num_programs(0)
""",
    "early": """
@triton.jit
def early(x_ptr, o_ptr, n, BLOCK: tl.constexpr):
    if tl.program_id(0) * BLOCK >= n:
        return
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(o_ptr + i, tl.load(x_ptr + i))
""",
    "gather": """
@triton.jit
def gather(x_ptr, i_ptr, o_ptr, stride, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.load(i_ptr + i))
    tl.store(o_ptr + i * stride, x)
""",
    "spin": """
@triton.jit
def spin(c_ptr, o_ptr, n):
    tl.atomic_add(c_ptr, 1)
    while tl.atomic_add(c_ptr, 0) < n:
        pass
    if tl.load(c_ptr) > 5:
        tl.store(o_ptr, 1.0)
""",
    "helper": """
@triton.jit(noinline=True)
def twice(x_ptr, n):
    return tl.load(x_ptr + n) * 2.0

@triton.jit
def helper(x_ptr, o_ptr, n):
    tl.store(o_ptr, twice(x_ptr, n))
""",
    "descriptor": """
@triton.jit
def descriptor(a_ptr, b_ptr, o_ptr, N, K, B: tl.constexpr):
    a = tl.make_tensor_descriptor(a_ptr, [N, K], [K, 1], [B, B])
    b = tl.make_tensor_descriptor(b_ptr, [N, K], [K, 1], [B, B])
    o = tl.make_tensor_descriptor(o_ptr, [N, N], [N, 1], [B, B])
    m, n = tl.program_id(0) * B, tl.program_id(1) * B
    acc = tl.zeros((B, B), tl.float32)
    for k in range(0, K, B):
        acc = tl.dot(a.load([m, k]), b.load([n, k]).T, acc)
    o.store([m, n], acc.to(tl.float16))
""",
    "exact": """
@triton.jit
def exact(a_ptr, o_ptr, B: tl.constexpr):
    i = tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :]
    a = tl.load(a_ptr + i)
    tl.store(o_ptr + i, tl.dot(a, a, input_precision="ieee") + tl.dot(a, a, input_precision="tf32"))
""",
}

SIZES = {
    "add": {"BLOCK": 1024},
    "matvec": {"SPLIT": 4, "BM": 4, "BK": 256},
    "matmul": {"BM": 64, "BN": 128, "BK": 32},
    "persistent": {"BLOCK": 128},
    "triangle": {"BLOCK": 64},
    "turns": {"BLOCK": 256},
    "early": {"BLOCK": 256},
    "gather": {"BLOCK": 128},
    "spin": {},
    "helper": {},
    "descriptor": {"B": 64},
    "exact": {"B": 32},
}
ELEMENTS = {"matmul": "fp16", "descriptor": "fp16", "matvec": "bf16"}


def kernel(name: str) -> Kernel:
    words = SOURCES[name].split(f"def {name}(")[1].split(")")[0].split(", ")
    signature = {}
    for word in words:
        parameter, _, constexpr = word.partition(":")
        element = "i32" if parameter in ("c_ptr", "i_ptr") and name != "matmul" else ELEMENTS.get(name, "fp32")
        signature[parameter] = "constexpr" if constexpr else f"*{element}" if parameter.endswith("_ptr") else "i32"
    return Kernel(SOURCES[name], name, signature, SIZES[name])


@pytest.fixture(scope="module")
def texts() -> dict[str, Texts]:
    return dict(zip(SOURCES, compile_kernels([kernel(name) for name in SOURCES]), strict=True))


def accesses(done: Work) -> dict[str, Access]:
    return {access.pointer: access for access in done.accesses}


def test_masks_count_what_they_let_through(texts: dict[str, Texts]) -> None:
    done = work(texts["add"].ttir, {"n": 10_000}, (10, 1, 1))
    seen = accesses(done)
    assert seen["x_ptr"].loaded * 10 == pytest.approx(40_000)
    assert seen["y_ptr"].loaded * 10 == pytest.approx(40_000)
    assert seen["o_ptr"].stored * 10 == pytest.approx(40_000)
    assert seen["o_ptr"].loaded == seen["x_ptr"].stored == 0
    assert done.flops == 1024
    assert (done.rounds, done.loop_rounds, done.notes) == (1, 0, ())


def test_a_loop_counts_as_often_as_it_turns(texts: dict[str, Texts]) -> None:
    done = work(texts["matvec"].ttir, {"K": 65_536}, (512, 4, 1))
    seen = accesses(done)
    assert seen["a_ptr"].loaded == 4 * 16_384 * 2
    assert seen["x_ptr"].loaded == 16_384 * 2
    assert (seen["o_ptr"].atomics, seen["o_ptr"].atomic_bytes) == (4, 8)
    assert (done.iterations, done.loop_rounds, done.rounds) == (64, 64, 1)
    # A product and a sum are one instruction, and two operations.
    assert done.flops == pytest.approx(4 * 16_384 * 2, rel=0.05)


def test_a_ragged_last_pass_counts_once(texts: dict[str, Texts]) -> None:
    done = work(texts["matvec"].ttir, {"K": 65_536 - 4 * 56}, (512, 4, 1))
    assert accesses(done)["a_ptr"].loaded == pytest.approx(4 * (16_384 - 56) * 2, rel=0.02)
    assert done.iterations == 64


def test_dots_have_a_shape_and_a_count(texts: dict[str, Texts]) -> None:
    done = work(texts["matmul"].ttir, {"N": 512, "K": 1000}, (32, 1, 1))
    (dot,) = done.dots
    assert (dot.kind, dot.m, dot.n, dot.k, dot.count) == ("fp16", 64, 128, 32, 32)
    assert done.dot_flops == 2 * 64 * 128 * 1024
    assert done.stages == 4
    # The mask of the last pass cuts A off at K; B is loaded beyond it.
    assert accesses(done)["a_ptr"].loaded == pytest.approx(64 * 1000 * 2)
    assert accesses(done)["b_ptr"].loaded == 128 * 1024 * 2


def test_precise_dots_are_not_the_matrix_units(texts: dict[str, Texts]) -> None:
    done = work(texts["exact"].ttir, {}, (1, 1, 1))
    assert [(dot.kind, dot.count) for dot in done.dots] == [("tf32", 1)]
    assert done.alu >= 32**3
    assert done.flops >= 2 * 32**3


def test_a_persistent_loop_shares_the_rows_out(texts: dict[str, Texts]) -> None:
    done = work(texts["persistent"].ttir, {"rows": 1000, "D": 500}, (132, 1, 1))
    assert accesses(done)["x_ptr"].loaded * 132 == pytest.approx(1000 * 500 * 4, rel=0.03)
    assert done.imbalance == pytest.approx(8 / (1000 / 132), rel=0.03)


def test_bounds_may_depend_on_outer_loops(texts: dict[str, Texts]) -> None:
    done = work(texts["triangle"].ttir, {}, (33, 1, 1))
    exact = sum(p * (p + 1) / 2 for p in range(33)) / 33
    assert done.iterations == pytest.approx(exact, rel=0.15)
    assert done.imbalance > 2


def test_the_turns_of_a_while_loop_are_found(texts: dict[str, Texts]) -> None:
    done = work(texts["turns"].ttir, {"n": 1_000_000}, (100, 1, 1))
    assert accesses(done)["x_ptr"].loaded * 100 == pytest.approx(4_000_000, rel=0.03)
    assert done.notes == ()
    # Special functions cost more than their count.
    assert done.alu > 8 * done.flops


def test_programs_that_leave_early_do_nothing(texts: dict[str, Texts]) -> None:
    done = work(texts["early"].ttir, {"n": 512}, (4, 1, 1))
    assert accesses(done)["x_ptr"].loaded == 512
    assert done.imbalance == pytest.approx(2)


def test_scattered_elements_move_whole_sectors(texts: dict[str, Texts]) -> None:
    done = work(texts["gather"].ttir, {"stride": 64}, (4, 1, 1))
    seen = accesses(done)
    assert (seen["o_ptr"].stored, seen["o_ptr"].moved) == (512, 128 * 32)
    # The gather waits for its indices first.
    assert done.rounds == 2
    assert work(texts["gather"].ttir, {"stride": 2}, (4, 1, 1)).moved == pytest.approx(512 + 512 + 1024, rel=0.01)


def test_what_depends_on_data_is_noted(texts: dict[str, Texts]) -> None:
    done = work(texts["spin"].ttir, {"n": 10}, (10, 1, 1))
    assert accesses(done)["c_ptr"].atomics == 2
    assert accesses(done)["o_ptr"].stored == 2
    assert len(done.notes) == 2


def test_functions_that_are_called_count(texts: dict[str, Texts]) -> None:
    assert accesses(work(texts["helper"].ttir, {"n": 3}, (1, 1, 1)))["x_ptr"].loaded == 4


def test_descriptors_are_followed_to_their_tensor(texts: dict[str, Texts]) -> None:
    done = work(texts["descriptor"].ttir, {"N": 256, "K": 512}, (4, 4, 1))
    seen = accesses(done)
    assert seen["a_ptr"].loaded == seen["b_ptr"].loaded == 64 * 512 * 2
    assert seen["o_ptr"].stored == 64 * 64 * 2


def test_unknown_arguments_are_noted_not_fatal(texts: dict[str, Texts]) -> None:
    done = work(texts["matvec"].ttir, {"K": "many"}, (512, 4, 1))
    assert any("argument K is unknown" in note for note in done.notes)
    assert accesses(done)["a_ptr"].loaded == 4 * 256 * 2


def test_parameters_are_those_that_the_compiler_kept(texts: dict[str, Texts]) -> None:
    kept = [("x_ptr", "!tt.ptr<f32>"), ("y_ptr", "!tt.ptr<f32>"), ("o_ptr", "!tt.ptr<f32>"), ("n", "i32")]
    assert list(parameters(texts["add"].ttir) or ()) == kept
    assert parameters("no IR") is None


def test_it_is_fast(texts: dict[str, Texts]) -> None:
    began = time.perf_counter()
    for text in texts.values():
        work(text.ttir, {}, (1000, 4, 1))
    assert time.perf_counter() - began < 0.02 * len(texts) * 5  # the machine may be busy


NEWER = """\
#loc = loc("x")
module {
  tt.func public @scale(%a_d: !tt.tensordesc<64x32xf16> loc("a_d"(#loc)), %a_d.shape.0: i32 loc("a_d.shape.0"(#loc)), \
%o_ptr: !tt.ptr<f16> {tt.divisibility = 16 : i32} loc("o_ptr"(#loc)), %n: i32 loc("n"(#loc))) \
attributes {noinline = false} {
    %c32_i32 = arith.constant 32 : i32 loc(#loc)
    %c0_i32 = arith.constant 0 : i32 loc(#loc)
    %p = tt.splat %o_ptr : !tt.ptr<f16> -> tensor<64x32x!tt.ptr<f16>> loc(#loc)
    scf.for %k = %c0_i32 to %n step %c32_i32  : i32 {
      %a = tt.descriptor_load %a_d[%c0_i32, %k] : !tt.tensordesc<64x32xf16> -> tensor<64x32xf16> loc(#loc)
      %b = tt.future_thing %a {some = "thing"} : tensor<64x32xf16> -> tensor<64x32xf16> loc(#loc)
      tt.store %p, %b {cachePolicy = #tt.cache_policy<cache_modifier = none, eviction_policy = evict_first>} : \
tensor<64x32x!tt.ptr<f16>> loc(#loc)
    } {tt.num_stages = 5 : i32, tt.warp_specialize} loc(#loc)
    tt.return loc(#loc)
  } loc(#loc)
} loc(#loc)
"""


def test_newer_forms_and_unknown_operations_are_read() -> None:
    done = work(NEWER, {"n": 320}, (1, 1, 1))
    assert accesses(done)["a_d"].loaded == 10 * 64 * 32 * 2
    assert (done.stages, done.iterations) == (5, 10)
    # One element, stored 2048 times over.
    assert accesses(done)["o_ptr"].stored == 10 * 2
    assert [name for name, _ in parameters(NEWER) or ()] == ["a_d", "a_d.shape.0", "o_ptr", "n"]


@settings(deadline=None)
@given(st.text(max_size=400) | st.lists(st.sampled_from(NEWER.splitlines()), max_size=30).map("\n".join))
def test_no_text_is_fatal(text: str) -> None:
    done = work(text, {"n": 7}, (3, 2, 1))
    assert replace(done, notes=()) == replace(work(text, {"n": 7}, (3, 2, 1)), notes=())


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 40))
def test_masked_sums_are_exact_over_the_grid(n: int, programs: int) -> None:
    """However the last program is cut, all of them together load each element once."""
    block = 64
    text = f"""
  tt.func public @k(%x_ptr: !tt.ptr<f32> loc("x_ptr"), %n: i32 loc("n")) attributes {{noinline = false}} {{
    %c = arith.constant {block} : i32 loc(#loc)
    %p = tt.get_program_id x : i32 loc(#loc)
    %b = arith.muli %p, %c : i32 loc(#loc)
    %r = tt.make_range {{end = {block} : i32, start = 0 : i32}} : tensor<{block}xi32> loc(#loc)
    %s = tt.splat %b : i32 -> tensor<{block}xi32> loc(#loc)
    %i = arith.addi %s, %r : tensor<{block}xi32> loc(#loc)
    %m = tt.splat %n : i32 -> tensor<{block}xi32> loc(#loc)
    %t = arith.cmpi slt, %i, %m : tensor<{block}xi32> loc(#loc)
    %a = tt.splat %x_ptr : !tt.ptr<f32> -> tensor<{block}x!tt.ptr<f32>> loc(#loc)
    %q = tt.addptr %a, %i : tensor<{block}x!tt.ptr<f32>>, tensor<{block}xi32> loc(#loc)
    %v = tt.load %q, %t : tensor<{block}x!tt.ptr<f32>> loc(#loc)
    tt.return loc(#loc)
  }} loc(#loc)
"""
    grid = -(-n // block)
    assert work(text, {"n": n}, (grid, 1, 1)).loaded * grid == pytest.approx(4 * n)
    few = work(text, {"n": n}, (min(programs, 6), 1, 1))
    assert few.loaded * min(programs, 6) == pytest.approx(4 * min(n, block * min(programs, 6)))
