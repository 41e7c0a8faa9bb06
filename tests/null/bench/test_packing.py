"""What one machine compiled another one finds in its place; nothing in the folder is followed or waited for."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.bench import packing
from tilesmith.bench.effort import Effort
from tilesmith.bench.packing import pack, unpack
from tilesmith.bench.ray.worker import Duty, Worker
from tilesmith.core.gpu import target
from tilesmith.core.trial import Candidate, Correct, Rejected
from tilesmith.testing.samples import PROBLEM, SAMPLES

names = st.text("abc._", min_size=1, max_size=4).filter(lambda name: name.strip("."))
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=50), max_size=6
).filter(lambda tree: not any(other != path and other.startswith(f"{path}/") for path in tree for other in tree))


@given(trees)
@settings(deadline=None)
def test_a_folder_arrives_as_it_was(tree: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        for name, content in tree.items():
            path = Path(here, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        packed = pack(Path(here))
        assert packed is not None
        assert dict(packed.files) == tree
        unpack(packed, Path(there))
        found = {str(path.relative_to(there)): path.read_bytes() for path in Path(there).rglob("*") if path.is_file()}
        assert found == tree


def test_only_what_is_a_file_is_taken(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not the candidate's")
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to(secret)
    (here / "folder").symlink_to(tmp_path)
    os.mkfifo(here / "pipe")
    (here / "file").write_bytes(b"1")
    packed = pack(here)
    assert packed is not None
    assert packed.files == (("file", b"1"),)


def test_too_much_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LIMIT_BYTES", 10)
    (tmp_path / "a").write_bytes(b"x" * 6)
    assert pack(tmp_path) is not None
    (tmp_path / "b").write_bytes(b"x" * 6)
    assert pack(tmp_path) is None
    assert pack(tmp_path / "gone") is not None, "an empty one"


@pytest.mark.triton
def test_what_one_worker_admits_another_checks() -> None:
    """As a node without a GPU compiles for those with one; here both have none, and the check is the interpreter's."""
    duty = Duty(target("h200"), False, False, 1, 1, "here", Effort(capture_s=60.0, check_s=60.0, full_s=60.0))
    one, other = Worker(duty), Worker(duty)
    try:
        refused = one.admit(PROBLEM, Candidate("import socket\n\ndef kernel_function(x, y):\n    return x\n"))
        assert isinstance(refused.verdict, Rejected)
        assert refused.packed is None
        admitted = one.admit(PROBLEM, Candidate(SAMPLES.correct, "test", "parent"))
        assert admitted.packed is not None
        assert not admitted.scratch.exists()
        files = dict(admitted.packed.files)
        assert any(name.endswith(".cubin") for name in files)
        with tempfile.TemporaryDirectory() as folder:
            unpack(admitted.packed, Path(folder))
            for lists in Path(folder).rglob("__grp__*.json"):
                paths = json.loads(lists.read_text())["child_paths"].values()
                assert paths
                assert all(Path(path).is_file() and Path(path).is_relative_to(folder) for path in paths)
        trial = other.check(PROBLEM, admitted, None)
        assert isinstance(trial.verdict, Correct)
        assert trial.fingerprint == admitted.fingerprint
        assert (trial.candidate.origin, trial.candidate.parent) == ("test", "parent")
        environment, _ = other.about()
        assert environment.target == "h200"
    finally:
        one.close()
        other.close()
