"""Sentences for people: what was meant, and what must not be seen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHORTEST_SECRET = 4
"""Characters. What is shorter is no key, and would be found in every text."""


def meant(name: str, known: Iterable[str]) -> str:
    """The clause that helps whoever wrote an unknown name: the nearest known one, or else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"the known ones are {', '.join(known)}." if known else "there are none."


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[key]")
    return text


def sentence(text: str, limit: int = 300) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
