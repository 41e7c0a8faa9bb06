"""The report: one HTML page that needs nothing else, from what the journal holds of a run."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tilesmith.core.search import best
from tilesmith.core.search import lineage as line_of
from tilesmith.core.trial import Correct, Duplicate, Timing, Trial
from tilesmith.report import charts
from tilesmith.report.archive import Archive, archive
from tilesmith.report.causes import Cause, causes
from tilesmith.report.charts import Picture
from tilesmith.report.chronicle import Chronicle, Drawing
from tilesmith.report.family import Family, Member, family, ratio
from tilesmith.report.progress import Gain, gains
from tilesmith.report.roofs import Roofs, roofs
from tilesmith.report.spending import ModelSpending, Spending, money
from tilesmith.report.timeline import Timeline, timeline
from tilesmith.report.words import (
    baseline,
    brief,
    clipped,
    counts,
    figure,
    micros,
    one_line,
    seconds,
    time_of,
    verdict_name,
)

TEMPLATES = Path(__file__).parent / "templates"
OPEN_ROWS = 120
"""A family with more members shows only what the best descends from, until it is asked for more."""
CLUSTER_ROWS = 16
LEVELS = 24
"""Deeper descendants are indented no further."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trial in the tree."""

    member: Member
    level: int
    place: int
    """Among its siblings, from 1."""
    siblings: int
    expanded: bool
    """Whether its children show."""
    hidden: bool
    techniques: tuple[str, ...]
    share: float
    """Of the slowest correct trial's time that it takes, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, and what its kernels gained."""

    spent: ModelSpending
    gained: float
    """By how many percent of the start kernel's time its kernels lowered the best."""

    @property
    def usd_a_percent(self) -> float | None:
        return self.spent.usd / self.gained if self.spent.usd and self.gained > 0 else None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Kernels with the same techniques."""

    techniques: frozenset[str]
    special: str
    """Those that not all clusters have, in words."""
    kernels: int
    best: Member
    rounds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The best, with its evidence."""

    member: Member
    figure: str
    speedup: str
    """Over the start kernel, with what the intervals allow; empty where there is nothing to compare with."""
    ratio: str
    line: tuple[Member, ...]
    evidence: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the template lays out."""

    chronicle: Chronicle
    family: Family
    correct: int
    found: Found | None
    start: Trial | None
    estimated: bool
    """Whether any time is an estimate."""
    label: str
    """Of the times in pictures: measured, or estimated where none is."""
    stats: tuple[tuple[str, str], ...]
    gains: tuple[Gain, ...]
    pictures: dict[str, Picture]
    rows: tuple[Row, ...]
    causes: tuple[Cause, ...]
    models: tuple[ModelRow, ...]
    spending: Spending
    clusters: tuple[Cluster, ...]
    common: tuple[str, ...]
    """Techniques that all of them have."""
    roofs: Roofs | None
    timeline: Timeline
    environments: tuple[tuple[str, int], ...]
    walls: tuple[tuple[str, int], ...]
    archive: Archive
    drawings: tuple[tuple[Drawing, str], ...]
    """Each with its picture as a data address."""
    made: str
    state: str


def page(chronicle: Chronicle, *, live: bool = False) -> str:
    """The HTML. With `live` the page asks the server that it came from for news; else it never asks anyone."""
    css = style()
    script = Markup((TEMPLATES / "script.js").read_text("utf-8"))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{content_hash(css)}'",
            f"script-src '{content_hash(script)}'",
            "img-src data:",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    template = environment().get_template("page.html.j2")
    text = template.render(view=view(chronicle), style=css, script=script, policy=policy, live=live)
    # Half of a surrogate pair, which a source may hold, has no form in a file.
    return text.encode("utf-8", "replace").decode()


def view(chronicle: Chronicle) -> View:
    """What there is to see."""
    trials, record = chronicle.trials, chronicle.record
    tree = family(chronicle.numbered(), chronicle.analyses)
    steps = gains(chronicle)
    start = baseline(trials)
    label = "measured" if any(isinstance(time_of(t.verdict), Timing) for t in trials) else "estimated"
    spent = record.spending
    groups = _clusters(chronicle, tree)
    under, times = roofs(chronicle), timeline(chronicle)
    pictures = _pictures(chronicle, tree, steps, label, groups, under, times)
    return View(
        chronicle=chronicle,
        family=tree,
        correct=sum(trial.time_us is not None for trial in trials),
        found=_found(chronicle, tree),
        start=start,
        estimated=any(not isinstance(time, Timing) for t in trials if (time := time_of(t.verdict)) is not None),
        label=label,
        stats=_stats(chronicle, spent),
        gains=steps,
        pictures=pictures,
        rows=tuple(_rows(chronicle, tree, _common(groups))),
        causes=causes(chronicle.numbered()),
        models=_models(spent, steps, tree, start),
        spending=spent,
        clusters=groups,
        common=tuple(sorted(_common(groups))),
        roofs=under,
        timeline=times,
        environments=_environments(trials),
        walls=tuple(Counter(one_line(trial.protection) for trial in trials).most_common()),
        archive=archive(chronicle, tree),
        drawings=tuple((drawing, _data(drawing.svg)) for drawing in chronicle.drawings),
        made=_utc(datetime.now(UTC).timestamp()),
        state=_state(chronicle),
    )


# The parts ------------------------------------------------------------------------------------------------------------


def _found(chronicle: Chronicle, tree: Family) -> Found | None:
    fastest, start = best(chronicle.trials), baseline(chronicle.trials)
    if fastest is None or not isinstance(fastest.verdict, Correct):
        return None
    numbers = {member.trial.candidate.id: member.number for member in tree.members.values()}
    member = tree.members[numbers[fastest.candidate.id]]
    line = tuple(tree.members[numbers[t.candidate.id]] for t in line_of(fastest, chronicle.trials))
    verdict, time = fastest.verdict, fastest.verdict.time
    how = ratio(start, fastest) if start else None
    told, alone = "", ""
    if start is not None and fastest.candidate == start.candidate:
        told = "Nothing that was tried is faster than the start kernel."
    elif how is not None:
        alone = f"{how:.2f}×"
        told = f"{how:.2f} times as fast as the start kernel"
        if isinstance(time, Timing) and time.gain and start and time.rival == start.candidate.id:
            told += f" ({time.gain[1]:.2f} to {time.gain[2]:.2f} by the 95 % intervals, timed in turns)"
        told += f", which takes {figure(start.verdict.time)}." if start and isinstance(start.verdict, Correct) else "."
    rows = [
        (
            "Correct",
            f"its largest error is {verdict.error:.3g} where 1 is the limit, in {verdict.checks} comparisons"
            + (
                "; it was checked a second time, harder"
                if fastest.confirmed
                else "; it was not yet checked a second time"
            ),
        )
    ]
    if isinstance(time, Timing):
        interval = f"95 % interval {micros(time.low_us)} to {micros(time.high_us)}"
        rows.append(("Measured", f"{micros(time.time_us)}, {interval}, {time.samples} samples, cold cache"))
        if time.sm_mhz:
            low, high = time.sm_mhz
            rows.append(("Clock", f"{low if low == high else f'{low} to {high}'} MHz while it was timed"))
        if time.throttled:
            rows.append(("Clock held down", ", ".join(time.throttled)))
    else:
        rows.append(
            (
                "Estimated",
                f"{micros(time.estimate_us)} by a roofline model over the compiled code; not measured on a GPU",
            )
        )
    rows += [("Seen", one_line(line)) for line in fastest.evidence]
    if fastest.environment:
        rows.append(("Where", _where(fastest)))
    rows.append(("Walls", one_line(fastest.protection)))
    rows.append(("By", brief(fastest.candidate.origin)))
    return Found(member, figure(time), told, alone, line, tuple(rows))


def _stats(chronicle: Chronicle, spent: Spending) -> tuple[tuple[str, str], ...]:
    trials = chronicle.trials
    merged = sum(isinstance(trial.verdict, Duplicate) for trial in trials)
    alone_s = sum(trial.cost.gpu_s for trial in trials)
    rows = [
        ("trials", f"{chronicle.whole or len(trials):,}"),
        ("correct", f"{sum(isinstance(t.verdict, Correct) for t in trials):,}"),
        ("duplicates merged", f"{merged:,}"),
        ("rounds", f"{max((t.round for t in trials), default=0):,}"),
        ("from first to last", seconds(chronicle.ended_s - chronicle.began_s)),
        ("GPU time, alone", f"{alone_s:,.1f} s" if alone_s else "none"),
    ]
    if spent.models:
        rows += [("tokens", f"{spent.tokens:,}"), ("models", ("≥ " if spent.unpriced else "") + money(spent.usd))]
    return tuple(rows)


def _pictures(
    chronicle: Chronicle,
    tree: Family,
    steps: Sequence[Gain],
    label: str,
    groups: Sequence[Cluster],
    under: Roofs | None,
    times: Timeline,
) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    start, fastest = baseline(chronicle.trials), best(chronicle.trials)
    numbers = {member.trial.candidate.id: member.number for member in tree.members.values()}
    base_us = start.time_us if start and _alike(start, label) else None
    if steps:
        found["trials"] = charts.best_over(steps, base_us, label)
        found["rounds"] = charts.best_by(steps, "round", "round", base_us, label)
        if steps[-1].usd:
            found["spent"] = charts.best_by(steps, "usd", "USD for models", base_us, label)
        elif steps[-1].tokens:
            found["spent"] = charts.best_by(steps, "tokens", "tokens", base_us, label)
        found["seconds"] = charts.best_by(steps, "seconds", "seconds from the beginning", base_us, label)
        authors = Counter(m.author for m in tree.members.values() if m.trial.time_us is not None)
        names = [name for name, _ in authors.most_common(len(charts.SERIES) - 1)]
        alike = {n: m for n, m in tree.members.items() if m.trial.time_us is None or _alike(m.trial, label)}
        found["lineage"] = charts.lineage(Family(alike, tree.roots), names, label)
    if under is not None:
        ends = (fastest, start)
        best_number, base_number = (numbers.get(t.candidate.id) if t else None for t in ends)
        found["roofline"] = charts.roofline(under, best_number, base_number, label)
    if groups:
        found["clusters"] = charts.clusters(_by_round(groups))
    if times.gpus:
        found["gpus"] = charts.lanes(times.gpus, "Leases of each GPU over the run.")
    elif times.judging:
        found["gpus"] = charts.lanes((times.judging,), "Candidates under way over the run.")
    if times.models:
        found["models"] = charts.lanes(times.models, "Calls of each model over the run.")
    return found


def _rows(chronicle: Chronicle, tree: Family, common: frozenset[str]) -> list[Row]:
    slowest = max((t.time_us for t in chronicle.trials if t.time_us is not None), default=1.0) or 1.0
    few = len(tree.members) <= OPEN_ROWS
    rows: list[Row] = []
    shown: dict[int, bool] = {}
    places: dict[int | None, int] = {}
    for member in tree.walk():
        place = places[member.parent] = places.get(member.parent, 0) + 1
        visible = member.parent is None or shown[member.parent]
        expanded = bool(member.children) and (few or member.winning or member.depth == 0)
        shown[member.number] = visible and expanded
        siblings = len(tree.roots) if member.parent is None else len(tree.members[member.parent].children)
        names = tuple(sorted(chronicle.techniques.get(member.trial.candidate.id, frozenset()) - common))
        share = (member.trial.time_us or 0.0) / slowest
        rows.append(Row(member, min(member.depth, LEVELS), place, siblings, expanded, not visible, names, share))
    return rows


def _models(spent: Spending, steps: Sequence[Gain], tree: Family, start: Trial | None) -> tuple[ModelRow, ...]:
    best_us = base_us = (start.time_us if start else None) or (steps[0].time_us if steps else 1.0)
    gained: dict[str, float] = {}
    for step in steps:
        who = tree.members[step.number].author
        gained[who] = gained.get(who, 0.0) + 100 * max(0.0, best_us - step.best_us) / base_us
        best_us = min(best_us, step.best_us)
    return tuple(ModelRow(each, gained.get(each.model, 0.0)) for each in spent.models)


def _clusters(chronicle: Chronicle, tree: Family) -> tuple[Cluster, ...]:
    """The fastest first."""
    groups: dict[frozenset[str], list[Member]] = {}
    for member in tree.members.values():
        names = chronicle.techniques.get(member.trial.candidate.id)
        if names is not None and member.trial.time_us is not None:
            groups.setdefault(names, []).append(member)
    common = frozenset.intersection(*groups) if len(groups) > 1 else frozenset[str]()
    found = [
        Cluster(
            names,
            ", ".join(sorted(names - common)) or "nothing else",
            len(members),
            min(members, key=lambda member: member.trial.time_us or 0.0),
            tuple(member.trial.round for member in members),
        )
        for names, members in groups.items()
    ]
    return tuple(sorted(found, key=lambda each: each.best.trial.time_us or 0.0))


def _common(groups: Sequence[Cluster]) -> frozenset[str]:
    return frozenset.intersection(*(each.techniques for each in groups)) if len(groups) > 1 else frozenset()


def _by_round(groups: Sequence[Cluster]) -> list[tuple[int, str, int]]:
    rows = [
        (number, f"{place}. {each.special}", count)
        for place, each in enumerate(groups[:CLUSTER_ROWS], start=1)
        for number, count in sorted(Counter(each.rounds).items())
    ]
    rest = Counter(number for each in groups[CLUSTER_ROWS:] for number in each.rounds)
    name = f"{len(groups) - CLUSTER_ROWS} slower clusters"
    return rows + [(number, name, count) for number, count in sorted(rest.items())]


def _environments(trials: Sequence[Trial]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(_where(trial) for trial in trials if trial.environment).most_common())


def _where(trial: Trial) -> str:
    where = trial.environment
    if where is None:
        return "not known"
    device = where.gpu or f"no GPU, compiled for {where.target}"
    driver = f", driver {where.driver}" if where.driver else ""
    software = f"torch {where.torch}, triton {where.triton}, python {where.python}"
    return one_line(f"{where.bench} bench, {device}{driver}, {software}")


def _state(chronicle: Chronicle) -> str:
    if chronicle.live:
        return "running"
    stop = chronicle.record.stop
    return (
        stop.value if stop else f"not ended: it was killed; `tilesmith resume {chronicle.record.run}` goes on with it"
    )


def _alike(trial: Trial, label: str) -> bool:
    return isinstance(time_of(trial.verdict), Timing) is (label == "measured")


# How it is written ----------------------------------------------------------------------------------------------------


@cache
def environment() -> Environment:
    """The templates of all pages: everything that is put in is text, unless we drew it."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "utc": _utc,
        "duration": seconds,
        "money": money,
        "micros": micros,
        "short": clipped,
        "brief": brief,
        "line": one_line,
        "verdict": lambda trial: verdict_name(trial.verdict),
        "time": _time,
        "counts": counts,
        "percent": lambda share: f"{100 * share:.0f} %",
    }
    return made


def _time(trial: Trial) -> str:
    time = time_of(trial.verdict)
    return figure(time) if time is not None else ""


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _data(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8", "replace")).decode("ascii")


def style() -> Markup:
    """The style sheet of all pages."""
    return Markup((TEMPLATES / "style.css").read_text("utf-8"))


def content_hash(text: str) -> str:
    """By which a page's policy allows a style sheet or a script of its own, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
