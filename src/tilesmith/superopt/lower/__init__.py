"""From a µGraph to Triton source."""

from __future__ import annotations

from dataclasses import dataclass

from tilesmith.core.gpu import Gpu
from tilesmith.core.graph import Graph
from tilesmith.superopt.lower.choose import choices
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.program import Launch, program
from tilesmith.superopt.lower.sizes import Unnamed
from tilesmith.superopt.lower.source import file


@dataclass(frozen=True, slots=True)
class Lowering:
    library: bool = False
    tf32: bool = False
    parameters: tuple[str, ...] = ()


def lower(graph: Graph, gpu: Gpu, options: Lowering = Lowering()) -> tuple[str, ...]:
    ready = prepared(graph, options.library)
    try:
        steps = program(ready, True)
    except Unnamed:
        steps = program(ready, False)
    chosen = [next(choices(step.plan, gpu)) for step in steps.steps if isinstance(step, Launch)]
    return (file(graph, steps, chosen, options.parameters, options.tf32),)
