"""Finished things as tables: one judged candidate, the trials of a run, the runs of a journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from tilesmith.core.budget import Stop
from tilesmith.core.profile import Launch
from tilesmith.core.search import best
from tilesmith.core.trial import Correct, Trial
from tilesmith.report.audit import Audit
from tilesmith.report.live import best_words
from tilesmith.report.record import Agreed, RunLine, RunRecord
from tilesmith.report.spending import Spending, money, outcome_words, spending_words
from tilesmith.report.words import (
    clipped,
    counts,
    error_of,
    figure,
    harmless,
    one_line,
    time_of,
    verdict_message,
    verdict_name,
)

STYLES = {"correct": "green", "wrong": "red", "rejected": "red", "failed": "yellow", "unchecked": "yellow"}


def evaluation(trial: Trial) -> RenderableType:
    """One judged candidate: the verdict and why, the time, the launches."""
    grid = _pairs()
    name = verdict_name(trial.verdict)
    _row(grid, "verdict", name, STYLES.get(name, ""))
    if message := verdict_message(trial.verdict):
        _row(grid, "because", message.strip())
    if (error := error_of(trial.verdict)) is not None:
        _row(grid, "error", f"{error:.3g}, where 1 is the limit")
    if (time := time_of(trial.verdict)) is not None:
        _row(grid, "time", figure(time))
    if trial.environment is not None:
        where = trial.environment
        _row(
            grid,
            "where",
            f"{where.bench} bench, {where.gpu or where.target}, torch {where.torch}, triton {where.triton}",
        )
    for line in trial.evidence:
        _row(grid, "seen", line)
    _row(grid, "walls", trial.protection)
    if trial.fingerprint:
        _row(grid, "fingerprint", trial.fingerprint)
    return Group(grid, Text(), launches(trial.launches)) if trial.launches else grid


def audit(found: Audit) -> RenderableType:
    """What was stopped, and by which defence; what was not; what this machine cannot tell."""
    grid = _pairs()
    stopped = len(found.cheats) - len(found.accepted)
    _row(grid, "cheats", f"{stopped} of {len(found.cheats)} stopped, in {found.classes} classes")
    _row(grid, "honest", f"{len(found.refused)} of {len(found.honest)} refused")
    for defence, count in found.defences.most_common():
        _row(grid, "stopped by", f"{defence}: {count}")
    for finding in (*found.accepted, *found.refused):
        _row(grid, "not right", f"{finding.file}: {finding.defence}: {finding.message or ''}"[:300], "red")
    _row(grid, "cannot tell", f"{len(found.untold)} cases show only on another bench")
    for walls in found.walls:
        _row(grid, "walls", walls)
    return grid


def launches(rows: Sequence[Launch]) -> Table:
    """What a call of the candidate starts, in order."""
    table = plain()
    table.add_column("kernel", overflow="fold")
    for name in ("grid", "warps", "stages", "shared bytes", "registers", "spills"):
        table.add_column(name, justify="right")
    for launch in rows:
        numbers = (launch.warps, launch.stages, launch.shared_bytes, launch.registers, launch.spills)
        table.add_row(Text(one_line(launch.kernel)), " × ".join(map(str, launch.grid)), *map(str, numbers))
    return table


def run(record: RunRecord) -> RenderableType:
    """One run: what it was for, every trial, the best and how it came about, and why it stopped."""
    grid = _pairs()
    _row(grid, "run", record.run)
    _row(grid, "problem", record.problem)
    _row(grid, "trials", f"{len(record.trials)}" + (f" ({counts(record.trials)})" if record.trials else ""))
    _row(grid, "best", best_words(record.trials))
    _row(grid, "stopped", stop_words(record.stops))
    spent = record.spending
    if spent.models:
        _row(grid, "models", spending_words(spent))
    environment = next((trial.environment for trial in reversed(record.trials) if trial.environment), None)
    if environment is not None:
        device = environment.gpu or f"no GPU, compiled for {environment.target}"
        software = f"torch {environment.torch}, triton {environment.triton}, python {environment.python}"
        _row(grid, "where", f"{environment.bench} bench, {device}, {software}")
    pages: list[RenderableType] = [grid]
    if spent.models:
        pages += [Text(), models(spent), Text(), rounds(spent)]
    if record.trials:
        pages += [Text(), trials(record.trials)]
    return Group(*pages)


def models(spent: Spending) -> Table:
    """What each model was asked, what it cost, and what its kernels came to."""
    table = plain()
    table.add_column("model", overflow="fold")
    for name in ("calls", "faults", "tokens", "cost", "kernels", "correct", "faster", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in spent.models:
        time = time_of(each.best.verdict) if each.best else None
        table.add_row(
            Text(one_line(each.model)),
            f"{each.calls:,}",
            f"{each.faults:,}",
            f"{each.usage.tokens:,}",
            "not known" if each.usd is None else money(each.usd),
            str(each.proposals),
            str(each.correct),
            str(each.improved),
            figure(time) if time else "",
        )
    return table


def rounds(spent: Spending) -> Table:
    """What each round cost, and how its directions ended."""
    table = plain()
    for name in ("round", "trials", "tokens", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("directions", overflow="fold")
    for each in spent.rounds:
        bill = (f"{each.tokens:,}", money(each.usd))
        table.add_row(str(each.number), str(each.trials), *bill, outcome_words(each))
    return table


def agreement(found: Sequence[Agreed]) -> Table:
    """The two classifiers compared, one row a technique."""
    table = plain()
    table.add_column("technique", overflow="fold")
    for name in ("agree", "kernels", "only the code shows it", "only the model sees it"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        share = "" if each.share is None else f"{each.share:.0%}".replace("%", " %")
        table.add_row(
            Text(one_line(each.technique)), share, str(each.kernels), str(each.only_compiled), str(each.only_model)
        )
    return table


def trials(rows: Sequence[Trial]) -> Table:
    """Every trial in the order of recording; the best is bold."""
    table = plain()
    for name in ("trial", "round"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("error", justify="right")
    table.add_column("origin", overflow="fold")
    table.add_column("because", overflow="fold")
    fastest = best(rows)
    for number, trial in enumerate(rows, start=1):
        name, error, time = verdict_name(trial.verdict), error_of(trial.verdict), time_of(trial.verdict)
        table.add_row(
            str(number),
            str(trial.round),
            Text(name, style=STYLES.get(name, "")),
            figure(time) if time is not None else "",
            f"{error:.2g}" if error is not None else "",
            Text(one_line(trial.candidate.origin)),
            Text(clipped(verdict_message(trial.verdict) or "", 100)),
            style="bold" if trial is fastest else "",
        )
    return table


def runs(lines: Iterable[RunLine]) -> Table:
    """The runs of a journal, the latest last."""
    table = plain()
    table.add_column("run", no_wrap=True)
    table.add_column("problem", overflow="fold")
    table.add_column("trials", justify="right")
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("stopped", overflow="fold")
    for line in lines:
        time = figure(line.best.verdict.time) if line.best and isinstance(line.best.verdict, Correct) else "none"
        stopped = "running now" if line.live else stop_words([line.stop] if line.stop else [])
        cost = money(line.usd) if line.usd or line.tokens else ""
        table.add_row(line.run, Text(one_line(line.problem)), str(line.trials), time, cost, stopped)
    return table


def stop_words(stops: Sequence[Stop]) -> str:
    """Why a run stopped last."""
    return stops[-1].value if stops else "not ended: running, or killed; `tilesmith resume` goes on with it"


LEAST, GAP = 10, 3
"""Characters of a column that folds: narrower ones nobody can read. And those between two columns."""


class Sheet(Table):
    """A calm table: a line under its head, no empty columns. Where a screen is too narrow each row is a list."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See Rich."""
        filled = [column for column in self.columns if not self.rows or any(str(cell) for cell in column.cells)]
        if sum(_least(column) + GAP for column in filled) - GAP <= options.max_width:
            made = copy(self)
            made.columns = filled
            yield from Table.__rich_console__(made, console, options)
            return
        for row, *cells in zip(self.rows, *(column.cells for column in filled), strict=True):
            grid = _pairs()
            for column, cell in zip(filled, cells, strict=True):
                if str(cell):
                    grid.add_row(Text(str(column.header)), cell, style=row.style)
            yield from (grid, Text())


def _least(column: Column) -> int:
    """Characters that a column needs in order to be read."""
    widest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap or column.justify == "right" else min(widest, LEAST)


def plain() -> Table:
    """An empty sheet."""
    return Sheet(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _pairs() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _row(grid: Table, name: str, words: str, style: str = "") -> None:
    grid.add_row(name, Text(harmless(words), style=style))
