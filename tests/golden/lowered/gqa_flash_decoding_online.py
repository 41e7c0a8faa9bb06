"""
Lowered from µGraph 1a5b5f16ac906f60.

    Q: fp16 [2, 256, 64]
    K: fp16 [2, 64, 4096]
    V: fp16 [2, 4096, 64]
    node 0: a kernel of grid [2, 8, 16], loop 4
        Q imap [0, 1, -], fmap -
        K imap [0, -, 2], fmap 2
        V imap [0, -, 1], fmap 1
        matmul, 16, div, accumulate rescale, accumulate rescale, accumulate max, reshape, reshape, reshape
        -> v3 [16, 2, 256, 64], omap [1, 2, 0]
        -> v4 [16, 2, 256, 1], omap [1, 2, 0]
        -> v5 [16, 2, 256, 1], omap [1, 2, 0]
    node 1: a kernel of grid [2, 8], loop 1
        v3 imap [1, 2], fmap -
        v4 imap [1, 2], fmap -
        v5 imap [1, 2], fmap -
        amax, sub, exp, mul, sum, mul, sum, div, reshape
        -> v6 [2, 256, 64], omap [0, 1]
    returns v6

It is made for inputs of any extents.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def matmul_div_softmax_kernel_0(
    Q_ptr,
    K_ptr,
    V_ptr,
    between1_ptr,
    between2_ptr,
    between3_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    program = tl.program_id(0)
    rows_tile = program % tl.cdiv(ROWS, BLOCK_ROWS)
    others = program // tl.cdiv(ROWS, BLOCK_ROWS)
    share = others % 16
    others = others // 16
    batch = others
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    depth = tl.arange(0, BLOCK_DEPTH)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    depth_inside = depth < DEPTH if DEPTH % BLOCK_DEPTH else tl.full((BLOCK_DEPTH,), True, tl.int1)
    columns = tl.arange(0, BLOCK_COLUMNS)
    columns_inside = columns < COLUMNS if COLUMNS % BLOCK_COLUMNS else tl.full((BLOCK_COLUMNS,), True, tl.int1)
    q = tl.load(
        Q_ptr + batch * (DEPTH * ROWS) + rows[:, None] * DEPTH + depth[None, :],
        mask=rows_inside[:, None] & depth_inside[None, :],
        other=0.0,
    )
    peaks = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    mixed = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    weights = tl.zeros((BLOCK_ROWS,), tl.float32)
    SHARE: tl.constexpr = tl.cdiv(INNER, 16)
    inner_first = share * SHARE
    inner_stop = tl.minimum(inner_first + SHARE, INNER)
    for inner_start in range(inner_first, inner_stop, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        inner_inside = inner < inner_stop if INNER % (16 * BLOCK_INNER) else tl.full((BLOCK_INNER,), True, tl.int1)
        k = tl.load(
            K_ptr + batch * (DEPTH * INNER) + depth[:, None] * INNER + inner[None, :],
            mask=depth_inside[:, None] & inner_inside[None, :],
            other=0.0,
        )
        v = tl.load(
            V_ptr + batch * (COLUMNS * INNER) + inner[:, None] * COLUMNS + columns[None, :],
            mask=inner_inside[:, None] & columns_inside[None, :],
            other=0.0,
        )
        product = tl.dot(q, k)
        ratio = product / 16.0
        scores = tl.where(inner_inside[None, :], ratio, float("-inf"))
        new_peaks = tl.maximum(peaks, tl.max(scores, axis=1))
        finite_peaks = tl.where(new_peaks == float("-inf"), 0.0, new_peaks)
        shrink = tl.exp(peaks - finite_peaks)
        e = tl.exp(scores - finite_peaks[:, None])
        peaks = new_peaks
        mixed = tl.dot(e.to(tl.float16), v, mixed * shrink[:, None])
        weights = weights * shrink + tl.sum(e, axis=1)
    tl.store(
        between1_ptr + share * (BATCH * COLUMNS * ROWS) + batch * (COLUMNS * ROWS) + rows[:, None] * COLUMNS + columns[None, :],
        mixed,
        mask=rows_inside[:, None] & columns_inside[None, :],
    )
    tl.store(between2_ptr + share * (BATCH * ROWS) + batch * ROWS + rows, weights, mask=rows_inside)
    tl.store(between3_ptr + share * (BATCH * ROWS) + batch * ROWS + rows, peaks, mask=rows_inside)


@triton.jit
def amax_sub_div_kernel_1(
    between1_ptr,
    between2_ptr,
    between3_ptr,
    made4_ptr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    program = tl.program_id(0)
    columns_tile = program % tl.cdiv(COLUMNS, BLOCK_COLUMNS)
    others = program // tl.cdiv(COLUMNS, BLOCK_COLUMNS)
    rows_tile = others % tl.cdiv(ROWS, BLOCK_ROWS)
    others = others // tl.cdiv(ROWS, BLOCK_ROWS)
    batch = others
    depth = tl.arange(0, BLOCK_DEPTH)
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = columns_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    columns_inside = columns < COLUMNS if COLUMNS % BLOCK_COLUMNS else tl.full((BLOCK_COLUMNS,), True, tl.int1)
    between1 = tl.load(
        between1_ptr + depth[:, None, None] * (BATCH * COLUMNS * ROWS) + batch * (COLUMNS * ROWS) + rows[None, :, None] * COLUMNS + columns[None, None, :],
        mask=rows_inside[None, :, None] & columns_inside[None, None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    between2 = tl.load(
        between2_ptr + depth[:, None] * (BATCH * ROWS) + batch * ROWS + rows[None, :],
        mask=rows_inside[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    between3 = tl.load(
        between3_ptr + depth[:, None] * (BATCH * ROWS) + batch * ROWS + rows[None, :],
        mask=rows_inside[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    most = tl.max(between3, axis=0)
    less = between3 - most[None, :]
    e = tl.exp(less)
    scaled = between1 * e[:, :, None]
    total = tl.sum(scaled, axis=0)
    scaled2 = between2 * e
    total2 = tl.sum(scaled2, axis=0)
    ratio = total / total2[:, None]
    tl.store(
        made4_ptr + batch * (COLUMNS * ROWS) + rows[:, None] * COLUMNS + columns[None, :],
        ratio.to(tl.float16),
        mask=rows_inside[:, None] & columns_inside[None, :],
    )


def kernel_function(Q, K, V):
    BATCH = Q.shape[0]
    ROWS = Q.shape[1]
    DEPTH = Q.shape[2]
    INNER = K.shape[2]
    COLUMNS = V.shape[2]
    between1 = torch.empty((16, BATCH, ROWS, COLUMNS), device=Q.device, dtype=torch.float32)
    between2 = torch.empty((16, BATCH, ROWS, 1), device=Q.device, dtype=torch.float32)
    between3 = torch.empty((16, BATCH, ROWS, 1), device=Q.device, dtype=torch.float32)
    BLOCK_ROWS_0, BLOCK_INNER_0 = 64, 128
    BLOCK_DEPTH_0 = max(triton.next_power_of_2(DEPTH), 16)
    BLOCK_COLUMNS_0 = max(triton.next_power_of_2(COLUMNS), 16)
    matmul_div_softmax_kernel_0[(triton.cdiv(ROWS, BLOCK_ROWS_0) * 16 * BATCH,)](
        Q.contiguous(),
        K.contiguous(),
        V.contiguous(),
        between1,
        between2,
        between3,
        ROWS,
        DEPTH,
        INNER,
        COLUMNS,
        BATCH,
        BLOCK_ROWS=BLOCK_ROWS_0,
        BLOCK_DEPTH=BLOCK_DEPTH_0,
        BLOCK_INNER=BLOCK_INNER_0,
        BLOCK_COLUMNS=BLOCK_COLUMNS_0,
        num_warps=8,
        num_stages=5,
    )
    made4 = torch.empty((BATCH, ROWS, COLUMNS), device=Q.device, dtype=torch.float16)
    BLOCK_DEPTH_1, BLOCK_ROWS_1, BLOCK_COLUMNS_1 = 16, 4, 64
    amax_sub_div_kernel_1[(triton.cdiv(COLUMNS, BLOCK_COLUMNS_1) * triton.cdiv(ROWS, BLOCK_ROWS_1) * BATCH,)](
        between1,
        between2,
        between3,
        made4,
        COLUMNS,
        ROWS,
        BATCH,
        BLOCK_DEPTH=BLOCK_DEPTH_1,
        BLOCK_ROWS=BLOCK_ROWS_1,
        BLOCK_COLUMNS=BLOCK_COLUMNS_1,
        num_warps=4,
        num_stages=1,
    )
    return made4
