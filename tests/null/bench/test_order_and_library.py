"""What the interpreter and the driver's trace must tell: programs in any order, and kernels of a library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilesmith.bench.effort import Effort
from tilesmith.bench.exam import Orders
from tilesmith.bench.local import LocalBench, launched
from tilesmith.bench.offline import OfflineBench
from tilesmith.bench.timing import BLOCKS, alternate
from tilesmith.config import load_problem
from tilesmith.core.gpu import target
from tilesmith.core.trial import Correct, Estimate, Failed, Rejected, Unchecked, Verdict, Wrong
from tilesmith.testing.bench import judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

CHEATS = Path(__file__).parents[2] / "exploits"


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(target("h200"), jobs=1) as bench:
        yield bench


def test_programs_that_need_an_order_are_wrong(bench: OfflineBench) -> None:
    problem = load_problem(CHEATS / "problems" / "total")
    (trial,) = judge(bench, problem, [(CHEATS / "cheats/races/race_between_programs.py").read_text()])
    assert isinstance(trial.verdict, Wrong), trial.verdict


LIBRARY = SAMPLES.correct.replace("    return z\n", "    return torch.relu(z) - torch.relu(-z)\n")


def test_a_library_may_help_where_the_problem_allows_it(bench: OfflineBench) -> None:
    (refused,) = judge(bench, PROBLEM, [LIBRARY])
    assert isinstance(refused.verdict, Rejected)
    allowed = replace(PROBLEM, settings=replace(PROBLEM.settings, library=True))
    assert allowed.id != PROBLEM.id
    (trial,) = judge(bench, allowed, [LIBRARY])
    assert isinstance(trial.verdict, Correct), trial.verdict
    assert any(line.startswith("library kernel relu") and "% of the estimate" in line for line in trial.evidence)


@pytest.mark.parametrize(
    ("computed", "named"),
    [
        ("(x.cpu() @ torch.ones(x.shape[-1], 1)).to(x.device).expand(x.shape)", "mm"),
        ("torch.bincount(torch.zeros(x.numel(), device=x.device, dtype=torch.int64))", "bincount"),
    ],
)
def test_what_may_never_help(bench: OfflineBench, computed: str, named: str) -> None:
    """Neither the framework on the host, where a library is allowed, nor what makes shapes of values, where none is."""
    allowed = replace(PROBLEM, settings=replace(PROBLEM.settings, library="cpu" in computed))
    source = SAMPLES.correct.replace("    return z\n", f"    z += 0 * {computed}\n    return z\n")
    (trial,) = judge(bench, allowed, [source])
    assert isinstance(trial.verdict, Rejected), trial.verdict
    assert named in trial.verdict.reason


class Interpreter:
    """Answers with what it was given."""

    def __init__(self, usual: Verdict, usual_s: float, other: Verdict | None) -> None:
        self.made = Orders(usual, other, usual_s)

    def orders(self, _admitted: object) -> Orders:
        return self.made


RIGHT = Correct(Estimate(1.0), 0.1, 6)
LATE = Failed("timeout", "its numbers were not there within 1 s")


@pytest.mark.parametrize(
    ("usual", "usual_s", "other", "said"),
    [
        (RIGHT, 0.0, RIGHT, Correct),
        (RIGHT, 0.0, Wrong("its error"), Wrong),
        (RIGHT, 0.0, LATE, Wrong),
        (RIGHT, 0.3, LATE, Unchecked),
        (Failed("check", "no such function"), 0.0, None, Unchecked),
    ],
)
def test_a_finalist_in_any_order(usual: Verdict, usual_s: float, other: Verdict | None, said: type[Verdict]) -> None:
    """What waits for an earlier program misses its deadline in another order alone; what is slow tells nothing."""
    bench = LocalBench([SimpleNamespace()], effort=Effort(check_s=1.0))  # type: ignore[list-item]
    bench._examiner, bench._examined = Interpreter(usual, usual_s, other), PROBLEM.id  # type: ignore[assignment]
    judged = bench._race(PROBLEM, SimpleNamespace(walls=()))  # type: ignore[arg-type]
    assert isinstance(judged.verdict, said)


class Call:
    """As much of an admitted candidate as the verdict on launches needs: no kernels of its own."""

    call = ()


@pytest.mark.parametrize(
    ("calls", "library", "said"),
    [
        ([["ampere_gemm"]], False, "not its own: ampere_gemm"),
        ([["ampere_gemm"]], True, None),
        ([["ampere_gemm"], []], True, "not every call"),
        ([["FillFunctor"]], False, "not every call"),
    ],
)
def test_launches_seen_at_the_driver(calls: list[list[str]], library: bool, said: str | None) -> None:
    reply = {"launches": calls, "streams": [0], "others": []}
    verdict = launched(reply, Call(), library=library)  # type: ignore[arg-type]
    assert (verdict is None) == (said is None)
    if said:
        assert isinstance(verdict, Rejected)
        assert said in verdict.reason


def test_a_noisy_measurement_is_repeated() -> None:
    asked = []

    def batch(launches: int) -> list[float]:
        asked.append(launches)
        return [10_000.0 * (1 + 0.5 * (number % 2)) for number in range(launches)]

    noisy = alternate(batch, None, None)
    assert noisy.repeats == 2
    assert len(asked) == 1 + 3 * BLOCKS
    assert noisy.samples == sum(asked[1:])
    calm = alternate(lambda launches: [10_000.0 + number for number in range(launches)], None, None)
    assert calm.repeats == 0
