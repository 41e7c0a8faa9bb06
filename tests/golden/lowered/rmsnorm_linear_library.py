"""
Lowered from µGraph e50f2a727c42aeac.

    X: fp16 [2, 4096]
    W: fp16 [4096, 6144]
    node 0: v2 = rms_norm(X), axes [1], 1/100000
    node 1: v3 = matmul(v2, W)
    returns v3

It is made for these extents only.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def square_sum_div_kernel(X_ptr, between1_ptr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    program = tl.program_id(0)
    rows_tile = program
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_COLUMNS)
    x = tl.load(X_ptr + rows[:, None] * 4096 + columns[None, :], eviction_policy="evict_first")
    x_wide = x.to(tl.float32)
    squared = x_wide * x_wide
    total = tl.sum(squared, axis=1)
    scaled = total * 0.000244140625
    added = scaled + 1e-05
    root = tl.sqrt(added)
    ratio = x_wide / root[:, None]
    tl.store(between1_ptr + rows[:, None] * 4096 + columns[None, :], ratio.to(tl.float16))


def kernel_function(X, W):
    if tuple(X.shape) != (2, 4096):
        raise ValueError(f"X must have the shape (2, 4096), not {tuple(X.shape)}.")
    if tuple(W.shape) != (4096, 6144):
        raise ValueError(f"W must have the shape (4096, 6144), not {tuple(W.shape)}.")
    between1 = torch.empty((2, 4096), device=X.device, dtype=torch.float16)
    BLOCK_ROWS, BLOCK_COLUMNS = 1, 4096
    square_sum_div_kernel[(triton.cdiv(2, BLOCK_ROWS),)](
        X.contiguous(), between1, BLOCK_ROWS=BLOCK_ROWS, BLOCK_COLUMNS=BLOCK_COLUMNS, num_warps=8, num_stages=1
    )
    between2 = torch.matmul(between1, W)
    return between2
