"""Numbers as people read them."""

from __future__ import annotations


def micros(time_us: float) -> str:
    return f"{time_us / 1000:.3g} ms" if time_us >= 1000 else f"{time_us:.3g} µs"


def dims(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents)) or "scalar"
