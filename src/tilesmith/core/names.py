"""Words of errors for people: what a misspelt name was meant to be, and what stood in a value's place."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None where none is alike."""
    folded = {other.casefold().replace("-", "_"): other for other in sorted(known)}
    close = get_close_matches(name.casefold().replace("-", "_"), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def meant(name: str, known: Iterable[str]) -> str:
    """The clause that helps whoever wrote an unknown name: the nearest known one, or else all of them."""
    known = sorted(known)
    if near := nearest(name, known):
        return f"did you mean {near}?"
    return f"the known ones are {', '.join(known)}." if known else "there are none."


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The clause that says that a name is unknown, and what may have been meant."""
    return f"unknown {kind} {name!r}; {meant(name, known)}"


def shown(value: object) -> str:
    """A value as its author wrote it, cut to a glance."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
