"""
Lowered from µGraph 780b1f7ffe1fd715.

    x: fp32 [2, 3, 21, 14, 37]
    node 0: v1 = max_pool(x), 3 (stride 2, padding 1, dilation 3), 3 (stride 2, padding 1, dilation 3), 3 (stride 2,
        padding 1, dilation 3)
    returns v1

It is made for inputs of any extents.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def max_pool_kernel(
    x_ptr,
    made1_ptr,
    OUT_WIDTH: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_OUT_DEPTH: tl.constexpr,
    BLOCK_OUT_HEIGHT: tl.constexpr,
    BLOCK_OUT_WIDTH: tl.constexpr,
):
    program = tl.program_id(0)
    out_width_tile = program % tl.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH)
    others = program // tl.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH)
    out_height_tile = others % tl.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT)
    others = others // tl.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT)
    out_depth_tile = others % tl.cdiv(OUT_DEPTH, BLOCK_OUT_DEPTH)
    others = others // tl.cdiv(OUT_DEPTH, BLOCK_OUT_DEPTH)
    rows_tile = others % tl.cdiv(ROWS, BLOCK_ROWS)
    others = others // tl.cdiv(ROWS, BLOCK_ROWS)
    batch = others
    out_height = out_height_tile * BLOCK_OUT_HEIGHT + tl.arange(0, BLOCK_OUT_HEIGHT)
    height_0 = tl.minimum(out_height, OUT_HEIGHT - 1) * 2 - 1
    height_0 = tl.where(height_0 < 0, height_0 + 3, height_0)
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    image_ptr = x_ptr + batch * (DEPTH * HEIGHT * ROWS * WIDTH) + rows[:, None, None] * (DEPTH * HEIGHT * WIDTH)
    width = tl.arange(0, BLOCK_WIDTH)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    width_inside = width < WIDTH if WIDTH % BLOCK_WIDTH else tl.full((BLOCK_WIDTH,), True, tl.int1)
    height_1 = tl.minimum(out_height, OUT_HEIGHT - 1) * 2 + 2
    height_2 = tl.minimum(out_height, OUT_HEIGHT - 1) * 2 + 5
    height_2 = tl.where(height_2 < HEIGHT, height_2, height_2 - 3)
    out_width = out_width_tile * BLOCK_OUT_WIDTH + tl.arange(0, BLOCK_OUT_WIDTH)
    width_0 = out_width - 1
    width_0_inside = width_0 >= 0
    width_0 = tl.minimum(tl.maximum(width_0, 0), BLOCK_WIDTH // 2 - 1)
    width_1 = out_width + 1
    width_1 = tl.minimum(tl.maximum(width_1, 0), BLOCK_WIDTH // 2 - 1)
    width_2 = out_width + 2
    width_2_inside = width_2 * 2 + 1 < WIDTH
    width_2 = tl.minimum(tl.maximum(width_2, 0), BLOCK_WIDTH // 2 - 1)
    out_height_inside = out_height < OUT_HEIGHT if OUT_HEIGHT % BLOCK_OUT_HEIGHT else tl.full(
        (BLOCK_OUT_HEIGHT,), True, tl.int1
    )
    out_width_inside = out_width < OUT_WIDTH if OUT_WIDTH % BLOCK_OUT_WIDTH else tl.full(
        (BLOCK_OUT_WIDTH,), True, tl.int1
    )
    out_depth_first = out_depth_tile * BLOCK_OUT_DEPTH
    out_depth_stop = tl.minimum(out_depth_first + BLOCK_OUT_DEPTH, OUT_DEPTH)
    depth_at = out_depth_first * 2 - 1
    depth_at = tl.where(depth_at < 0, depth_at + 3, depth_at)
    x = tl.load(
        image_ptr + depth_at * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x2 = tl.load(
        image_ptr + depth_at * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x3 = tl.load(
        image_ptr + depth_at * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    carried = tl.maximum(x, x2, propagate_nan=tl.PropagateNan.ALL)
    carried = tl.maximum(carried, x3, propagate_nan=tl.PropagateNan.ALL)
    depth_at2 = (out_depth_first + 1) * 2 - 1
    depth_at2 = tl.where(depth_at2 < 0, depth_at2 + 3, depth_at2)
    depth_at2 = tl.minimum(depth_at2, DEPTH - 1)
    x4 = tl.load(
        image_ptr + depth_at2 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x5 = tl.load(
        image_ptr + depth_at2 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x6 = tl.load(
        image_ptr + depth_at2 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    carried2 = tl.maximum(x4, x5, propagate_nan=tl.PropagateNan.ALL)
    carried2 = tl.maximum(carried2, x6, propagate_nan=tl.PropagateNan.ALL)
    depth_at3 = (out_depth_first + 2) * 2 - 1
    depth_at3 = tl.where(depth_at3 < 0, depth_at3 + 3, depth_at3)
    depth_at3 = tl.minimum(depth_at3, DEPTH - 1)
    x7 = tl.load(
        image_ptr + depth_at3 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x8 = tl.load(
        image_ptr + depth_at3 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    x9 = tl.load(
        image_ptr + depth_at3 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    carried3 = tl.maximum(x7, x8, propagate_nan=tl.PropagateNan.ALL)
    carried3 = tl.maximum(carried3, x9, propagate_nan=tl.PropagateNan.ALL)
    depth_at4 = out_depth_first * 2 + 2
    next_x = tl.load(
        image_ptr + depth_at4 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    next_x2 = tl.load(
        image_ptr + depth_at4 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    next_x3 = tl.load(
        image_ptr + depth_at4 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    depth_at5 = out_depth_first * 2 + 5
    depth_at5 = tl.where(depth_at5 < DEPTH, depth_at5, depth_at5 - 3)
    next_x4 = tl.load(
        image_ptr + depth_at5 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    next_x5 = tl.load(
        image_ptr + depth_at5 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    next_x6 = tl.load(
        image_ptr + depth_at5 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
        mask=rows_inside[:, None, None] & width_inside[None, None, :],
    )
    for out_depth in range(out_depth_first, out_depth_stop):
        x10 = next_x
        x11 = next_x2
        x12 = next_x3
        x13 = next_x4
        x14 = next_x5
        x15 = next_x6
        ahead2 = tl.minimum(out_depth + 1, out_depth_stop - 1)
        depth_at6 = ahead2 * 2 + 2
        next_x = tl.load(
            image_ptr + depth_at6 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        next_x2 = tl.load(
            image_ptr + depth_at6 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        next_x3 = tl.load(
            image_ptr + depth_at6 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        depth_at7 = ahead2 * 2 + 5
        depth_at7 = tl.where(depth_at7 < DEPTH, depth_at7, depth_at7 - 3)
        next_x4 = tl.load(
            image_ptr + depth_at7 * (HEIGHT * WIDTH) + height_0[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        next_x5 = tl.load(
            image_ptr + depth_at7 * (HEIGHT * WIDTH) + height_1[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        next_x6 = tl.load(
            image_ptr + depth_at7 * (HEIGHT * WIDTH) + height_2[None, :, None] * WIDTH + width[None, None, :],
            mask=rows_inside[:, None, None] & width_inside[None, None, :],
        )
        plane = tl.maximum(x10, x11, propagate_nan=tl.PropagateNan.ALL)
        plane = tl.maximum(plane, x12, propagate_nan=tl.PropagateNan.ALL)
        plane2 = tl.maximum(x13, x14, propagate_nan=tl.PropagateNan.ALL)
        plane2 = tl.maximum(plane2, x15, propagate_nan=tl.PropagateNan.ALL)
        seen = tl.maximum(carried, plane, propagate_nan=tl.PropagateNan.ALL)
        seen = tl.maximum(seen, plane2, propagate_nan=tl.PropagateNan.ALL)
        lanes = tl.reshape(seen, (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_WIDTH // 2, 2))
        even, odd = tl.split(lanes)
        spots2 = tl.broadcast_to(width_0[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
        tapped = tl.where(width_0_inside[None, None, :], tl.gather(odd, spots2, 2), float("-inf"))
        spots3 = tl.broadcast_to(width_1[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
        tapped2 = tl.gather(even, spots3, 2)
        spots4 = tl.broadcast_to(width_2[None, None, :], (BLOCK_ROWS, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH))
        tapped3 = tl.where(width_2_inside[None, None, :], tl.gather(odd, spots4, 2), float("-inf"))
        made = tl.maximum(tapped, tapped2, propagate_nan=tl.PropagateNan.ALL)
        made = tl.maximum(made, tapped3, propagate_nan=tl.PropagateNan.ALL)
        tl.store(
            made1_ptr + batch * (OUT_DEPTH * OUT_HEIGHT * OUT_WIDTH * ROWS) + rows[:, None, None] * (OUT_DEPTH * OUT_HEIGHT * OUT_WIDTH) + out_depth * (OUT_HEIGHT * OUT_WIDTH) + out_height[None, :, None] * OUT_WIDTH + out_width[None, None, :],
            made,
            mask=rows_inside[:, None, None] & out_height_inside[None, :, None] & out_width_inside[None, None, :],
        )
        carried = carried2
        carried2 = carried3
        carried3 = plane2


def kernel_function(x):
    BATCH = x.shape[0]
    ROWS = x.shape[1]
    DEPTH = x.shape[2]
    HEIGHT = x.shape[3]
    WIDTH = x.shape[4]
    OUT_DEPTH = (DEPTH - 5) // 2 + 1
    OUT_HEIGHT = (HEIGHT - 5) // 2 + 1
    OUT_WIDTH = (WIDTH - 5) // 2 + 1
    made1 = torch.empty((BATCH, ROWS, OUT_DEPTH, OUT_HEIGHT, OUT_WIDTH), device=x.device, dtype=torch.float32)
    BLOCK_ROWS, BLOCK_OUT_DEPTH, BLOCK_OUT_HEIGHT, BLOCK_OUT_WIDTH = 1, 4, 4, 16
    BLOCK_WIDTH = max(triton.next_power_of_2(WIDTH), 4)
    max_pool_kernel[(triton.cdiv(OUT_WIDTH, BLOCK_OUT_WIDTH) * triton.cdiv(OUT_HEIGHT, BLOCK_OUT_HEIGHT) * triton.cdiv(OUT_DEPTH, BLOCK_OUT_DEPTH) * triton.cdiv(ROWS, BLOCK_ROWS) * BATCH,)](
        x.contiguous(),
        made1,
        OUT_WIDTH,
        OUT_HEIGHT,
        OUT_DEPTH,
        ROWS,
        DEPTH,
        HEIGHT,
        WIDTH,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_WIDTH=BLOCK_WIDTH,
        BLOCK_OUT_DEPTH=BLOCK_OUT_DEPTH,
        BLOCK_OUT_HEIGHT=BLOCK_OUT_HEIGHT,
        BLOCK_OUT_WIDTH=BLOCK_OUT_WIDTH,
        num_warps=4,
        num_stages=1,
    )
    return made1
