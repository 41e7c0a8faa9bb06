"""The pictures of a report: Vega-Lite charts, drawn to SVG here, so that the page needs no program to show them.

Colours are the page's own, by their names in its style sheet, so that one picture serves light, dark and paper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from tilesmith.report.family import Family
from tilesmith.report.progress import Gain
from tilesmith.report.roofs import Roofs
from tilesmith.report.timeline import Lane, merged
from tilesmith.report.words import brief, clipped

WIDE, NARROW = 990, 275
SERIES = tuple(f"var(--series-{number})" for number in range(1, 9))
"""For models and proposers, in the order in which they appear; the last for all that are more."""
Row = Mapping[str, object]
_BASE = re.compile(r'<a xlink:href="[^"#]*#')
"""Vega completes links with an address of its own documentation."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart, and what it says in words for who does not see it."""

    svg: Markup
    words: str


def best_over(gains: Sequence[Gain], baseline_us: float | None, label: str) -> Picture:
    """Every correct trial and the best so far. `label` says whether times are measured or estimated."""
    points = [
        {
            "n": g.number,
            "us": g.time_us,
            "low": g.low_us,
            "high": g.high_us,
            "new": g.improves,
            "to": f"#trial-{g.number}",
        }
        for g in gains
    ]
    steps = [{"n": g.number, "best": g.best_us} for g in gains]
    if gains:
        steps.append({"n": gains[-1].number, "best": gains[-1].best_us})
    x = alt.X("n:Q", title="trial", axis=alt.Axis(format=",d", tickMinStep=1, tickCount=12))
    scale = _times([g.time_us for g in gains], baseline_us)
    y = _micros(scale, f"time, µs ({label})")
    layers: list[alt.Chart] = [
        _chart("points").mark_rule(color="var(--faint)").encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q"),
        _chart("points")
        .mark_circle(aria=False, opacity=1)
        .encode(
            x=x,
            y=y,
            href="to:N",
            size=alt.condition("datum.new", alt.value(52), alt.value(22)),
            color=alt.condition("datum.new", alt.value("var(--accent)"), alt.value("var(--faint)")),
        ),
        _chart("steps")
        .mark_line(interpolate="step-after", color="var(--accent)", strokeWidth=2, aria=False)
        .encode(x=x, y=alt.Y("best:Q", scale=scale)),
    ]
    if baseline_us is not None:
        layers += _rule("baseline", scale)
    data: dict[str, Sequence[Row]] = {
        "points": points,
        "steps": steps,
        "baseline": [{"us": baseline_us, "words": _baseline(baseline_us)}],
    }
    words = f"The best time, {label}, over {len(gains)} correct trials{_from_to(gains)}."
    return _drawn(alt.layer(*layers).properties(width=WIDE, height=260), data, words)


def best_by(gains: Sequence[Gain], of: str, title: str, baseline_us: float | None, label: str) -> Picture:
    """The best so far over rounds, seconds, usd or tokens: `of` is the field of `Gain`."""
    rows = [{"x": getattr(gain, of), "us": gain.best_us} for gain in gains]
    last = max((row["x"] for row in rows), default=0)
    x = alt.X("x:Q", title=title, axis=alt.Axis(tickCount=6), scale=alt.Scale(zero=True))
    if of == "round":
        x = alt.X("x:Q", title=title, axis=_whole(rows[0]["x"] if rows else 0, last), scale=alt.Scale(zero=False))
    scale = _times([g.best_us for g in gains], baseline_us)
    y = _micros(scale, f"best, µs ({label})")
    line = _chart("rows").encode(x=x, y=y)
    # Between rounds there is nothing; over time the best stays until there is a better one.
    drawn = line.mark_line(
        interpolate="linear" if of == "round" else "step-after", color="var(--accent)", strokeWidth=2, aria=False
    )
    layers = [drawn]
    if of == "round":
        layers.append(line.mark_circle(color="var(--accent)", opacity=1, size=40, aria=False))
    if baseline_us is not None:
        layers += _rule("baseline", scale)
    data: dict[str, Sequence[Row]] = {"rows": _least(rows), "baseline": [{"us": baseline_us, "words": "start kernel"}]}
    words = f"The best time, {label}, over {title}{_from_to(gains)}."
    return _drawn(alt.layer(*layers).properties(width=NARROW, height=180), data, words)


