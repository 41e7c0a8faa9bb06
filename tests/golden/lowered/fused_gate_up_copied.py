"""
Lowered from µGraph a101aa7b64fb4a88.

    x: bf16 [512, 3072]
    Wg: bf16 [24576, 3072]
    Wu: bf16 [24576, 3072]
    node 0: a kernel of grid [4, 192], loop 48
        x imap [0, -], fmap 1
        Wg imap [-, 0], fmap 1
        Wu imap [-, 0], fmap 1
        permute, matmul, accumulate sum, gelu, permute, matmul, accumulate sum, mul
        -> v3 [512, 24576], omap [0, 1]
    returns v3

It is made for inputs of any extents whose rows are multiples of 16 bytes.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def matmul_gelu_mul_kernel(
    x_tiles,
    wg_tiles,
    wu_tiles,
    made1_tiles,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
):
    for program in range(
        tl.program_id(0), tl.cdiv(ROWS, BLOCK_ROWS) * tl.cdiv(COLUMNS, BLOCK_COLUMNS), tl.num_programs(0)
    ):
        across = tl.cdiv(ROWS, BLOCK_ROWS)
        strip = program // (GROUP * across)
        height = tl.minimum(tl.cdiv(COLUMNS, BLOCK_COLUMNS) - strip * GROUP, GROUP)
        columns_tile = strip * GROUP + program % (GROUP * across) % height
        rows_tile = program % (GROUP * across) // height
        products = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        products2 = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for inner_start in range(0, INNER, BLOCK_INNER):
            x = x_tiles.load([rows_tile * BLOCK_ROWS, inner_start])
            wg = wg_tiles.load([columns_tile * BLOCK_COLUMNS, inner_start])
            wu = wu_tiles.load([columns_tile * BLOCK_COLUMNS, inner_start])
            turned = tl.trans(wg)
            products = tl.dot(x, turned, products)
            turned2 = tl.trans(wu)
            products2 = tl.dot(x, turned2, products2)
        gated = products * tl.sigmoid(products * (1.5957691216057308 + 0.07135481627260025 * products * products))
        scaled = gated * products2
        made1_tiles.store([rows_tile * BLOCK_ROWS, columns_tile * BLOCK_COLUMNS], scaled.to(tl.bfloat16))


def kernel_function(x, Wg, Wu):
    ROWS = x.shape[0]
    INNER = x.shape[1]
    COLUMNS = Wg.shape[0]
    made1 = torch.empty((ROWS, COLUMNS), device=x.device, dtype=torch.bfloat16)
    BLOCK_ROWS, BLOCK_INNER, BLOCK_COLUMNS, GROUP = 128, 64, 128, 8
    matmul_gelu_mul_kernel[(min(132, triton.cdiv(ROWS, BLOCK_ROWS) * triton.cdiv(COLUMNS, BLOCK_COLUMNS)),)](
        TensorDescriptor(x.contiguous(), [ROWS, INNER], [INNER, 1], [BLOCK_ROWS, BLOCK_INNER]),
        TensorDescriptor(Wg.contiguous(), [COLUMNS, INNER], [INNER, 1], [BLOCK_COLUMNS, BLOCK_INNER]),
        TensorDescriptor(Wu.contiguous(), [COLUMNS, INNER], [INNER, 1], [BLOCK_COLUMNS, BLOCK_INNER]),
        TensorDescriptor(made1, [ROWS, COLUMNS], [COLUMNS, 1], [BLOCK_ROWS, BLOCK_COLUMNS]),
        ROWS,
        COLUMNS,
        INNER,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_INNER=BLOCK_INNER,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        GROUP=GROUP,
        num_warps=8,
        num_stages=4,
    )
    return made1
