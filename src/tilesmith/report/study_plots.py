"""The plots of a study: speed-up, efficiency, balance, oracles, times and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair

from tilesmith.report.study import COPIES, Row

Data = list[dict[str, Any]]
WIDTH, HEIGHT = 220, 160
"""Of one workload's panel, in pixels."""


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Every plot that the rows have something for, as SVG and PNG. Raises `OSError`."""
    paths: list[Path] = []
    for name, make in PLOTS.items():
        chart = make([_flat(row) for row in rows])
        if chart is None:
            continue
        for suffix in ("svg", "png"):
            path = folder / f"{name}.{suffix}"
            chart.save(path, scale_factor=2 if suffix == "png" else 1)
            paths.append(path)
    return paths


def _flat(row: Row) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__dataclass_fields__ if name != "cell"}
    cell = row.cell
    scheme = cell.schedule if cell.schedule == COPIES else f"{cell.schedule} {cell.order}"
    kept = {name: getattr(cell, name) for name in cell.__dataclass_fields__}
    return {**fields, **kept, "workers": cell.workers, "scheme": scheme}


def _lines(data: Data, y: str, title: str, rule: float | None, diagonal: bool = False) -> Any:
    """A line a scheme over the number of workers, a panel a workload; None where no line has two points."""
    known = [row for row in data if row[y] is not None and row["oracle"] == "table"]
    if len({row["workers"] for row in known}) < 2:
        return None
    layers: list[Any] = []
    base = _chart(known)
    workers = altair.X("workers:Q", title="workers", axis=altair.Axis(tickMinStep=1))
    if rule is not None:
        layers.append(base.mark_rule(strokeDash=[4, 4], color="#999999").encode(y=altair.YDatum(rule)))
    if diagonal:
        layers.append(
            base.mark_line(strokeDash=[4, 4], color="#999999").encode(x=workers, y=altair.Y("workers:Q", title=title))
        )
    layers.append(
        base.mark_line(point=True).encode(
            x=workers,
            y=altair.Y(f"{y}:Q", title=title, scale=altair.Scale(zero=False)),
            color=altair.Color("scheme:N", title="schedule, order"),
        )
    )
    return _panels(altair.layer(*layers))


def _chart(values: Data) -> Any:
    return altair.Chart(altair.Data(values=values))  # type: ignore[no-untyped-call]


def _panels(chart: Any) -> Any:
    return chart.properties(width=WIDTH, height=HEIGHT).facet(facet=altair.Facet("workload:N", title=None), columns=3)


def speedup(data: Data) -> Any:
    return _lines(data, "speedup", "speed-up over one worker", None, diagonal=True)


def balanced(data: Data) -> Any:
    return _lines(data, "cpu_speedup", "work over the largest share", None, diagonal=True)


def efficiency(data: Data) -> Any:
    return _lines(data, "efficiency", "speed-up per worker", 1.0)


def imbalance(data: Data) -> Any:
    return _lines([row for row in data if row["schedule"] != COPIES], "imbalance", "most busy over mean", 1.0)


def cpu_imbalance(data: Data) -> Any:
    return _lines([row for row in data if row["schedule"] != COPIES], "cpu_imbalance", "most CPU over mean", 1.0)


def moved(data: Data) -> Any:
    shared = [row for row in data if row["schedule"] not in (COPIES, "static")]
    return _lines(shared, "given", "pieces of work that moved", None)


def memory(data: Data) -> Any:
    for row in data:
        row["peak_mb"] = row["peak_bytes"] / 1e6
    return _lines(data, "peak_mb", "peak memory of a process, MB", None)


def times(data: Data) -> Any:
    """To the first graph and to exhaustion, with one worker of each order and with most workers."""
    values = [
        {**row, "until": until, "took": row[name], "who": f"{row['scheme']}, {row['workers']}"}
        for row in data
        for until, name in (("first graph", "first_seconds"), ("exhaustion", "seconds"))
        if row["schedule"] != COPIES and row["oracle"] == "table" and row[name]
        if until != "exhaustion" or row["stop"] == "exhausted"
    ]
    if not values:
        return None
    chart = (
        _chart(values)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=altair.X("took:Q", title="seconds", scale=altair.Scale(type="log", nice=False)),
            y=altair.Y("who:N", title=None),
            color=altair.Color("until:N", title="until"),
        )
    )
    return chart.properties(width=WIDTH).facet(facet=altair.Facet("workload:N", title=None), columns=2)


def oracle(data: Data) -> Any:
    """Where the workers' time went, by oracle and cache."""
    asked = {row["workload"] for row in data if row["oracle"] != "table"}
    values = [
        {**row, "where": where, "spent": spent, "who": f"{row['oracle']}, {row['workers']}"}
        for row in data
        if row["workload"] in asked and row["schedule"] != COPIES
        for where, spent in (
            ("inside the oracle", row["oracle_seconds"]),
            ("waiting for answers", row["lock_seconds"]),
            ("elsewhere", max(0.0, row["seconds"] * row["workers"] - row["oracle_seconds"] - row["lock_seconds"])),
        )
    ]
    if not values:
        return None
    chart = (
        _chart(values)
        .mark_bar()
        .encode(
            x=altair.X("sum(spent):Q", title="seconds of all workers"),
            y=altair.Y("who:N", title="oracle, workers"),
            color=altair.Color("where:N", title=None),
        )
    )
    return chart.properties(width=2 * WIDTH).facet(
        row=altair.Row("workload:N", title=None), column=altair.Column("scheme:N", title=None)
    )


PLOTS: dict[str, Callable[[Data], Any]] = {
    "speedup": speedup,
    "balanced": balanced,
    "efficiency": efficiency,
    "imbalance": imbalance,
    "cpu-imbalance": cpu_imbalance,
    "moved": moved,
    "memory": memory,
    "times": times,
    "oracle": oracle,
}
