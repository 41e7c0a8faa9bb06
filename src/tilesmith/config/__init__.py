"""Reads what the user wrote: problems, settings and candidates. Checks source, and never executes it."""

from tilesmith.config.candidate import read_candidate
from tilesmith.config.names import nearest, unknown
from tilesmith.config.problem import load_problem

__all__ = ["load_problem", "nearest", "read_candidate", "unknown"]
