"""The structures that were published for the six programs: does a µGraph have one?

Matched by what computes what, through all views and constant factors, so that another order of steps, other tile sizes
or a scale in another place make no difference. A search that lost a whole family of graphs still finds others;
these say whether the known ones are among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tilesmith.core.gpu import target
from tilesmith.core.graph import Accumulate, Graph, Kernel, Limits, Op, Thread
from tilesmith.core.operators import OPERATORS
from tilesmith.core.problem import content_id
from tilesmith.superopt import engine as engines
from tilesmith.superopt.engine_lower import lower
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.programs import PROGRAMS, gqa
from tilesmith.superopt.table import named

Form = tuple[Any, ...]
"""What computes a value: ("load", place), ("gathered", how, form, ...) or (operator, form, ...), without views, casts
and constant factors; a constant itself is ("constant",)."""

LOAD, GATHERED, CONSTANT = "load", "gathered", "constant"


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    return tuple(node for node in graph.nodes if isinstance(node, Kernel))


def forms(kernel: Kernel) -> tuple[Form, ...]:
    """What each store of a kernel computes."""
    made: list[Form] = [(LOAD, place) for place in range(len(kernel.loads))]
    for step in kernel.body:
        operands = [made[value] for value in step.operands]
        if isinstance(step, Accumulate):
            made.append((GATHERED, step.how, *operands))
        elif isinstance(step, Op):
            made.append(_form(step, operands))
        else:
            made.append(_fused(step, operands))
    return tuple(made[store.source] for store in kernel.stores)


def _fused(thread: Thread, operands: list[Form]) -> Form:
    known = list(operands)
    for op in thread.ops:
        known.append(_form(op, [known[value] for value in op.operands]))
    return known[-1]


def _form(op: Op, operands: list[Form]) -> Form:
    if OPERATORS[op.operator].kind == "view" or op.operator == "cast":
        return operands[0]
    if op.operator == "mul" and (CONSTANT,) in operands:
        return next((form for form in operands if form != (CONSTANT,)), (CONSTANT,))
    if op.operator == "div" and operands[1] == (CONSTANT,):
        return operands[0]
    return (op.operator, *operands)


def within(form: Form) -> Iterator[Form]:
    """A form and all that it is made of."""
    yield form
    for part in form[1:]:
        if isinstance(part, tuple):
            yield from within(part)


def has(form: Form, operator: str) -> int:
    """How many different values in a form an operator makes."""
    return len({part for part in within(form) if part[0] == operator})


def _gathers(form: Form, operator: str) -> bool:
    """Whether it is a sum over the loop of what an operator makes, summed in the tile before or after, or not."""
    inner = form
    while inner[0] in (GATHERED, "sum"):
        inner = inner[-1]
    return inner != form and inner[0] == operator and any(part[0] == GATHERED for part in within(form))


def _single(graph: Graph) -> Form | None:
    """What the one store of a graph's one kernel computes, where it loops."""
    found = kernels(graph)
    if len(found) != 1 or len(found[0].stores) != 1 or found[0].loop < 2:
        return None
    return forms(found[0])[0]


def divides_after_the_loop(graph: Graph) -> bool:
    """(Σ x·w) / √(Σ x²): the norm is no step before the product."""
    form = _single(graph)
    if form is None or form[0] != "div":
        return False
    product, norm = form[1], form[2]
    root = norm[0] == "sqrt" and any(_gathers(part, "square") for part in within(norm))
    return root and _gathers(product, "matmul") and not has(product, "rms_norm") and not has(product, "div")


def gates_two_sums(graph: Graph) -> bool:
    """f(Σ x·a) · (Σ x·b): two accumulators, and what gates comes after both."""
    form = _single(graph)
    if form is None or form[0] != "mul":
        return False
    gates = [part for part in form[1:] if part[0] in ("silu", "gelu")]
    others = [part for part in form[1:] if part not in gates]
    return len(gates) == 1 and _gathers(gates[0][1], "matmul") and len(others) == 1 and _gathers(others[0], "matmul")


def _attends(top: Form, bottom: Form) -> Form | None:
    """The weights exp(S) of (Σ exp(S)·V) and Σ exp(S), where the two are that."""
    product = next((part for part in within(top) if part[0] == "matmul" and part[1][0] == "exp"), None)
    if product is None or not _gathers(top, "matmul") or not _gathers(bottom, "exp"):
        return None
    weights: Form = product[1]
    return weights if weights in set(within(bottom)) and has(weights, "matmul") == 1 else None


