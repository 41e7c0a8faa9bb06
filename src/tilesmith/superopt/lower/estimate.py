"""What a kernel would cost under a choice, from the µGraph alone: bytes, operations, programs, and whether it fits.

A roofline with a few corrections. Memory cannot be faster than what is under way at once allows (Little's law), a
product cannot be faster than its tile lets the matrix units be, an iteration whose loads are not overlapped waits for
them, and programs that come in waves leave multiprocessors idle in the last. The constants are an H200's, measured or
fitted by hand to kernels that were (docs/lowering.md); the result ranks choices and is no time to be quoted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilesmith.core.gpu import L2_LATENCY_S, PORT_BYTES_PER_CLOCK, Gpu
from tilesmith.core.graph import Accumulate, Op, Step
from tilesmith.core.graph_check import BYTES, Phase
from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.lower.axes import Rows
from tilesmith.superopt.lower.options import UNROLLED, Choice, may_stream
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.specialize import may_specialize, ring_bytes
from tilesmith.superopt.lower.tma import kept_bytes

LAUNCH_S = 2.0e-6
LATENCY_S = 0.8e-6
"""From a load to its data, in device memory."""
L2_OVER_DRAM = 1.6
"""How much faster the second-level cache is than device memory."""
ITERATION_S = 0.06e-6
PROGRAM_S = 0.5e-9
"""Between the starts of two programs."""
WALKED = 1.15
"""What walking from tile to tile costs where nothing of the next is loaded meanwhile: the hardware, starting a program
where one has ended, overlaps more (a normalization of 7.5 GB: 2,171 us against 2,017)."""
TICKET_S = 0.8e-6
"""What the last of several programs that share a tile adds."""
TOGETHER_S = 1.4e-6
"""What waiting for all of them adds."""
CROSSING_S = 0.4e-6
"""What an iteration waits whose warps exchange what one product made and the next reads."""
REGISTERS = 255
"""Of one thread, at most."""
FIXED_REGISTERS = 32
SLOW = {"exp": 4, "log": 4, "sigmoid": 6, "silu": 7, "tanh": 7, "gelu": 12, "gelu_erf": 16, "sqrt": 4, "rsqrt": 4,
        "div": 6, "pow": 8}  # fmt: skip
"""Operations of an element; others are one."""
COPIED = 0.6
BESIDE = 0.4
"""What the shorter of multiplying and computing adds to the longer where programs overlap."""
DESCRIBED, SPECIALIZED = 1.08, 1.15
"""How much faster products are whose operands are copied by coordinates, and by a warp of their own."""
SHORT_RUNS = 1.4
"""What runs of a sector cost more than long ones: a normalization with 16 pixels of 64 channels a tile."""
STREAMED = 0.9
"""What reading once leaves of the time, with lines that go first."""


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float
    programs: int
    shared_bytes: int
    registers: int
    """Of one thread."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a choice cannot be launched."""

    what: str
    needed: int
    limit: int


