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
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor


@gluon.jit
def matmul_gelu_mul_kernel_copies(
    x_tiles,
    wg_tiles,
    wu_tiles,
    x_ring,
    both_ring,
    came,
    free,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    INNER: gl.constexpr,
    BLOCK_ROWS: gl.constexpr,
    BLOCK_INNER: gl.constexpr,
    BLOCK_COLUMNS: gl.constexpr,
    OWN_ROWS: gl.constexpr,
    STAGES: gl.constexpr,
):
    turn = 0
    for program in range(
        gl.program_id(0), tl.cdiv(ROWS, BLOCK_ROWS) * tl.cdiv(COLUMNS, BLOCK_COLUMNS), gl.num_programs(0)
    ):
        rows_tile = program % tl.cdiv(ROWS, BLOCK_ROWS)
        others = program // tl.cdiv(ROWS, BLOCK_ROWS)
        columns_tile = others
        for inner_start in range(0, INNER, BLOCK_INNER):
            stage = turn % STAGES
            mbarrier.wait(free.index(stage), turn // STAGES % 2 ^ 1)
            mbarrier.expect(
                came.index(stage), x_tiles.block_type.nbytes + wg_tiles.block_type.nbytes + wu_tiles.block_type.nbytes
            )
            tma.async_copy_global_to_shared(
                x_tiles, [rows_tile * BLOCK_ROWS, inner_start], came.index(stage), x_ring.index(stage)
            )
            tma.async_copy_global_to_shared(
                wg_tiles,
                [columns_tile * BLOCK_COLUMNS, inner_start],
                came.index(stage),
                both_ring.index(stage).slice(0 * BLOCK_COLUMNS, BLOCK_COLUMNS),
            )
            tma.async_copy_global_to_shared(
                wu_tiles,
                [columns_tile * BLOCK_COLUMNS, inner_start],
                came.index(stage),
                both_ring.index(stage).slice(1 * BLOCK_COLUMNS, BLOCK_COLUMNS),
            )
            turn += 1


@gluon.jit
def matmul_gelu_mul_kernel_sigmoid(x):
    # One instruction each for the exponential and the reciprocal, which a division is not: nothing else runs meanwhile.
    power = tl.exp2(-1.4426950408889634 * x)
    return gl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def matmul_gelu_mul_kernel_products(
    part: gl.constexpr,
    made1_tiles,
    x_ring,
    both_ring,
    made1_kept,
    came,
    free,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    INNER: gl.constexpr,
    BLOCK_ROWS: gl.constexpr,
    BLOCK_INNER: gl.constexpr,
    BLOCK_COLUMNS: gl.constexpr,
    OWN_ROWS: gl.constexpr,
    STAGES: gl.constexpr,
):
    PRODUCT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, BLOCK_COLUMNS, 16])
    BOTH: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, 2 * BLOCK_COLUMNS, 16])
    turn = 0
    for program in range(
        gl.program_id(0), tl.cdiv(ROWS, BLOCK_ROWS) * tl.cdiv(COLUMNS, BLOCK_COLUMNS), gl.num_programs(0)
    ):
        rows_tile = program % tl.cdiv(ROWS, BLOCK_ROWS)
        others = program // tl.cdiv(ROWS, BLOCK_ROWS)
        columns_tile = others
        both = gl.zeros((OWN_ROWS, 2 * BLOCK_COLUMNS), gl.float32, BOTH)
        for inner_start in range(0, INNER, BLOCK_INNER):
            stage = turn % STAGES
            mbarrier.wait(came.index(stage), turn // STAGES % 2)
            both = warpgroup_mma(x_ring.index(stage), both_ring.index(stage).permute((1, 0)), both, is_async=True)
            both = warpgroup_mma_wait(1, (both,))
            mbarrier.arrive(free.index((turn + STAGES - 1) % STAGES), pred=inner_start > 0)
            turn += 1
        both = warpgroup_mma_wait(0, (both,))
        mbarrier.arrive(free.index((turn + STAGES - 1) % STAGES))
        products, products2 = both.reshape((OWN_ROWS, 2, BLOCK_COLUMNS)).permute((0, 2, 1)).split()
        products = gl.convert_layout(products, PRODUCT, assert_trivial=True)
        products2 = gl.convert_layout(products2, PRODUCT, assert_trivial=True)
        gated = products * matmul_gelu_mul_kernel_sigmoid(
            products * (1.5957691216057308 + 0.07135481627260025 * products * products)
        )
        scaled = gated * products2
        tma.store_wait(0)
        made1_kept.index(0).store(scaled.to(tl.bfloat16))
        fence_async_shared()
        tma.async_copy_shared_to_global(
            made1_tiles, [rows_tile * BLOCK_ROWS, columns_tile * BLOCK_COLUMNS], made1_kept.index(0)
        )
    tma.store_wait(0)


@gluon.jit
def matmul_gelu_mul_kernel(
    x_tiles,
    wg_tiles,
    wu_tiles,
    made1_tiles,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    INNER: gl.constexpr,
    BLOCK_ROWS: gl.constexpr,
    BLOCK_INNER: gl.constexpr,
    BLOCK_COLUMNS: gl.constexpr,
    OWN_ROWS: gl.constexpr,
    STAGES: gl.constexpr,
):
    x_ring = gl.allocate_shared_memory(x_tiles.dtype, [STAGES, BLOCK_ROWS, BLOCK_INNER], x_tiles.layout)
    both_ring = gl.allocate_shared_memory(wg_tiles.dtype, [STAGES, 2 * BLOCK_COLUMNS, BLOCK_INNER], wg_tiles.layout)
    made1_kept = gl.allocate_shared_memory(made1_tiles.dtype, [1, OWN_ROWS, BLOCK_COLUMNS], made1_tiles.layout)
    came = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(came.index(stage), count=1)
        mbarrier.init(free.index(stage), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (
                matmul_gelu_mul_kernel_products,
                (
                    0,
                    made1_tiles,
                    x_ring,
                    both_ring,
                    made1_kept,
                    came,
                    free,
                    ROWS,
                    COLUMNS,
                    INNER,
                    BLOCK_ROWS,
                    BLOCK_INNER,
                    BLOCK_COLUMNS,
                    OWN_ROWS,
                    STAGES,
                ),
            ),
            (
                matmul_gelu_mul_kernel_copies,
                (
                    x_tiles,
                    wg_tiles,
                    wu_tiles,
                    x_ring,
                    both_ring,
                    came,
                    free,
                    ROWS,
                    COLUMNS,
                    INNER,
                    BLOCK_ROWS,
                    BLOCK_INNER,
                    BLOCK_COLUMNS,
                    OWN_ROWS,
                    STAGES,
                ),
            ),
        ],
        [1],
        [24],
    )


