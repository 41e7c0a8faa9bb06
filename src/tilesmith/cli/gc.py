"""`tilesmith gc`: what nothing refers to any more, in a journal and beside it."""

from __future__ import annotations

from pathlib import Path

from tilesmith.bench import workshop
from tilesmith.cli.screen import answer
from tilesmith.journal import Garbage, open_store
from tilesmith.report import document


def gc(journal: Path, delete: bool, as_json: bool) -> int:
    """Say what could go, or with `delete` have it gone. Other runs may go on meanwhile, and lose nothing."""
    found, folders = Garbage((), 0, ()), workshop.abandoned()
    if journal.exists():
        with open_store(journal, must_exist=True) as store:
            found = store.garbage()
            if delete:
                found = store.collect(found)
    if delete:
        folders = tuple(folder for folder in folders if workshop.remove(folder))
    folder_bytes = sum(folder.size_bytes for folder in folders)
    parts = (
        f"{len(found.sources)} sources ({_size(found.source_bytes)})",
        f"{len(found.locks)} lock files of runs that were killed",
        f"{len(folders)} folders of benches that were killed ({_size(folder_bytes)})",
    )
    words = f"{'deleted' if delete else 'would delete'}: {', '.join(parts)}"
    nothing = not (found.sources or found.locks or folders)
    message = "nothing to delete: everything is referred to" if nothing else words
    if as_json:
        rows = {
            "deleted": delete,
            "sources": len(found.sources),
            "source_bytes": found.source_bytes,
            "locks": [str(path) for path in found.locks],
            "folders": [str(folder.path) for folder in folders],
            "folder_bytes": folder_bytes,
        }
        answer(document.text({"verdict": "done", "message": message, **rows}))
        return 0
    answer(message)
    if not nothing and not delete:
        answer("nothing was touched; --delete does it")
    return 0


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
