"""
Lowered from µGraph 3551fbd1a4267c4c.

    x: fp16 [10, 48]
    w: fp16 [48, 40]
    node 0: a kernel of grid [5], loop 3
        x imap [-], fmap 1
        w imap [1], fmap 0
        matmul, accumulate sum, reshape
        -> v2 [5, 10, 8], omap [0]
    returns v2

It is made for these extents only.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def matmul_kernel(
    x_ptr, w_ptr, made1_ptr, BLOCK_ROWS: tl.constexpr, BLOCK_INNER: tl.constexpr, BLOCK_COLUMNS: tl.constexpr
):
    program = tl.program_id(0)
    batch = program
    rows = tl.arange(0, BLOCK_ROWS)
    rows_inside = rows < 10
    columns = tl.arange(0, BLOCK_COLUMNS)
    columns_inside = columns < 8
    products = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for inner_start in range(0, 48, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        inner_inside = inner < 48
        x = tl.load(
            x_ptr + rows[:, None] * 48 + inner[None, :], mask=rows_inside[:, None] & inner_inside[None, :], other=0.0
        )
        w = tl.load(
            w_ptr + inner[:, None] * 40 + (batch * 8 + columns)[None, :],
            mask=inner_inside[:, None] & columns_inside[None, :],
            other=0.0,
            eviction_policy="evict_first",
        )
        products = tl.dot(x, w, products)
    tl.store(
        made1_ptr + batch * 80 + rows[:, None] * 8 + columns[None, :],
        products.to(tl.float16),
        mask=rows_inside[:, None] & columns_inside[None, :],
    )


def kernel_function(x, w):
    if tuple(x.shape) != (10, 48):
        raise ValueError(f"x must have the shape (10, 48), not {tuple(x.shape)}.")
    if tuple(w.shape) != (48, 40):
        raise ValueError(f"w must have the shape (48, 40), not {tuple(w.shape)}.")
    made1 = torch.empty((5, 10, 8), device=x.device, dtype=torch.float16)
    BLOCK_ROWS, BLOCK_INNER, BLOCK_COLUMNS = 16, 32, 16
    matmul_kernel[(5,)](
        x.contiguous(),
        w.contiguous(),
        made1,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_INNER=BLOCK_INNER,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        num_warps=4,
        num_stages=5,
    )
    return made1
