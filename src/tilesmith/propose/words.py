"""Words and figures of prompts."""

from __future__ import annotations

import re


def micros(time_us: float) -> str:
    """A time with four figures and a unit that suits it."""
    return f"{time_us:.4g} µs" if time_us < 1e3 else f"{time_us / 1e3:.4g} ms"


def amount(value: float, unit: str) -> str:
    """A quantity with three figures and a decimal prefix: "4.3 GB", "750 TFLOP"."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def percent(share: float) -> str:
    """A share of 1: "41 %"; with one place where it is less than ten."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def one_line(text: str, characters: int) -> str:
    """The text as one printable line of at most so many characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def fenced(text: str, label: str = "") -> str:
    """The text as a block that nothing in it can close: its fence is longer than every run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    body = text.encode("utf-8", "replace").decode("utf-8")
    return f"{fence}{label}\n{body}{'' if body.endswith(chr(10)) else chr(10)}{fence}"


def cut(text: str, characters: int) -> str:
    """The text, or its first whole lines that fit, with a line that says how much is missing."""
    if len(text) <= characters:
        return text
    kept = text[:characters].rpartition("\n")[0] or text[:characters]
    return f"{kept}\n# ... cut here: {len(text) - len(kept)} more characters are not shown\n"
