"""What is cut out can be put back: a module whose parts are called one by one computes what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from splice_modules import CASES, Layer, made
from torch import Tensor, nn
from torch.fx import GraphModule

from tilesmith.core.graph_hash import graph_hash
from tilesmith.splice.assemble import assemble
from tilesmith.splice.backend import _alike, _spreads
from tilesmith.splice.capture import Captured, Uncapturable, capture
from tilesmith.splice.kernel import Guarded, disagreement, inputs, original
from tilesmith.splice.operators import Opaque
from tilesmith.splice.pieces import Piece, form_of, pieces
from tilesmith.superopt import tracing
from tilesmith.superopt.aten import translate


def caught(module: Callable[..., Any], values: Sequence[Any], **how: Any) -> tuple[GraphModule, list[Any]]:
    """What torch.compile gives a backend."""
    seen: list[tuple[GraphModule, list[Any]]] = []

    def keep(graph: GraphModule, example: list[Any]) -> Callable[..., Any]:
        seen.append((graph, example))
        return graph.forward

    torch.compiler.reset()
    with torch.no_grad():
        torch.compile(module, backend=keep, dynamic=how.get("dynamic", False))(*values)
    return seen[0]


@cache
def captured_case(case: str) -> tuple[GraphModule, list[Any], Captured]:
    graph, example = caught(*made(CASES[case]))
    return graph, example, capture(graph, example)


def problem_of(piece: Piece) -> str:
    return piece.problem("part", [(0.5, 1.0)] * len(piece.forms), tf32=False, target=None).source


def called_apart(captured: Captured, cut: Sequence[Piece], opaque: bool = False) -> GraphModule:
    """The graph with each of these parts behind a guard, computed by its own problem."""
    guards: list[tuple[Piece, nn.Module]] = []
    for piece in cut:
        part = original(problem_of(piece))
        guard: nn.Module = Guarded(part, part, piece.forms, range(len(piece.forms)))
        results = [form_of(node.meta["val"].contiguous()) for node in piece.results]
        guards.append((piece, Opaque(guard, results) if opaque else guard))
    return assemble(captured, guards)


def same(got: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("largest", [1, 6])
@pytest.mark.parametrize("case", CASES)
def test_parts_behind_guards_compute_what_the_module_does(case: str, largest: int) -> None:
    graph, example, captured = captured_case(case)
    cut = pieces(captured, largest)
    assert cut
    assert not any(piece.fault for piece in cut)
    with torch.no_grad():
        same(called_apart(captured, cut)(*example), graph(*example))
        same(called_apart(captured, cut[-1:], opaque=True)(*example), graph(*example))


@given(st.data())
@settings(max_examples=6, deadline=None)
def test_any_of_the_parts_may_be_replaced(data: st.DataObject) -> None:
    graph, example, captured = captured_case("twice")
    cut = pieces(captured, data.draw(st.integers(1, 8)))
    chosen = [piece for piece in cut if data.draw(st.booleans())]
    with torch.no_grad():
        same(called_apart(captured, chosen)(*example), graph(*example))


@pytest.mark.parametrize("case", ["layer", "views", "constants"])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of its own
def test_a_parts_problem_is_the_part(case: str, tmp_path: Path) -> None:
    """The superoptimizer, which reads the problem, sees the graph by which the cache knows the part."""
    _, _, captured = captured_case(case)
    for piece in pieces(captured, 6):
        problem = piece.problem("part", [(0.0, 1.0)] * len(piece.forms), tf32=False, target=None)
        listed = tracing.trace(problem.source, (), None, tmp_path / "problem.py")
        assert graph_hash(translate(listed).graph()) == graph_hash(piece.graph)


def test_equal_layers_are_one_problem() -> None:
    alike = _alike(pieces(captured_case("twice")[2], 6))
    assert [len(same) for same in alike.values()] == [2, 2, 2, 2]
    assert _alike(pieces(captured_case("layer")[2], 6)).keys() == alike.keys()
    longer = capture(*caught(Layer().eval(), (torch.randn(2, 9, 32),)))
    assert not _alike(pieces(longer, 6)).keys() & alike.keys()


def test_how_inputs_lie_in_memory_is_part_of_what_a_part_is() -> None:
    rows = [_alike(pieces(captured_case(case)[2], 1)).keys() for case in ("normal", "strided")]
    assert rows[0] != rows[1]


def test_inputs_with_gaps_are_left_to_pytorch() -> None:
    captured = capture(*caught(lambda x: torch.relu(x) * 2, (torch.randn(4, 8)[:, ::2],)))
    assert [piece.fault for piece in pieces(captured, 6)] == ["an input has gaps or overlaps in memory"]


def test_problems_draw_what_the_module_met() -> None:
    def steps(x: Tensor) -> Tensor:
        return torch.relu(torch.cumsum(x, 0) * 2)

    graph, example = caught(steps, (torch.ones(300, 8) * 4,))
    captured = capture(graph, example)
    (piece,) = pieces(captured, 6)
    (spread,) = _spreads(captured, example, [piece]).values()
    assert spread == (600.0, 350.0)
    (drawn,) = inputs(piece.problem("part", [spread], tf32=False, target=None).source, torch.device("cpu"))
    assert drawn.mean().item() == pytest.approx(600, rel=0.1)
    assert drawn.std().item() == pytest.approx(350, rel=0.1)


def test_a_guard_passes_other_forms_on() -> None:
    (piece,) = pieces(capture(*caught(lambda x: x * 2 + 1, (torch.randn(4, 6),))), 6)
    part = original(problem_of(piece))
    calls: list[int] = []

    def kernel(x: Tensor) -> Tensor:
        calls.append(1)
        return x * 2 + 1

    guard = Guarded(kernel, part, piece.forms, [0])
    for value, taken in (
        (torch.randn(4, 6), 1),
        (torch.randn(5, 6), 1),
        (torch.randn(6, 4).T, 1),
        (torch.randn(4, 6).double(), 1),
        (torch.randn(4, 6), 2),
    ):
        assert torch.equal(guard(value), value * 2 + 1)
        assert len(calls) == taken


def test_strides_along_one_element_say_nothing() -> None:
    one = torch.randn(4, 1, 6)
    other = one.as_strided((4, 1, 6), (6, 1, 1))
    assert one.stride() != other.stride()
    assert form_of(one) == form_of(other)
    (piece,) = pieces(capture(*caught(lambda x: x * 2 + 1, (one,))), 6)
    calls: list[int] = []

    def kernel(x: Tensor) -> Tensor:
        calls.append(1)
        return x * 2 + 1

    Guarded(kernel, original(problem_of(piece)), piece.forms, [0])(other)
    assert calls


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        (lambda x: x * 2 + 1, ""),
        (lambda x: x * 2 + 1.001, "its error is"),
        (lambda x: x.double() * 2 + 1, "another shape, dtype or device"),
        (lambda x: (x, x), "it returns 2 tensors, and the part 1"),
        (lambda x: x.nothing(), "it fails in this process: AttributeError"),
    ],
)
def test_a_kernel_is_compared_before_it_is_used(kernel: Callable[..., Any], told: str) -> None:
    (piece,) = pieces(capture(*caught(lambda x: x * 2 + 1, (torch.randn(4, 6),))), 6)
    source = problem_of(piece)
    found = disagreement(kernel, original(source), inputs(source, torch.device("cpu")))
    assert told in found
    assert bool(told) == bool(found)


def test_what_changes_its_inputs_is_not_captured() -> None:
    def counted(x: Tensor) -> Tensor:
        x.add_(1)
        return x * 2

    with pytest.raises(Uncapturable, match="changes its inputs or buffers"):
        capture(*caught(counted, (torch.randn(4),)))


def test_what_is_changed_within_is_captured() -> None:
    def changed(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        return torch.relu_(y)

    graph, example = caught(changed, (torch.randn(4, 6),))
    captured = capture(graph, example)
    same(called_apart(captured, pieces(captured, 6))(*example), graph(*example))


def test_dynamic_shapes_are_not_captured() -> None:
    with pytest.raises(Uncapturable, match="dynamic=False"):
        capture(*caught(lambda x: x * 2, (torch.randn(4, 6),), dynamic=True))
