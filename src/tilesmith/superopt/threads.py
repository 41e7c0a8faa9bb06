"""The third level of a µGraph: element-wise steps of a block that only each other read are one thread's work.

It needs no search: what lies between two of them stays in registers wherever it can, as compilers have it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesmith.core.graph import Graph, Kernel, Op, Step, Tensor, Thread
from tilesmith.core.graph_check import block, tensors
from tilesmith.core.operators import OPERATORS


def fused(graph: Graph) -> Graph:
    """The same with threads. Raises `OptionError` for a malformed graph."""
    known = tensors(graph)
    nodes = tuple(_fused(node, known) if isinstance(node, Kernel) else node for node in graph.nodes)
    return Graph(graph.inputs, nodes, graph.outputs)


def _fused(kernel: Kernel, sources: Sequence[Tensor]) -> Kernel:
    phases, steps = block(kernel, sources).phases, dict(enumerate(kernel.body, len(kernel.loads)))
    readers: dict[int, set[int]] = {store.source: {-1} for store in kernel.stores}
    for value, step in steps.items():
        for operand in step.operands:
            readers.setdefault(operand, set()).add(value)
    parts: dict[int, list[int]] = {}
    """By the last of those that go together all of them, in order."""
    for value in reversed(steps):
        (reader, *others) = readers.get(value, {-1})
        last = next((end for end, part in parts.items() if reader in part), None)
        joins = not others and last is not None and _simple(steps[value]) and phases[value] == phases[reader]
        if joins and last is not None and _simple(steps[reader]):
            parts[last].insert(0, value)
        else:
            parts[value] = [value]
    number = {value: value for value in range(len(kernel.loads))}
    body: list[Step] = []
    for last in sorted(parts):
        number[last] = len(kernel.loads) + len(body)
        made = [steps[value] for value in parts[last]]
        step = made[0] if len(made) == 1 else _thread(parts[last], made)
        body.append(replace(step, operands=tuple(number[operand] for operand in step.operands)))
    stores = tuple(replace(store, source=number[store.source]) for store in kernel.stores)
    return replace(kernel, body=tuple(body), stores=stores)


def _simple(step: Step) -> bool:
    return isinstance(step, Op) and OPERATORS[step.operator].kind == "element-wise"


def _thread(values: Sequence[int], steps: Sequence[Step]) -> Thread:
    """Steps with the numbers of their values as one."""
    operands = list(dict.fromkeys(o for step in steps for o in step.operands if o not in values))
    local = {value: place for place, value in enumerate((*operands, *values))}
    ops = [step for step in steps if isinstance(step, Op)]
    return Thread(tuple(operands), tuple(replace(op, operands=tuple(local[o] for o in op.operands)) for op in ops))
