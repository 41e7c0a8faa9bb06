"""Random µGraphs, lowered in random ways and run by Triton's interpreter, are what their evaluation in float64 is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpreted import Array, Interpreter
from lower_cases import another_way, lowerable
from random_graphs import programs

from tilesmith.core.errors import OptionError
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph
from tilesmith.superopt.lower import Lowering, lower
from tilesmith.superopt.lower.choose import choices
from tilesmith.superopt.lower.kernels import prepared
from tilesmith.superopt.lower.program import Launch, Steps, program
from tilesmith.superopt.lower.sizes import Unnamed
from tilesmith.superopt.lower.source import file
from tilesmith.superopt.numeric import evaluate

quick = settings(deadline=None, suppress_health_check=list(HealthCheck))


def drawn(graph: Graph, seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.5, 1.5, tensor.dims).astype(np.float32) for tensor in graph.inputs]


def close(found: Sequence[Array], graph: Graph, inputs: Sequence[Array]) -> None:
    expected = evaluate(graph, {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)})
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        # Where float64 is beyond what float32 holds, or no number, nothing is asked.
        known = np.isfinite(want) & (np.abs(want) < 1e20)
        scale = float(np.max(np.abs(want[known]), initial=1.0))
        assert np.all(np.abs(got[known] - want[known]) <= 1e-3 * scale)


@settings(quick, max_examples=40)
@given(lowerable(), st.booleans())
def test_what_searches_make(interpreter: Interpreter, graph: Graph, named: bool) -> None:
    inputs = drawn(graph)
    lowered = lower(graph, target(), Lowering(most=2, named=named))
    for source in lowered:
        close(interpreter.run(source.source, inputs), graph, inputs)


@settings(quick, max_examples=60)
@given(st.data())
def test_every_choice_computes_the_same(interpreter: Interpreter, data: st.DataObject) -> None:
    graph = data.draw(lowerable())
    steps = steps_of(graph)
    launches = [step for step in steps.steps if isinstance(step, Launch)]
    picked = [data.draw(another_way(launch.plan, choices(launch.plan, target(), 1)[0][0])) for launch in launches]
    inputs = drawn(graph)
    # A second call finds the tickets of the first.
    close(interpreter.run(file(graph, steps, picked, (), False), inputs, calls=2), graph, inputs)


@settings(quick, max_examples=40)
@given(programs())
def test_any_program(interpreter: Interpreter, drawn_graph: Graph) -> None:
    graph = replace(drawn_graph, inputs=tuple(replace(tensor, dtype="fp32") for tensor in drawn_graph.inputs))
    inputs = drawn(graph)
    try:
        (lowered,) = lower(graph, target(), Lowering(most=1))
    except OptionError as error:
        # Such as a concatenation inside a block.
        if "cannot be lowered: kernel" not in str(error):
            raise
        return
    close(interpreter.run(lowered.source, inputs), graph, inputs)


def steps_of(graph: Graph) -> Steps:
    ready = prepared(graph, library=False)
    try:
        return program(ready, named=True)
    except Unnamed:
        return program(ready, named=False)
