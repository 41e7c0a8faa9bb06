"""What a model is asked. Pure functions: the same scene gives the same words.

Everything that comes from elsewhere (sources, messages, names) is put in as one line, or as a block that nothing in it
can close; and everything has a bound, so that a prompt has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from tilesmith.core.facts import Bottleneck
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Prompt
from tilesmith.core.trial import (
    Correct,
    Duplicate,
    Failed,
    Rejected,
    Trial,
    Unchecked,
    Verdict,
    Wrong,
)
from tilesmith.propose.code import NoCode, code_block, spoken
from tilesmith.propose.described import LINE_CHARACTERS, LINES, MEANINGS, kernel, question
from tilesmith.propose.figures import Figures
from tilesmith.propose.history import Attempt
from tilesmith.propose.templating import render
from tilesmith.propose.words import cut, fenced, micros, one_line

REPLY_CHARACTERS = 100_000
MESSAGE_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What one direction is told. All of it comes from complete rounds."""

    problem: Problem
    gpu: Gpu
    parent: Trial | None = None
    """A correct trial; None where there is no kernel yet."""
    profile: Profile | None = None
    bottleneck: Bottleneck | None = None
    """The one that this direction answers."""
    rank: int = 1
    """Its place in the parent's ranking, from 1."""
    history: tuple[Attempt, ...] = ()
    """See `tilesmith.propose.history`."""
    taxonomy: tuple[tuple[str, str], ...] = ()
    """Names and descriptions of the known techniques."""
    techniques: frozenset[str] = frozenset()
    """The names of those that kernels of the pool use."""
    baseline_us: float | None = None
    """What the winner will be compared with, of the parent's kind: measured or estimated."""
    target_us: float | None = None
    """The time to reach."""
    measured: bool = True
    """False where there is no GPU: times are estimates, and Triton's interpreter checks numbers."""


def first(scene: Scene) -> Prompt:
    """Ask for a faster version of the scene's parent. Raises ValueError for a scene without one."""
    if scene.parent is None:
        raise ValueError("a scene without a parent has nothing to improve; ask for a first kernel instead")
    words = render(
        "improve",
        **question(scene.problem, scene.gpu, scene.parent),
        **kernel(Figures(scene.parent, scene.profile, scene.gpu)),
        **_techniques(scene),
        lineage=_lineage(scene),
        siblings=_siblings(scene),
        bottleneck=_bottleneck(scene),
        goals=_goals(scene),
    )
    return Prompt(render("system"), (words,))


def write_from_reference(scene: Scene) -> Prompt:
    """Ask for a first kernel: the problem has no start kernel."""
    words = render(
        "write",
        **question(scene.problem, scene.gpu, scene.parent),
        **_techniques(scene),
        siblings=_siblings(scene),
        goals=_goals(scene),
    )
    return Prompt(render("system"), (words,))


def repair(prompt: Prompt, reply: str, fault: Verdict | NoCode) -> Prompt:
    """The conversation after a reply whose candidate failed, or that held none: what was wrong, and to mend it.

    Raises ValueError for a correct candidate, which needs no repair.
    """
    heading, message, advice = _fault(fault)
    words = render(
        "repair",
        heading=heading,
        message=fenced(cut(message, MESSAGE_CHARACTERS)) if message else "",
        excerpt=_excerpt(reply, message),
        advice=advice,
    )
    return prompt.answered(cut(spoken(reply).strip(), REPLY_CHARACTERS) or "(an empty reply)", words)


# Parts ---------------------------------------------------------------------------------------------------------------


def _attempt(attempt: Attempt) -> str:
    text = attempt.origin + (f" ({attempt.count} times)" if attempt.count > 1 else "")
    if attempt.relation == "parent":
        text += ", this kernel"
    if attempt.time_us is not None:
        text += f": {micros(attempt.time_us)} {'measured' if attempt.measured else 'estimated'}"
    if attempt.gain is not None:
        text += f", {attempt.gain:.3f} times as fast as its parent"
    if attempt.message is not None:
        text += f": {attempt.message}"
    if attempt.techniques:
        text += f" [{', '.join(attempt.techniques)}]"
    return one_line(text, LINE_CHARACTERS)


