"""What a model is asked: reviewed as text, bounded, deterministic, and not to be broken by what it quotes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from prompt_scenes import H200, MATVEC, START, TAXONOMY, first_round, later_round

from tilesmith.core.facts import Bottleneck
from tilesmith.core.gpu import TABLE
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Prompt
from tilesmith.core.trial import (
    Candidate,
    Duplicate,
    Environment,
    Failed,
    Rejected,
    Unchecked,
    Verdict,
    Wrong,
)
from tilesmith.propose import templating
from tilesmith.propose.analysis import analysis_prompt
from tilesmith.propose.code import NoCode, blocks
from tilesmith.propose.history import Attempt
from tilesmith.propose.prompts import Scene, first, repair, write_from_reference

Golden = Callable[[str, str], None]
DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = Scene(MATVEC, H200, taxonomy=TAXONOMY)
TEXT = st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from("`~{}%# \n-x"))
BOUND = 250_000
"""Characters of one question, at the very most."""


def written(prompt: Prompt) -> str:
    return "\n".join(
        [f"<<< system\n{prompt.system}", *(f"<<< turn {n}\n{turn}" for n, turn in enumerate(prompt.turns, 1))]
    )


# As it stands --------------------------------------------------------------------------------------------------------


def test_a_first_round_with_estimates(golden: Golden) -> None:
    golden("prompts/first-round.txt", written(first(first_round(1))))


def test_a_later_round_with_measurements_and_a_repair(golden: Golden) -> None:
    prompt = first(later_round(1))
    reply = "```python\nimport torch\n\ndef kernel_function(A, x):\n    return A.foo(x)\n```\n"
    verdict = Failed("capture", "AttributeError: 'Tensor' object has no attribute 'foo' (line 4)")
    golden("prompts/later-round.txt", written(repair(prompt, reply, verdict)))


def test_a_kernel_from_the_reference(golden: Golden) -> None:
    golden("prompts/from-reference.txt", written(write_from_reference(REFERENCE)))


# The contract --------------------------------------------------------------------------------------------------------


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_rules_are_those_of_the_page() -> None:
    """Every name in code font of these sections, so that a rule that changes there is not forgotten here."""
    page = (DOCS / "candidates.md").read_text(encoding="utf-8")
    stated = first(first_round(1)).system
    outcomes = {"failed", "rejected", "wrong", "unchecked", "admit", "import"}
    for title in ("Source", "Work", "Launches", "Outputs", "Values and precision", "Tampering"):
        text = section(page, title).split("What one may still use")[0]
        names = set(re.findall(r"`([^`]+)`", text)) - outcomes
        missing = {name for name in names if name.replace("…", "...") not in stated}
        # How a problem says that something is allowed stands with the problem.
        assert missing <= {"tolerance", "problem.toml", "tf32 = true", "Model", "--allow library", "library = true"}, (
            title
        )
    for figure in ("at most 1 MiB", "torch, triton, numpy, einops, packaging, tqdm and typing_extensions", "120 s"):
        assert figure in " ".join(page.split())
        assert figure in " ".join(stated.split())


def test_every_setting_of_a_problem_is_told() -> None:
    problem = Problem("p", "M = 1\n", Settings("fp32", 2.0, True, True, small={"M": 3}, large={"N": (4, 5)}))
    words = write_from_reference(Scene(problem, H200)).turns[0]
    for told in (
        "cast to fp32",
        "multiplied by 2",
        "may round them to TF32",
        "such as torch.mm",
        "M = 3",
        "N = (4, 5)",
    ):
        assert told in words
    plain = write_from_reference(Scene(Problem("p", "M = 1\n"), H200)).turns[0]
    assert "the dtypes that the problem gives them" in plain
    assert "may not round them to TF32" in plain
    assert "multiplied" not in plain
    assert "torch.mm" not in plain


@pytest.mark.parametrize("name", TABLE)
def test_every_gpu_is_described(name: str) -> None:
    words = write_from_reference(Scene(MATVEC, TABLE[name])).turns[0]
    assert f"- {name}: compute capability" in words
    assert ("fp8" in words) == (TABLE[name].fp8_flops is not None)


# What a direction is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_rank_has_a_question_of_its_own(rank: int) -> None:
    """Bottlenecks 2 and 3 are not the first again."""
    scene = first_round(rank)
    assert scene.bottleneck is not None
    words = first(scene).turns[0]
    assert f"answer number {rank}" in words
    assert scene.bottleneck.cause in words
    assert scene.bottleneck.advice in words
    assert len({first(first_round(each)).id for each in (1, 2, 3)}) == 3


def test_measured_and_estimated_are_told_apart() -> None:
    estimated, measured = first(first_round(1)).turns[0], first(later_round(1)).turns[0]
    assert "12.84 ms by estimate" in estimated
    assert "95 %" not in estimated
    assert "988 µs, measured: the median of 120 samples, 95 % interval 985.2 µs to 990.9 µs" in measured


def test_without_a_gpu_kernels_must_be_what_the_interpreter_follows() -> None:
    assert "neither Gluon nor inline PTX" in write_from_reference(replace(REFERENCE, measured=False)).turns[0]
    assert "No GPU is at hand" not in write_from_reference(REFERENCE).turns[0]


def test_failures_of_siblings_are_told_once() -> None:
    words = first(later_round(1)).turns[0]
    assert "x:y (2 times): failed (compile): at 12:8: out of resource: shared memory" in words
    assert "scaled error 37.2" in words
    assert "compiles to what its parent compiles to" in words
    assert "openai:two: 1.101 ms measured" in words


def test_techniques_in_use_and_not() -> None:
    used, unused = first(later_round(1)).turns[0].split("None of them uses:")
    assert "- partial_sums: a sum is split" in used
    assert "- matrix_units: products" in unused
    nothing = first(replace(later_round(1), taxonomy=(), techniques=frozenset())).turns[0]
    assert "# Techniques" not in nothing
    everything = first(replace(later_round(1), techniques=frozenset(name for name, _ in TAXONOMY))).turns[0]
    assert "None of them uses" not in everything


def test_a_kernel_s_launches_profile_and_roofline() -> None:
    words = first(later_round(1)).turns[0]
    assert "part_kernel: grid (2048, 4, 1), 8 warps, 3 stages; 40 registers a thread, 0 spilled, 1024 bytes" in words
    assert "source: hardware counters" in words
    assert "part_kernel: 980 µs, 100 % of the time, limited by dram" in words
    assert "device memory 98 %" in words
    without = first(replace(later_round(1), profile=None)).turns[0]
    assert "There is none." in without
    assert "roofline, shares" not in without


def test_without_a_parent_there_is_nothing_to_improve() -> None:
    with pytest.raises(ValueError, match="without a parent"):
        first(REFERENCE)


def test_a_reference_s_failures_are_told_in_the_next_round() -> None:
    failed = Attempt("sibling", "a:b", (), None, False, None, "failed (compile): no")
    words = write_from_reference(replace(REFERENCE, history=(failed,))).turns[0]
    assert "- a:b: failed (compile): no" in words
    assert words != write_from_reference(REFERENCE).turns[0]


# Repairs -------------------------------------------------------------------------------------------------------------

VERDICTS = (
    Failed("compile", "shared memory out of resource"),
    Wrong("output 0 has shape [2], not [3]"),
    Wrong("output 0 differs", 12.5),
    Rejected("it calls torch.matmul (line 3)"),
    Duplicate("0123"),
    Unchecked("it takes elements to the host"),
    NoCode("The reply has no code block."),
)


@pytest.mark.parametrize("fault", VERDICTS, ids=lambda fault: type(fault).__name__)
def test_a_repair_quotes_the_verdict(fault: Verdict | NoCode) -> None:
    prompt = first(first_round(1))
    asked = repair(prompt, "A reply.", fault)
    assert asked.system == prompt.system
    assert asked.turns[:2] == (*prompt.turns, "A reply.")
    words = asked.turns[2]
    match fault:
        case NoCode():
            assert str(fault) in words
        case Rejected(reason=message) | Failed(message=message) | Wrong(message=message) | Unchecked(message=message):
            assert message in words
        case _:
            assert "compiles to what was judged before" in words
    assert words.rstrip().endswith("not only what changes.")


def test_a_repair_shows_the_line_that_the_verdict_names() -> None:
    reply = "Text.\n\n```python\nimport torch\n\n\ndef kernel_function(x):\n    return x @ x\n```\n"
    words = repair(first(first_round(1)), reply, Rejected("it multiplies matrices on the host (line 5)")).turns[-1]
    assert "    5      return x @ x\n" in words
    far = repair(first(first_round(1)), reply, Rejected("something (line 500)")).turns[-1]
    assert "The lines that it names" not in far


def test_repairs_go_on_from_repairs() -> None:
    prompt = first(first_round(1))
    twice = repair(repair(prompt, "one", VERDICTS[0]), "two", VERDICTS[1])
    assert [*twice.turns[1::2]] == ["one", "two"]
    assert len(twice.turns) == 5


@pytest.mark.parametrize("reply", ["", " \n", "<think>hm</think>"])
def test_an_empty_reply_leaves_no_empty_turn(reply: str) -> None:
    assert repair(first(first_round(1)), reply, NoCode("The reply is empty.")).turns[1] == "(an empty reply)"


def test_what_is_correct_needs_no_repair() -> None:
    with pytest.raises(ValueError, match="no repair"):
        repair(first(first_round(1)), "x", START.verdict)


# Nothing that is quoted can break out --------------------------------------------------------------------------------


def wild(text: str) -> Scene:
    trial = replace(
        START,
        candidate=Candidate(text, text),
        launches=(replace(START.launches[0], kernel=text, arguments=((text, text),)),),
        environment=Environment("b", "h200", None, None, text, text, text),
    )
    attempt = Attempt("sibling", text, (text,), None, False, None, text)
    return Scene(
        Problem(text, text, Settings(small={text: text})),
        H200,
        trial,
        Profile("ncu", "h200", tuple(replace(kernel, kernel=text) for kernel in START.profile.kernels)),  # type: ignore[union-attr]
        Bottleneck("dram", text, text),
        2,
        (attempt, replace(attempt, relation="ancestor")),
        ((text, text),),
        frozenset([text, text + "x"]),
    )


@given(TEXT)
@settings(max_examples=150, deadline=None)
def test_quoted_texts_stay_in_their_blocks(text: str) -> None:
    """Read as Markdown, a question has its own headings and exactly the blocks of problem and parent, word for word."""
    prompt = first(wild(text))
    body = text if text.endswith("\n") else text + "\n"
    assert [(block.text, block.closed) for block in blocks(prompt.turns[0])] == [(body, True), (body, True)]
    (reply,) = blocks(repair(prompt, "r", Failed("compile", text)).turns[-1]) if text else (None,)
    assert reply is None or (reply.text == body and reply.closed)
    analysed = analysis_prompt(Problem("p", text), H200, wild(text).parent or START, None, 2)
    assert [block.text for block in blocks(analysed.turns[0])] == [body, body]


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_the_question_has_its_own_headings_only(text: str) -> None:
    outside = []
    fence = ""
    for line in first(wild(text)).turns[0].split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = line.removesuffix("python")
        else:
            outside.append(line)
    headings = [line for line in outside if line.startswith("#")]
    assert [line for line in headings if not line.startswith("# Problem:")] == [
        "# GPU",
        "# The kernel",
        "## Launches of one call",
        "## Profile",
        "# What was tried",
        "# Techniques",
        "# Your task",
    ]


def test_template_syntax_is_no_template() -> None:
    text = "{{ 7 * 7 }}{% for x in y %}{# gone #}"
    words = first(wild(text)).turns[0]
    assert words.count(text) >= 5
    assert "49" not in words.replace("4294", "")


def test_a_lone_surrogate_can_be_sent() -> None:
    first(wild("\ud800x")).turns[0].encode("utf-8")
    repair(first(first_round(1)), "r", Failed("crash", "\udcff")).turns[-1].encode("utf-8")


# Bounds --------------------------------------------------------------------------------------------------------------


def test_a_question_has_a_bound() -> None:
    huge = "x" * 200_000
    scene = wild("line of text\n" * 20_000)
    many = replace(
        scene,
        parent=replace(scene.parent or START, launches=(START.launches[0],) * 500),
        profile=Profile("ncu", "h200", START.profile.kernels * 500),  # type: ignore[union-attr]
        history=scene.history * 500,
    )
    for each in (scene, many, wild(huge)):
        prompt = first(each)
        assert len(prompt.turns[0]) < BOUND
        assert "cut here" in prompt.turns[0]
    mended = repair(first(first_round(1)), huge, Failed("compile", huge))
    assert len(mended.turns[-2]) + len(mended.turns[-1]) < BOUND


def test_a_long_line_of_ancestors_keeps_its_ends() -> None:
    line = tuple(Attempt("ancestor", f"origin-{n}", (), 100.0 - n, True, None, None) for n in range(40))
    words = first(replace(first_round(1), history=line)).turns[0]
    assert "origin-0:" in words
    assert "origin-39:" in words
    assert "28 in between" in words


def test_the_same_scene_gives_the_same_words() -> None:
    once, again = first(later_round(2)), first(later_round(2))
    assert once == again
    assert once.id == again.id


def test_a_template_that_lacks_a_value_is_no_silent_gap() -> None:
    with pytest.raises(UndefinedError):
        templating.render("repair", heading="x")


def test_counters_are_shown() -> None:
    kernels = START.profile.kernels  # type: ignore[union-attr]
    assert kernels[0].metrics == ()
    counted = replace(kernels[0], metrics=(("dram_throughput_pct", 7.5), ("stall_long_scoreboard", 11.25)))
    words = first(replace(first_round(1), profile=Profile("ncu", "h200", (counted,)))).turns[0]
    assert "dram_throughput_pct 7.5, stall_long_scoreboard 11.25" in words
