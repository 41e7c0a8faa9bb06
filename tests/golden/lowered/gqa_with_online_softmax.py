"""
Lowered from µGraph a9b30ec4e91afeff.

    Q: fp16 [2, 256, 64]
    K: fp16 [2, 64, 4096]
    V: fp16 [2, 4096, 64]
    node 0: a kernel of grid [2, 4], loop 64
        Q imap [0, 1], fmap -
        K imap [0, -], fmap 2
        V imap [0, -], fmap 1
        matmul, 16, div, accumulate rescale, accumulate rescale, div
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
def matmul_div_softmax_kernel(
    Q_ptr,
    K_ptr,
    V_ptr,
    made1_ptr,
    partials_ptr,
    partials2_ptr,
    partials3_ptr,
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
    peaks = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    mixed = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    weights = tl.zeros((BLOCK_ROWS,), tl.float32)
    SHARE: tl.constexpr = tl.cdiv(tl.cdiv(INNER, SPLIT), BLOCK_INNER) * BLOCK_INNER
    inner_first = part * SHARE
    inner_stop = tl.minimum(inner_first + SHARE, INNER)
    for inner_start in range(inner_first, inner_stop, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        inner_inside = inner < INNER if INNER % BLOCK_INNER else tl.full((BLOCK_INNER,), True, tl.int1)
        k = tl.load(
            K_ptr + batch * (DEPTH * INNER) + depth[:, None] * INNER + inner[None, :],
            mask=depth_inside[:, None] & inner_inside[None, :],
            other=0.0,
        )
        v = tl.load(
            V_ptr + batch * (COLUMNS * INNER) + inner[:, None] * COLUMNS + columns[None, :],
            mask=inner_inside[:, None] & columns_inside[None, :],
            other=0.0,
        )
        product = tl.dot(q, k)
        ratio = product / 16.0
        scores = tl.where(inner_inside[None, :], ratio, float("-inf"))
        new_peaks = tl.maximum(peaks, tl.max(scores, axis=1))
        finite_peaks = tl.where(new_peaks == float("-inf"), 0.0, new_peaks)
        shrink = tl.exp(peaks - finite_peaks)
        e = tl.exp(scores - finite_peaks[:, None])
        peaks = new_peaks
        mixed = tl.dot(e.to(tl.float16), v, mixed * shrink[:, None])
        weights = weights * shrink + tl.sum(e, axis=1)
    spots2 = tl.arange(0, BLOCK_ROWS)
    spots3 = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    spots4 = tl.arange(0, BLOCK_ROWS)
    tl.store(partials_ptr + (tile * SPLIT + part) * (BLOCK_ROWS) + spots2, peaks, mask=rows_inside)
    tl.store(
        partials2_ptr + (tile * SPLIT + part) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots3,
        mixed,
        mask=rows_inside[:, None] & columns_inside[None, :],
    )
    tl.store(partials3_ptr + (tile * SPLIT + part) * (BLOCK_ROWS) + spots4, weights, mask=rows_inside)
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
            own_peaks = tl.full((BLOCK_ROWS_SLICE,), float("-inf"), tl.float32)
            own_mixed = tl.full((BLOCK_ROWS_SLICE, BLOCK_COLUMNS), 0.0, tl.float32)
            own_weights = tl.full((BLOCK_ROWS_SLICE,), 0.0, tl.float32)
            spots5 = (own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE))
            spots6 = (own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE))[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
            spots7 = (own * BLOCK_ROWS_SLICE + tl.arange(0, BLOCK_ROWS_SLICE))
            for other in tl.static_range(SPLIT):
                part_own_peaks = tl.load(
                    partials_ptr + (tile * SPLIT + other) * (BLOCK_ROWS) + spots5,
                    mask=rows_slice_inside,
                    other=0.0,
                    cache_modifier=".cg",
                )
                part_own_mixed = tl.load(
                    partials2_ptr + (tile * SPLIT + other) * (BLOCK_ROWS * BLOCK_COLUMNS) + spots6,
                    mask=rows_slice_inside[:, None] & columns_inside[None, :],
                    other=0.0,
                    cache_modifier=".cg",
                )
                part_own_weights = tl.load(
                    partials3_ptr + (tile * SPLIT + other) * (BLOCK_ROWS) + spots7,
                    mask=rows_slice_inside,
                    other=0.0,
                    cache_modifier=".cg",
                )
                new_own_peaks = tl.maximum(own_peaks, part_own_peaks)
                shrink2 = tl.where(own_peaks == new_own_peaks, 1.0, tl.exp(own_peaks - new_own_peaks))
                own_shrink = tl.where(part_own_peaks == new_own_peaks, 1.0, tl.exp(part_own_peaks - new_own_peaks))
                own_mixed = own_mixed * shrink2[:, None] + part_own_mixed * own_shrink[:, None]
                own_weights = own_weights * shrink2 + part_own_weights * own_shrink
                own_peaks = new_own_peaks
            ratio2 = own_mixed / own_weights[:, None]
            tl.store(
                made1_ptr + batch * (COLUMNS * ROWS) + rows_slice[:, None] * COLUMNS + columns[None, :],
                ratio2.to(tl.float16),
                mask=rows_slice_inside[:, None] & columns_inside[None, :],
            )


def kernel_function(Q, K, V):
    BATCH = Q.shape[0]
    ROWS = Q.shape[1]
    DEPTH = Q.shape[2]
    INNER = K.shape[2]
    COLUMNS = V.shape[2]
    made1 = torch.empty((BATCH, ROWS, COLUMNS), device=Q.device, dtype=torch.float16)
    BLOCK_ROWS, BLOCK_INNER, BLOCK_COLUMNS, SPLIT, BLOCK_ROWS_SLICE, LOOKS = 64, 128, 64, 32, 2, 64
    BLOCK_DEPTH = max(triton.next_power_of_2(DEPTH), 16)
    tiles = triton.cdiv(COLUMNS, BLOCK_COLUMNS) * triton.cdiv(ROWS, BLOCK_ROWS) * BATCH
    partials = torch.empty(tiles * SPLIT * BLOCK_ROWS, device=Q.device, dtype=torch.float32)
    partials2 = torch.empty(tiles * SPLIT * BLOCK_ROWS * BLOCK_COLUMNS, device=Q.device, dtype=torch.float32)
    partials3 = torch.empty(tiles * SPLIT * BLOCK_ROWS, device=Q.device, dtype=torch.float32)
    matmul_div_softmax_kernel[(tiles * SPLIT,)](
        Q.contiguous(),
        K.contiguous(),
        V.contiguous(),
        made1,
        partials,
        partials2,
        partials3,
        tickets(Q.device, "matmul_div_softmax_kernel", tiles * (SPLIT + 1)),
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
        num_warps=4,
        num_stages=3,
    )
    return made1
