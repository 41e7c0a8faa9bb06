"""`tilesmith export`: the trials of a run as rows for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

from tilesmith.cli import winner
from tilesmith.cli.report import chronicle, html_file
from tilesmith.cli.screen import answer, say
from tilesmith.core.errors import OptionError
from tilesmith.core.names import unknown
from tilesmith.journal import open_store
from tilesmith.report import document
from tilesmith.report import export as rows


def export(prefix: str, kind: str, out: Path | None, journal: Path, as_json: bool) -> int:
    """To a file, or to stdout where none is named and the format is text. Raises `OptionError` for another format."""
    if kind not in rows.FORMATS:
        raise OptionError(f"--format: {unknown('format', kind, rows.FORMATS)}")
    with open_store(journal, must_exist=True) as store:
        told = chronicle(store.run(prefix), most=None)
    if out is None and not as_json and kind != "parquet":
        sys.stdout.write(rows.jsonl(told) if kind == "jsonl" else rows.comma(told))
        return 0
    path = html_file(out or Path(f"{told.record.run}.{kind}"))
    if kind == "parquet":
        with winner.replacing(path) as draft:
            rows.parquet(told, draft)
    else:
        winner.write(path, rows.jsonl(told) if kind == "jsonl" else rows.comma(told))
    if as_json:
        answer(document.written(told.record.run, str(path), path.stat().st_size, len(told.trials)))
    else:
        say(f"{len(told.trials)} trials written to {path}")
    return 0
