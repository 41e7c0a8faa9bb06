"""Sentences for people: what must not be seen, and how long they may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

SHORTEST_SECRET = 4
"""Characters. What is shorter is no key, and would be found in every text."""
REAL_SECRET = 16
"""Characters. What is shorter is a word that a local server is content with, and may stand in a kernel, too."""


class Secrets:
    """Texts that nobody may see. It shows none of them itself, and cannot be sent to another process."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Iterable[str] = ()) -> None:
        # The longest first: one may begin with another.
        self._texts = sorted(texts, key=len, reverse=True)

    def scrubbed(self, text: str, shortest: int = SHORTEST_SECRET) -> str:
        """The text without any of them that has so many characters."""
        for secret in self._texts:
            if len(secret) >= shortest:
                text = text.replace(secret, "[key]")
        return text

    def __repr__(self) -> str:
        return f"Secrets({len(self._texts)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys stay in the process that read them")


NONE = Secrets()


def sentence(text: str, limit: int = 300) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
