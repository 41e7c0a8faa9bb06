"""Traces problems and compares the graphs with what PyTorch computes. Its own process, since it imports torch.

Standard input: {name: {source, constants, dtype, compare}}. Standard output: {name: {hash, error}}, where the error is
the largest difference between the graph's numbers and PyTorch's, both in float64, or null where `compare` is false; or
{name: {fault}}.
"""

from __future__ import annotations

import json
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch

from tilesmith.core.errors import ProblemError
from tilesmith.core.graph import Graph
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt.aten import translate
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.tracing import answer


def difference(graph: Graph, source: str) -> float:
    module = types.ModuleType("problem")
    exec(source, module.__dict__)
    torch.manual_seed(1)
    model = module.Model(*module.get_init_inputs()).double()
    inputs = [tensor.double() for tensor in module.get_inputs()]
    expected = model(*[tensor.clone() for tensor in inputs])
    expected = expected if isinstance(expected, tuple) else (expected,)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rest = iter(inputs)
    drawn = {t.name: (state[t.name] if t.name in state else next(rest)).detach().numpy() for t in graph.inputs}
    pairs = zip(evaluate(graph, drawn), expected, strict=True)
    return max(float(np.max(np.abs(a - b.detach().numpy()))) if a.shape == b.shape else np.inf for a, b in pairs)


def checked(row: dict[str, Any]) -> dict[str, Any]:
    listed = answer(row)
    if "fault" in listed:
        return listed
    try:
        graph = translate(json.loads(json.dumps(listed))).graph()
    except ProblemError as fault:
        return {"fault": str(fault)}
    return {"hash": graph_hash(graph), "error": difference(graph, row["source"]) if row["compare"] else None}


warnings.simplefilter("ignore")
json.dump({name: checked(row) for name, row in json.load(sys.stdin).items()}, sys.stdout)
