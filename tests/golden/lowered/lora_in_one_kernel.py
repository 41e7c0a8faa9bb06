"""
Lowered from µGraph 742e3dae9d9ce3b7.

    X: fp16 [16, 256]
    W: fp16 [256, 4096]
    A: fp16 [256, 16]
    B: fp16 [16, 4096]
    node 0: a kernel of grid [32], loop 4
        X imap [-], fmap 1
        W imap [1], fmap 0
        A imap [-], fmap 0
        B imap [1], fmap -
        matmul, accumulate sum, matmul, accumulate sum, matmul, add
        -> v4 [16, 4096], omap [1]
    returns v4

It is made for inputs of any extents.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def matmul_add_kernel(
    X_ptr,
    W_ptr,
    A_ptr,
    B_ptr,
    made1_ptr,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    program = tl.program_id(0)
    columns_tile = program
    rows = tl.arange(0, BLOCK_ROWS)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    columns = columns_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    columns_inside = columns < COLUMNS if COLUMNS % BLOCK_COLUMNS else tl.full((BLOCK_COLUMNS,), True, tl.int1)
    depth = tl.arange(0, BLOCK_DEPTH)
    depth_inside = depth < DEPTH if DEPTH % BLOCK_DEPTH else tl.full((BLOCK_DEPTH,), True, tl.int1)
    products = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    products2 = tl.zeros((BLOCK_ROWS, BLOCK_DEPTH), tl.float32)
    for inner_start in range(0, INNER, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        inner_inside = inner < INNER if INNER % BLOCK_INNER else tl.full((BLOCK_INNER,), True, tl.int1)
        x = tl.load(
            X_ptr + rows[:, None] * INNER + inner[None, :], mask=rows_inside[:, None] & inner_inside[None, :], other=0.0
        )
        w = tl.load(
            W_ptr + inner[:, None] * COLUMNS + columns[None, :],
            mask=inner_inside[:, None] & columns_inside[None, :],
            other=0.0,
            eviction_policy="evict_first",
        )
        a = tl.load(
            A_ptr + inner[:, None] * DEPTH + depth[None, :],
            mask=inner_inside[:, None] & depth_inside[None, :],
            other=0.0,
        )
        products = tl.dot(x, w, products)
        products2 = tl.dot(x, a, products2)
    b = tl.load(
        B_ptr + depth[:, None] * COLUMNS + columns[None, :],
        mask=depth_inside[:, None] & columns_inside[None, :],
        other=0.0,
    )
    product = tl.dot(products2.to(tl.float16), b)
    added = products + product
    tl.store(
        made1_ptr + rows[:, None] * COLUMNS + columns[None, :],
        added.to(tl.float16),
        mask=rows_inside[:, None] & columns_inside[None, :],
    )


def kernel_function(X, W, A, B):
    ROWS = X.shape[0]
    INNER = X.shape[1]
    COLUMNS = W.shape[1]
    DEPTH = A.shape[1]
    made1 = torch.empty((ROWS, COLUMNS), device=X.device, dtype=torch.float16)
    BLOCK_INNER, BLOCK_COLUMNS = 128, 64
    BLOCK_ROWS = max(triton.next_power_of_2(ROWS), 16)
    BLOCK_DEPTH = max(triton.next_power_of_2(DEPTH), 16)
    matmul_add_kernel[(triton.cdiv(COLUMNS, BLOCK_COLUMNS),)](
        X.contiguous(),
        W.contiguous(),
        A.contiguous(),
        B.contiguous(),
        made1,
        INNER,
        ROWS,
        COLUMNS,
        DEPTH,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_INNER=BLOCK_INNER,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        BLOCK_DEPTH=BLOCK_DEPTH,
        num_warps=4,
        num_stages=5,
    )
    return made1
