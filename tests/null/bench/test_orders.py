"""A few calls through the interpreter, in two orders of programs: what tells of races between programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tilesmith.bench.admission import Admitted
from tilesmith.bench.effort import Effort
from tilesmith.bench.exam import Examiner, Orders
from tilesmith.bench.offline import OfflineBench
from tilesmith.config import load_problem
from tilesmith.core.gpu import target
from tilesmith.core.trial import Candidate, Correct, Failed, Wrong

pytestmark = pytest.mark.triton

EXPLOITS = Path(__file__).parents[2] / "exploits"


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(target("h200"), effort=Effort(check_s=20.0, full_s=20.0)) as bench:
        yield bench


def orders(bench: OfflineBench, problem: str, file: str) -> Orders:
    asked = load_problem(EXPLOITS / "problems" / problem)
    bench.open(asked)
    examiner: Examiner = bench._examiner
    admitted: Admitted = bench.admit(asked, Candidate((EXPLOITS / file).read_text()))
    assert admitted.verdict is None, admitted.verdict
    return examiner.orders(admitted)


def test_an_honest_kernel_is_right_in_both(bench: OfflineBench) -> None:
    made = orders(bench, "matvec", "honest/plain_matvec.py")
    assert isinstance(made.usual, Correct)
    assert isinstance(made.other, Correct)


@pytest.mark.parametrize("name", ["race_between_programs", "waits_for_the_number_before"])
def test_what_relies_on_an_order_is_wrong_in_the_other(bench: OfflineBench, name: str) -> None:
    (file,) = EXPLOITS.glob(f"cheats/*/{name}.py")
    corpus = (EXPLOITS / "corpus.toml").read_text()
    entry = corpus[corpus.index(f"{name}.py") :]
    problem = entry.split('problem = "')[1].split('"')[0]
    made = orders(bench, problem, str(file.relative_to(EXPLOITS)))
    assert isinstance(made.usual, Correct), made.usual
    assert isinstance(made.other, Wrong | Failed), made.other
