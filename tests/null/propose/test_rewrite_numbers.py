"""Every rewrite keeps the numbers, on kernels written in several styles, alone and on top of others."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tilesmith.core.problem import content_id
from tilesmith.core.profile import Launch
from tilesmith.propose.program import parse
from tilesmith.propose.rewrites import TABLE

HERE = Path(__file__).parent
KERNELS = sorted((HERE / "kernels").glob("*.py"))
MULTIPROCESSORS = 3
"""Fewer than the fixtures have programs, so that a persistent grid pays."""
LIMIT = 2e-3
"""Rounding to float16 costs 5e-4."""


@dataclass(frozen=True)
class Judged:
    error: float | None
    launches: tuple[Launch, ...]
    message: str


class Interpreter:
    """One process for all variants: importing torch takes longer than running them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, str], Judged] = {}
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        command = [sys.executable, str(HERE / "interpreter.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def judge(self, source: str, kind: str) -> Judged:
        key = (source, kind)
        if key not in self.known:
            path = self.folder / f"{content_id(source)}.py"
            path.write_text(source)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps([str(path), kind]) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            launches = tuple(map(launch, answer["launches"]))
            self.known[key] = Judged(answer["error"], launches, answer.get("message", ""))
        return self.known[key]


def launch(row: dict) -> Launch:
    arguments = tuple(sorted(row["arguments"].items()))
    warps, stages = row.get("num_warps", 4), row.get("num_stages", 3)
    return Launch(row["kernel"], tuple(row["grid"]), warps, stages, 0, 0, 0, arguments)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    running = Interpreter(tmp_path_factory.mktemp("candidates"))
    yield running
    with running.process as process:
        assert process.stdin is not None
        process.stdin.close()


def kind_of(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0]


def variants(source: str, launches: tuple[Launch, ...]) -> list[tuple[str, str]]:
    program = parse(source, launches, MULTIPROCESSORS)
    return [(rewrite.name, variant) for rewrite in TABLE for variant in rewrite.variants(program)]


def wrong(interpreter: Interpreter, found: list[tuple[str, str]], kind: str) -> list[str]:
    faults = []
    for name, source in found:
        judged = interpreter.judge(source, kind)
        if judged.error is None or not judged.error < LIMIT:
            faults.append(f"{name}: {judged.message or judged.error}\n{source}")
    return faults


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_every_variant_keeps_the_numbers(interpreter: Interpreter, path: Path) -> None:
    source = path.read_text()
    start = interpreter.judge(source, kind_of(path))
    assert start.error is not None, start.message
    assert start.error < LIMIT
    found = variants(source, start.launches)
    assert len(found) > 20
    assert all(variant != source for _, variant in found)
    most = [entry for index, entry in enumerate(found) if [name for name, _ in found[:index]].count(entry[0]) < 3]
    assert not "\n\n".join(wrong(interpreter, most, kind_of(path)))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_rewrites_on_top_of_rewrites_keep_the_numbers(interpreter: Interpreter, path: Path) -> None:
    chance = random.Random(path.stem)
    kind = kind_of(path)
    for _ in range(2):
        source = path.read_text()
        for _ in range(4):
            found = variants(source, interpreter.judge(source, kind).launches)
            name = chance.choice(sorted({name for name, _ in found}))
            step = chance.choice([variant for variant in found if variant[0] == name])
            assert not "\n\n".join(wrong(interpreter, [step], kind))
            source = step[1]


def test_every_rewrite_applies_somewhere(interpreter: Interpreter) -> None:
    applied = set()
    for path in KERNELS:
        start = path.read_text()
        found = variants(start, interpreter.judge(start, kind_of(path)).launches)
        applied |= {name for name, _ in found}
        split = next((source for name, source in found if name == "split_atomics"), None)
        if split is not None:
            applied |= {name for name, _ in variants(split, interpreter.judge(split, kind_of(path)).launches)}
    assert applied == {rewrite.name for rewrite in TABLE}


MOVED = [
    ("matvec_model", ("split_atomics", "split_partials", "persistent")),
    ("norm_linear_index", ("split_partials", "persistent", "prefetch", "swap_axes")),
    ("gated_index", ("split_partials", "persistent", "prefetch", "swap_axes")),
]


@pytest.mark.parametrize(("stem", "first"), [(stem, first) for stem, firsts in MOVED for first in firsts])
def test_every_rewrite_on_top_of_each_that_moves_code(interpreter: Interpreter, stem: str, first: str) -> None:
    path = HERE / "kernels" / f"{stem}.py"
    kind = kind_of(path)
    source = path.read_text()
    child = next(child for name, child in variants(source, interpreter.judge(source, kind).launches) if name == first)
    found = variants(child, interpreter.judge(child, kind).launches)
    names = [name for name, _ in found]
    heads = [entry for index, entry in enumerate(found) if entry[0] not in names[:index]]
    assert len(heads) > 5
    assert not "\n\n".join(wrong(interpreter, heads, kind))
