"""Drawings: one picture of three levels, well-formed, with no box over another."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from random_graphs import programs as programs_of
from right_graphs import RIGHT

from tilesmith.core.graph import Graph
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt.build import Program
from tilesmith.superopt.draw import CHARACTER, dot, svg
from tilesmith.superopt.programs import PROGRAMS
from tilesmith.superopt.schema import from_json, to_json

SHOWN = ("gqa_flash_decoding_online", "chained_in_registers", "lora_joined_inside_the_block")
NS = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_are_as_reviewed(golden: Callable[[str, str], None], name: str) -> None:
    graph, _ = RIGHT[name]()
    golden(f"ugraphs/{name}.json", to_json(graph))
    golden(f"ugraphs/{name}.dot", dot(graph))
    golden(f"ugraphs/{name}.svg", svg(graph))
    assert from_json(to_json(graph)) == graph


@pytest.mark.parametrize("name", PROGRAMS)
def test_published_programs_are_as_reviewed(golden: Callable[[str, str], None], name: str) -> None:
    graph = PROGRAMS[name]()
    golden(f"ugraphs/{name}.json", to_json(graph))
    golden(f"ugraphs/{name}.hash", graph_hash(graph) + "\n")


def siblings(element: ElementTree.Element) -> list[list[Box]]:
    """The boxes of each group."""
    own = [
        tuple(float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
        for rect in element.findall(f"{NS}rect")
    ]
    return [own, *(group for child in element.findall(f"{NS}g") for group in siblings(child))]  # type: ignore[list-item]


def overlap(one: Box, two: Box) -> bool:
    apart = (
        one[0] + one[2] <= two[0] or two[0] + two[2] <= one[0] or one[1] + one[3] <= two[1] or two[1] + two[3] <= one[1]
    )
    return not apart


def checked(graph: Graph) -> ElementTree.Element:
    tree = ElementTree.fromstring(svg(graph))
    for group in siblings(tree):
        assert not any(overlap(one, two) for i, one in enumerate(group) for two in group[:i])
    return tree


@pytest.mark.parametrize("name", RIGHT)
def test_no_box_covers_another_and_all_text_is_inside(name: str) -> None:
    tree = checked(RIGHT[name]()[0])
    width = float(tree.get("width", "0"))
    for text in tree.findall(f"{NS}text"):
        assert float(text.get("x", "0")) + len(text.text or "") * CHARACTER < width


@settings(deadline=None, max_examples=60)
@given(programs_of())
def test_any_graph_can_be_drawn(graph: Graph) -> None:
    checked(graph)
    text = dot(graph)
    assert text.count("{") == text.count("}")


def test_names_are_text() -> None:
    b = Program()
    b.output(b.exp(b.input('<a href="x">&\\', (2, 3))))
    graph = b.graph()
    assert checked(graph).findall(f"{NS}text")[0].text == '<a href="x">&\\'
    assert r'"<a href=\"x\">&\\\n[2, 3] fp16"' in dot(graph)


def test_all_three_levels_and_the_legend_are_there() -> None:
    text = svg(RIGHT["chained_in_registers"]()[0])
    for word in (
        "kernel: grid 64, loop 32",
        "load X  loop→1",
        "accumulate sum",
        "silu",
        "store  x→1",
        "fused in registers",
    ):
        assert word in text
    assert "prefers-color-scheme: dark" in text


def test_a_constant_output_is_drawn() -> None:
    b = Program()
    b.output(b.constant(3))
    assert "output 0" in svg(b.graph())
    assert "output 0" in dot(b.graph())
