"""A first attempt: one tile of both products a program, and every program of a row of tiles reads the weights again."""

import torch
import triton
import triton.language as tl


@triton.jit
def gate_up_kernel(
    x_ptr, gate_ptr, up_ptr, out_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
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
        x_tile = tl.load(
            x_ptr + rows[:, None] * K + inner[None, :], mask=row_mask[:, None] & inner_mask[None, :], other=0.0
        )
        offsets = inner[:, None] + columns[None, :] * K
        mask = inner_mask[:, None] & column_mask[None, :]
        gate += tl.dot(x_tile, tl.load(gate_ptr + offsets, mask=mask, other=0.0))
        up += tl.dot(x_tile, tl.load(up_ptr + offsets, mask=mask, other=0.0))
    # The tanh form of GELU is gate * sigmoid(2 z).
    z = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
    result = gate * tl.sigmoid(2.0 * z) * up
    tl.store(
        out_ptr + rows[:, None] * N + columns[None, :],
        result.to(out_ptr.dtype.element_ty),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def kernel_function(x: torch.Tensor, Wg: torch.Tensor, Wu: torch.Tensor) -> torch.Tensor:
    """x (M, K), Wg and Wu (N, K), contiguous, give (M, N)."""
    M, K = x.shape
    N = Wg.shape[0]
    out = torch.empty((M, N), device=x.device, dtype=x.dtype)
    BLOCK_M, BLOCK_N, BLOCK_K = 64, 64, 32
    grid = (triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))
    gate_up_kernel[grid](
        x, Wg, Wu, out, M, N, K, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K, num_warps=4, num_stages=3
    )
    return out
