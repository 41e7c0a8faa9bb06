"""
Lowered from µGraph 07a576b7e3a5d3ad.

    Q: fp16 [2, 256, 64]
    K: fp16 [2, 4096, 64]
    V: fp16 [2, 4096, 64]
    node 0: a kernel of grid [2, 16], loop 32
        Q imap [0, 1], fmap -
        K imap [0, -], fmap 1
        V imap [0, -], fmap 1
        rms_norm, rms_norm, permute, matmul, 16, div, exp, matmul, accumulate sum, accumulate sum, div
        -> v3 [2, 256, 64], omap [0, 1]
    returns v3

It is made for inputs of any extents.
"""

import torch
import triton
import triton.language as tl

# Programs that share a tile count themselves here. What is left at the end of a call is what the next one expects.
_tickets = {}


def tickets(device, kernel, count):
    """At least `count` numbers, zeros at first, the same in every call of a kernel."""
    if (device, kernel) not in _tickets or _tickets[device, kernel].numel() < count:
        _tickets[device, kernel] = torch.zeros(count, device=device, dtype=torch.int32)
    return _tickets[device, kernel]


@triton.jit
def square_sum_exp_kernel(
    Q_ptr,
    K_ptr,
    V_ptr,
    made1_ptr,
    partials_ptr,
    partials2_ptr,
    tickets_ptr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_ROWS_SLICE: tl.constexpr,
    LOOKS: tl.constexpr,
):
    program = tl.program_id(0)
    part = program % SPLIT
    tile = program // SPLIT
    columns_tile = tile % tl.cdiv(COLUMNS, BLOCK_COLUMNS)
    others = tile // tl.cdiv(COLUMNS, BLOCK_COLUMNS)
    rows_tile = others % tl.cdiv(ROWS, BLOCK_ROWS)
    others = others // tl.cdiv(ROWS, BLOCK_ROWS)
    batch = others
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    depth = tl.arange(0, BLOCK_DEPTH)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    depth_inside = depth < DEPTH if DEPTH % BLOCK_DEPTH else tl.full((BLOCK_DEPTH,), True, tl.int1)
    columns = columns_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    columns_inside = columns < COLUMNS if COLUMNS % BLOCK_COLUMNS else tl.full((BLOCK_COLUMNS,), True, tl.int1)
    q = tl.load(
        Q_ptr + batch * (DEPTH * ROWS) + rows[:, None] * DEPTH + depth[None, :],
        mask=rows_inside[:, None] & depth_inside[None, :],
        other=0.0,
    )
    q_wide = q.to(tl.float32)
    squared = q_wide * q_wide
    total = tl.sum(squared, axis=1)
    scaled = total / DEPTH
    added = scaled + 1e-05
    root = tl.sqrt(added)
    ratio = q_wide / root[:, None]
    products = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    sums = tl.zeros((BLOCK_ROWS,), tl.float32)
    SHARE: tl.constexpr = tl.cdiv(tl.cdiv(INNER, SPLIT), BLOCK_INNER) * BLOCK_INNER
    inner_first = part * SHARE
    inner_stop = tl.minimum(inner_first + SHARE, INNER)
    for inner_start in range(inner_first, inner_stop, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        inner_inside = inner < INNER if INNER % BLOCK_INNER else tl.full((BLOCK_INNER,), True, tl.int1)
        k = tl.load(
            K_ptr + batch * (DEPTH * INNER) + inner[:, None] * DEPTH + depth[None, :],
            mask=inner_inside[:, None] & depth_inside[None, :],
            other=0.0,
        )
        k_wide = k.to(tl.float32)
        v = tl.load(
            V_ptr + batch * (COLUMNS * INNER) + inner[:, None] * COLUMNS + columns[None, :],
            mask=inner_inside[:, None] & columns_inside[None, :],
            other=0.0,
        )
        squared2 = k_wide * k_wide
        total2 = tl.sum(squared2, axis=1)
        scaled2 = total2 / DEPTH
        added2 = scaled2 + 1e-05
        root2 = tl.sqrt(added2)
        ratio2 = k_wide / root2[:, None]
        turned = tl.trans(ratio2)
        product = tl.dot(ratio.to(tl.float16), turned.to(tl.float16))
        ratio3 = product / 16.0
        e = tl.exp(ratio3)
        products = tl.dot(tl.where(inner_inside[None, :], e.to(tl.float16), 0.0), v, products)
        sums += tl.sum(tl.where(inner_inside[None, :], e, 0.0), axis=1)
    spots2 = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    spots3 = tl.arange(0, BLOCK_ROWS)
    tl.store(
        partials_ptr + (tile * SPLIT + part) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots2,
        products,
        mask=rows_inside[:, None] & columns_inside[None, :],
    )
    tl.store(partials2_ptr + (tile * SPLIT + part) * (BLOCK_ROWS) + spots3, sums, mask=rows_inside)
    tl.debug_barrier()
    count_ptr = tickets_ptr + tile * (SPLIT + 1)
    ticket = tl.atomic_add(count_ptr, 1, sem="acq_rel")
    goal = ticket - ticket % SPLIT + SPLIT
    come = ticket + 1
    looks = 0
    while (come != goal) & (looks < LOOKS):
        come = tl.atomic_add(count_ptr, 0, sem="acquire")
        looks += 1
    if come != goal:
        tl.atomic_xchg(count_ptr + 1 + part, goal)
        come = tl.atomic_add(count_ptr, 0, sem="acq_rel")
    own_slices = tl.where(come == goal, 1, 0)
    if ticket + 1 == goal:
        marks = tl.load(count_ptr + 1 + tl.arange(0, SPLIT), cache_modifier=".cg")
        own_slices = tl.where(tl.max(tl.where(marks == goal, 1, 0), axis=0) > 0, SPLIT, 1)
    for turn in range(0, own_slices):
        own = (part + turn) % SPLIT
        mark = goal
        if turn > 0:
            mark = tl.load(count_ptr + 1 + own, cache_modifier=".cg")
        if mark == goal:
            rows_slice = rows_tile * BLOCK_ROWS + own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE)
            rows_slice_inside = rows_slice < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS_SLICE,), True, tl.int1)
            own_products = tl.full((BLOCK_ROWS_SLICE, BLOCK_COLUMNS), 0.0, tl.float32)
            own_sums = tl.full((BLOCK_ROWS_SLICE,), 0.0, tl.float32)
            spots4 = (own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE))[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
            spots5 = (own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE))
            for other in tl.static_range(SPLIT):
                part_own_products = tl.load(
                    partials_ptr + (tile * SPLIT + other) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots4,
                    mask=rows_slice_inside[:, None] & columns_inside[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                part_own_sums = tl.load(
                    partials2_ptr + (tile * SPLIT + other) * (BLOCK_ROWS) + spots5,
                    mask=rows_slice_inside,
                    other=0.0,
                    cache_modifier=".cg",
                )
                own_products += part_own_products
                own_sums += part_own_sums
            ratio4 = own_products / own_sums[:, None]
            tl.store(
                made1_ptr + batch * (COLUMNS * ROWS) + rows_slice[:, None] * COLUMNS + columns[None, :],
                ratio4.to(tl.float16),
                mask=rows_slice_inside[:, None] & columns_inside[None, :],
            )


def kernel_function(Q, K, V):
    BATCH = Q.shape[0]
    ROWS = Q.shape[1]
    DEPTH = Q.shape[2]
    INNER = K.shape[1]
    COLUMNS = V.shape[2]
    made1 = torch.empty((BATCH, ROWS, COLUMNS), device=Q.device, dtype=torch.float16)
    BLOCK_ROWS, BLOCK_INNER, BLOCK_COLUMNS, SPLIT, BLOCK_ROWS_SLICE, LOOKS = 64, 128, 64, 16, 4, 64
    BLOCK_DEPTH = max(triton.next_power_of_2(DEPTH), 16)
    tiles = triton.cdiv(COLUMNS, BLOCK_COLUMNS) * triton.cdiv(ROWS, BLOCK_ROWS) * BATCH
    partials = torch.empty(tiles * SPLIT * BLOCK_ROWS * BLOCK_COLUMNS, device=Q.device, dtype=torch.float32)
    partials2 = torch.empty(tiles * SPLIT * BLOCK_ROWS, device=Q.device, dtype=torch.float32)
    square_sum_exp_kernel[(tiles * SPLIT,)](
        Q.contiguous(),
        K.contiguous(),
        V.contiguous(),
        made1,
        partials,
        partials2,
        tickets(Q.device, "square_sum_exp_kernel", tiles * (SPLIT + 1)),
        COLUMNS,
        ROWS,
        DEPTH,
        INNER,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_DEPTH=BLOCK_DEPTH,
        BLOCK_INNER=BLOCK_INNER,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        SPLIT=SPLIT,
        BLOCK_ROWS_SLICE=BLOCK_ROWS_SLICE,
        LOOKS=LOOKS,
        num_warps=8,
        num_stages=5,
    )
    return made1
