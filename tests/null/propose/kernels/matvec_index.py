"""Offsets from the loop variable; tile sizes in locals of the host function."""

# ruff: noqa

import torch
import triton
import triton.language as tl


@triton.jit
def matvec_kernel(a_ptr, x_ptr, y_ptr, M, K, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = rows < M
    a_rows = a_ptr + rows.to(tl.int64)[:, None] * K
    sums = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        column_mask = columns < K
        a = tl.load(a_rows + columns[None, :], mask=row_mask[:, None] & column_mask[None, :], other=0.0)
        x = tl.load(x_ptr + columns, mask=column_mask, other=0.0)
        sums += tl.sum(a.to(tl.float32) * x.to(tl.float32)[None, :], axis=1)
    tl.store(y_ptr + rows, sums.to(y_ptr.dtype.element_ty), mask=row_mask)


def kernel_function(A, x):
    M, K = A.shape
    y = torch.empty((M, 1), device=A.device, dtype=A.dtype)
    BLOCK_M, BLOCK_K = 32, 32
    grid = (triton.cdiv(M, BLOCK_M),)
    matvec_kernel[grid](A, x, y, M, K, BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K, num_warps=4, num_stages=2)
    return y
