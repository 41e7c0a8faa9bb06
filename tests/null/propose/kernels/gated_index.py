"""Two sums and an epilogue that joins them; offsets from the loop variable."""

# ruff: noqa

import torch
import triton
import triton.language as tl


@triton.jit
def gated_kernel(
    x_ptr, a_ptr, b_ptr, y_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask = rows < M
    column_mask = columns < N
    gate = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        inner_mask = inner < K
        x = tl.load(x_ptr + rows[:, None] * K + inner[None, :], mask=row_mask[:, None] & inner_mask[None, :], other=0.0)
        weights = inner[:, None] * N + columns[None, :]
        weight_mask = inner_mask[:, None] & column_mask[None, :]
        a = tl.load(a_ptr + weights, mask=weight_mask, other=0.0)
        b = tl.load(b_ptr + weights, mask=weight_mask, other=0.0)
        gate = tl.dot(x, a, gate)
        up = tl.dot(x, b, up)
    y = gate * tl.sigmoid(gate) * up
    tl.store(
        y_ptr + rows[:, None] * N + columns[None, :],
        y.to(y_ptr.dtype.element_ty),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def kernel_function(X, A, B):
    M, K = X.shape
    N = A.shape[1]
    y = torch.empty((M, N), device=X.device, dtype=X.dtype)
    BLOCK_M, BLOCK_N, BLOCK_K = 16, 32, 32
    grid = (triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))
    gated_kernel[grid](X, A, B, y, M, N, K, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K)
    return y
