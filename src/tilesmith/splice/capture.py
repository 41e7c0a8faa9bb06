"""What a captured graph calls, in the superoptimizer's terms, and which node of the graph makes which value.

The graph that torch.compile captures is exported once more, in this process and on fake tensors: then it is functional,
its calls are ATen's, and no call is taken apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node

from tilesmith.core.errors import TilesmithError
from tilesmith.superopt.aten import translate
from tilesmith.superopt.traced import Traced
from tilesmith.superopt.tracing import Fault, listed


class Uncapturable(Exception):
    """The graph stays as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A functional graph of ATen calls. Values are numbered as in `traced`."""

    module: GraphModule
    lifted: tuple[Any, ...]
    """What its first placeholders stand for: parameters, buffers and constants; the others are the inputs."""
    traced: Traced
    nodes: dict[int, Node]
    """For each value the node that makes it first."""
    calls: tuple[Node, ...]
    """The nodes that are calls, in order."""

    def targets(self) -> tuple[str, ...]:
        return tuple(str(node.target) for node in self.calls)


def capture(module: GraphModule, inputs: Sequence[Any]) -> Captured:
    """Raises `Uncapturable` for a graph that changes what it is given, or that cannot be exported."""
    for value in inputs:
        if not isinstance(value, torch.Tensor):
            raise Uncapturable(
                "it has dynamic shapes, and kernels are found for fixed ones: compile with dynamic=False, or call it "
                "with one shape"
            )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, tuple(inputs), strict=False).run_decompositions({})
            traced = translate(listed(program, Path(), ()))
    except (Fault, TilesmithError) as error:
        raise Uncapturable(str(error).rstrip(".")) from None
    except Exception as error:  # torch's opinion of the module may be anything, and the module itself still works
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise Uncapturable(f"it cannot be exported ({type(error).__name__}: {text[:300].rstrip('.')})") from None
    graph = program.graph_module.graph
    calls = tuple(node for node in graph.nodes if node.op == "call_function")
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    lifted = _lifted(program, placeholders[: len(placeholders) - len(inputs)])
    nodes: dict[int, Node] = dict(enumerate(placeholders))
    for node, made in zip(calls, traced.made, strict=True):
        if isinstance(made, int):
            nodes.setdefault(made, node)
    return Captured(program.graph_module, lifted, traced, nodes, calls)


def _lifted(program: Any, placeholders: Sequence[Node]) -> tuple[Any, ...]:
    """What export took out of the module: constants as a rule, since parameters come in as inputs."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    made = []
    for node in placeholders:
        name = names[node.name]
        made.append(program.constants[name] if name in program.constants else program.state_dict[name])
    return tuple(made)
