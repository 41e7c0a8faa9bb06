"""The report as HTML: what it holds, that nothing in it is executed, and what stays when there is no room."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.budget import Stop
from tilesmith.core.facts import Analysis, Bottleneck
from tilesmith.core.problem import Problem
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.search import standing
from tilesmith.core.trial import Candidate, Correct, Direction, Estimate, Failed, Lease, Timing, Trial, Wrong
from tilesmith.report.archive import archive, unpacked
from tilesmith.report.causes import causes
from tilesmith.report.chronicle import Chronicle, Drawing
from tilesmith.report.family import family, ratio
from tilesmith.report.page import page, view
from tilesmith.report.progress import gains
from tilesmith.report.record import RunRecord
from tilesmith.report.roofs import roofs
from tilesmith.report.timeline import Lane, Span, merged, timeline
from tilesmith.testing.history import History, history

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>{{ 7 * 7 }}\ud800\u202e\0"
)


def told(made: History, *, stops: Sequence[Stop] = (Stop.ROUNDS,), live: bool = False) -> Chronicle:
    """As the command would read it from a journal, a trial every two seconds."""
    trials = standing(made.trials, made.confirmations)
    record = RunRecord("5763ea474ab", made.problem.name, trials, stops, made.replies, made.endings)
    return Chronicle(
        record=record,
        problem=made.problem,
        began_s=1.8e9,
        live=live,
        revision=7,
        version="0.1.0",
        journal="tilesmith.db",
        trial_times_s=[1.8e9 + 2 * number for number in range(1, len(made.trials) + 1)],
        reply_times_s=[1.8e9 + 2 * number for number in range(1, len(made.replies) + 1)],
        settings=(("seed", "0"),),
        again=(("Go on with this run", "tilesmith resume 5763ea474ab"),),
        analyses=made.analyses,
        profiled=made.profiled,
        techniques={t.candidate.id: frozenset({"wide_sums", "masked_edges"}) for t in made.trials if t.time_us},
    )


class Seen(HTMLParser):
    """Tags with their attributes, ids, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words += data


@pytest.fixture(scope="module")
def small() -> Chronicle:
    return told(history(40))


@pytest.fixture(scope="module")
def html(small: Chronicle) -> str:
    return page(small)


def test_every_part_is_there(html: str) -> None:
    seen = Seen(html)
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    parts = {"found", "progress", "lineage", "roofline", "techniques", "verdicts", "models", "time", "again"}
    assert parts <= set(ids)
    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in seen.tags) > 8
    for words in ("times as fast as the start kernel", "by the 95 % intervals", "idle share", "money a percent"):
        assert words in seen.words


def test_links_lead_somewhere(html: str) -> None:
    seen = Seen(html)
    ids = {attributes.get("id") for _, attributes in seen.tags}
    links = [
        attributes.get("href") or attributes.get("xlink:href") or "" for tag, attributes in seen.tags if tag == "a"
    ]
    assert len(links) > 50
    assert {link[1:] for link in links} <= ids
    assert all(link.startswith("#") for link in links)


