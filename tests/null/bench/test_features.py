"""What compiled code holds, on lines as compilers print them and on kernels compiled here."""

from __future__ import annotations

import pytest
from offline_kernels import Kernel, compile_kernels

from tilesmith.bench.features import VOCABULARY, features, load_bytes

LINES = {
    "ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];": {"vector128"},
    "@%p1 ld.global.L1::evict_first.L2::cache_hint.v4.b32 { %r9 }, [ %rd3 + 0 ], %rd4;": {"vector128", "evict_first"},
    "@%p1 ld.global.L1::evict_last.v2.b64 { %rd1, %rd2 }, [ %rd3 + 0 ];": {"vector128", "evict_last"},
    "ld.global.v2.b32 { %r3, %r4 }, [ %rd2 + 0 ];": set(),
    "ld.shared.v4.b32 { %r1, %r2, %r3, %r4 }, [ %r1 + 0 ];": set(),
    "st.global.v4.b32 [ %rd7 + 0 ], { %r17, %r18, %r19, %r20 };": set(),
    "@%p1 atom.global.gpu.acq_rel.add.f32 %r1, [ %rd1 + 0 ], %r2;": {"atomic"},
    "red.relaxed.gpu.global.add.f32 [%rd1], %f1;": {"atomic"},
    "atom.shared.add.f32 %r1, [ %r1 + 0 ], %r2;": set(),
    "cp.async.cg.shared.global [ %r17 + 0 ], [ %rd23 + 0 ], 0x10, %r19;": {"cp.async"},
    "cp.async.commit_group;": set(),
    "@%p3 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], [%r2];": {"tma"},
    "mbarrier.try_wait.parity.shared.b64 complete, [%r33], %r119;": {"mbarrier"},
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};": {"mma"},
    "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1}, {%r2}, {%r3}, {%r1};": {"mma", "fp16_accumulate"},
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f1};": {"mma", "tf32"},
    "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%r1}, %rd1, %rd2, 1, 1, 1, 0, 0;": {"mma", "wgmma"},
    "wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {%r1}, %rd1, %rd2, 1, 1, 1;": {"mma", "wgmma", "tf32"},
    "tcgen05.mma.cta_group::1.kind::f16 [ %r1 ], %rd1, %rd2, %r2, %p1;": {"mma", "wgmma"},
    ".reqnctapercluster 2, 1, 1": {"cluster"},
    ".local .align 16 .b8 \t__local_depot0[64];": {"spill"},
    "add.s32 %r1, %r2, %r3;": set(),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_shows_its_features(line: str) -> None:
    assert features(f"\t{line}\n") == LINES[line]


def test_every_feature_has_a_line() -> None:
    assert set().union(*LINES.values()) == VOCABULARY


@pytest.mark.parametrize(
    ("ptx", "width"),
    [
        ("ld.global.b16 { %rs1 }, [ %rd1 ];", 2.0),
        ("ld.global.v4.b32 { %r1 }, [ %rd1 ];\nld.global.b32 { %r1 }, [ %rd1 ];", 10.0),
        ("@%p1 ld.global.L1::evict_first.L2::cache_hint.v2.b32 { %r9 }, [ %rd3 ], %rd4;", 8.0),
        ("cp.async.cg.shared.global [ %r1 ], [ %rd1 ], 0x10;", 16.0),
        ("ld.shared.v4.b32 { %r1 }, [ %r1 ];", None),
    ],
)
def test_the_mean_width_of_loads(ptx: str, width: float | None) -> None:
    assert load_bytes(ptx) == width


def test_compiled_kernels_show_what_their_source_asks_for() -> None:
    dot = """
@triton.jit
def dot(a_ptr, b_ptr, o_ptr, K, B: tl.constexpr, ACC: tl.constexpr):
    i = tl.arange(0, B)
    acc = tl.zeros((B, B), tl.float16 if ACC else tl.float32)
    for k in range(0, K, B):
        a = tl.load(a_ptr + i[:, None] * K + k + i[None, :])
        b = tl.load(b_ptr + (k + i[:, None]) * B + i[None, :])
        acc = tl.dot(a, b, acc, out_dtype=acc.dtype)
    tl.atomic_add(o_ptr + i[:, None] * B + i[None, :], acc.to(tl.float32))
"""
    types = {"a_ptr": "*fp16", "b_ptr": "*fp16", "o_ptr": "*fp32", "K": "i32", "B": "constexpr", "ACC": "constexpr"}
    wide, narrow, half = compile_kernels(
        [Kernel(dot, "dot", types, {"B": size, "ACC": half}) for size, half in ((64, 0), (32, 0), (32, 1))]
    )
    assert {"mma", "wgmma", "cp.async", "atomic"} <= features(wide.ptx)
    assert "fp16_accumulate" not in features(wide.ptx) | features(narrow.ptx)
    assert "mma" in features(narrow.ptx)
    assert "wgmma" not in features(narrow.ptx)
    assert "fp16_accumulate" in features(half.ptx)
