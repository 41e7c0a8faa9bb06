"""The proposer: what it offers first, that it never repeats itself, and that it gets somewhere."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from math import ceil, log2
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.problem import Problem
from tilesmith.core.profile import KernelProfile, Launch, Limiter, Profile
from tilesmith.core.trial import Candidate, Correct, Duplicate, Estimate, Failed, Trial
from tilesmith.propose import RewriteProposer
from tilesmith.propose.diagnose import ANSWERS, answers, bottlenecks
from tilesmith.propose.rewrites import TABLE
from tilesmith.propose.techniques import default, vector

START = (Path(__file__).parent / "kernels" / "matvec_index.py").read_text()
PROBLEM = Problem("matvec", "")
M, K = 2048, 1 << 20


def number(pattern: str, source: str, default: int) -> int:
    found = re.search(pattern, source)
    return int(found[1]) if found else default


def judged(candidate: Candidate, known: dict[str, str], round_: int) -> Trial:
    """A model of the H200 on matvec 2048 × 1048576: programs fill multiprocessors, bytes in flight fill the memory."""
    source = candidate.source
    rows = number(r"BLOCK_M, BLOCK_K = (\d+)", source, 0)
    step = number(r"BLOCK_M, BLOCK_K = \d+, (\d+)", source, 0)
    splits = number(r"SPLITS = (\d+)", source, 1)
    warps = number(r"num_warps=(\d+)", source, 4)
    streamed = 'eviction_policy="evict_first"' in source
    grid = (ceil(M / rows), splits, 1)
    registers = rows * step / (32 * warps)
    if registers > 400:
        return Trial(candidate, Failed("compile", "too many registers"), round=round_)
    resident = 132 * max(1, min(16, 64 // warps, int(128 / (registers * 1.2 + 8))))
    waves = grid[0] * splits / resident
    flying = min(grid[0] * splits, resident) * rows * step * 2
    rate = 4.42e6 * min(1.0, flying / 6e6) ** 0.8 * (0.5 if registers > 160 else 1.0)
    ragged = 1 + 0.1 * (ceil(waves) / waves - 1 if waves > 1 else 0)
    short = 1 + 0.02 * max(0.0, log2(4096 / step))
    time_us = 2 * M * K / rate * ragged * short * (1 if streamed else 1.012) + (4 if splits > 1 else 0)
    values = {"BLOCK_K": step, "BLOCK_M": rows, "K": K, "M": M, "SPLITS": splits}
    tensors = {"a_ptr": f"bf16[{M}, {K}]", "x_ptr": f"bf16[{K}, 1]", "y_ptr": f"bf16[{M}, 1]"}
    features = frozenset({"atomic"} if "atomic_add" in source else set())
    arguments = tuple(sorted({**values, **tensors}.items()))
    launch = Launch("matvec_kernel", grid, warps, 2, 0, 64, 0, arguments, features)
    fingerprint = repr((rows, step, splits, warps, streamed, re.sub(r"\d+", "", source)))
    if fingerprint in known:
        return Trial(candidate, Duplicate(known[fingerprint]), fingerprint, (launch,), round=round_)
    known[fingerprint] = candidate.id
    return Trial(candidate, Correct(Estimate(time_us), 0.1), fingerprint, (launch,), round=round_)


def start(time_us: float = 100.0) -> Trial:
    row = judged(Candidate(START, origin="start"), {}, 0)
    return replace(row, verdict=Correct(Estimate(time_us), 0.1))


def searched(proposer: RewriteProposer, limit: int) -> list[Trial]:
    known: dict[str, str] = {}
    trials = [judged(Candidate(START.replace("= 32, 32", "= 128, 256"), origin="start"), known, 0)]
    round_ = 1
    while len(trials) < limit and (found := proposer.propose(PROBLEM, tuple(trials), 1)):
        trials += [judged(candidate, known, round_) for candidate in found[: limit - len(trials)]]
        round_ += 1
    return trials


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("clustered", [False, True])
def test_matvec_gets_from_sixteen_programs_to_the_memory_limit(seed: int, clustered: bool) -> None:
    trials = searched(RewriteProposer(seed=seed, clustered=clustered), 100)
    best = min((t for t in trials if t.time_us is not None), key=lambda t: t.time_us or 0.0)
    assert (trials[0].time_us or 0.0) > 4000
    assert (best.time_us or 0.0) < 985
    assert len({t.candidate.id for t in trials}) == len(trials)


def test_first_more_programs_when_multiprocessors_idle() -> None:
    first = RewriteProposer().propose(PROBLEM, [start()], 1)[:6]
    origins = [candidate.origin for candidate in first]
    assert origins[0] == "rewrite:split_atomics"
    assert "rewrite:more_programs" in origins
    assert all(candidate.parent == start().candidate.id for candidate in first)


def test_every_member_of_the_pool_is_expanded() -> None:
    first = start()
    children = [
        replace(start(), candidate=candidate, fingerprint=str(index), verdict=Correct(Estimate(50.0 + index), 0.1))
        for index, candidate in enumerate(RewriteProposer().propose(PROBLEM, [first], 1)[:3])
    ]
    found = RewriteProposer(proposals=8).propose(PROBLEM, [first, *children], 1)
    assert {c.parent for c in found} == {t.candidate.id for t in (first, *children)}


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 20))
def test_the_same_trials_give_the_same_answer(seed: int, pool: int, proposals: int) -> None:
    trials = [start()]
    for _ in range(2):
        one, other = (
            RewriteProposer(candidate_pool_size=pool, proposals=proposals, seed=seed).propose(PROBLEM, trials, 1)
            for _ in range(2)
        )
        assert [(c.source, c.origin, c.parent) for c in one] == [(c.source, c.origin, c.parent) for c in other]
        assert len(one) <= proposals
        assert not {c.id for c in one} & {t.candidate.id for t in trials}
        trials += [replace(start(90.0 - i), candidate=c, fingerprint=c.id) for i, c in enumerate(one)]


def test_it_reaches_beyond_the_pool_and_then_ends() -> None:
    first = start()
    proposer = RewriteProposer(candidate_pool_size=1, proposals=10_000)
    every = proposer.propose(PROBLEM, [first], 1)
    failed = [Trial(candidate, Failed("compile", "no")) for candidate in every]
    assert proposer.propose(PROBLEM, [first, *failed], 1) == ()
    slower = replace(start(200.0), candidate=every[0], fingerprint="other")
    again = proposer.propose(PROBLEM, [first, slower, *failed[1:]], 1)
    assert again
    assert {candidate.parent for candidate in again} == {every[0].id}


def test_a_source_without_a_kernel_gives_nothing() -> None:
    plain = Trial(Candidate("def kernel_function(x):\n    return x\n"), Correct(Estimate(1.0), 0.1), "f")
    assert RewriteProposer().propose(PROBLEM, [plain], 1) == ()
    assert RewriteProposer().propose(PROBLEM, [], 1) == ()


def test_a_round_costs_well_under_a_second() -> None:
    trials = searched(RewriteProposer(), 60)
    began = time.process_time()
    found = RewriteProposer().propose(PROBLEM, tuple(trials), 1)
    assert len(found) == 15
    assert time.process_time() - began < 0.8


@pytest.mark.parametrize("name", ["candidate_pool_size", "num_bottlenecks", "proposals"])
def test_options_below_one_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 0"):
        RewriteProposer(**{name: 0})


def profiled(limiter: Limiter, programs: int, features: frozenset[str] = frozenset(), spills: int = 0) -> Trial:
    row = start()
    launch = replace(row.launches[0], grid=(programs, 1, 1), features=features, spills=spills)
    kernel = KernelProfile("matvec_kernel", 9.0, limiter, 1e6, 1e6, 1e6, 0.5, 1.0)
    return replace(row, launches=(launch,), profile=Profile("estimate", "h200", (kernel,)))


def test_bottlenecks_come_from_the_profile_unless_multiprocessors_idle() -> None:
    assert bottlenecks(profiled("alu", 1000))[0] == "alu"
    assert bottlenecks(profiled("dram", 16))[:2] == ("parallelism", "dram")
    assert bottlenecks(replace(profiled("alu", 1000), profile=None))[0] == "dram"
    assert "tensor" in bottlenecks(profiled("latency", 1000, frozenset({"wgmma"})))
    assert "atomics" in bottlenecks(profiled("latency", 1000, frozenset({"atomic"})))
    assert "alu" in bottlenecks(profiled("latency", 1000, spills=4))[:2]


def test_every_rewrite_answers_a_limiter_and_every_answer_exists() -> None:
    names = [rewrite.name for rewrite in TABLE]
    assert len(set(names)) == len(names)
    assert {name for _, row in ANSWERS for name in row} == set(names)
    assert set(answers(("dram",), 1)) == set(names)
    assert {limiter for limiter, _ in ANSWERS} == set(Limiter.__args__)
    assert {rewrite.technique for rewrite in TABLE} - {None} <= set(default().names)


def test_the_first_answers_alternate_between_the_first_limiters() -> None:
    known = dict(ANSWERS)
    assert answers(("parallelism", "l2"), 2)[:4] == (
        known["parallelism"][0],
        known["l2"][0],
        known["parallelism"][1],
        known["l2"][1],
    )


def test_technique_vectors_read_launches_and_source() -> None:
    plain = vector(start())
    assert plain == {"masked_edges", "wide_sums"}
    split = [c for c in RewriteProposer(proposals=500).propose(PROBLEM, [start()], 1) if c.origin.endswith("partials")]
    assert "partial_sums" in vector(replace(start(), candidate=split[0]))
    compiled = replace(start().launches[0], features=frozenset({"wgmma", "tma", "atomic", "vector128"}))
    names = vector(replace(start(), launches=(compiled,)))
    assert {"matrix_units", "shared_tiles", "async_copy", "atomic_sums", "wide_loads"} <= names
    assert vector(Trial(Candidate("def"), Failed("import", "syntax"))) == frozenset()


def test_every_source_technique_is_seen_in_the_rewrite_that_adds_it() -> None:
    grid = replace(start(), launches=(replace(start().launches[0], grid=(1000, 1, 1)),))
    added = {rewrite.name: rewrite.technique for rewrite in TABLE}
    for candidate in RewriteProposer(proposals=500).propose(PROBLEM, [grid], 1):
        name = candidate.origin.removeprefix("rewrite:")
        if name in ("pipeline", "unroll", "persistent", "autotune", "split_partials"):
            assert added[name] in vector(replace(grid, candidate=candidate)), candidate.source