def attends_in_one_kernel(graph: Graph) -> bool:
    """Both sums of attention over the keys, and their quotient after the loop."""
    form = _single(graph)
    return form is not None and form[0] == "div" and _attends(form[1], form[2]) is not None


def normalises_before_attending(graph: Graph) -> bool:
    """The same, where rows and keys are normed in the kernel."""
    form = _single(graph)
    weights = _attends(form[1], form[2]) if form is not None and form[0] == "div" else None
    return weights is not None and has(weights, "rms_norm") + has(weights, "sqrt") == 2


def splits_the_keys(graph: Graph) -> bool:
    """Flash-decoding: partial sums for every part of the keys, and a kernel that joins them."""
    found = kernels(graph)
    if len(found) != 2 or len(found[0].stores) != 2 or len(found[1].stores) != 1:
        return False
    parts = forms(found[0])
    joined = forms(found[1])[0]
    pairs = (parts, parts[::-1])
    sums = [part for part in joined[1:] if part[0] == "sum" or part[:2] == (GATHERED, "sum")]
    return joined[0] == "div" and len(sums) == 2 and any(_attends(*pair) is not None for pair in pairs)


def rescales(graph: Graph) -> bool:
    """Online softmax: both sums of attention shifted by a running maximum."""
    form = _single(graph)
    if form is None or form[0] != "div":
        return False
    top, bottom = form[1], form[2]
    return top[:2] == bottom[:2] == (GATHERED, "rescale") and len(top) == 4 and top[2] == bottom[2]


def adapts_in_one_kernel(graph: Graph) -> bool:
    """x·w + (x·a)·b: all three products in one kernel."""
    form = _single(graph)
    if form is None or has(form, "matmul") + has(form, "concat") < 3:
        return False
    low = any(part[0] == "matmul" and has(part, "matmul") == 2 for part in within(form))
    return low and has(form, "add") == 1


def norms_twice_in_one_kernel(graph: Graph) -> bool:
    """Both norms, the step between and the residual."""
    found = kernels(graph)
    if len(found) != 1 or len(found[0].stores) != 1:
        return False
    form = forms(found[0])[0]
    return has(form, "rms_norm") + has(form, "sqrt") == 2 and not has(form, "matmul")


@dataclass(frozen=True, slots=True)
class Structure:
    """What was published for a program, and within how much it is to be found."""

    program: str
    what: str
    holds: Callable[[Graph], bool]
    kernels: int = 1
    block_ops: int = 11
    rows: int | None = None
    """Of the queries, where it matters that they are few."""


PUBLISHED = (
    Structure("rmsnorm_linear", "one kernel, division after the loop", divides_after_the_loop),
    Structure("gated_mlp", "one kernel, two accumulators", gates_two_sums),
    Structure("gqa", "one kernel", attends_in_one_kernel),
    Structure("gqa", "keys split over the grid, a second kernel combines", splits_the_keys, 2, rows=16),
    Structure("qknorm_gqa", "one kernel, both norms in it", normalises_before_attending, block_ops=12),
    Structure("lora", "one kernel, all three products", adapts_in_one_kernel),
    Structure("norm_transformer", "one kernel, both norms", norms_twice_in_one_kernel),
)
"""Of the six programs."""

MANY = 3000
"""Graphs that are looked at, the cheapest first."""


def form_id(graph: Graph) -> str:
    """16 hexadecimal digits of what its kernels compute, whatever their tiles, grids and loops are long."""
    return content_id(repr([(kernel.loop > 1, forms(kernel)) for kernel in kernels(graph)]))


def examples(structure: Structure) -> tuple[Graph, list[Graph]]:
    """The program, and all graphs with the structure that the search finds for it, the cheapest by estimate first."""
    program = PROGRAMS[structure.program]() if structure.rows is None else gqa(rows=structure.rows)
    limits = Limits(
        kernel_ops=structure.kernels, graph_defined_kernels=structure.kernels, block_ops=structure.block_ops
    )
    names = named(program, limits)
    made = engines.engine(names, limits, Plan(keep=MANY), target())
    engines.run(made)
    found = (lower(names, made, kernels) for kernels in made.graphs())
    return program, [graph for graph in found if structure.holds(graph)]
