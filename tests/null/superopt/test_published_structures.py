"""What was published for the six programs is among what is found: a wrong mask would silently find other things."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesmith.core.graph import Graph, Kernel
from tilesmith.superopt import structures
from tilesmith.superopt.build import Program
from tilesmith.superopt.online import shifted
from tilesmith.superopt.programs import gqa
from tilesmith.superopt.structures import PUBLISHED, Structure, examples, form_id
from tilesmith.superopt.verify import Verified, verify

PAGE = (Path(__file__).parents[3] / "docs" / "published-structures.md").read_text("utf-8")


def the(structure: Structure) -> str:
    return f"{structure.program}: {structure.what}"


@pytest.mark.parametrize("structure", PUBLISHED, ids=the)
def test_the_published_structure_is_found(structure: Structure) -> None:
    program, found = examples(structure)
    assert found, "it is not among the graphs that have a schedule"
    assert isinstance(verify(found[0], program, seed=3), Verified)
    rows = [row for row in PAGE.splitlines() if row.startswith(f"| {structure.program} | {structure.what} |")]
    assert len(rows) == 1, "the page names it once"
    assert any(form_id(graph) in rows[0] for graph in found), "the page names one of them"


def flash(sound: bool) -> Graph:
    """Attention with online softmax; unsound, with one sum that is not rescaled."""
    b = Program()
    q, k, v = b.input("Q", (2, 256, 64)), b.input("K", (2, 64, 4096)), b.input("V", (2, 4096, 64))
    block = b.kernel((2, 4), 64)
    rows, keys, values = block.load(q, (0, 1)), block.load(k, (0, None), 2), block.load(v, (0, None), 1)
    scores = (rows @ keys) / 16
    bottom = block.rescale(scores) if sound else block.accumulate(block.exp(scores), 2)
    b.output(*block.store((block.rescale(scores, values) / bottom, (0, 1))))
    return b.graph()


def test_online_softmax_is_attention_and_only_with_both_sums_rescaled() -> None:
    assert structures.rescales(flash(sound=True))
    assert isinstance(verify(flash(sound=True), gqa(), seed=1), Verified)
    assert not structures.rescales(flash(sound=False))
    assert not isinstance(verify(flash(sound=False), gqa(), seed=1), Verified)


@pytest.mark.parametrize("name", ["gqa", "qknorm_gqa"])
def test_online_softmax_is_made_of_what_is_found(name: str) -> None:
    structure = next(s for s in PUBLISHED if s.program == name)
    program, found = examples(structure)
    online = [made for graph in found if (made := shifted(graph, seed=1)) is not None]
    assert online
    assert all(structures.rescales(graph) for graph in online)
    assert isinstance(verify(online[0], program, seed=2), Verified)


def test_nothing_is_shifted_that_would_change() -> None:
    """A sum of exponentials that is no quotient's: its own maximum would be divided out."""
    b = Program()
    x = b.input("X", (32, 4096))
    k = b.kernel((4,), 64)
    b.output(*k.store((k.accumulate(k.exp(k.load(x, (0,), 1)), 1), (0,))))
    assert shifted(b.graph(), seed=1) is None
    assert shifted(examples(PUBLISHED[0])[1][0], seed=1) is None


def test_no_program_has_the_structure_of_another() -> None:
    """Else a matcher could be one that takes anything."""
    found = {structure: examples(structure)[1][0] for structure in PUBLISHED}
    for structure in PUBLISHED:
        taken = {other.program for other, graph in found.items() if structure.holds(graph)}
        related = (
            {"gqa", "qknorm_gqa"} if structure.program == "gqa" and structure.kernels == 1 else {structure.program}
        )
        assert taken <= related


def test_without_a_loop_nothing_is_divided_after_it() -> None:
    b = Program()
    x, w = b.input("X", (2, 64)), b.input("W", (64, 32))
    k = b.kernel((4,))
    tile, weights = k.load(x, (None,)), k.load(w, (1,))
    b.output(*k.store((k.rms_norm(tile) @ weights, (1,))))
    graph = b.graph()
    assert isinstance(graph.nodes[0], Kernel)
    assert not structures.divides_after_the_loop(graph)
