"""What a misspelt name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None where none is alike."""
    folded = {other.casefold().replace("-", "_"): other for other in sorted(known)}
    close = get_close_matches(name.casefold().replace("-", "_"), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The clause that says a name is unknown and names the nearest known one, or else all of them."""
    known = sorted(known)
    meant = nearest(name, known)
    hint = (
        f"did you mean {meant}?" if meant else f"the known ones are {', '.join(known)}." if known else "there are none."
    )
    return f"unknown {kind} {name!r}; {hint}"
