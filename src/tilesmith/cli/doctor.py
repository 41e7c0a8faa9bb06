"""`tilesmith doctor`: what works on this machine, what does not, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tilesmith.bench.doctor import examine, outlooks
from tilesmith.cli.screen import answer, show
from tilesmith.report import document

STYLES = {"ok": "green", "limited": "yellow", "missing": "red"}


def doctor(journal: Path, as_json: bool) -> int:
    """0 where at least one bench works, else 1."""
    findings = examine(journal.resolve().parent)
    benches = outlooks(findings)
    works = any(bench.works for bench in benches)
    if as_json:
        message = None if works else "no bench works on this machine"
        rows = {"findings": [asdict(finding) for finding in findings], "benches": [asdict(bench) for bench in benches]}
        answer(document.text({"verdict": "done" if works else "failed", "message": message, **rows}))
        return 0 if works else 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("looked at", no_wrap=True)
    table.add_column("state")
    table.add_column("found", overflow="fold")
    table.add_column("to mend it", overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(finding.name, state, Text(finding.found), "" if finding.state == "ok" else Text(finding.mend))
    lines = [
        Text(f"bench {bench.bench}: {'works' if bench.works else 'does not work'} ({bench.why})") for bench in benches
    ]
    show(Group(table, Text(), *lines))
    return 0 if works else 1
