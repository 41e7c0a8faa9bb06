"""The superoptimizer as a proposer: its candidates with their µGraphs, parts where a whole is too much, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tilesmith import config
from tilesmith.core.errors import OptionError
from tilesmith.core.facts import Derivation
from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Kernel
from tilesmith.core.graph_hash import graph_hash
from tilesmith.core.problem import Problem
from tilesmith.core.trial import Failed, Trial
from tilesmith.superopt import programs
from tilesmith.superopt.build import Program
from tilesmith.superopt.lower import Lowering, lower
from tilesmith.superopt.numeric import evaluate
from tilesmith.superopt.proposer import SuperoptProposer
from tilesmith.superopt.schema import from_json
from tilesmith.superopt.whole import Best
from tilesmith.testing.fakes import ListJournal

H200 = target("h200")
EXAMPLES = Path(__file__).parents[3] / "examples"


def test_candidates_have_their_graphs_noted_once() -> None:
    journal = ListJournal()
    problem = config.load_problem(EXAMPLES / "lora")
    proposer = SuperoptProposer(H200, journal, graphs=2, sources=2)
    first = tuple(proposer.propose(problem, (), 1))
    assert 2 <= len(first) <= 4
    facts = {fact.key: fact for fact in journal.facts(Derivation)}
    assert facts.keys() == {candidate.id for candidate in first}
    for candidate in first:
        fact = facts[candidate.id]
        assert candidate.origin.startswith("superopt:")
        assert fact.graph_hash in candidate.source
        assert graph_hash(from_json(fact.graph)) == fact.graph_hash
        assert fact.estimate_us > 0
        assert "for inputs of any extents" in candidate.source
    judged = Trial(first[0], Failed("check", "it is not judged here"))
    assert tuple(proposer.propose(problem, (judged,), 2)) == first[1:]
    assert len(journal.facts(Derivation)) == len(first)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return torch.cumsum(x, 0)", "cumsum"),
        ("return x + 1 if x.sum() > 0 else x", "depend on data"),
        ("self.count += 1; return x * self.count", "in place"),
    ],
)
def test_what_cannot_be_traced_is_said_in_a_sentence(body: str, words: str) -> None:
    source = f"""
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(4))
    def forward(self, x):
        {body}

def get_inputs():
    return [torch.randn(4, 4)]

def get_init_inputs():
    return []
"""
    told: list[str] = []
    proposer = SuperoptProposer(H200, ListJournal(), say=told.append)
    assert tuple(proposer.propose(Problem("odd", source), (), 1)) == ()
    (sentence,) = told
    assert sentence.startswith("the superoptimizer proposes nothing")
    assert words in sentence


def best(graph: Graph, fits: Callable[[Graph], str] = lambda _: "") -> tuple[tuple[Graph, ...], list[str]]:
    told: list[str] = []
    return Best(H200, 5.0, 0, fits, told.append).of(graph), told


def assert_equal(made: Graph, graph: Graph) -> None:
    rng = np.random.default_rng(3)
    inputs = {tensor.name: rng.standard_normal(tensor.dims) / 4 for tensor in graph.inputs}
    for got, want in zip(evaluate(made, inputs), evaluate(graph, inputs), strict=True):
        assert np.allclose(got, want, rtol=1e-6, atol=1e-9)


def test_of_what_no_space_has_anything_useful_is_cut_and_computes_the_same() -> None:
    graph = programs.transformer_layer(1, 12, 48, 2, 16, 88)
    (made,), told = best(graph, lambda found: "it reads too much" if len(found.inputs) > 6 else "")
    assert "is cut into" in told[0]
    assert "it reads too much" in told[0]
    assert any(isinstance(node, Kernel) for node in made.nodes)
    assert_equal(made, graph)


def test_a_norm_and_its_three_projections_are_one_kernel() -> None:
    b = Program()
    x = b.input("x", (24, 48))
    weights = [b.input(name, (48, 40)) for name in ("query", "key", "value")]
    normed = b.rms_norm(x)
    for weight in weights:
        b.output(normed @ weight)
    graph = b.graph()
    made, told = best(graph, lambda found: "too many kernels" if len(found.nodes) > 1 else "")
    assert not told
    (kernel,) = made[0].nodes
    assert isinstance(kernel, Kernel)
    assert (len(kernel.loads), len(kernel.stores)) == (4, 3)
    assert_equal(made[0], graph)


def test_a_norm_and_a_gated_mlp_are_two_kernels() -> None:
    """A block cannot hold what the first makes, and its loop takes 17 operators."""

    def fits(graph: Graph) -> str:
        try:
            lower(graph, H200, Lowering(1))
        except OptionError as error:
            return str(error)
        return ""

    graph = programs.norm_mlp(256, 512, 1408, residual=False)
    made, told = best(graph, fits)
    assert not told
    assert [isinstance(node, Kernel) for node in made[1].nodes] == [True, True]


def test_the_best_of_each_space_in_turns() -> None:
    made, told = best(programs.gated_mlp())
    counts = [sum(isinstance(node, Kernel) for node in graph.nodes) for graph in made]
    assert counts[:2] == [1, 2]
    assert not told


def test_attention_that_normalises_its_operands_is_one_kernel() -> None:
    made, _ = best(programs.qknorm_gqa())
    assert sum(isinstance(node, Kernel) for node in made[0].nodes) == 1
