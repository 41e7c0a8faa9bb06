"""Ranked bottlenecks: by rules always exactly as many as asked, each another; from a model all or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_scenes import H200, MATVEC, SPLIT, SPLIT_PROFILE, START, START_LAUNCH, START_PROFILE

from tilesmith.core.gpu import TABLE
from tilesmith.core.profile import KernelProfile, Launch, Limiter, Profile
from tilesmith.core.trial import Candidate, Correct, Estimate, Timing, Trial
from tilesmith.propose.analysis import BadAnalysis, analysis_key, analysis_prompt, by_rules, read_analysis
from tilesmith.propose.described import MEANINGS
from tilesmith.propose.directions import LIMITERS
from tilesmith.propose.figures import Figures
from tilesmith.propose.rules import RULES

POSITIVE = st.floats(0, 1e13)
LAUNCHES = st.builds(
    Launch,
    st.sampled_from(["a", "b", "c"]),
    st.tuples(st.integers(1, 100_000), st.integers(1, 64), st.just(1)),
    st.sampled_from([1, 4, 8, 32]),
    st.integers(1, 6),
    st.integers(0, 232_448),
    st.integers(16, 255),
    st.sampled_from([0, 0, 30]),
    features=st.frozensets(st.sampled_from(["mma", "wgmma", "tf32", "atomic", "cp.async", "tma"])),
)
KERNELS = st.builds(
    KernelProfile,
    st.sampled_from(["a", "b", "c", "fill"]),
    st.floats(0.1, 1e6),
    st.sampled_from(get_args(Limiter)),
    POSITIVE,
    POSITIVE,
    POSITIVE,
    st.floats(0, 1),
    st.floats(0, 1e4),
)
PROFILES = st.none() | st.builds(
    Profile, st.sampled_from(["estimate", "ncu"]), st.just("h200"), st.lists(KERNELS, max_size=4).map(tuple)
)


def trial_of(launches: list[Launch], time_us: float) -> Trial:
    return Trial(Candidate("k"), Correct(Timing(time_us, time_us, time_us, 100), 0.1), "f", tuple(launches))


@given(st.lists(LAUNCHES, max_size=4), PROFILES, st.floats(0.5, 1e6), st.integers(1, 8), st.sampled_from(list(TABLE)))
@settings(max_examples=200)
def test_always_as_many_as_asked_each_another(
    launches: list[Launch], profile: Profile | None, time_us: float, count: int, name: str
) -> None:
    trial = trial_of(launches, time_us)
    found = by_rules(trial, profile, TABLE[name], count)
    assert len(found.bottlenecks) == len({each.limiter for each in found.bottlenecks}) == count
    assert all(each.cause.endswith(".") and each.advice.endswith(".") for each in found.bottlenecks)
    assert found == by_rules(trial, profile, TABLE[name], count)
    # Rank 2 is the second bottleneck, whatever number is asked for: never the first again.
    assert found.bottlenecks == by_rules(trial, profile, TABLE[name], 8).bottlenecks[:count]


def test_every_limiter_has_a_rule_and_a_meaning() -> None:
    assert sorted(name for name, _ in RULES) == sorted(MEANINGS) == sorted(LIMITERS)


@pytest.mark.parametrize("count", [0, 9, -1])
def test_another_count_is_a_mistake(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        by_rules(START, START_PROFILE, H200, count)


def test_too_few_programs_come_first_then_waiting() -> None:
    first, second, third = by_rules(START, START_PROFILE, H200, 3).bottlenecks
    assert (first.limiter, second.limiter, third.limiter) == ("parallelism", "latency", "dram")
    assert "16 programs for 132 multiprocessors: 88 % have no work" in first.cause
    assert "264" in first.advice
    assert "7.6 %" in second.cause
    assert "4.42 TB/s" in third.cause


def test_a_stream_at_the_limit_is_limited_by_memory() -> None:
    found = by_rules(SPLIT, SPLIT_PROFILE, H200, 2).bottlenecks
    assert found[0].limiter == "dram"
    assert "98 % of the roofline" in found[0].cause
    assert "fewer bytes" in found[0].advice


def test_all_kernels_count_by_their_time() -> None:
    """The sum kernel comes last in the profile; it is 0.4 % of the call and must not stand for it."""
    figures = Figures(SPLIT, SPLIT_PROFILE, H200)
    assert figures.main is not None
    assert figures.main.kernel == "part_kernel"
    assert figures.share_of(SPLIT_PROFILE.kernels[1]) == pytest.approx(0.004, abs=1e-4)
    assert figures.mean(lambda kernel: kernel.occupancy) == pytest.approx((0.74 * 980 + 0.06 * 4) / 984)
    assert figures.idle < 0.1


def test_two_launches_of_one_kernel_are_told_apart() -> None:
    few, many = replace(START_LAUNCH, grid=(1, 1, 1)), replace(START_LAUNCH, grid=(1320, 1, 1))
    kernel = START_PROFILE.kernels[0]
    profile = Profile("ncu", "h200", (replace(kernel, time_us=1.0), replace(kernel, time_us=99.0, waves=10.0)))
    figures = Figures(trial_of([few, many], 100.0), profile, H200)
    assert figures.launches == (few, many)
    assert figures.idle == pytest.approx(0.01 * 131 / 132)


def test_matrix_units_are_weighed_with_the_dense_rate() -> None:
    launch = Launch("gemm", (1536, 1, 1), 8, 3, 98304, 168, 0, features=frozenset({"mma", "wgmma", "cp.async"}))
    profile = Profile("estimate", "h200", (KernelProfile("gemm", 160.0, "tensor", 3.5e8, 2e9, 1.16e11, 0.25, 1.0),))
    figures = Figures(trial_of([launch], 200.0), profile, H200)
    assert figures.tensor == pytest.approx(1.16e11 / 750e12 / 200e-6)
    assert by_rules(figures.trial, profile, H200, 1).bottlenecks[0].limiter == "tensor"


def test_what_is_measured_slower_than_estimated_is_not_wholly_what_the_estimate_says() -> None:
    """The estimate explains a third of the time: the rest is waiting, and that comes first."""
    launch = replace(START_LAUNCH, grid=(1320, 1, 1))
    profile = Profile(
        "estimate", "h200", (replace(START_PROFILE.kernels[0], time_us=1000.0, limiter="dram", waves=5.0),)
    )
    assert by_rules(trial_of([launch], 1000.0), profile, H200, 1).bottlenecks[0].limiter == "dram"
    slow = by_rules(trial_of([launch], 5000.0), profile, H200, 2).bottlenecks
    assert slow[0].limiter == "latency"


def counted(launch: Launch, kernel: KernelProfile, **metrics: float) -> tuple[Trial, Profile]:
    profile = Profile("ncu", "h200", (replace(kernel, metrics=tuple(sorted(metrics.items()))),))
    return trial_of([launch], kernel.time_us), profile


WIDE = replace(START_LAUNCH, grid=(1320, 1, 1))
KERNEL = KernelProfile("matvec_kernel", 2000.0, "latency", 4.297e9, 4.3e9, 8.6e9, 0.3, 5.0)


def test_counters_go_before_the_roofline() -> None:
    trial, profile = counted(
        WIDE, KERNEL, l2_throughput_pct=20.0, l1_pipe_pct=88.0, tensor_pipe_pct=3.0, issue_pct=30.0
    )
    figures = Figures(trial, profile, H200)
    assert figures.busy("l2") == pytest.approx(0.88)
    assert figures.busy("tensor") == pytest.approx(0.03)
    assert figures.busy("alu") == pytest.approx(0.3)
    assert figures.busy("dram") == figures.dram
    assert figures.busy("atomics") == figures.busy("launch") == 0.0
    # A kernel that counters saw for half of the call's time is busy for half of that.
    slow = Figures(trial_of([WIDE], 4000.0), profile, H200)
    assert slow.busy("l2") == pytest.approx(0.44)


def test_memory_is_full_at_what_can_be_read() -> None:
    trial, profile = counted(WIDE, KERNEL, dram_throughput_pct=92.0)
    assert Figures(trial, profile, H200).busy("dram") == pytest.approx(0.92 / H200.readable)


def test_what_warps_wait_for_is_named() -> None:
    trial, profile = counted(WIDE, KERNEL, stall_long_scoreboard_pct=71.2, stall_barrier_pct=8.0, stall_wait_pct=80.0)
    found = by_rules(trial, profile, H200, 1).bottlenecks[0]
    assert found.limiter == "latency"
    assert "71 % of their time on waiting for data from memory (stall_long_scoreboard_pct)" in found.cause


def test_scattered_loads_are_seen() -> None:
    trial, profile = counted(WIDE, replace(KERNEL, limiter="dram"), bytes_used_per_loaded_sector=8.0)
    found = by_rules(trial, profile, H200, 1).bottlenecks[0]
    assert found.limiter == "dram"
    assert "only 8 are used" in found.advice


def test_bank_conflicts_are_seen() -> None:
    kernel = replace(KERNEL, limiter="l2")
    trial, profile = counted(WIDE, kernel, shared_bank_conflicts=5e5, shared_wavefronts=1e6, l2_throughput_pct=50.0)
    found = by_rules(trial, profile, H200, 1).bottlenecks[0]
    assert found.limiter == "l2"
    assert found.advice.startswith("50 %")
    assert "busy 50 % of the time" in found.cause


def test_idle_multiprocessors_are_counted() -> None:
    """Programs enough for all, and yet a third of the time without work: some programs are longer than others."""
    trial, profile = counted(WIDE, replace(KERNEL, limiter="parallelism"), sm_active_pct=66.0)
    found = by_rules(trial, profile, H200, 1).bottlenecks[0]
    assert found.limiter == "parallelism"
    assert "34 %" in found.cause


def test_contended_atomics_are_seen() -> None:
    launch = replace(WIDE, features=frozenset({"atomic"}))
    trial, profile = counted(launch, replace(KERNEL, limiter="atomics"), atomic_unit_busiest_pct=70.0)
    found = by_rules(trial, profile, H200, 1).bottlenecks[0]
    assert found.limiter == "atomics"
    assert "1320 programs; by counters its busiest part is busy 70 %" in found.cause


def test_spills_are_seen() -> None:
    launch = replace(START_LAUNCH, grid=(1320, 1, 1), spills=64, registers=255)
    profile = Profile("estimate", "h200", (replace(START_PROFILE.kernels[0], limiter="alu", waves=5.0),))
    found = by_rules(trial_of([launch], 12840.0), profile, H200, 1).bottlenecks[0]
    assert found.limiter == "alu"
    assert "spills 64" in found.cause


def test_without_a_profile_the_launches_must_do() -> None:
    found = by_rules(replace(START, verdict=Correct(Estimate(50.0), 0.1)), None, H200, 3)
    assert found.bottlenecks[0].limiter == "parallelism"
    assert found.key == analysis_key("f0", "h200", "rules", "none", 3)


def test_a_key_tells_who_looked_at_what() -> None:
    parts = ("f", "h200", "rules", "ncu", 2)
    others = [("g", *parts[1:]), ("f", "b200", *parts[2:]), ("f", "h200", "a:b", "ncu", 2), (*parts[:3], "estimate", 2)]
    keys = {analysis_key(*each) for each in [parts, *others, (*parts[:4], 3)]}  # type: ignore[arg-type]
    assert len(keys) == 6


# A model's answer ----------------------------------------------------------------------------------------------------


def entry(limiter: str = "dram", **other: object) -> dict[str, object]:
    return {"limiter": limiter, "cause": f"It moves {limiter}.", "advice": "Move less.", **other}


def answer(*entries: object) -> str:
    return json.dumps({"bottlenecks": list(entries)})


@pytest.mark.parametrize(
    "text",
    [
        answer(entry("dram"), entry("latency")),
        "Here it is.\n\n```json\n" + answer(entry("dram"), entry("latency")) + "\n```\nDone.",
        "```\n" + answer(entry("dram"), entry("latency")) + "\n```",
        "<think>\n```json\n{}\n```\n</think>\n" + answer(entry("dram"), entry("latency")),
    ],
)
def test_a_ranking_is_read(text: str) -> None:
    first, second = read_analysis(text, 2)
    assert (first.limiter, second.limiter) == ("dram", "latency")
    assert second.cause == "It moves latency."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not the JSON"),
        ("I think it is dram.", "not the JSON"),
        ("```json\n{}\n```\n```json\n{}\n```", "2 blocks"),
        ("[]", "one key"),
        (json.dumps({"bottlenecks": {}}), "one key"),
        (json.dumps({"bottlenecks": [], "more": 1}), "one key"),
        ('{"bottlenecks": [], "bottlenecks": []}', "comes twice"),
        (answer(entry()), "ranks 1 bottlenecks instead of 2"),
        (answer(entry(), entry("l2"), entry("alu")), "ranks 3"),
        (answer(entry(), entry()), "twice"),
        (answer(entry(), entry("memory")), "Bottleneck 2 has no limiter"),
        (answer(entry(), entry("l2", cause=" \n")), "Bottleneck 2 has no cause"),
        (answer(entry(), entry("l2", advice=3)), "Bottleneck 2 has no advice"),
        (answer(entry(), {**entry("l2"), "limiter": ["l2"]}), "Bottleneck 2 has no limiter"),
        (answer(entry(), entry("l2", share=0.4)), "exactly the keys"),
        (answer(entry(), "l2"), "exactly the keys"),
        ("[" * 100_000, "not the JSON"),
    ],
)
def test_a_bad_ranking_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(BadAnalysis, match=reason) as caught:
        read_analysis(text, 2)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(BadAnalysis):
        read_analysis(json.dumps(value), 1)


def test_the_question_names_every_limiter_and_the_number() -> None:
    prompt = analysis_prompt(MATVEC, H200, START, START_PROFILE, 3)
    assert all(f"- {name}: " in prompt.system for name in LIMITERS)
    assert "exactly 3 entries" in prompt.turns[0]
    assert START.candidate.source in prompt.turns[0]
    assert "exactly 1 entry." in analysis_prompt(MATVEC, H200, START, None, 1).turns[0]
