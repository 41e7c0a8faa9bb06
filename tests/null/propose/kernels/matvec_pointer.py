"""Pointers that advance; literals at the launch; a grid that is a function of the meta-parameters."""

# ruff: noqa

import torch
import triton
from triton import language as tl


@triton.jit
def rows_times_vector(
    A,
    X,
    Y,
    M,
    K,
    stride_am,
    stride_ak,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    """One program walks along BM rows."""
    pid = tl.program_id(axis=0)
    offs_m = pid * BM + tl.arange(0, BM)
    offs_k = tl.arange(0, BK)
    a_ptrs = A + (offs_m[:, None] * stride_am + offs_k[None, :] * stride_ak)
    x_ptrs = X + offs_k
    acc = tl.zeros([BM], tl.float32)
    for k in range(tl.cdiv(K, BK)):
        # The last step may reach past the row.
        inside = offs_k < K - k * BK
        a = tl.load(a_ptrs, mask=(offs_m[:, None] < M) & inside[None, :], other=0.0).to(tl.float32)
        x = tl.load(x_ptrs, mask=inside, other=0.0).to(tl.float32)
        acc = acc + tl.sum(a * x[None, :], 1)
        a_ptrs += BK * stride_ak
        x_ptrs += BK
    out = acc.to(tl.float16)
    tl.store(Y + offs_m, out, mask=offs_m < M)


def kernel_function(A: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    m, k = A.size(0), A.size(1)
    y = torch.empty((m, 1), device=A.device, dtype=torch.float16)
    grid = lambda META: (triton.cdiv(m, META["BM"]),)  # noqa: E731
    rows_times_vector[grid](
        A,
        x,
        y,
        m,
        k,
        A.stride(0),
        A.stride(1),
        BM=16,
        BK=64,
    )
    return y