def side_by_side(runs: Sequence[tuple[str, Sequence[Gain]]], label: str) -> Picture:
    """The best of each run over seconds from its beginning."""
    rows = [
        {"x": gain.seconds, "us": gain.best_us, "run": name, "place": place}
        for place, (name, steps) in enumerate(runs)
        for gain in steps
    ]
    names = [name for name, _ in runs]
    scale = _times([float(str(row["us"])) for row in rows])
    colour = alt.Color(
        "run:N",
        title=None,
        scale=alt.Scale(domain=names, range=[SERIES[place % len(SERIES)] for place in range(len(names))]),
        legend=alt.Legend(orient="top"),
    )
    x = alt.X("x:Q", title="seconds from the beginning")
    y = _micros(scale, f"best, µs ({label})")
    drawn = alt.layer(
        _chart("rows").mark_line(interpolate="step-after", strokeWidth=2, aria=False).encode(x=x, y=y, color=colour),
        _chart("rows").mark_circle(aria=False, opacity=1, size=24).encode(x=x, y=y, color=colour),
    ).properties(width=WIDE, height=300)
    ends = ", ".join(f"{name} {steps[-1].best_us:,.4g} µs" for name, steps in runs)
    return _drawn(drawn, {"rows": rows}, f"The best of each run over time, {label}: {ends}.")


def lineage(family: Family, names: Sequence[str], label: str) -> Picture:
    """Correct trials by round and time, joined to what they were made from. `names`: authors in their order."""
    counts: dict[int, int] = {}
    for member in family.members.values():
        counts[member.trial.round] = counts.get(member.trial.round, 0) + 1
    seen: dict[int, int] = {}
    places: dict[int, tuple[float, float]] = {}
    points: list[Row] = []
    edges: list[Row] = []
    for member in family.members.values():
        number = member.trial.round
        seen[number] = seen.get(number, 0) + 1
        time_us = member.trial.time_us
        if time_us is None:
            continue
        x = number + 0.8 * (seen[number] / (counts[number] + 1) - 0.5)
        places[member.number] = x, time_us
        who = brief(member.author) if member.author in names else "others"
        points.append(
            {"x": x, "us": time_us, "who": clipped(who, 48), "win": member.winning, "to": f"#trial-{member.number}"}
        )
        above = member.parent
        while above is not None and above not in places:
            above = family.members[above].parent if above in family.members else None
        if above is not None:
            x0, y0 = places[above]
            edges.append({"x": x0, "us": y0, "x2": x, "us2": time_us, "win": member.winning})
    first, rounds = min(counts, default=0), max(counts, default=0)
    x_axis = alt.X(
        "x:Q",
        title="round",
        scale=alt.Scale(domain=[first - 0.5, rounds + 0.5], nice=False),
        axis=_whole(first, rounds),
    )
    times = [float(str(point["us"])) for point in points]
    y = _micros(_times(times), f"time, µs ({label})")
    domain = [clipped(brief(name), 48) for name in names]
    if any(point["who"] == "others" for point in points):
        domain.append("others")
    colour = alt.Color(
        "who:N",
        title=None,
        scale=alt.Scale(domain=domain, range=list(SERIES[: len(domain)])),
        legend=alt.Legend(orient="top", labelLimit=360, columns=3),
    )
    drawn = alt.layer(
        _chart("edges")
        .mark_rule(aria=False)
        .encode(
            x=x_axis,
            y=y,
            x2="x2:Q",
            y2="us2:Q",
            color=alt.condition("datum.win", alt.value("var(--accent)"), alt.value("var(--faint)")),
            strokeWidth=alt.condition("datum.win", alt.value(2.5), alt.value(1)),
        ),
        _chart("points")
        .mark_circle(aria=False, opacity=1, stroke="var(--paper)", strokeWidth=1)
        .encode(
            x=x_axis, y=y, color=colour, href="to:N", size=alt.condition("datum.win", alt.value(130), alt.value(44))
        ),
    ).properties(width=WIDE, height=300)
    words = (
        f"{len(points)} correct trials by round and time, each joined to what it was made from; "
        "the best and its ancestors stand out."
    )
    return _drawn(drawn, {"points": points, "edges": edges}, words)


