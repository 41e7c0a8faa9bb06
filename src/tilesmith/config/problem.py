"""Loads a problem: a Python file in KernelBench's form, or a folder with `problem.py` and what stands beside it."""

from __future__ import annotations

from pathlib import Path

from tilesmith.config.module import Module, parse_module
from tilesmith.config.settings import read_settings
from tilesmith.config.text import TextFaultError, read_text
from tilesmith.core.errors import ProblemError
from tilesmith.core.problem import Problem, Settings

REQUIRED = {
    "Model": "class Model(torch.nn.Module), the reference",
    "get_inputs": "get_inputs(), the list of inputs of one call",
    "get_init_inputs": "get_init_inputs(), the list of arguments of Model (often empty)",
}


def load_problem(path: Path) -> Problem:
    """The problem in a file, or in a folder that holds `problem.py`.

    Only a folder brings a start kernel (`kernel.py`) and settings (`problem.toml`). The start kernel is only read:
    what is wrong with it as a kernel is for the bench to say. Nothing is executed. Raises `ProblemError`.
    """
    file = path / "problem.py"
    try:
        folder, complete = path.is_dir(), _present(file)
    except OSError as error:
        raise ProblemError(f"{path} cannot be opened ({error.strerror}); check its permissions and the path.") from None
    if not folder:
        source, _ = _read_problem(path)
        return Problem(path.stem, source)
    if not complete:
        raise ProblemError(f"{path} is a folder without problem.py; name a folder that holds one, or a Python file.")
    source, module = _read_problem(file)
    settings = path / "problem.toml"
    start = path / "kernel.py"
    return Problem(
        name=path.resolve().name,
        source=source,
        settings=read_settings(settings, module.assigned) if _present(settings) else Settings(),
        start=_read(start) if _present(start) else None,
    )


def _present(path: Path) -> bool:
    """Also for a link that leads nowhere: it was meant to be there."""
    return path.exists() or path.is_symlink()


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except TextFaultError as fault:
        raise ProblemError(f"{path} {fault}.") from None


def _read_problem(path: Path) -> tuple[str, Module]:
    source = _read(path)
    try:
        module = parse_module(source)
    except TextFaultError as fault:
        raise ProblemError(f"{path} {fault}.") from None
    for name, form in REQUIRED.items():
        if not module.has(name):
            raise ProblemError(f"{path} does not define {name} at top level; add {form}.")
    return source, module
