"""The cache: whole entries or none, nobody else's, and two processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilesmith.core.errors import MachineError
from tilesmith.core.trial import Timing
from tilesmith.splice.cache import Cache, Stale, default_folder, key
from tilesmith.splice.found import Evidence, Found

KEY = key({"graph": "G", "gpu": "h200", "torch": "2"})
TIMING = Timing(10.0, 9.9, 10.1, 300, "torch.compile", 14.0, 13.9, 14.2)
EVIDENCE = Evidence(
    0.2,
    141,
    "walls",
    "0123456789abcdef",
    1e-30,
    ("superopt:one", "rewrite:tiles"),
    "5761",
    "H200",
    None,
    TIMING,
    "eager",
)
FOUND = Found(source="def kernel_function(x): ...\n", evidence=EVIDENCE, order=(1, 0), seconds=30.0)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def entry(cache: Cache) -> Path:
    (path,) = (cache.folder / "parts").glob("*.json")
    return path


def test_what_is_put_is_got(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, FOUND)
    assert cache.get(KEY) == FOUND.from_cache()
    assert cache.get(key({"graph": "G", "gpu": "h200", "torch": "3"})) is None
    cache.put(KEY, Found("nothing"))
    assert cache.get(KEY) == Found("nothing", cached=True)


def test_keys_are_one_where_all_rows_are() -> None:
    assert key({"a": "1", "b": "2"}) == key({"b": "2", "a": "1"})
    assert key({"a": "1", "b": "2"}).digest != key({"a": "12", "b": ""}).digest


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_never_believed(cache: Cache, data: st.DataObject) -> None:
    cache.put(KEY, FOUND)
    whole = entry(cache).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = bytearray(whole)
    broken[place] ^= data.draw(st.integers(1, 255))
    entry(cache).write_bytes(broken[: data.draw(st.sampled_from([len(whole), place + 1]))])
    with pytest.raises(Stale, match=r"corrupt; it is searched anew"):
        cache.get(KEY)


def test_an_entry_for_something_else_is_stale(cache: Cache) -> None:
    cache.put(KEY, FOUND)
    other = key({"graph": "another"})
    entry(cache).rename(cache.folder / "parts" / f"{other.digest}.json")
    with pytest.raises(Stale, match=r"written for something else"):
        cache.get(other)


def test_an_entry_that_others_may_write_is_not_believed(cache: Cache) -> None:
    cache.put(KEY, FOUND)
    entry(cache).chmod(0o666)
    with pytest.raises(Stale, match=r"can be written by other users"):
        cache.get(KEY)


def test_a_link_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    cache.put(KEY, FOUND)
    entry(cache).rename(tmp_path / "elsewhere.json")
    (cache.folder / "parts" / f"{KEY.digest}.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Stale, match=r"cannot be read"):
        cache.get(KEY)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(MachineError, match=r"can be written by other users"):
        Cache(folder)


def test_a_folder_that_others_may_exchange_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MachineError, match=r"every user may exchange it"):
        Cache(tmp_path / "open" / "cache")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot be used .*TILESMITH_CACHE"):
        Cache(tmp_path / "file" / "cache")


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    assert Cache(tmp_path / "cache").folder.stat().st_mode & 0o777 == 0o700


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("TILESMITH_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "tilesmith"


SCRIPT = """
    import sys, time
    from pathlib import Path
    from tilesmith.splice.cache import Cache, key
    from tilesmith.splice.found import Found
    cache = Cache(Path(sys.argv[1]))
    wanted = key({"graph": "G"})
    with cache.searching(wanted, 60.0):
        if cache.get(wanted) is None:
            time.sleep(0.5)
            cache.put(wanted, Found(source="x" * 1_000_000))
            print("searched")
"""


def test_of_two_processes_one_searches(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=60)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert sorted(said) == ["", "searched\n"]


def test_who_reads_meanwhile_sees_an_old_entry_or_a_new_one(cache: Cache) -> None:
    cache.put(KEY, Found(source="0" * 200_000))
    child = os.fork()
    if child == 0:
        for number in range(40):
            cache.put(KEY, Found(source=str(number % 10) * 200_000))
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        found = cache.get(KEY)
        assert found is not None
        assert found.source is not None
        assert len(set(found.source)) == 1
    assert not list((cache.folder / "parts").glob(".*"))


def test_nobody_waits_longer_than_asked(cache: Cache) -> None:
    with cache.searching(KEY, 1.0):
        began = time.monotonic()
        with cache.searching(KEY, 0.3):
            assert time.monotonic() - began < 20


def test_a_folder_for_reading_only_is_one_sentence(cache: Cache) -> None:
    cache.put(KEY, Found(source="kept"))
    (cache.folder / "parts" / f"{KEY.digest}.lock").mkdir()
    with pytest.raises(MachineError, match=r"cannot be written .* name another cache with TILESMITH_CACHE"):
        cache.searching(KEY, 1.0).__enter__()
    # What it holds is used all the same.
    assert cache.get(KEY) is not None
