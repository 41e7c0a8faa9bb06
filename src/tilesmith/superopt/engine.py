"""The engine as Python calls it: on a thread of its own, so that Ctrl-C is heard while it runs."""

from __future__ import annotations

from tilesmith import _core
from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import FIRST_LAUNCH_S, PORT_BYTES_PER_CLOCK, Gpu
from tilesmith.core.graph import Limits
from tilesmith.superopt.heard import heard
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.table import Named

PASS_S = 0.12e-6
"""What one pass of a loop takes beside its work: the wait for its loads, a barrier, the jump."""
MAX_CLASSES = 20_000


def device(gpu: Gpu, limits: Limits) -> _core.Device:
    """What the engine needs to know of a GPU."""
    made = _core.Device()
    made.multiprocessors = gpu.multiprocessors
    made.dram_bytes_per_s = gpu.readable_bytes_per_s
    made.l2_bytes_per_s = PORT_BYTES_PER_CLOCK * gpu.clock_hz * gpu.multiprocessors
    made.matrix_flops = gpu.matrix_flops("fp16")
    made.vector_flops = gpu.fp32_flops / 2
    made.launch_s, made.pass_s = FIRST_LAUNCH_S, PASS_S
    made.register_bytes = 4 * gpu.registers
    made.shared_bytes = min(limits.shared_bytes, gpu.block_shared_bytes)
    made.blocks = limits.blocks
    return made


def engine(program: Named, limits: Limits, plan: Plan, gpu: Gpu, ranks: int = 0, rank: int = 0) -> _core.Engine:
    """An engine for one search, or for one rank's share of it."""
    return _core.Engine(
        program.parts,
        program.extents,
        [(place, names, program.element_bytes) for place, names in enumerate(program.inputs)],
        [(f.name, f.id, f.eps, f.base) for f in program.functions],
        program.nodes,
        program.outputs,
        program.aliases,
        device=device(gpu, limits),
        element_bytes=program.element_bytes,
        closure=plan.kernels == "closure",
        schedule="openmp" if ranks else plan.schedule,
        order=plan.order,
        threads=plan.threads,
        frontier_bytes=plan.frontier_bytes,
        timeline=plan.timeline,
        ranks=ranks,
        rank=rank,
        block_ops=limits.block_ops,
        kernel_inputs=limits.inputs,
        kernel_outputs=limits.outputs,
        kernels=min(limits.kernel_ops, limits.graph_defined_kernels),
        seconds=plan.seconds or 0.0,
        max_graphs=plan.max_graphs or 0,
        keep=plan.keep,
        max_classes=MAX_CLASSES,
    )


def run(made: _core.Engine) -> _core.Result:
    """The result of a search. Ctrl-C ends the search, not the program: what was found until then is the result.

    Raises `OptionError` for a program that has no place in the space.
    """
    try:
        return heard(made.run, made.interrupt)
    except ValueError as fault:
        raise OptionError(f"The program cannot be searched in the symbolic space: {fault}.") from None
