"""A problem loads, or one sentence says what is wrong with it, where, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilesmith.config import load_problem
from tilesmith.core.errors import ProblemError
from tilesmith.core.problem import Settings

GOOD = """
import torch
from torch import nn

M, K = 64, 128
N: int = 2 * K


class Model(nn.Module):
    def forward(self, x):
        return x @ x.mT


def get_inputs():
    return [torch.randn(M, K)]


def get_init_inputs():
    return []
"""


def folder(path: Path, toml: str | None = None, kernel: str | None = None, source: str = GOOD) -> Path:
    (path / "problem.py").write_text(source)
    if toml is not None:
        (path / "problem.toml").write_text(toml)
    if kernel is not None:
        (path / "kernel.py").write_text(kernel)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ProblemError) as caught:
        load_problem(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def test_a_folder_brings_its_kernel_and_settings(tmp_path: Path) -> None:
    toml = 'dtype = "bf16"\ntolerance = 2\ntf32 = true\ntarget = "h100"\n[small]\nM = 8\nN = 12\n[large]\nK = 4096\n'
    problem = load_problem(folder(tmp_path, toml, "def kernel_function(x): ..."))
    assert problem.name == tmp_path.name
    assert problem.source == GOOD
    assert problem.start == "def kernel_function(x): ..."
    assert problem.settings == Settings("bf16", 2, True, False, "h100", {"M": 8, "N": 12}, {"K": 4096})


def test_a_file_brings_nothing_else(tmp_path: Path) -> None:
    problem = load_problem(folder(tmp_path, 'dtype = "bf16"', "def kernel_function(x): ...") / "problem.py")
    assert (problem.name, problem.start, problem.settings) == ("problem", None, Settings())


def test_a_bare_folder_has_default_settings_and_no_start(tmp_path: Path) -> None:
    problem = load_problem(folder(tmp_path))
    assert (problem.start, problem.settings) == (None, Settings())


def test_constants_of_every_type(tmp_path: Path) -> None:
    source = GOOD + "A = B = C = D = E = None\n"
    toml = '[small]\nA = 1\nB = 1.5\nC = true\nD = "same"\nE = [1, 2]\n'
    small = load_problem(folder(tmp_path, toml, source=source)).settings.small
    assert small == {"A": 1, "B": 1.5, "C": True, "D": "same", "E": (1, 2)}
    assert small["C"] is True


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("tolerence = 2", "unknown key 'tolerence'; did you mean tolerance?"),
        ("zzz = 2", "the known ones are dtype, large, library, small, target, tf32, tolerance."),
        ("[smal]\nM = 1", "did you mean small?"),
        ('dtype = "float16"', 'dtype should be one of "fp64", "fp32", "fp16" and "bf16", not "float16".'),
        ("dtype = 16", "dtype should be one of"),
        ('tolerance = "2"', 'tolerance should be a positive number, not "2".'),
        ("tolerance = 0", "tolerance should be a positive number, not 0."),
        ("tolerance = nan", "tolerance should be a positive number, not nan."),
        ("tolerance = true", "tolerance should be a positive number, not true."),
        ("tf32 = 1", "tf32 should be true or false, not 1."),
        ('tf32 = "yes"', 'tf32 should be true or false, not "yes".'),
        ("target = 90", "target should be the name of a GPU"),
        ("small = 3", "small should be a table of constants, written [small], not 3."),
        ("[small]\nQ = 3", "[small] sets an unknown constant of problem.py 'Q'; the known ones are K, M, N."),
        ("[large]\nMM = 3", "[large] sets an unknown constant of problem.py 'MM'; did you mean M?"),
        ("[small]\nM = [1.5]", "M in [small] should be a number, true or false, a text, or a list of whole numbers"),
        ("[small]\nM = inf", "M in [small] should be"),
        ("[small]\nM = 2026-01-02", "M in [small] should be"),
        ("[small]\nM = {a = 1}", "M in [small] should be"),
        ("[small", "not valid TOML"),
        ("tf32 = true\ntf32 = false", "not valid TOML"),
    ],
)
def test_settings_are_strict(tmp_path: Path, toml: str, said: str) -> None:
    message = refusal(folder(tmp_path, toml))
    assert said in message
    assert "problem.toml" in message


def test_settings_that_are_not_text(tmp_path: Path) -> None:
    (folder(tmp_path) / "problem.toml").write_bytes(b"dtype = '\xff'")
    assert "problem.toml is not UTF-8: byte 0xff at offset 9" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (GOOD.replace("class Model", "class Net"), "does not define Model at top level"),
        (GOOD.replace("def get_inputs", "def inputs"), "does not define get_inputs at top level"),
        (GOOD.replace("def get_init_inputs", "def init"), "does not define get_init_inputs at top level"),
        (GOOD.replace("class Model", "class Outer:\n  class Model"), None),
        ("", "does not define Model"),
        (GOOD + "def (:\n", "has a syntax error in line 20: invalid syntax"),
        ("    x = 1\n", "line 1: unexpected indent"),
        ("x = '''\n\n", "line 1: unterminated triple-quoted string literal"),
        (GOOD + "\0", "null byte"),
        ("# coding: latin-1\n" + GOOD, "declares iso-8859-1 in its coding line"),
        ("# coding: klingon\n" + GOOD, "declares an unknown encoding in its coding line"),
        ("x = " + "(" * 3000 + ")" * 3000, "nested"),
        ("x = " + "-" * 100_000 + "1", "nested too deeply"),
        (f"x = '{'x' * (1 << 20)}'", "larger than 1,048,576 bytes"),
    ],
)
def test_sources_that_are_refused(tmp_path: Path, source: str, said: str | None) -> None:
    message = refusal(folder(tmp_path, source=source))
    assert str(tmp_path / "problem.py") in message
    assert (said or "") in message


def test_definitions_count_wherever_the_top_level_makes_them(tmp_path: Path) -> None:
    source = """
