"""Every core value survives the journal exactly, and nothing else is taken for one."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.budget import Limits, Stop
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.profile import KernelProfile, Launch, Profile
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Direction,
    Duplicate,
    Environment,
    Estimate,
    Failed,
    Lease,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Wrong,
)
from tilesmith.journal.codec import CodecError, dumps, loads

floats = st.floats(allow_nan=False)
numbers = st.one_of(floats, st.integers())
texts = st.text(max_size=20)
maybe_text = st.none() | texts
scalars = st.none() | st.booleans() | numbers | texts
constants = st.booleans() | numbers | texts | st.lists(st.integers(), max_size=3).map(tuple)
shapes = st.dictionaries(texts, constants, max_size=3)
limiters = st.sampled_from(["launch", "parallelism", "latency", "dram", "l2", "tensor", "alu", "atomics"])
stages = st.sampled_from(
    ["admit", "import", "capture", "compile", "launch", "check", "time", "timeout", "crash", "memory"]
)

settings = st.builds(
    Settings,
    st.sampled_from([None, "fp64", "fp32", "fp16", "bf16"]),
    numbers,
    st.booleans(),
    st.booleans(),
    maybe_text,
    shapes,
    shapes,
)
problems = st.builds(Problem, texts, texts, settings, maybe_text)
estimates = st.builds(Estimate, floats)
timings = st.builds(
    Timing,
    *[floats] * 3,
    st.integers(),
    maybe_text,
    *[st.none() | floats] * 3,
    st.none() | st.tuples(st.integers(), st.integers()),
    st.lists(texts, max_size=2).map(tuple),
    st.integers(),
)
verdicts = st.one_of(
    st.builds(Correct, timings | estimates, floats, st.integers()),
    st.builds(Wrong, texts, st.none() | floats),
    st.builds(Rejected, texts),
    st.builds(Failed, stages, texts),
    st.builds(Duplicate, texts),
    st.builds(Unchecked, texts, st.none() | estimates),
)
launches = st.builds(
    Launch,
    texts,
    st.tuples(st.integers(), st.integers(), st.integers()),
    st.integers(),
    st.integers(),
    st.integers(),
    st.integers(),
    st.integers(),
    st.lists(st.tuples(texts, scalars), max_size=3).map(tuple),
    st.frozensets(texts, max_size=4),
)
metrics = st.lists(st.tuples(texts, floats), max_size=2).map(tuple)
kernels = st.builds(KernelProfile, texts, floats, limiters, floats, floats, floats, floats, floats, metrics)
profiles = st.builds(Profile, st.sampled_from(["estimate", "ncu"]), texts, st.lists(kernels, max_size=2).map(tuple))
directions = st.builds(Direction, *[st.integers()] * 3, texts, st.integers())
trials = st.builds(
    Trial,
    st.builds(Candidate, texts, texts, maybe_text, st.none() | directions, st.integers()),
    verdicts,
    maybe_text,
    st.lists(launches, max_size=2).map(tuple),
    st.none() | profiles,
    st.builds(Cost, floats, floats, floats),
    st.none() | st.builds(Environment, texts, texts, maybe_text, maybe_text, texts, texts, texts),
    texts,
    st.integers(),
    st.booleans(),
    st.lists(texts, max_size=2).map(tuple),
    st.lists(st.builds(Lease, texts, floats, floats, st.booleans()), max_size=2).map(tuple),
)
limits = st.builds(
    Limits, *[st.none() | st.integers()] * 2, *[st.none() | floats] * 3, *[st.none() | st.integers()] * 2
)


@given(trials)
def test_trials_survive(trial: Trial) -> None:
    text = dumps(trial)
    back = loads(Trial, text)
    assert back == trial
    # Equality of candidates leaves out where they come from.
    assert (back.candidate.origin, back.candidate.parent) == (trial.candidate.origin, trial.candidate.parent)
    assert dumps(back) == text
    assert text.isascii()
    assert "\n" not in text


@given(problems, limits, st.sampled_from(Stop))
def test_problems_limits_and_stops_survive(problem: Problem, limit: Limits, stop: Stop) -> None:
    back = loads(Problem, dumps(problem))
    assert back == problem
    # `True == 1 == 1.0`, and yet they are different constants.
    for name, value in problem.settings.small.items():
        assert type(back.settings.small[name]) is type(value)
    assert loads(Limits, dumps(limit)) == limit
    assert loads(Stop, dumps(stop)) is stop


def test_what_is_no_number_still_survives() -> None:
    wrong = loads(Wrong, dumps(Wrong("half", math.nan)))
    assert wrong.error is not None
    assert math.isnan(wrong.error)
    assert loads(Estimate, dumps(Estimate(math.inf))) == Estimate(math.inf)
    assert loads(Estimate, dumps(Estimate(-math.inf))) == Estimate(-math.inf)


def test_lone_surrogates_survive() -> None:
    assert loads(Rejected, dumps(Rejected("\udc80"))) == Rejected("\udc80")


def test_the_written_form_stays_as_it_is() -> None:
    """A journal outlives the program that wrote it: another form needs another version of the schema."""
    trial = Trial(
        Candidate("s", "rewrite:tile", "p"),
        Correct(Timing(1.5, 1.0, 2.0, 9, "r", 3.0), 0.25),
        "f",
        (Launch("k", (1, 2, 3), 4, 2, 0, 32, 0, (("N", 7),), frozenset({"mma", "cp.async"})),),
        round=2,
    )
    assert dumps(trial) == (
        '{"is":"Trial","candidate":{"is":"Candidate","source":"s","origin":"rewrite:tile","parent":"p","direction":null,"attempt":0},'
        '"verdict":{"is":"Correct","time":{"is":"Timing","time_us":1.5,"low_us":1.0,"high_us":2.0,"samples":9,'
        '"rival":"r","rival_us":3.0,"rival_low_us":null,"rival_high_us":null,"sm_mhz":null,"throttled":[],"repeats":0},"error":0.25,"checks":1},"fingerprint":"f","launches":[{"is":"Launch","kernel":"k",'
        '"grid":[1,2,3],"warps":4,"stages":2,"shared_bytes":0,"registers":32,"spills":0,"arguments":[["N",7]],'
        '"features":["cp.async","mma"]}],"profile":null,"cost":{"is":"Cost","wall_s":0.0,"gpu_s":0.0,'
        '"measured_s":0.0},"environment":null,"protection":"none","round":2,"confirmed":false,"evidence":[],"leases":[]}'
    )


def test_a_record_from_before_a_field_was_there() -> None:
    text = '{"is":"Candidate","source":"s"}'
    assert loads(Candidate, text) == Candidate("s")
    with pytest.raises(CodecError):
        loads(Candidate, '{"is":"Candidate","origin":"user"}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "NaN",
        "[" * 100_000,
        '{"is":"Failed","stage":"admit"}',
        '{"is":"Failed","stage":"admit","message":"m","more":1}',
        '{"is":"Failed","stage":"lunch","message":"m"}',
        '{"is":"Failed","stage":null,"message":"m"}',
        '{"is":"Failed","stage":"admit","message":1}',
        '{"is":"Rejected","stage":"admit","message":"m"}',
        '{"stage":"admit","message":"m"}',
    ],
)
def test_nothing_else_is_read(text: str) -> None:
    with pytest.raises(CodecError):
        loads(Failed, text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Estimate, '{"is":"Estimate","estimate_us":true}'),
        (Estimate, '{"is":"Estimate","estimate_us":"1"}'),
        (Estimate, '{"is":"Estimate","estimate_us":{"float":"1"}}'),
        (Wrong, '{"is":"Wrong","message":"m","error":{"is":"Wrong"}}'),
        (Correct, '{"is":"Correct","time":{"is":"Cost","wall_s":1,"gpu_s":1,"measured_s":1},"error":0}'),
        (Correct, '{"is":"Correct","time":{"is":["Estimate"]},"error":0}'),
        (Correct, '{"is":"Correct","time":{"is":{}},"error":0}'),
        (Stop, '"NEVER"'),
        (Stop, "[]"),
    ],
)
def test_types_are_kept(kind: type, text: str) -> None:
    with pytest.raises(CodecError):
        loads(kind, text)


def test_other_values_are_not_written() -> None:
    with pytest.raises(TypeError, match="object has no form"):
        dumps(Rejected(object()))  # type: ignore[arg-type]


def test_the_strategies_leave_no_field_to_its_default() -> None:
    """A field that a value gains must be tested here too."""
    assert [len(fields(kind)) for kind in (Settings, Problem, Timing, Launch, KernelProfile, Trial, Environment)] == [
        7,
        4,
        11,
        9,
        9,
        12,
        7,
    ]