def test_the_page_asks_nobody_and_runs_only_its_own_script(html: str) -> None:
    seen = Seen(html)
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and a.get("http-equiv")) or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = seen.scripts[-1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on") or name == "style"]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


def hostile() -> Chronicle:
    """Every string that somebody else chose is an attack."""
    made = history(
        30, models=(f"gate:{HOSTILE}", f"replay:/{HOSTILE}"), kernels=(history(1).trials[0].candidate.source,)
    )
    trials = tuple(
        replace(
            trial,
            candidate=replace(trial.candidate, source=f"{trial.candidate.source}# {HOSTILE}\n"),
            verdict=Wrong(HOSTILE) if isinstance(trial.verdict, Wrong) else trial.verdict,
            evidence=(HOSTILE,),
            protection=HOSTILE,
            environment=trial.environment and replace(trial.environment, gpu=HOSTILE),
            launches=tuple(replace(launch, kernel=HOSTILE) for launch in trial.launches),
            leases=(Lease(HOSTILE, 1.8e9, 1.8e9 + 3, exclusive=True),),
        )
        for trial in made.trials
    )
    base = told(replace(made, trials=trials, confirmations=(), problem=Problem(HOSTILE, HOSTILE, start=HOSTILE)))
    return replace(
        base,
        settings=((HOSTILE, HOSTILE),),
        again=((HOSTILE, HOSTILE),),
        journal=HOSTILE,
        techniques={trial.candidate.id: frozenset({HOSTILE}) for trial in trials if trial.time_us},
        drawings=(Drawing(HOSTILE, f"<svg xmlns='http://www.w3.org/2000/svg'>{HOSTILE}</svg>", HOSTILE, 1),),
    )


def test_hostile_strings_stay_text(html: str) -> None:
    told_of = page(hostile())
    clean, seen = Seen(html), Seen(told_of)
    assert {tag for tag, _ in seen.tags} - {"img"} <= {tag for tag, _ in clean.tags}
    assert sum(tag == "script" for tag, _ in seen.tags) == sum(tag == "script" for tag, _ in clean.tags)
    assert all((a.get("src") or "").startswith("data:image/svg+xml;base64,") for tag, a in seen.tags if tag == "img")
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in seen.words
    assert "alert(1)" not in seen.scripts[-1]
    told_of.encode()
    # Nothing but sources and what was asked is shown with what turns the writing, or hides.
    outside = re.sub(r"<pre.*?</pre>", "", told_of, flags=re.DOTALL)
    assert {character for character in outside if not character.isprintable()} <= set("\n\u00a0")


@settings(max_examples=25, deadline=None)
@given(st.text())
def test_the_archive_gives_back_what_went_in(text: str) -> None:
    trial = Trial(Candidate(text, "start"), Correct(Estimate(3.0), 0.5), "f")
    record = RunRecord("r", "p", (trial,), ())
    chronicle = Chronicle(record, Problem("p", ""), 0.0, False, 1, "0", "j")
    assert unpacked(archive(chronicle, family(((1, trial),))).text)["1"]["source"] == text


def test_what_has_no_room_is_left_out_and_named(small: Chronicle) -> None:
    tree = family(small.numbered())
    whole = archive(small, tree)
    assert not whole.left_out
    assert all(entry["source"] for entry in unpacked(whole.text).values())
    less = archive(small, tree, len(whole.text) - 1)
    assert less.left_out == "replies of models"
    assert len(less.text) < len(whole.text)
    assert not any(entry["reply"] for entry in unpacked(less.text).values())
    tiny = archive(small, tree, 100)
    assert tiny.left_out == "everything about single trials"
    assert unpacked(tiny.text) == {}


def test_estimates_are_called_so_everywhere() -> None:
    chronicle = told(history(20, measured=False))
    words = Seen(page(chronicle)).words
    assert "Every time on this page is an estimate" in words
    assert "measured" not in words.replace("None was measured", "").replace("not measured on a GPU", "")
    assert "by estimates" in words


def test_an_unfinished_run_and_an_empty_one_have_a_page() -> None:
    assert "it was killed" in page(told(history(5), stops=()))
    assert "Running now" in page(told(history(5), stops=(), live=True))
    empty = told(
        replace(history(1), trials=(), confirmations=(), replies=(), endings=(), analyses=(), profiled=()),
        stops=(),
        live=True,
    )
    seen = Seen(page(empty))
    assert "Nothing correct was found so far" in seen.words
    fallen = told(
        replace(history(1), confirmations=(), trials=(Trial(Candidate("x", "start"), Failed("compile", "no")),))
    )
    assert "Nothing correct was found." in Seen(page(fallen)).words


# The parts ------------------------------------------------------------------------------------------------------------

TIMED = Timing(100.0, 99.0, 101.0, 50)


def trial(name: str, parent: str | None, verdict: object, number: int = 0, **more: object) -> Trial:
    above = None if parent is None else Candidate(parent).id
    return replace(Trial(Candidate(name, "rewrite:x", above), verdict, name, round=number), **more)  # type: ignore[arg-type]


def test_a_family_is_a_forest_in_order() -> None:
    rows = (
        trial("a", None, Correct(TIMED, 0.1)),
        trial("b", "a", Correct(replace(TIMED, time_us=50.0), 0.1), 1),
        trial("c", "b", Wrong("no"), 2),
        trial("d", "a", Correct(Estimate(10.0), 0.1), 1),
        trial("e", "nobody", Failed("compile", "no"), 1),
    )
    found = family(tuple(enumerate(rows, 1)))
    assert [member.number for member in found.walk()] == [1, 2, 3, 4, 5]
    assert found.roots == (1, 5)
    assert [found.members[number].depth for number in range(1, 6)] == [0, 1, 2, 1, 0]
    assert found.members[2].gain == 2.0
    # An estimate is compared with no measurement.
    assert found.members[4].gain is None
    assert [member.number for member in found.walk() if member.winning] == [1, 4]


def test_the_ratio_is_that_of_the_run_in_turns() -> None:
    slow = trial("a", None, Correct(replace(TIMED, time_us=90.0), 0.1))
    fast = trial(
        "b",
        "a",
        Correct(replace(TIMED, rival=slow.candidate.id, rival_us=150.0, rival_low_us=1.0, rival_high_us=2.0), 0.1),
    )
    assert ratio(slow, fast) == 1.5
    assert ratio(fast, slow) == 100.0 / 90.0


def test_a_direction_is_named_by_the_bottleneck_it_answers() -> None:
    start = trial("a", None, Correct(TIMED, 0.1))
    child = Trial(Candidate("b", "m:x", start.candidate.id, Direction(1, 1, 2, "m:x", 1), 1), Wrong("no"), round=1)
    told_of = Analysis("a/h200/rules/estimate/2", "rules", (Bottleneck("dram", "", ""), Bottleneck("l2", "", "")))
    assert family(((1, start), (2, child)), (told_of,)).members[2].way == "l2, repair 1"
    assert family(((1, start), (2, child))).members[2].way == "bottleneck 2, repair 1"


def test_causes_differ_by_more_than_figures() -> None:
    rows = (
        trial("a", None, Wrong("its error is 3.5 times the limit")),
        trial("b", None, Wrong("its error is 12e9 times the limit")),
        trial("c", None, Wrong("it writes to its inputs")),
        trial("d", None, Failed("compile", "at 3:4: no")),
        trial("e", None, Failed("launch", "at 3:4: no")),
        trial("f", None, Correct(TIMED, 0.1)),
    )
    found = [(cause.verdict, cause.stage, cause.trials) for cause in causes(tuple(enumerate(rows, 1)))]
    assert found == [
        ("correct", "", (6,)),
        ("wrong", "", (1, 2)),
        ("wrong", "", (3,)),
        ("failed", "compile", (4,)),
        ("failed", "launch", (5,)),
    ]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=12))
