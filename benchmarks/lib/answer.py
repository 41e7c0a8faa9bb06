"""How every benchmark answers: a short table for people, or one JSON document with `--json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
NO_GPU = 2
"""The exit status where a benchmark needs a GPU and there is none."""

Document = Mapping[str, object]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The script's docstring is its help."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print one JSON document")
    return made


def say(words: str) -> None:
    """Progress, on stderr."""
    print(words, file=sys.stderr, flush=True)


def answer(document: Document, as_json: bool) -> None:
    """The results on stdout; a list of rows of one shape becomes a table of its own."""
    document = {**document, "machine": machine()}
    if as_json:
        print(json.dumps(document, allow_nan=False))
        return
    plain = {name: value for name, value in document.items() if not _is_table(value)}
    width = max(len(name) for name in plain)
    for name, value in plain.items():
        print(f"{name.replace('_', ' '):{width}}  {_text(value)}")
    for name, value in document.items():
        if _is_table(value):
            print(f"\n{name.replace('_', ' ')}")
            _table(value)  # type: ignore[arg-type]


def machine() -> str:
    """What the numbers were measured on."""
    parts = [f"{len(os.sched_getaffinity(0))} CPU cores", f"Python {platform.python_version()}"]
    for package in ("torch", "triton"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"no {package}")
    return ", ".join(parts)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Document]) -> None:
    names = list(rows[0])
    cells = [[_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    for line in [names, *cells]:
        print("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return " > ".join(_text(item) for item in value) or "none"
    return "none" if value is None else str(value)
