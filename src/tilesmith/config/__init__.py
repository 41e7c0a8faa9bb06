"""Reads what the user wrote: problems, settings and candidates. Checks source, and never executes it."""

from tilesmith.config.candidate import read_candidate
from tilesmith.config.presets import Preset, load_preset, presets, read_preset
from tilesmith.config.problem import load_problem

__all__ = [
    "Preset",
    "load_preset",
    "load_problem",
    "presets",
    "read_candidate",
    "read_preset",
]
