"""What the page on µGraphs shows is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from tilesmith.core.operators import OPERATORS
from tilesmith.superopt.programs import rmsnorm_linear
from tilesmith.superopt.schema import from_json
from tilesmith.superopt.verify import Verified, verify

PAGE = (Path(__file__).parents[3] / "docs" / "ugraphs.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_both_examples_are_the_program() -> None:
    graph = from_json(example("json"))
    names: dict[str, object] = {}
    exec("from tilesmith.superopt.build import Program\n" + example("python"), names)
    for candidate in (graph, names["graph"]):
        assert isinstance(verify(candidate, rmsnorm_linear(), 1), Verified)  # type: ignore[arg-type]


def test_every_operator_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## The operators") : PAGE.index("Macros are spelled out")]
    assert set(OPERATORS) <= set(re.findall(r"\w+", table))
