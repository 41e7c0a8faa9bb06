"""
Lowered from µGraph e273383299a43753.

    x: fp32 [8, 64, 56, 56]
    node 0: v1 = mean_pool(x), 3 (stride 2, padding 1, dilation 1), 3 (stride 2, padding 1, dilation 1)
    returns v1

It is made for inputs of any extents.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def sum_pool_mul_kernel(
    x_ptr,
    made1_ptr,
    OUT_WIDTH: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_OUT_HEIGHT: tl.constexpr,
    BLOCK_OUT_WIDTH: tl.constexpr,
):
    program = tl.program_id(0)
    out_width_tile = program % tl.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH)
    others = program // tl.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH)
    out_height_tile = others % tl.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT)
    others = others // tl.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT)
    rows_tile = others % tl.cdiv(ROWS, BLOCK_ROWS)
    others = others // tl.cdiv(ROWS, BLOCK_ROWS)
    batch = others
    out_height = out_height_tile * BLOCK_OUT_HEIGHT + tl.arange(0, BLOCK_OUT_HEIGHT)
    height_0 = out_height * 2 - 1
    height_0_inside = height_0 >= 0
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    image_ptr = x_ptr + batch * (HEIGHT * ROWS * WIDTH) + rows[:, None, None] * (HEIGHT * WIDTH)
    width = tl.arange(0, BLOCK_WIDTH)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    out_height_inside = out_height < OUT_HEIGHT if OUT_HEIGHT % BLOCK_OUT_HEIGHT else tl.full(
        (BLOCK_OUT_HEIGHT,), True, tl.int1
    )
    width_inside = width < WIDTH if WIDTH % BLOCK_WIDTH else tl.full((BLOCK_WIDTH,), True, tl.int1)
    height_1 = out_height * 2
    height_2 = out_height * 2 + 1
    height_2_inside = height_2 < HEIGHT
    out_width = out_width_tile * BLOCK_OUT_WIDTH + tl.arange(0, BLOCK_OUT_WIDTH)
    width_0 = out_width - 1
    width_0_inside = width_0 >= 0
    width_0 = tl.minimum(tl.maximum(width_0, 0), BLOCK_WIDTH // 2 - 1)
    width_1 = out_width
    width_1 = tl.minimum(tl.maximum(width_1, 0), BLOCK_WIDTH // 2 - 1)
    width_2 = out_width
    width_2_inside = width_2 * 2 + 1 < WIDTH
    width_2 = tl.minimum(tl.maximum(width_2, 0), BLOCK_WIDTH // 2 - 1)
    out_width_inside = out_width < OUT_WIDTH if OUT_WIDTH % BLOCK_OUT_WIDTH else tl.full(
        (BLOCK_OUT_WIDTH,), True, tl.int1
    )
    x = tl.load(
        image_ptr + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & out_height_inside[None, :, None] & width_inside[None, None, :] & height_0_inside[None, :, None],
        other=0.0,
    )
    x2 = tl.load(
        image_ptr + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & out_height_inside[None, :, None] & width_inside[None, None, :],
        other=0.0,
    )
    x3 = tl.load(
        image_ptr + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & out_height_inside[None, :, None] & width_inside[None, None, :] & height_2_inside[None, :, None],
        other=0.0,
    )
    seen = x + x2 + x3
    lanes = tl.reshape(seen, (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_WIDTH // 2, 2))
    even, odd = tl.split(lanes)
    spots2 = tl.broadcast_to(width_0[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
    tapped = tl.where(width_0_inside[None, None, :], tl.gather(odd, spots2, 2), 0.0)
    spots3 = tl.broadcast_to(width_1[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
    tapped2 = tl.gather(even, spots3, 2)
    spots4 = tl.broadcast_to(width_2[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
    tapped3 = tl.where(width_2_inside[None, None, :], tl.gather(odd, spots4, 2), 0.0)
    made = tapped + tapped2 + tapped3
    scaled = made * 0.1111111111111111
    tl.store(
        made1_ptr + batch * (OUT_HEIGHT * OUT_WIDTH * ROWS) + rows[:, None, None] * (OUT_HEIGHT * OUT_WIDTH) + out_height[None, :, None] * OUT_WIDTH + out_width[None, None, :],
        scaled,
        mask=rows_inside[:, None, None] & out_height_inside[None, :, None] & out_width_inside[None, None, :],
    )


def kernel_function(x):
    BATCH = x.shape[0]
    ROWS = x.shape[1]
    HEIGHT = x.shape[2]
    WIDTH = x.shape[3]
    OUT_HEIGHT = (HEIGHT - 1) // 2 + 1
    OUT_WIDTH = (WIDTH - 1) // 2 + 1
    made1 = torch.empty((BATCH, ROWS, OUT_HEIGHT, OUT_WIDTH), device=x.device, dtype=torch.float32)
    BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH = 16, 4, 32
    BLOCK_WIDTH = max(triton.next_power_of_2(WIDTH), 4)
    sum_pool_mul_kernel[(triton.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH) * triton.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT) * triton.cdiv(ROWS, BLOCK_ROWS) * BATCH,)](
        x.contiguous(),
        made1,
        OUT_WIDTH,
        OUT_HEIGHT,
        ROWS,
        HEIGHT,
        WIDTH,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_WIDTH=BLOCK_WIDTH,
        BLOCK_OUT_HEIGHT=BLOCK_OUT_HEIGHT,
        BLOCK_OUT_WIDTH=BLOCK_OUT_WIDTH,
        num_warps=16,
        num_stages=1,
    )
    return made1
