"""Sources that are not like the ones the table was made for: nothing raises, and whatever comes out is Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.profile import Launch
from tilesmith.core.trial import Candidate, Correct, Duplicate, Estimate, Trial
from tilesmith.propose import RewriteProposer
from tilesmith.propose.knobs import knobs, may_become
from tilesmith.propose.program import Edit, Program, parse
from tilesmith.propose.rewrites import TABLE

KERNELS = [path.read_text() for path in sorted((Path(__file__).parent / "kernels").glob("*.py"))]
MATVEC = next(source for source in KERNELS if "matvec_kernel" in source)


def every(program: Program) -> list[str]:
    return [source for rewrite in TABLE for source in rewrite.variants(program)]


def launch(**values: int) -> Launch:
    known = {"M": 64, "K": 256, "BLOCK_M": 32, "BLOCK_K": 32, **values}
    return Launch("matvec_kernel", (2, 1, 1), 4, 2, 0, 0, 0, tuple(sorted(known.items())))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KERNELS), st.sets(st.integers(5, 60), max_size=3))
def test_kernels_with_lines_missing(source: str, dropped: set[int]) -> None:
    kept = [line for number, line in enumerate(source.splitlines(), start=1) if number not in dropped]
    try:
        program = parse("\n".join(kept))
    except SyntaxError:
        return
    for variant in every(program):
        ast.parse(variant)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(A, x, y, M, K, BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K, num_warps=4, num_stages=2)", "(*arguments)"),
        ("(A, x, y, M, K, BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K, num_warps=4, num_stages=2)", "(A, x, y, M, K, **options)"),
        ("tl.load(x_ptr + columns, ", "tl.load(pointer=x_ptr + columns, "),
        ("@triton.jit", "@triton.heuristics({})\n@triton.jit"),
        ("@triton.jit", "@profiled\n@triton.jit"),
        ("import triton.language as tl", "from triton.language import *"),
    ],
)
def test_what_cannot_be_understood_is_left_alone(old: str, new: str) -> None:
    assert old in MATVEC
    assert every(parse(MATVEC.replace(old, new), [launch()])) == []


def test_a_row_that_must_fit_one_tile_is_not_resized() -> None:
    source = MATVEC.replace("for start in range(0, K, BLOCK_K):", "for start in range(1):")
    assert [knob.parameter for knob in knobs(parse(source, [launch()]))] == ["BLOCK_M"]


def test_a_grid_that_does_not_follow_keeps_its_tile() -> None:
    source = MATVEC.replace("triton.cdiv(M, BLOCK_M)", "2")
    assert [knob.parameter for knob in knobs(parse(source, [launch()]))] == ["BLOCK_K"]


def test_without_masks_a_tile_grows_only_to_what_divides() -> None:
    bare = MATVEC.replace(", mask=column_mask, other=0.0", "").replace(" & column_mask[None, :]", "")
    program = parse(bare, [launch(K=96)])
    assert knobs(program)[1].parameter == "BLOCK_K"
    assert not may_become(program, knobs(program)[1], 2)
    program = parse(bare, [launch(K=256)])
    assert may_become(program, knobs(program)[1], 8)
    assert not may_become(program, knobs(program)[1], 16)
    program = parse(MATVEC, [launch(K=96)])
    assert may_become(program, knobs(program)[1], 2)


def test_masks_stay_where_sizes_do_not_divide() -> None:
    unmask = next(rewrite for rewrite in TABLE if rewrite.name == "unmask").variants
    (both,) = unmask(parse(MATVEC, [launch()]))
    assert "mask=" not in both
    (rows,) = unmask(parse(MATVEC, [launch(K=250)]))
    assert "mask=column_mask" in rows
    assert "mask=row_mask" not in rows
    assert list(unmask(parse(MATVEC, [launch(K=250, M=60)]))) == []
    assert list(unmask(parse(MATVEC))) == []


def test_non_ascii_text_moves_no_edit() -> None:
    source = MATVEC.replace('"""Offsets', '"""Größe ≥ 1: offsets')
    plain = [variant.replace("Offsets", "Größe ≥ 1: offsets") for variant in every(parse(MATVEC, [launch()]))]
    assert every(parse(source, [launch()])) == plain


def test_edits_that_overlap_are_a_fault() -> None:
    with pytest.raises(ValueError, match="overlap"):
        parse("abc = 1").apply([Edit(0, 2, "x"), Edit(1, 3, "y")])


def test_a_rewrite_that_compiles_to_nothing_new_loses_its_place() -> None:
    first = Trial(Candidate(MATVEC, origin="start"), Correct(Estimate(9.0), 0.1), "f", (launch(),))
    order = [c.origin for c in RewriteProposer(proposals=200).propose(None, [first], 1)]  # type: ignore[arg-type]
    name = order[0]
    tried = [
        Trial(Candidate(f"# {number}", origin=name, parent=first.candidate.id), Duplicate(first.candidate.id), "f")
        for number in range(6)
    ]
    later = [c.origin for c in RewriteProposer(proposals=200).propose(None, [first, *tried], 1)]  # type: ignore[arg-type]
    assert later[0] != name
    assert sorted(later) == sorted(order)


def test_a_load_with_a_cache_modifier_gets_no_policy() -> None:
    """The assembler refuses both together."""
    policies = [rewrite for rewrite in TABLE if rewrite.name in ("evict_first", "evict_last")]
    plain = [source for rewrite in policies for source in rewrite.variants(parse(MATVEC, [launch()]))]
    assert plain
    modified = "\n".join(
        line.replace("other=0.0)", 'other=0.0, cache_modifier=".cg")') if "tl.load(" in line else line
        for line in MATVEC.splitlines()
    )
    assert modified.count(".cg") == MATVEC.count("tl.load(")
    assert [source for rewrite in policies for source in rewrite.variants(parse(modified, [launch()]))] == []
