"""What the pages on a search with models say is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tilesmith.cli.entry import app
from tilesmith.config import load_preset
from tilesmith.config.presets import presets
from tilesmith.core.budget import Stop
from tilesmith.core.facts import Ending
from tilesmith.report import document
from tilesmith.report.record import RunRecord

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "search.md").read_text()
README = (ROOT / "README.md").read_text()
CHANGES = (ROOT / "CHANGELOG.md").read_text()


def test_every_preset_is_as_the_table_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d ×]+) \| (\d+) \| (.+?) \| (yes|no) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == list(presets())
    for name, shape, directions, rounds, clustered, workers in rows:
        preset = load_preset(name)
        width = (preset.candidate_pool_size, preset.num_bottlenecks, len(preset.models), preset.samples_per_prompt)
        assert shape == " × ".join(map(str, width))
        assert int(directions) == preset.directions
        limit = f"until {preset.patience} bring no gain" if preset.rounds is None else str(preset.rounds)
        assert (rounds, clustered) == (limit, "yes" if preset.technique_clustering.enabled else "no")
        assert int(workers) == preset.workers_per_gpu


def test_every_way_a_direction_ends_is_told() -> None:
    told = next(line for line in PAGE.splitlines() if line.startswith("| ending"))
    assert set(re.findall(r"`([\w ]+)`", told)) == set(get_args(get_type_hints(Ending)["outcome"]))


def test_every_key_of_the_bill_is_told() -> None:
    costs = json.loads(document.optimization(RunRecord("r", "p", (), (Stop.USD,)), None))["costs"]
    section = PAGE[PAGE.index("## What it cost") :]
    assert [key for key in costs if f"`{key}`" not in section] == ["wall_s", "gpu_s", "measured_s"]


@pytest.mark.parametrize("page", [PAGE, README, CHANGES], ids=["search", "readme", "changes"])
def test_every_flag_exists(page: str) -> None:
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert {"optimize", "resume", "runs", "show"} <= commands
    source = (ROOT / "src" / "tilesmith" / "cli" / "entry.py").read_text()
    for flag in set(re.findall(r"--([a-z][a-z-]+)", page)):
        given = f'"--{flag}"' in source or f'/--{flag}"' in source
        assert given or re.search(rf"\b{flag.replace('-', '_')}: ", source), flag


@pytest.mark.parametrize("name", ["search.md", "architecture.md", "why.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    folder = ROOT / "docs"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (folder / name).read_text()):
        assert target.startswith("https://") or (folder / target).exists(), target


def test_every_file_that_the_house_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = {path.name for path in (ROOT / "src" / "tilesmith").rglob("*") if path.suffix in {".py", ".yaml"}}
    for name in set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", page)):
        assert name in files, name
