"""Problems that cannot be used and candidates that misbehave: one sentence, the right verdict, and no harm done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.bench.effort import Effort
from tilesmith.bench.offline import OfflineBench
from tilesmith.core.errors import ProblemError
from tilesmith.core.gpu import target
from tilesmith.core.trial import Correct, Failed, Rejected, Verdict, Wrong
from tilesmith.testing.bench import judge
from tilesmith.testing.samples import PROBLEM, SAMPLES

pytestmark = pytest.mark.triton

RETURN = "    return z\n"


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(
        target("h200"), jobs=2, effort=Effort(capture_s=20.0, check_s=20.0, full_s=20.0, sets=1)
    ) as bench:
        yield bench


def returning(expression: str) -> str:
    """The correct kernel with another answer."""
    return SAMPLES.correct.replace(RETURN, f"    return {expression}\n")


def doing(statement: str) -> str:
    """The correct kernel with something done before it returns."""
    return SAMPLES.correct.replace(RETURN, f"    {statement}\n{RETURN}")


def importing(statements: str) -> str:
    """The correct kernel with something done when it is imported."""
    return f"{statements}\n{SAMPLES.correct}"


def shown(verdict: Verdict) -> str:
    match verdict:
        case Wrong(message) | Failed(_, message):
            return message
        case Rejected(reason):
            return reason
    return ""


# Problems ------------------------------------------------------------------------------------------------------------

PROBLEMS = {
    # what is wrong: what replaces the problem's parts, and a word of the sentence
    "a reference that returns NaN": ("def forward(self, x, y): return (x - 100).sqrt() + y", "NaN"),
    "a reference that returns infinity": ("def forward(self, x, y): return x / 0", "infinity"),
    "a reference that raises": ("def forward(self, x, y): raise KeyError('its word')", "its word"),
    "a reference that returns nothing": ("def forward(self, x, y): pass", "no tensor"),
    "a reference of other arguments": ("def forward(self, x): return x", "positional argument"),
}


@pytest.mark.parametrize(("forward", "told"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_reference_that_cannot_be_used(bench: OfflineBench, forward: str, told: str) -> None:
    source = f"{PROBLEM.source}\n\nclass Model(nn.Module):\n    {forward}\n"
    refused(bench, source, told)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("import a_module_that_nobody_has", "a_module_that_nobody_has"),
        ("def get_inputs(): return torch.randn(N)", "must return a list"),
        ("def get_inputs(): return {'x': torch.randn(N)}", "must return a list"),
        ("def get_inputs(): return None", "NoneType"),
        ("def get_init_inputs(): return 3", "must return a list"),
        ("def get_init_inputs(): return ['too', 'many']", "Model"),
        ("class Model: pass", "Model"),
        ("def get_inputs(): return [torch.randn(1 << 50), torch.randn(1 << 50)]", "memory"),
        ("import sys; sys.exit(3)", "SystemExit"),
    ],
)
def test_a_problem_that_cannot_be_used(bench: OfflineBench, lines: str, told: str) -> None:
    refused(bench, f"{PROBLEM.source}\n\n{lines}\n", told)


def refused(bench: OfflineBench, source: str, told: str) -> None:
    with pytest.raises(ProblemError) as caught:
        judge(bench, replace(PROBLEM, source=source), [SAMPLES.correct])
    sentence = str(caught.value)
    assert told in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence


def test_the_bench_goes_on_after_all_of_them(bench: OfflineBench) -> None:
    [trial] = judge(bench, PROBLEM, [SAMPLES.correct])
    assert isinstance(trial.verdict, Correct)


# Answers of another form ---------------------------------------------------------------------------------------------

ANSWERS = {
    "one element short": (returning("torch.empty(n - 1, device=x.device, dtype=x.dtype)"), "[4999]"),
    "one dimension more": (returning("z.unsqueeze(0)"), "[1, 5000]"),
    "another dtype": (SAMPLES.correct.replace("empty_like(x)", "empty_like(x, dtype=torch.float16)"), "float16"),
    "on the CPU": (returning("torch.zeros(n)"), "cpu"),
    "in a list": (returning("[z]"), "float32"),
    "one output more": (returning("(z, z)"), "float32"),
    "nothing": (returning("None"), "None"),
    "a number": (returning("3.5"), "3.5"),
}


def test_answers_of_another_form_are_wrong(bench: OfflineBench) -> None:
    trials = judge(bench, PROBLEM, [source for source, _ in ANSWERS.values()])
    verdicts = {name: trial.verdict for name, trial in zip(ANSWERS, trials, strict=True)}
    assert {name: verdict for name, verdict in verdicts.items() if not isinstance(verdict, Wrong)} == {}
    unsaid = [name for name, (_, told) in ANSWERS.items() if told not in shown(verdicts[name])]
    assert unsaid == []
    assert all(trial.time_us is None for trial in trials)


NUMBERS = {
    "half of it": SAMPLES.correct.replace("(triton.cdiv(n, 256),)", "(triton.cdiv(n, 512),)"),
    "a little more": SAMPLES.correct.replace("2.0 * x + y", "2.001 * x + y"),
    "NaN": SAMPLES.correct.replace("2.0 * x + y", "2.0 * x + y + float('nan')"),
    "one element": SAMPLES.correct.replace("2.0 * x + y", "2.0 * x + y + tl.where(at == 3, 1.0, 0.0)"),
}


def test_wrong_numbers_are_wrong(bench: OfflineBench) -> None:
    trials = judge(bench, PROBLEM, list(NUMBERS.values()))
    kinds = {name: type(trial.verdict) for name, trial in zip(NUMBERS, trials, strict=True)}
    assert kinds == dict.fromkeys(NUMBERS, Wrong)
    errors = [trial.verdict.error for trial in trials if isinstance(trial.verdict, Wrong)]
    assert all(error is None or error > 1 for error in errors)


def test_returning_an_input_is_wrong(bench: OfflineBench) -> None:
    """The kernel runs, and the answer is that of somebody else."""
    [trial] = judge(bench, PROBLEM, [returning("x")])
    assert isinstance(trial.verdict, Wrong), trial.verdict


# Processes that misbehave --------------------------------------------------------------------------------------------

HARM = {
    # what; its source; the stages that may be told
    "it ends its process": (doing("import os; os._exit(0)"), {"crash"}),
    "it exits": (doing("raise SystemExit(0)"), {"capture", "crash"}),
    "it kills itself": (doing("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {"crash"}),
    "it kills its group": (doing("import os, signal; os.killpg(0, signal.SIGKILL)"), {"crash"}),
    "it exits at import": (importing("raise SystemExit(0)"), {"import", "crash"}),
    "its import never ends": (importing("while True:\n    pass"), {"timeout"}),
    "it closes every descriptor": (doing("import os; os.closerange(0, 1000)"), {"crash", "capture", "compile"}),
    "it calls itself for ever": (doing("kernel_function(x, y)"), {"capture", "crash", "memory", "timeout", "compile"}),
    "it wants more memory than there is": (doing("b = bytearray(1 << 45)"), {"memory"}),
    "it lacks a module": (importing("import a_module_that_nobody_has"), {"import"}),
    "its kernel does not compile": (SAMPLES.correct.replace("2.0 * x + y", "tl.nothing(x)"), {"compile"}),
    "its launch lacks an argument": (SAMPLES.correct.replace("n, BLOCK=256", "BLOCK=256"), {"capture", "compile"}),
}


def test_what_harms_its_process_costs_that_candidate_alone(bench: OfflineBench) -> None:
    sources = [source for source, _ in HARM.values()]
    began = time.monotonic()
    *trials, last = judge(bench, PROBLEM, [*sources, SAMPLES.correct])
    assert time.monotonic() - began < 240
    verdicts = {name: trial.verdict for name, trial in zip(HARM, trials, strict=True)}
    assert {name: verdict for name, verdict in verdicts.items() if not isinstance(verdict, Failed | Rejected)} == {}
    stages = {name: verdict.stage for name, verdict in verdicts.items() if isinstance(verdict, Failed)}
    assert {name: stage for name, stage in stages.items() if stage not in HARM[name][1]} == {}
    assert all(shown(verdict) for verdict in verdicts.values())
    assert isinstance(last.verdict, Correct)


# Through the command -------------------------------------------------------------------------------------------------


NOISE = importing("""
for _ in range(50):
    print("x" * (1 << 20), flush=True)
""")


def evaluate(folder: Path, problem: str, kernel: str) -> tuple[int, dict[str, object], str]:
    """Exit status, the document, and what was said beside it, of `tilesmith evaluate --json` in a real process."""
    (folder / "problem.py").write_text(problem)
    (folder / "mine.py").write_text(kernel)
    command = [
        sys.executable,
        "-m",
        "tilesmith.cli",
        "evaluate",
        "problem.py",
        "mine.py",
        "--json",
        "--bench",
        "offline",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_noisy_kernel_leaves_one_object_on_stdout(tmp_path: Path) -> None:
    status, document, errors = evaluate(tmp_path, PROBLEM.source, NOISE)
    assert (status, document["verdict"]) == (0, "correct")
    assert "xxxx" not in errors


def test_a_reference_that_returns_nan_is_no_verdict(tmp_path: Path) -> None:
    problem = PROBLEM.source.replace("2.0 * x + y", "(x - 100).sqrt()")
    status, document, errors = evaluate(tmp_path, problem, SAMPLES.correct)
    assert (status, document["verdict"]) == (2, None)
    assert "NaN" in str(document["message"])
    assert errors.count("\n") == 1
