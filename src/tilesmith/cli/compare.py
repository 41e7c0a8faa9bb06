"""`tilesmith compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilesmith.cli import winner
from tilesmith.cli.report import chronicle, html_file
from tilesmith.cli.screen import answer, say, show
from tilesmith.core.errors import OptionError
from tilesmith.journal import open_store
from tilesmith.report import compare as sides


def compare(prefixes: Sequence[str], out: Path | None, journal: Path, as_json: bool) -> int:
    """0 once told. Raises `OptionError` for a single run, `JournalError` for one that does not exist."""
    if len(prefixes) < 2:
        raise OptionError("compare needs two runs or more; `tilesmith runs` lists them")
    path = None if out is None else html_file(out)
    with open_store(journal, must_exist=True) as store:
        told = [chronicle(store.run(prefix), most=None) for prefix in prefixes]
    found = sides.columns(told)
    if path is not None:
        winner.write(path, sides.html(found, told))
        say(f"written to {path}")
    if as_json:
        answer(sides.text(found))
    else:
        show(sides.table(found))
    return 0