def roofline(roofs: Roofs, best: int | None, baseline: int | None, label: str) -> Picture:
    """Every correct trial under the limits of memory and arithmetic; both axes logarithmic."""
    gpu, peak = roofs.gpu, roofs.peak_flops_per_s
    bandwidth = gpu.readable_bytes_per_s
    ridge = peak / bandwidth
    left = min([ridge, *(place.flops_per_byte for place in roofs.places)]) / 2
    right = max([ridge, *(place.flops_per_byte for place in roofs.places)]) * 2
    roof = [
        {"x": left, "y": left * bandwidth / 1e12},
        {"x": ridge, "y": peak / 1e12},
        {"x": right, "y": peak / 1e12},
    ]
    role = (
        {best: "the best", baseline: "the start kernel"} if best != baseline else {best: "the start kernel, the best"}
    )
    points = [
        {
            "x": place.flops_per_byte,
            "y": place.flops_per_s / 1e12,
            "role": role.get(place.number, "others"),
            "to": f"#trial-{place.number}",
        }
        for place in roofs.places
    ]
    points.sort(key=lambda point: point["role"] != "others")
    lowest = min([left * bandwidth / 1e12, *(float(str(point["y"])) for point in points)]) / 1.5
    kinds = list(dict.fromkeys(str(point["role"]) for point in points))
    hues = {"others": "var(--series-8)", "the start kernel": "var(--ink)"}
    x = alt.X(
        "x:Q",
        title="FLOP for each byte of device memory",
        scale=alt.Scale(type="log", domain=[left, right], nice=False),
    )
    y = alt.Y("y:Q", title="TFLOP/s", scale=alt.Scale(type="log", domain=[lowest, peak / 1e12 * 1.6], nice=False))
    drawn = alt.layer(
        _chart("roof").mark_line(color="var(--soft)", strokeWidth=1.5, aria=False).encode(x=x, y=y),
        _chart("notes")
        .mark_text(color="var(--soft)", align="right", dy=-8, dx=-6, aria=False)
        .encode(x=x, y=y, text="words:N"),
        _chart("points")
        .mark_circle(aria=False, opacity=0.9)
        .encode(
            x=x,
            y=y,
            href="to:N",
            size=alt.condition("datum.role === 'others'", alt.value(26), alt.value(120)),
            color=alt.Color(
                "role:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=[hues.get(kind, "var(--accent)") for kind in kinds]),
                legend=alt.Legend(orient="top"),
            ),
        ),
    ).properties(width=WIDE, height=320)
    notes = [
        {"x": right, "y": peak / 1e12, "words": f"{peak / 1e12:,.0f} TFLOP/s, {roofs.peak_name}"},
    ]
    words = (
        f"{len(points)} correct trials under the roofline of {gpu.name}: {bandwidth / 1e12:.2f} TB/s that can be read, "
        f"{peak / 1e12:,.0f} TFLOP/s of {roofs.peak_name}; times are {label}."
    )
    return _drawn(drawn, {"roof": roof, "points": points, "notes": notes}, words)


def clusters(rows: Sequence[tuple[int, str, int]]) -> Picture:
    """(round, cluster, kernels): a disc a cluster and round, with how many kernels it has. Names must differ."""
    values = [{"round": r, "cluster": clipped(c, 90), "kernels": n} for r, c, n in rows]
    names = list(dict.fromkeys(str(value["cluster"]) for value in values))
    y = alt.Y("cluster:N", title=None, sort=names, axis=alt.Axis(labelLimit=560, domain=False, ticks=False, grid=False))
    x = alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0, domain=False, ticks=False, orient="top"))
    base = _chart("rows")
    drawn = alt.layer(
        base.mark_circle(aria=False, color="var(--accent)", opacity=0.85).encode(
            x=x, y=y, size=alt.Size("kernels:Q", legend=None, scale=alt.Scale(range=[60, 620], domainMin=0))
        ),
        base.mark_text(aria=False, color="var(--ink)", dx=20, align="left", fontSize=10).encode(
            x=x, y=y, text="kernels:Q"
        ),
    ).properties(width=alt.Step(64), height=alt.Step(30))
    words = f"Which techniques went together, by round: {len(names)} clusters; the number is of correct kernels."
    return _drawn(drawn, {"rows": values}, words)