import sys
try:
    from reference import Model
except ImportError:
    Model = None
if sys.version_info > (3,):
    def get_inputs(): return []
with open("x") as f:
    get_init_inputs, other = list, 3
"""
    assert load_problem(folder(tmp_path, source=source)).source == source


def test_a_star_import_may_define_anything(tmp_path: Path) -> None:
    assert load_problem(folder(tmp_path, source="from reference import *\n"))


def test_the_source_is_never_executed(tmp_path: Path) -> None:
    load_problem(folder(tmp_path, source=GOOD + "raise SystemExit(3)\n"))


def test_warnings_of_the_parser_are_nobodys_business(tmp_path: Path) -> None:
    load_problem(folder(tmp_path, source=GOOD + "x = '\\d' is 3\n"))


def test_marks_and_newlines_are_read_as_python_reads_them(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "problem.py").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_problem(tmp_path).source == GOOD


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    file = tmp_path / "problem.py"
    file.write_bytes(GOOD.encode() + b"# gr\xf6sse")
    assert f"byte 0xf6 at offset {len(GOOD) + 4}" in refusal(file)
    file.write_bytes(b"\xef\xbb\xbfab\xf6")
    assert "byte 0xf6 at offset 5" in refusal(file)


def test_what_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.py")
    assert "is a folder without problem.py" in refusal(tmp_path)
    assert "cannot be opened" in refusal(Path(__file__) / "x")
    assert "cannot be opened" in refusal(tmp_path / ("x" * 300))
    assert "not a path" in refusal(Path("a\0b"))
    os.mkfifo(tmp_path / "problem.py")
    assert "not a regular file" in refusal(tmp_path)
    assert "not a regular file" in refusal(tmp_path / "problem.py")
    assert "not a regular file" in refusal(Path("/dev/zero"))


def test_parts_of_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "kernel.py").write_bytes(b"\xff")
    assert "kernel.py is not UTF-8" in refusal(tmp_path)
    (tmp_path / "kernel.py").unlink()
    (tmp_path / "kernel.py").symlink_to("nowhere")
    assert "kernel.py does not exist" in refusal(tmp_path)
    (tmp_path / "kernel.py").unlink()
    (tmp_path / "problem.toml").mkdir()
    assert "problem.toml is a folder" in refusal(tmp_path)


def test_a_start_kernel_with_a_fault_of_its_own_is_for_the_bench(tmp_path: Path) -> None:
    assert load_problem(folder(tmp_path, kernel="def (")).start == "def ("
