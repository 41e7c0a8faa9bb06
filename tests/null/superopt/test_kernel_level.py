"""Nothing is lost between kernels: the whole is never worse than its cuts, nor the closure worse than the listing."""

from __future__ import annotations

from functools import partial

import pytest

from tilesmith.core.graph import Graph, Limits
from tilesmith.superopt.build import Program
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.partition import partition
from tilesmith.superopt.programs import PROGRAMS, attention_block, norm_mlp, transformer_layer
from tilesmith.superopt.search import search
from tilesmith.superopt.traced import Traced


def chain() -> Graph:
    """(X·A)·B by difference and quotient: two products and what is between them."""
    b = Program()
    x, a, c = b.input("x", (128, 256)), b.input("a", (256, 192)), b.input("c", (192, 256))
    b.output((x - (x @ a) @ c) / b.sum(b.square(x), 1))
    return b.graph()


BLOCKS = {"attention": attention_block, "mlp": partial(norm_mlp, 128, 512, 704), "chain": chain}


def best_us(graph: Graph, kernels: int | None = None) -> float:
    """Of any number of kernels by closure, or of so many at most."""
    limits = Limits() if kernels is None else Limits(kernel_ops=kernels, graph_defined_kernels=kernels)
    results = search(graph, limits, Plan(keep=1, kernels="listing" if kernels else "closure"))
    assert results.stop == "exhausted"
    return results.graphs[0].estimate_us


@pytest.mark.parametrize("name", BLOCKS)
def test_the_whole_is_never_worse_than_its_cuts(name: str) -> None:
    graph = BLOCKS[name]()
    whole = best_us(graph)
    sizes = set()
    for largest in (1, 3, 5):
        parts = partition(Traced.of(graph), largest).parts
        sizes.add(len(parts))
        assert whole <= sum(best_us(part.graph) for part in parts) * (1 + 1e-9)
    assert len(sizes) > 1
    assert max(sizes) > 3


@pytest.mark.parametrize("name", ["rmsnorm_linear", "gated_mlp", "lora", "norm_transformer"])
def test_the_closure_is_as_good_as_the_listing(name: str) -> None:
    """Any number of kernels against three: never dearer, and where a listing has what is cheapest, as cheap."""
    closed = best_us(PROGRAMS[name]())
    listed = [best_us(PROGRAMS[name](), kernels) for kernels in (1, 2, 3)]
    assert listed == sorted(listed, reverse=True)
    assert closed == pytest.approx(listed[-1], rel=1e-9)


def test_a_closure_that_ends_before_any_kernel_makes_the_output_has_no_graph() -> None:
    results = search(transformer_layer(), Limits(), Plan(keep=1, kernels="closure", seconds=0.5))
    assert results.stop == "seconds"
    assert not results.graphs
    assert "ended before" in results.closest or "ran out" in results.closest
