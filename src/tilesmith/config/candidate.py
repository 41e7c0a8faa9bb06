"""Reads a candidate. What is wrong with one is a verdict, never an exception."""

from __future__ import annotations

from pathlib import Path

from tilesmith.config.module import parse_module
from tilesmith.config.text import TextFaultError, read_text
from tilesmith.core.trial import Candidate, Failed, Rejected, Verdict

ENTRY_POINTS = ("kernel_function", "ModelNew")


def read_candidate(path: Path) -> Candidate | Verdict:
    """The candidate in this file; or `Failed` at stage "admit", or `Rejected` where it has both entry points.

    An entry point counts where the module itself defines it at top level; an import or a mention does not.
    """
    try:
        text = read_text(path)
        if not text.strip():
            raise TextFaultError("is empty; it should define kernel_function(*inputs) or class ModelNew")
        module = parse_module(text)
    except TextFaultError as fault:
        return Failed("admit", f"{path} {fault}.")
    match [name for name in ENTRY_POINTS if name in module.defined | module.assigned]:
        case []:
            return Failed("admit", f"{path} has no entry point; define kernel_function(*inputs) or class ModelNew.")
        case [_]:
            return Candidate(text)
    return Rejected(f"{path} defines both kernel_function and ModelNew, so it is not clear which to call; keep one.")