def _techniques(scene: Scene) -> dict[str, list[str]]:
    lines = [(name, one_line(f"{name}: {description}", 200)) for name, description in scene.taxonomy]
    known = {name for name, _ in lines}
    others = sorted(one_line(name, 80) for name in scene.techniques - known)
    return {
        "used": [*(line for name, line in lines if name in scene.techniques), *others],
        "unused": [line for name, line in lines if name not in scene.techniques],
    }


def _goals(scene: Scene) -> list[str]:
    lines = []
    if not scene.measured:
        lines.append(
            "No GPU is at hand: times are estimated from the compiled code, and Triton's interpreter checks numbers. "
            "It follows neither Gluon nor inline PTX, so use none."
        )
    if scene.baseline_us is not None:
        lines.append(f"The baseline takes {micros(scene.baseline_us)}.")
    if scene.target_us is not None:
        lines.append(f"The goal is {micros(scene.target_us)} or less.")
    return lines


def _siblings(scene: Scene) -> list[str]:
    tried = [each for each in scene.history if each.relation == "sibling"]
    return [_attempt(each) for each in tried[:LINES]]


def _lineage(scene: Scene) -> list[str]:
    """The line of the parent; of a long one both ends."""
    line = [each for each in scene.history if each.relation != "sibling"]
    if len(line) <= LINES:
        return [_attempt(each) for each in line]
    ends = [_attempt(each) for each in (*line[: LINES // 2], *line[-(LINES // 2) :])]
    return [*ends[: LINES // 2], f"... {len(line) - LINES} in between", *ends[LINES // 2 :]]


def _bottleneck(scene: Scene) -> dict[str, object] | None:
    if scene.bottleneck is None:
        return None
    return {
        "rank": scene.rank,
        "limiter": scene.bottleneck.limiter,
        "meaning": MEANINGS[scene.bottleneck.limiter],
        "cause": one_line(scene.bottleneck.cause, LINE_CHARACTERS),
        "advice": one_line(scene.bottleneck.advice, LINE_CHARACTERS),
    }


# Repairs -------------------------------------------------------------------------------------------------------------

_STAGES = {
    "admit": "The file was not accepted.",
    "import": "The file cannot be imported.",
    "capture": "The call failed on the host, before any kernel ran.",
    "compile": "A kernel does not compile.",
    "launch": "A kernel cannot be launched.",
    "check": "A call failed while its numbers were checked.",
    "time": "A call failed while it was timed.",
    "timeout": "It took too long.",
    "crash": "Its process ended before it answered.",
    "memory": "It ran out of memory.",
}


def _fault(fault: Verdict | NoCode) -> tuple[str, str, str]:
    """A heading, what to quote, and what to do."""
    match fault:
        case NoCode():
            return f"Your reply cannot be judged. {fault}", "", "Nothing else of it was looked at."
        case Failed(stage=stage, message=message):
            return f"Your kernel failed at stage {stage}. {_STAGES[stage]}", message, "Find the cause and mend it."
        case Wrong(message=message, error=error):
            by = f" Its scaled error is {error:.3g}; 1 is the limit." if error is not None else ""
            advice = (
                "Look at masks of ragged edges, offsets and strides, races between programs, the precision of sums, "
                "and the shapes and dtypes of the outputs."
            )
            return f"Your kernel computes something else than the reference.{by}", message, advice
        case Rejected(reason=reason):
            return "Your kernel breaks a rule of what a file must be, and was not timed.", reason, "Keep to the rules."
        case Duplicate():
            heading = "Your kernel compiles to what was judged before: only its text is new."
            return heading, "", "Write one that does the work in another way."
        case Unchecked(message=message):
            return "Your kernel compiles, but its numbers cannot be checked.", message, "Write it so that they can be."
        case Correct():
            raise ValueError("a correct candidate needs no repair")
        case _:
            assert_never(fault)


def _excerpt(reply: str, message: str) -> str:
    """The lines around the first that the message names, numbered; empty where there are none."""
    named = re.search(r"\bline (\d{1,6})\b", message)
    if named is None:
        return ""
    try:
        lines = code_block(reply).removesuffix("\n").split("\n")
    except NoCode:
        return ""
    number = int(named[1])
    if not 1 <= number <= len(lines):
        return ""
    around = range(max(1, number - 3), min(len(lines), number + 2) + 1)
    return fenced("\n".join(f"{at:>5}  {lines[at - 1].rstrip()[:LINE_CHARACTERS]}" for at in around))
