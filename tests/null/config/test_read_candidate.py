"""A candidate is read, or its fault is a verdict; never an exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilesmith.config import read_candidate
from tilesmith.core.names import nearest
from tilesmith.core.trial import Candidate, Failed, Rejected


def write(path: Path, text: str) -> Path:
    file = path / "kernel.py"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "source",
    [
        "def kernel_function(x): return x\n",
        "kernel_function = object\n",
        "class ModelNew: ...\n",
        "try:\n    import triton\n    def kernel_function(x): ...\nexcept ImportError: raise\n",
        "def kernel_function(x): return 'ModelNew'\nclass Other:\n    ModelNew = 1\n",
    ],
)
def test_a_candidate_is_its_source(tmp_path: Path, source: str) -> None:
    assert read_candidate(write(tmp_path, source)) == Candidate(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "is empty"),
        (" \n\t\n", "is empty"),
        ("x = 1\n", "no entry point"),
        ("# def kernel_function(x): ...\nx = 'class ModelNew'\n", "no entry point"),
        ("def outer():\n    def kernel_function(x): ...\n", "no entry point"),
        ("from elsewhere import kernel_function\n", "no entry point"),
        ("kernel_function: object\n", "no entry point"),
        ("x = 1\ndef kernel_function(:\n", "syntax error in line 2"),
        ("# coding: ascii\ndef kernel_function(x): ...\n", "coding line"),
        ("def kernel_function(x): ...\0\n", "null byte"),
        ("def kernel_function(x): ...\n#" + "x" * (1 << 20), "larger than"),
    ],
)
def test_faults_are_failures_to_admit(tmp_path: Path, source: str, said: str) -> None:
    verdict = read_candidate(write(tmp_path, source))
    assert isinstance(verdict, Failed)
    assert verdict.stage == "admit"
    assert said in verdict.message
    assert str(tmp_path) in verdict.message


def test_two_entry_points_are_rejected(tmp_path: Path) -> None:
    verdict = read_candidate(write(tmp_path, "def kernel_function(x): ...\nclass ModelNew: ...\n"))
    assert isinstance(verdict, Rejected)
    assert "both kernel_function and ModelNew" in verdict.reason


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"# \xe9\ndef kernel_function(x): ...\n")
    secret = Path("/proc/self/mem")
    for path, said in {
        tmp_path / "gone.py": "does not exist",
        tmp_path: "is a folder",
        pipe: "not a regular file",
        latin: "byte 0xe9 at offset 2",
        secret: "cannot be read",
        Path("a\0b"): "not a path",
    }.items():
        verdict = read_candidate(path)
        assert isinstance(verdict, Failed)
        assert said in verdict.message


def test_nearest() -> None:
    known = ["budget-seconds", "budget-trials", "candidate-pool-size", "seed"]
    assert nearest("budget_second", known) == "budget-seconds"
    assert nearest("Seed", known) == "seed"
    assert nearest("wurzel", known) is None
    assert nearest("x", []) is None