def kernel_function(x, Wg, Wu):
    ROWS = x.shape[0]
    INNER = x.shape[1]
    COLUMNS = Wg.shape[0]
    made1 = torch.empty((ROWS, COLUMNS), device=x.device, dtype=torch.bfloat16)
    BLOCK_ROWS, BLOCK_INNER, BLOCK_COLUMNS, OWN_ROWS, STAGES = 128, 64, 128, 128, 4
    matmul_gelu_mul_kernel[(min(132, triton.cdiv(ROWS, BLOCK_ROWS) * triton.cdiv(COLUMNS, BLOCK_COLUMNS)),)](
        GluonDescriptor(
            x.contiguous(),
            [ROWS, INNER],
            [INNER, 1],
            [BLOCK_ROWS, BLOCK_INNER],
            gl.NVMMASharedLayout.get_default_for([BLOCK_ROWS, BLOCK_INNER], gl.bfloat16),
        ),
        GluonDescriptor(
            Wg.contiguous(),
            [COLUMNS, INNER],
            [INNER, 1],
            [BLOCK_COLUMNS, BLOCK_INNER],
            gl.NVMMASharedLayout.get_default_for([BLOCK_COLUMNS, BLOCK_INNER], gl.bfloat16),
        ),
        GluonDescriptor(
            Wu.contiguous(),
            [COLUMNS, INNER],
            [INNER, 1],
            [BLOCK_COLUMNS, BLOCK_INNER],
            gl.NVMMASharedLayout.get_default_for([BLOCK_COLUMNS, BLOCK_INNER], gl.bfloat16),
        ),
        GluonDescriptor(
            made1,
            [ROWS, COLUMNS],
            [COLUMNS, 1],
            [OWN_ROWS, BLOCK_COLUMNS],
            gl.NVMMASharedLayout.get_default_for([OWN_ROWS, BLOCK_COLUMNS], gl.bfloat16),
        ),
        ROWS,
        COLUMNS,
        INNER,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_INNER=BLOCK_INNER,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        OWN_ROWS=OWN_ROWS,
        STAGES=STAGES,
        num_warps=8,
    )
    return made1