def estimate(plan: Plan, choice: Choice, gpu: Gpu) -> Estimate | Misfit:
    """Seconds of one launch on cold caches, or what it needs too much of."""
    tiles = math.prod(_parts(plan, choice))
    programs = tiles * choice.split
    steps = _steps(plan, choice)
    shared = shared_bytes(plan, choice)
    if shared > gpu.block_shared_bytes:
        return Misfit("bytes of shared memory", shared, gpu.block_shared_bytes)
    registers = _registers(plan, choice)
    if registers > REGISTERS:
        return Misfit("registers of a thread", registers, REGISTERS)
    resident = _resident(choice, gpu, shared, registers)
    launched = min(programs, choice.programs) if choice.programs else programs
    rounds = math.ceil(programs / min(launched, gpu.multiprocessors * resident))
    active = min(launched, gpu.multiprocessors * resident)
    busy = min(1.0, programs / (rounds * gpu.multiprocessors)) if rounds == 1 else programs / (rounds * active)
    memory = _memory(plan, choice, gpu, programs, steps, active)
    dots, others = _operations(plan, choice, steps)
    matrix = gpu.matrix_flops("fp16") * _efficiency(plan, choice) * busy
    # A warp waits for its own results: few warps do not fill a multiprocessor's 128 lanes.
    alone = others / (min(128, 16 * choice.warps) * gpu.clock_hz)
    waiting = ITERATION_S if _overlaps(choice) else ITERATION_S + LATENCY_S / resident
    waiting += CROSSING_S if _crossing(plan, choice) else 0.0
    chain = rounds * (steps * waiting + alone)
    # What waits in registers is copied to shared memory before a product, and the copy is not overlapped.
    matrix *= COPIED if choice.prefetch else 1.0 if choice.stages > 2 else 0.8
    matrix *= SPECIALIZED if choice.consumers else DESCRIBED if choice.descriptors else 1.0
    # Two programs of a multiprocessor multiply and compute at once; one alone does so in turns.
    units = sorted((dots / matrix, others / (0.5 * gpu.fp32_flops * busy)))
    arithmetic = programs * (units[1] + units[0] * (BESIDE if active > gpu.multiprocessors else 1.0))
    parts = sorted((memory, arithmetic, chain))
    seconds = LAUNCH_S + LATENCY_S + parts[2] + 0.3 * (parts[0] + parts[1]) + launched * PROGRAM_S
    if choice.programs and not _overlaps(choice):
        seconds *= WALKED
    if choice.split > 1:
        carried = sum(_read(plan, choice, rows) for rows in _carried(plan)) * 4
        # One multiprocessor alone pulls what the last to arrive adds; together they pull a slice each.
        pulled = carried * (1 if choice.together else choice.split) / (PORT_BYTES_PER_CLOCK * gpu.clock_hz)
        waits = 0 if choice.together or choice.split <= UNROLLED else choice.split
        seconds += (TOGETHER_S if choice.together else TICKET_S) + pulled + waits * L2_LATENCY_S
        seconds += 2 * programs * carried / (L2_OVER_DRAM * gpu.readable_bytes_per_s)
    return Estimate(seconds, programs, shared, registers)


def lasting(plan: Plan, choice: Choice, gpu: Gpu) -> int:
    """How many programs the GPU holds at once."""
    registers = min(REGISTERS, _registers(plan, choice))
    return gpu.multiprocessors * _resident(choice, gpu, shared_bytes(plan, choice), registers)


