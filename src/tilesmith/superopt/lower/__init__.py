"""From a µGraph to Triton source: one readable file for every way that is worth judging, best estimate first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph
from tilesmith.superopt.lower.choose import Ranked, choices
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.program import Launch, Steps, program
from tilesmith.superopt.lower.sizes import Unnamed
from tilesmith.superopt.lower.source import file, note

__all__ = ["Choice", "Lowered", "Lowering", "lower"]


@dataclass(frozen=True, slots=True)
class Lowering:
    """What a lowering may do."""

    most: int = 8
    """Sources, at most."""
    library: bool = False
    """Whether products that are predefined kernels may stay the framework's."""
    tf32: bool = False
    """Whether products of float32 may round their operands."""
    named: bool = True
    """Whether sources take their sizes from the inputs, where the graph's extents follow from them. Else, and where
    they do not, a source is made for the graph's extents alone, and masks stand only where those do not divide."""
    fixed: frozenset[Fraction] | None = None
    """Constants that are the same for any extents; None where all are, but for the n of a mean. With a constant that is
    not among them a source is made for the graph's extents alone."""
    parameters: tuple[str, ...] = ()
    """Inputs that are the model's parameters or buffers: the wrapper takes them by keyword."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """One source for a µGraph."""

    source: str
    note: str
    """How its kernels are tiled and launched, in a line."""
    estimate_us: float
    """The sum over its kernels; it ranks sources of one graph, and is no time."""
    choices: tuple[Choice, ...]
    """For every kernel of its own."""


def lower(graph: Graph, gpu: Gpu, options: Lowering | None = None) -> tuple[Lowered, ...]:
    """Sources that compute a checked µGraph, the best estimate first, each with other tiles or another way of loading.

    Raises `OptionError` for a malformed graph, for an operator or a dtype that kernels have not, and for a kernel that
    fits the GPU at no tile size: one sentence that names the kernel.
    """
    chosen = options or Lowering()
    if chosen.most < 1:
        raise OptionError(f"At most {chosen.most} sources is none; ask for at least 1.")
    ready = prepared(graph, chosen.library)
    if chosen.named:
        try:
            return _lowered(graph, program(ready, named=True), gpu, chosen)
        except Unnamed:
            pass
    return _lowered(graph, program(ready, named=False), gpu, chosen)


def _lowered(graph: Graph, steps: Steps, gpu: Gpu, chosen: Lowering) -> tuple[Lowered, ...]:
    lists = [choices(step.plan, gpu, chosen.most) for step in steps.steps if isinstance(step, Launch)]
    made = []
    for number in range(max((len(ranked) for ranked in lists), default=1)):
        row: list[Ranked] = [ranked[min(number, len(ranked) - 1)] for ranked in lists]
        picked = tuple(choice for choice, _ in row)
        source = file(graph, steps, picked, chosen.parameters, chosen.tf32, chosen.fixed)
        seconds = sum(found.seconds for _, found in row)
        made.append(Lowered(source, note(steps, picked), 1e6 * seconds, picked))
    return tuple({lowered.source: lowered for lowered in made}.values())
