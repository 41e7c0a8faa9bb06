"""
Lowered from µGraph e50f2a727c42aeac.

    X: fp16 [2, 4096]
    W: fp16 [4096, 6144]
    node 0: v2 = rms_norm(X), axes [1], 1/100000
    node 1: v3 = matmul(v2, W)
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
def square_sum_div_kernel_0(
    X_ptr, between1_ptr, INNER: tl.constexpr, ROWS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_INNER: tl.constexpr
):
    program = tl.program_id(0)
    rows_tile = program
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inner = tl.arange(0, BLOCK_INNER)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    inner_inside = inner < INNER if INNER % BLOCK_INNER else tl.full((BLOCK_INNER,), True, tl.int1)
    x = tl.load(
        X_ptr + rows[:, None] * INNER + inner[None, :],
        mask=rows_inside[:, None] & inner_inside[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    x_wide = x.to(tl.float32)
    squared = x_wide * x_wide
    total = tl.sum(squared, axis=1)
    scaled = total / INNER
    added = scaled + 1e-05
    root = tl.sqrt(added)
    ratio = x_wide / root[:, None]
    tl.store(
        between1_ptr + rows[:, None] * INNER + inner[None, :],
        ratio.to(tl.float16),
        mask=rows_inside[:, None] & inner_inside[None, :],
    )


@triton.jit
def matmul_kernel_1(
    between1_ptr,
    W_ptr,
    made2_ptr,
    partials_ptr,
    tickets_ptr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
):
    program = tl.program_id(0)
    part = program % SPLIT
    tile = program // SPLIT
    rows_tile = tile % tl.cdiv(ROWS, BLOCK_ROWS)
    others = tile // tl.cdiv(ROWS, BLOCK_ROWS)
    columns_tile = others
    rows = rows_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    rows_inside = rows < ROWS if ROWS % BLOCK_ROWS else tl.full((BLOCK_ROWS,), True, tl.int1)
    columns = columns_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    columns_inside = columns < COLUMNS if COLUMNS % BLOCK_COLUMNS else tl.full((BLOCK_COLUMNS,), True, tl.int1)
    products = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    SHARE: tl.constexpr = tl.cdiv(tl.cdiv(INNER, SPLIT), BLOCK_INNER) * BLOCK_INNER
    inner_first = part * SHARE
    inner_stop = tl.minimum(inner_first + SHARE, INNER)
    ahead = inner_first + tl.arange(0, BLOCK_INNER)
    ahead_inside = ahead < inner_stop
    next_between1 = tl.load(
        between1_ptr + rows[:, None] * INNER + ahead[None, :],
        mask=rows_inside[:, None] & ahead_inside[None, :],
        other=0.0,
    )
    next_w = tl.load(
        W_ptr + ahead[:, None] * COLUMNS + columns[None, :],
        mask=ahead_inside[:, None] & columns_inside[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    for inner_start in range(inner_first, inner_stop, BLOCK_INNER):
        between1 = next_between1
        w = next_w
        ahead = inner_start + BLOCK_INNER + tl.arange(0, BLOCK_INNER)
        ahead_inside = ahead < inner_stop
        next_between1 = tl.load(
            between1_ptr + rows[:, None] * INNER + ahead[None, :],
            mask=rows_inside[:, None] & ahead_inside[None, :],
            other=0.0,
        )
        next_w = tl.load(
            W_ptr + ahead[:, None] * COLUMNS + columns[None, :],
            mask=ahead_inside[:, None] & columns_inside[None, :],
            other=0.0,
            eviction_policy="evict_first",
        )
        products = tl.dot(between1, w, products)
    spots2 = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    tl.store(
        partials_ptr + (tile * SPLIT + part) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots2,
        products,
        mask=rows_inside[:, None] & columns_inside[None, :],
    )
    tl.debug_barrier()
    if tl.atomic_add(tickets_ptr + tile, 1, sem="acq_rel") == SPLIT - 1:
        products = tl.full((BLOCK_ROWS, BLOCK_COLUMNS), 0.0, tl.float32)
        for other in tl.static_range(SPLIT):
            part_products = tl.load(
                partials_ptr + (tile * SPLIT + other) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots2,
                mask=rows_inside[:, None] & columns_inside[None, :],
                other=0.0,
                cache_modifier=".cg",
            )
            products += part_products
        tl.store(
            made2_ptr + rows[:, None] * COLUMNS + columns[None, :],
            products.to(tl.float16),
            mask=rows_inside[:, None] & columns_inside[None, :],
        )
        tl.atomic_xchg(tickets_ptr + tile, 0)


def kernel_function(X, W):
    ROWS = X.shape[0]
    INNER = X.shape[1]
    COLUMNS = W.shape[1]
    between1 = torch.empty((ROWS, INNER), device=X.device, dtype=torch.float16)
    BLOCK_ROWS_0 = 1
    BLOCK_INNER_0 = triton.next_power_of_2(INNER)
    square_sum_div_kernel_0[(triton.cdiv(ROWS, BLOCK_ROWS_0),)](
        X.contiguous(),
        between1,
        INNER,
        ROWS,
        BLOCK_ROWS=BLOCK_ROWS_0,
        BLOCK_INNER=BLOCK_INNER_0,
        num_warps=8,
        num_stages=1,
    )
    made2 = torch.empty((ROWS, COLUMNS), device=X.device, dtype=torch.float16)
    BLOCK_ROWS_1, BLOCK_INNER_1, BLOCK_COLUMNS_1, SPLIT_1 = 16, 128, 128, 4
    tiles_1 = triton.cdiv(ROWS, BLOCK_ROWS_1) * triton.cdiv(COLUMNS, BLOCK_COLUMNS_1)
    partials = torch.empty(tiles_1 * SPLIT_1 * BLOCK_ROWS_1 * BLOCK_COLUMNS_1, device=X.device, dtype=torch.float32)
    matmul_kernel_1[(tiles_1 * SPLIT_1,)](
        between1,
        W.contiguous(),
        made2,
        partials,
        tickets(X.device, "matmul_kernel_1", tiles_1),
        ROWS,
        INNER,
        COLUMNS,
        BLOCK_ROWS=BLOCK_ROWS_1,
        BLOCK_INNER=BLOCK_INNER_1,
        BLOCK_COLUMNS=BLOCK_COLUMNS_1,
        SPLIT=SPLIT_1,
        num_warps=4,
        num_stages=1,
    )
    return made2
