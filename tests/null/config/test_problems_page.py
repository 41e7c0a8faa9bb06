"""What the page on problems shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from tilesmith.config import load_problem, read_candidate
from tilesmith.config.settings import EXPECTED
from tilesmith.core.problem import Settings
from tilesmith.core.trial import Candidate

PAGE = (Path(__file__).parents[3] / "docs" / "problems.md").read_text()


def test_its_problem_settings_and_candidates_load(tmp_path: Path) -> None:
    problem, *candidates = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "problem.py").write_text(problem)
    (tmp_path / "problem.toml").write_text(settings)
    loaded = load_problem(tmp_path)
    assert loaded.settings == Settings("bf16", 1.0, False, False, "h200", {"M": 20, "K": 100}, {"K": 8192})
    assert len(candidates) == 3
    for text in candidates:
        (tmp_path / "kernel.py").write_text(text)
        assert read_candidate(tmp_path / "kernel.py") == Candidate(text)


def test_every_setting_is_described() -> None:
    names = set(Settings.__dataclass_fields__)
    assert names == set(EXPECTED)
    assert all(re.search(rf"^{name} = |^\[{name}\]", PAGE, re.MULTILINE) for name in names)
