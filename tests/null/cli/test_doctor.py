"""What the doctor makes of machines that this one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesmith.bench import doctor
from tilesmith.bench.doctor import Finding, examine, outlooks


def state(name: str, folder: Path) -> Finding:
    return next(finding for finding in examine(folder) if finding.name == name)


def versions(monkeypatch: pytest.MonkeyPatch, **known: str) -> None:
    monkeypatch.setattr(doctor, "_version", known.get)


@pytest.mark.parametrize(
    ("torch", "triton", "numpy", "states"),
    [
        ("2.13.0+cpu", "3.6.0", "2.3.5", ("ok", "ok", "ok")),
        ("2.11.0+cu130", "3.9.0", "2.4.6", ("ok", "ok", "ok")),
        ("2.13.0", "3.6.0", "2.4.6", ("ok", "ok", "missing")),
        ("2.15.0", "3.10.0", "2.3.5", ("limited", "limited", "ok")),
        ("2.9.1", "3.5.1", "2.3.5", ("limited", "limited", "ok")),
    ],
)
def test_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch: str, triton: str, numpy: str, states: tuple[str, ...]
) -> None:
    versions(monkeypatch, torch=torch, triton=triton, numpy=numpy)
    assert tuple(state(name, tmp_path).state for name in ("torch", "triton", "numpy")) == states


def test_a_bare_machine_has_no_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    versions(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    findings = examine(tmp_path)
    assert {bench.bench: bench.works for bench in outlooks(findings)} == {"offline": False, "local": False}
    assert all(finding.mend for finding in findings if finding.state == "missing")
    assert "torch" in outlooks(findings)[0].why


@pytest.mark.parametrize(
    ("lacking", "offline", "local"),
    [
        (set(), True, True),
        ({"gpus"}, True, False),
        ({"c compiler"}, True, False),
        ({"numpy"}, False, True),
        ({"ptxas"}, False, False),
        ({"journal folder"}, False, False),
        ({"bubblewrap", "hardware counters", "compute-sanitizer", "mpiexec"}, True, True),
    ],
)
def test_outlooks(tmp_path: Path, lacking: set[str], offline: bool, local: bool) -> None:
    findings = [Finding(f.name, "missing" if f.name in lacking else "ok", "") for f in examine(tmp_path)]
    assert {bench.bench: bench.works for bench in outlooks(findings)} == {"offline": offline, "local": local}


@pytest.mark.parametrize(("known", "wanted"), [(0, "limited"), (1, "limited"), (2, "ok"), (7, "ok")])
def test_landlock_is_well_where_its_wall_would_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: int, wanted: str
) -> None:
    monkeypatch.setattr("tilesmith.bench.landlock.version", lambda: known)
    assert state("landlock", tmp_path).state == wanted


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert state("journal folder", tmp_path / "no").state == "missing"
    assert state("disk space", tmp_path / "no").state == "limited"
