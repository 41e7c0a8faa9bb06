"""What holds a kernel back, ranked: by rules, or by a model that is shown the same figures."""

from __future__ import annotations

import json
from typing import Any

from tilesmith.core.facts import Analysis, Bottleneck
from tilesmith.core.gpu import Gpu
from tilesmith.core.problem import Problem
from tilesmith.core.profile import Profile
from tilesmith.core.reply import Prompt
from tilesmith.core.trial import Trial
from tilesmith.propose.code import blocks, spoken
from tilesmith.propose.described import MEANINGS, kernel, question
from tilesmith.propose.directions import LIMITERS
from tilesmith.propose.figures import Figures
from tilesmith.propose.rules import RULES
from tilesmith.propose.templating import render
from tilesmith.propose.words import one_line

BY_RULES = "rules"
"""The analyst that is no model."""
SENTENCE_CHARACTERS = 600


class BadAnalysis(ValueError):
    """A model's answer is no ranking. The message is one sentence that says why."""


def analysis_key(fingerprint: str, gpu: str, analyst: str, profile_source: str, count: int) -> str:
    """Under what an analysis is recorded. A ranking of two is none of three: the count is part of it."""
    return f"{fingerprint}/{gpu}/{analyst}/{profile_source}/{count}"


def by_rules(trial: Trial, profile: Profile | None, gpu: Gpu, count: int) -> Analysis:
    """The `count` worst bottlenecks, each of another kind: what the profile names, then what is busiest or idlest.

    A bottleneck weighs the share of the call's time that the profile lays to it, and the share that it takes or loses
    by the roofline. Never fails: without a profile the launches must do. The key is that of `analysis_key`, with the
    candidate's id where there is no fingerprint. Raises ValueError for a count that is not 1 to 8.
    """
    if not 1 <= count <= len(LIMITERS):
        raise ValueError(f"{count} bottlenecks were asked for, but there are 1 to {len(LIMITERS)}")
    figures = Figures(trial, profile, gpu)
    weighed = []
    for limiter, rule in RULES:
        lost, cause, advice = rule(figures)
        weighed.append((figures.held(limiter) + lost, Bottleneck(limiter, cause, advice)))
    weighed.sort(key=lambda pair: -pair[0])
    seen = profile.source if profile else "none"
    key = analysis_key(trial.fingerprint or trial.candidate.id, gpu.name, BY_RULES, seen, count)
    return Analysis(key, BY_RULES, tuple(bottleneck for _, bottleneck in weighed[:count]))


def analysis_prompt(problem: Problem, gpu: Gpu, trial: Trial, profile: Profile | None, count: int) -> Prompt:
    """Ask a model for the `count` worst bottlenecks of a trial; `read_analysis` reads its reply."""
    figures = Figures(trial, profile, gpu)
    words = render("analysis", **question(problem, gpu, trial), **kernel(figures), count=count)
    return Prompt(render("analyst", limiters=tuple(MEANINGS.items())), (words,))


def read_analysis(text: str, count: int) -> tuple[Bottleneck, ...]:
    """A model's ranking, as `analysis_prompt` asks for it: {"bottlenecks": [{"limiter", "cause", "advice"}, ...]}.

    The reply is that object, alone or in the only block of it that is JSON. Raises `BadAnalysis` for anything else: not
    exactly `count` entries, a limiter that is none, a missing, empty or unknown field, an entry that comes twice.
    """
    held = [block.text for block in blocks(spoken(text)) if block.label in ("json", "") and block.closed]
    if len(held) > 1:
        raise BadAnalysis(f"The reply has {len(held)} blocks of JSON instead of one.")
    try:
        answer = json.loads(held[0] if held else spoken(text), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadAnalysis(f"The reply is not the JSON that was asked for: {one_line(str(error), 200)}.") from error
    if not isinstance(answer, dict) or set(answer) != {"bottlenecks"} or not isinstance(answer["bottlenecks"], list):
        raise BadAnalysis('The reply is not an object with the one key "bottlenecks", a list.')
    found = tuple(_bottleneck(entry, place) for place, entry in enumerate(answer["bottlenecks"], start=1))
    if len(found) != count:
        raise BadAnalysis(f"The reply ranks {len(found)} bottlenecks instead of {count}.")
    if len({(each.limiter, each.cause) for each in found}) < count:
        raise BadAnalysis("The reply names one bottleneck twice.")
    return found


def _bottleneck(entry: Any, place: int) -> Bottleneck:
    if not isinstance(entry, dict) or set(entry) != {"limiter", "cause", "advice"}:
        raise BadAnalysis(f"Bottleneck {place} does not have exactly the keys limiter, cause and advice.")
    if entry["limiter"] not in LIMITERS:
        raise BadAnalysis(f"Bottleneck {place} has no limiter of {', '.join(LIMITERS)}.")
    for name in ("cause", "advice"):
        if not isinstance(entry[name], str) or not one_line(entry[name], SENTENCE_CHARACTERS):
            raise BadAnalysis(f"Bottleneck {place} has no {name}.")
    return Bottleneck(
        entry["limiter"],
        one_line(entry["cause"], SENTENCE_CHARACTERS),
        one_line(entry["advice"], SENTENCE_CHARACTERS),
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)