def test_busy_time_is_the_union_of_spans(pairs: list[tuple[float, float]]) -> None:
    spans = tuple(Span(min(pair), max(pair), "call") for pair in pairs)
    lane = Lane("m", spans, 100.0)
    points = sorted({edge for span in spans for edge in (span.began_s, span.ended_s)})
    covered = sum(b - a for a, b in pairwise(points) if any(s.began_s <= a and b <= s.ended_s for s in spans))
    assert lane.busy_s == pytest.approx(covered, abs=1e-9)
    assert lane.idle_s + lane.busy_s == pytest.approx(100.0)
    assert Lane("m", tuple(merged(lane, 0.0)), 100.0).busy_s == pytest.approx(covered, abs=1e-9)


def test_lanes_come_from_leases_and_calls(small: Chronicle) -> None:
    found = timeline(small)
    assert [lane.name for lane in found.gpus] == ["GPU 0", "GPU 1"]
    assert {span.kind for lane in found.gpus for span in lane.spans} == {"timed, alone", "checked, shared"}
    assert found.judging is None
    assert len(found.models) == 3
    bare = replace(small, record=replace(small.record, trials=[replace(t, leases=()) for t in small.trials]))
    assert timeline(bare).gpus == ()
    assert timeline(bare).judging is not None


def test_gains_never_mix_estimates_with_measurements() -> None:
    rows = (trial("a", None, Correct(TIMED, 0.1)), trial("b", "a", Correct(Estimate(1.0), 0.1)))
    replies = (Reply("1/1/1/m/1/0/p", "m", "", Usage(10, 5), 0.5),)
    record = RunRecord("r", "p", rows, (), replies)
    chronicle = Chronicle(record, Problem("p", ""), 10.0, False, 1, "0", "j", (11.0, 12.0), (10.5,))
    (only,) = gains(chronicle)
    assert (only.number, only.best_us, only.usd, only.tokens, only.seconds) == (1, 100.0, 0.5, 15, 1.0)


def test_money_a_percent_is_over_the_start_kernel(small: Chronicle) -> None:
    shown = view(small)
    steps = [gain for gain in shown.gains if gain.improves]
    assert sum(row.gained for row in shown.models) == pytest.approx(100 * (1 - steps[-1].best_us / steps[0].best_us))
    for row in shown.models:
        if row.usd_a_percent is not None and row.spent.usd is not None:
            assert row.usd_a_percent * row.gained == pytest.approx(row.spent.usd)


def test_the_roof_is_what_can_be_sustained(small: Chronicle) -> None:
    found = roofs(small)
    assert found is not None
    assert found.gpu.name == "h200"
    assert found.peak_flops_per_s == pytest.approx(750e12)
    assert sum(place.counted for place in found.places) == 1
    assert all(place.flops_per_s > 0 for place in found.places)


@given(st.integers(2, 60), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_made_up_run_is_one_that_could_have_been(count: int, seed: int) -> None:
    made = history(count, seed=seed)
    seen: set[str] = set()
    for each in made.trials:
        assert each.candidate.id not in seen
        assert each.candidate.parent is None or each.candidate.parent in seen
        seen.add(each.candidate.id)