def _resident(choice: Choice, gpu: Gpu, shared: int, registers: int) -> int:
    """Programs of one multiprocessor."""
    by_registers = gpu.registers // (registers * 32 * choice.warps)
    return max(1, min(gpu.shared_bytes // (shared + 1024), by_registers, gpu.warps // choice.warps, gpu.blocks))


def _parts(plan: Plan, choice: Choice) -> Iterator[int]:
    for grid in range(len(plan.kernel.grid)):
        axis = plan.axes.grid[grid]
        yield plan.counts[grid].number if axis is None else math.ceil(plan.sizes[axis].number / choice.blocks[axis])


def _steps(plan: Plan, choice: Choice) -> int:
    """Iterations of one program."""
    axis = plan.axes.step
    if axis is None:
        return plan.loop.number if plan.loops else 1
    return math.ceil(plan.sizes[axis].number / (plan.shares(axis) * choice.split * choice.blocks[axis]))


def _overlaps(choice: Choice) -> bool:
    return choice.stages > 1 or choice.prefetch


def _held(plan: Plan, choice: Choice, rows: Rows) -> int:
    """Elements of a tile as it is held, padding included."""
    del plan
    return math.prod(choice.blocks[axis] for row in rows for axis in row)


def _read(plan: Plan, choice: Choice, rows: Rows) -> int:
    """Elements of a tile that are read."""
    return math.prod(min(choice.blocks[axis], plan.sizes[axis].number) for row in rows for axis in row)


def _carried(plan: Plan) -> list[Rows]:
    first = len(plan.kernel.loads)
    steps = enumerate(plan.kernel.body, first)
    return [plan.axes.rows[v] for v, step in steps if isinstance(step, Accumulate) and step.how != "concat"]


# Fits ----------------------------------------------------------------------------------------------------------------


def shared_bytes(plan: Plan, choice: Choice) -> int:
    """Shared memory of a program."""
    if choice.descriptors and may_specialize(plan):
        # The loop only multiplies what is copied: it stays where the copies put it.
        return ring_bytes(plan, choice)
    return _shared(plan, choice) + (kept_bytes(plan, choice) if choice.descriptors else 0)


def _shared(plan: Plan, choice: Choice) -> int:
    """Buffers of the pipeline, and of products' operands that come from registers."""
    first = len(plan.kernel.loads)
    factors = {operand for step in plan.kernel.body if plan.dots(step) for operand in step.operands[:2]}
    # The wide products of Hopper read their operands while the next are copied: one buffer more.
    wide = choice.warps >= 4 and max((_rows(plan, choice, step) for step in plan.kernel.body), default=0) >= 64
    buffers = choice.stages if wide else max(1, choice.stages - 1)
    # Their left operand stays in registers if it was made there.
    if wide and not _crossing(plan, choice):
        factors -= _lefts(plan)
    made = 0
    for value in range(len(plan.made.tiles)):
        size = _held(plan, choice, plan.axes.rows[value]) * BYTES[plan.made.tiles[value].dtype]
        view = plan.sources[value] if value < first else None
        if view is not None and plan.made.phases[value] is Phase.VARYING:
            made += size * buffers
        elif value in factors:
            made += size
    return made


def _lefts(plan: Plan) -> set[int]:
    """Left operands of products that the loop computes, not loads."""
    first = len(plan.kernel.loads)

    def made(value: int) -> bool:
        step = plan.kernel.body[value - first] if value >= first else None
        if isinstance(step, Op) and OPERATORS[step.operator].kind == "view":
            return made(step.operands[0])
        return step is not None

    lefts = {step.operands[0] for step in plan.kernel.body if plan.dots(step)}
    return {value for value in lefts if plan.made.phases[value] is Phase.VARYING and made(value)}


def _crossing(plan: Plan, choice: Choice) -> bool:
    """Whether warps that have other columns of a product need one another's as the left operand of the next."""
    lefts = _lefts(plan)
    products = [step for step in plan.kernel.body if plan.dots(step) and step.operands[0] in lefts]
    return any(16 * choice.warps > _rows(plan, choice, step) for step in products)


def _rows(plan: Plan, choice: Choice, step: Step) -> int:
    """How many rows a product on the matrix units has; 0 of what is none."""
    return _held(plan, choice, plan.axes.rows[step.operands[0]][-2:-1]) if plan.dots(step) else 0


def _registers(plan: Plan, choice: Choice) -> int:
    """Of one thread: what is carried over the loop, and the most that is alive beside it."""
    first = len(plan.kernel.loads)
    last: dict[int, int] = {}
    for value, step in enumerate(plan.kernel.body, first):
        last |= dict.fromkeys(step.operands, value)
    for store in plan.kernel.stores:
        last[store.source] = len(plan.made.tiles)
    direct = {operand for step in plan.kernel.body if plan.dots(step) for operand in step.operands[:2]}
    values = range(len(plan.made.tiles))
    sizes = [_kept(plan, choice, value, value in direct) for value in values]
    gathered = {value for value, step in enumerate(plan.kernel.body, first) if isinstance(step, Accumulate)}
    carried = sum(sizes[value] for value in gathered)
    most = 0.0
    for now in values:
        # An operator may write where an operand was that nobody needs any more.
        alive = [v for v in values if v <= now < last.get(v, 0)]
        inside = now in gathered or plan.made.phases[now] is Phase.VARYING
        beside = sum(sizes[v] for v in alive if not inside or v not in gathered)
        most = max(most, beside + (carried if inside else 0.0))
    # What one product made and the next reads is there twice while it is rounded; the compiler takes no less.
    rounded = sum(sizes[value] / 2 for value in _lefts(plan))
    return FIXED_REGISTERS * (2 if rounded else 1) + math.ceil((most + rounded) / (32 * choice.warps))


def _kept(plan: Plan, choice: Choice, value: int, factor: bool) -> float:
    """Registers of all threads for a value; operands of products that are loaded wait in shared memory."""
    first = len(plan.kernel.loads)
    step = plan.kernel.body[value - first] if value >= first else None
    size = float(_held(plan, choice, plan.axes.rows[value]))
    if isinstance(step, Op) and (OPERATORS[step.operator].kind in ("view", "constant") or _fused(plan, value)):
        return 0.0
    if step is None and factor:
        waits = choice.prefetch and plan.made.phases[value] is Phase.VARYING
        # This iteration's and the next one's.
        return 2 * size * BYTES[plan.made.tiles[value].dtype] / 4 if waits else 0.0
    return size


def _fused(plan: Plan, value: int) -> bool:
    step = plan.kernel.body[value - len(plan.kernel.loads)]
    if not isinstance(step, Op) or step.operator != "matmul":
        return False
    return any(isinstance(s, Accumulate) and value in s.operands for s in plan.kernel.body)


# Costs ---------------------------------------------------------------------------------------------------------------


def _memory(plan: Plan, choice: Choice, gpu: Gpu, programs: int, steps: int, active: int) -> float:
    """Seconds for what is read and written."""
    once, traffic, flight = 0.0, 0.0, 0.0
    buffers: dict[str, float] = {}
    for value, view in enumerate(plan.sources):
        if view is None:
            continue
        size = BYTES[view.dtype]
        varies = plan.made.phases[value] is Phase.VARYING
        tile = _read(plan, choice, plan.axes.rows[value]) * size
        # Asynchronous copies drop the hint.
        streams = choice.stream and may_stream(plan, value, choice.blocks) and not (varies and choice.stages > 1)
        share = STREAMED if streams else 1.0
        spread = _scattered(plan, choice, value, size)
        apart = min(spread, SHORT_RUNS)
        buffers[view.buffer] = max(buffers.get(view.buffer, 0.0), view.elements * size * share * apart)
        traffic += programs * tile * (steps if varies else 1) * spread
        ahead = 1.0 if choice.prefetch else max(1.0, choice.stages - 1.0)
        flight += tile * (ahead if varies else 1.0 if not plan.loops else 0.0)
    once = sum(buffers.values())
    for store in plan.kernel.stores:
        written = programs / choice.split * _read(plan, choice, plan.axes.rows[store.source])
        written *= BYTES[plan.made.tiles[store.source].dtype]
        once += written
        traffic += written
    way = active * max(flight, 512.0) / LATENCY_S
    dram = min(gpu.readable_bytes_per_s, way)
    cache = min(L2_OVER_DRAM * gpu.readable_bytes_per_s, 2 * way)
    return max(once / dram, traffic / cache)


def _scattered(plan: Plan, choice: Choice, value: int, size: int) -> float:
    """How many bytes' time a byte that is used takes: neighbours in memory come in sectors of 32 bytes, and a tile of
    short runs meets many pages."""
    view = plan.sources[value]
    rows = plan.axes.rows[value]
    for pieces, row in zip(view.rows if view else (), rows, strict=True):
        if row and pieces and pieces[-1].stride.number == 1:
            run = size * min(choice.blocks[row[-1]], plan.sizes[row[-1]].number)
            return max(1.0, 32 / run, SHORT_RUNS if run <= 32 else 1.2 if run <= 64 else 1.0)
    return 32 / size if any(rows) else 1.0


def _operations(plan: Plan, choice: Choice, steps: int) -> tuple[float, float]:
    """Of one program: on the matrix units, and of all others."""
    dots, others = 0.0, 0.0
    first = len(plan.kernel.loads)
    for value, step in enumerate(plan.kernel.body, first):
        varies = plan.made.phases[value] is Phase.VARYING or isinstance(step, Accumulate)
        often = steps if varies else 1
        if plan.dots(step):
            left, right = (plan.axes.rows[operand] for operand in step.operands[:2])
            dots += often * 2.0 * _held(plan, choice, left) * _held(plan, choice, right[-1:])
        if isinstance(step, Op) and OPERATORS[step.operator].kind in ("element-wise", "reduction", "contraction"):
            source = plan.axes.rows[step.operands[0]] if OPERATORS[step.operator].kind == "reduction" else ()
            size = _held(plan, choice, source or plan.axes.rows[value])
            if not plan.dots(step):
                others += often * SLOW.get(step.operator, 1) * size
        elif isinstance(step, Accumulate):
            others += (
                often * (8 if step.how == "rescale" else 1) * _held(plan, choice, plan.axes.rows[step.operands[0]])
            )
    return dots, others


def _efficiency(plan: Plan, choice: Choice) -> float:
    """The share of the matrix units' rate that tiles of such sizes reach: wide instructions take 64 rows at least."""
    rows = max((_rows(plan, choice, step) for step in plan.kernel.body), default=0)
    products = [step for step in plan.kernel.body if plan.dots(step)]
    columns = max((_held(plan, choice, plan.axes.rows[step.operands[1]][-1:]) for step in products), default=0)
    tall = 1.0 if rows >= 128 else 0.8 if rows >= 64 else 0.4
    return tall * (1.0 if columns >= 128 else 0.8 if columns >= 64 else 0.5)
