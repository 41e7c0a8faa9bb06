"""Prompt templates. They lay text out and decide nothing; a value is put in as it is and never read as a template."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(name: str, /, **values: object) -> str:
    """The template `templates/{name}.md.j2` with these values. Raises jinja2's `UndefinedError` for one that lacks."""
    return _environment().get_template(f"{name}.md.j2").render(values).strip() + "\n"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