def lanes(rows: Sequence[Lane], words: str) -> Picture:
    """Who was busy when; a gap is idle time."""
    whole = max((lane.whole_s for lane in rows), default=0.0)
    values = [
        {
            "lane": clipped(brief(lane.name), 60),
            "a": span.began_s,
            "b": max(span.ended_s, span.began_s + whole / 2000),
            "kind": span.kind,
        }
        for lane in rows
        for span in merged(lane, whole / 1500)
    ]
    kinds = list(dict.fromkeys(str(value["kind"]) for value in values))
    hues = {"checked, shared": "var(--series-2)", "no usable reply": "var(--wrong)", "judging": "var(--series-2)"}
    drawn = (
        _chart("rows")
        .mark_bar(aria=False, opacity=1, height={"band": 0.7})
        .encode(
            x=alt.X(
                "a:Q", title="seconds from the beginning", scale=alt.Scale(domain=[0, max(whole, 1e-3)], nice=False)
            ),
            x2="b:Q",
            y=alt.Y(
                "lane:N",
                title=None,
                sort=[clipped(brief(lane.name), 60) for lane in rows],
                axis=alt.Axis(labelLimit=260, domain=False, ticks=False, grid=False),
            ),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=[hues.get(kind, "var(--accent)") for kind in kinds]),
                legend=alt.Legend(orient="top") if len(kinds) > 1 else None,
            ),
        )
        .properties(width=WIDE - 140, height=alt.Step(30))
    )
    return _drawn(drawn, {"rows": values}, words)


# How they are drawn ---------------------------------------------------------------------------------------------------


def _chart(data: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=data))


def _times(times: Sequence[float], baseline_us: float | None = None) -> alt.Scale:
    """Logarithmic where the times lie far apart, else from the least to the greatest with some air."""
    known = [time for time in [*times, baseline_us] if time is not None and time > 0] or [1.0]
    low, high = min(known), max(known)
    if high > 2.5 * low:
        return alt.Scale(type="log", domain=[low / 1.15, high * 1.15], nice=False)
    air = (high - low) * 0.08 or low * 0.05
    return alt.Scale(type="linear", domain=[low - air, high + air], nice=False)


def _micros(scale: alt.Scale, title: str) -> alt.Y:
    return alt.Y("us:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format=",.4~g"))


def _whole(first: int, last: int) -> alt.Axis:
    """Ticks at whole numbers, a dozen at most."""
    step = 1 + (last - first) // 12
    return alt.Axis(format="d", grid=False, values=list(range(first, last + 1, step)))


def _rule(data: str, scale: alt.Scale) -> list[alt.Chart]:
    """A level, with words at its left end."""
    at = alt.Y("us:Q", scale=scale)
    return [
        _chart(data).mark_rule(strokeDash=[5, 4], color="var(--soft)", aria=False).encode(y=at),
        _chart(data)
        .mark_text(align="left", dx=6, dy=-7, color="var(--soft)", aria=False)
        .encode(x=alt.value(0), y=at, text="words:N"),
    ]


def _baseline(time_us: float | None) -> str:
    return "" if time_us is None else f"start kernel, {time_us:,.4g} µs"


def _least(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """For each x the last, which is the best up to it."""
    return [{"x": x, "us": us} for x, us in {row["x"]: row["us"] for row in rows}.items()]


def _from_to(gains: Sequence[Gain]) -> str:
    return f": from {gains[0].best_us:,.4g} to {gains[-1].best_us:,.4g} µs" if gains else ""


def _drawn(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, data: Mapping[str, Sequence[Row]], words: str
) -> Picture:
    """The data goes in after the chart is validated, which need not look at every point."""
    spec = chart.configure(
        background="transparent",
        font="inherit",
        padding=4,
        axis=alt.AxisConfig(
            labelColor="var(--soft)",
            titleColor="var(--soft)",
            titleFontWeight="normal",
            titlePadding=10,
            labelFontSize=11,
            titleFontSize=11.5,
            gridColor="var(--grid)",
            domainColor="var(--rule)",
            tickColor="var(--rule)",
        ),
        legend=alt.LegendConfig(labelColor="var(--soft)", labelFontSize=11.5, symbolType="circle", offset=6),
        view=alt.ViewConfig(stroke=None),
        text=alt.MarkConfig(fontSize=11),
    ).to_dict(validate=True)
    spec["datasets"] = {name: list(rows) for name, rows in data.items()}
    svg = vl_convert.vegalite_to_svg(spec)
    # Links must not be stations of the tab key: the tree has the same trials, and can be walked by arrows.
    return Picture(Markup(_BASE.sub('<a tabindex="-1" xlink:href="#', svg)), words)
