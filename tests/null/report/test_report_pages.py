"""Every page of the report, compared as text with what was reviewed."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from tilesmith.core.activity import Step
from tilesmith.core.budget import Limits, Stop
from tilesmith.core.facts import Ending
from tilesmith.core.problem import Problem, Settings
from tilesmith.core.profile import Launch
from tilesmith.core.reply import Reply, Usage
from tilesmith.core.trial import (
    Candidate,
    Correct,
    Cost,
    Direction,
    Duplicate,
    Environment,
    Estimate,
    Failed,
    Rejected,
    Timing,
    Trial,
    Unchecked,
    Wrong,
)
from tilesmith.report import document, live, tables, words
from tilesmith.report.live import Progress
from tilesmith.report.record import Agreed, RunLine, RunRecord
from tilesmith.report.winner import Provenance, winner_file, without_header

Golden = Callable[[str, str], None]

OFFLINE = Environment("offline", "h200", None, None, "2.13.0+cpu", "3.6.0", "3.11.7")
LOCAL = Environment("local", "h200", "NVIDIA H200", "580.159.04", "2.11.0+cu130", "3.6.0", "3.12.3")
LAUNCHES = (
    Launch("norm_kernel", (2048, 1, 1), 4, 3, 0, 24, 0),
    Launch("matmul_kernel", (16, 48, 1), 8, 4, 98304, 168, 2),
)
PROBLEM = Problem("rmsnorm_linear", "class Model: ...\n", Settings(dtype="fp16"))
START = Candidate("def kernel_function(x, w):\n    return x\n", "start")
TILED = Candidate("def kernel_function(x, w):\n    return x + 0\n", "rewrite:tile_n", START.id)
STAGED = Candidate("def kernel_function(x, w):\n    return x + 0 + 0\n", "rewrite:stages", TILED.id)
TRIALS = (
    Trial(START, Correct(Estimate(93.17), 0.31), "f0", LAUNCHES, None, Cost(1.5), OFFLINE, "namespaces", 0),
    Trial(TILED, Correct(Estimate(48.031), 0.3), "f1", LAUNCHES, None, Cost(1.25), OFFLINE, "namespaces", 1),
    Trial(Candidate("a", "rewrite:warps", START.id), Wrong("output 0 is [2, 3], not [3, 2]"), round=1),
    Trial(Candidate("b", "rewrite:unroll", START.id), Failed("compile", "out of\nshared memory"), round=1),
    Trial(Candidate("c", "rewrite:hint", START.id), Duplicate(START.id), round=1),
    Trial(Candidate("d", "rewrite:[bold]mask[/]", TILED.id), Rejected("it calls the reference"), round=2),
    Trial(STAGED, Correct(Estimate(31.9), 0.3), "f3", LAUNCHES, None, Cost(1.0), OFFLINE, "namespaces", 2),
    Trial(Candidate("e", "rewrite:gluon", TILED.id), Unchecked("nothing can run it", Estimate(20.0)), round=2),
)
MEASURED = replace(
    TRIALS[6],
    verdict=Correct(Timing(31.9, 31.5, 32.4, 120, START.id, 93.0), 0.3),
    cost=Cost(1.0, 0.5, 0.4),
    environment=LOCAL,
)
START_TRIAL = TRIALS[0]
MEASURED_START = replace(START_TRIAL, verdict=Correct(Timing(93.2, 92.9, 93.6, 60), 0.31), environment=LOCAL)


def way(number: int, rank: int, model: str) -> Direction:
    return Direction(number, 1, rank, model, 1)


def reply(way: Direction | str, model: str, usd: float | None, tokens: int, fault: str | None = None) -> Reply:
    key = way if isinstance(way, str) else f"{way.key}/0/p"
    return Reply(
        key, model, "text", Usage(tokens, tokens // 10, tokens // 2), usd, 12.5, 0 if fault == "aside" else 1, fault
    )


ONE, TWO, THREE = way(1, 1, "openai:a"), way(1, 2, "gate:b/c"), way(2, 1, "openai:a")
WRITTEN = Candidate("def kernel_function(x, w):\n    return x - 0\n", "openai:a", START.id, ONE, 0)
MENDED = Candidate("def kernel_function(x, w):\n    return x - 0 - 0\n", "openai:a", WRITTEN.id, THREE, 1)
BY_MODELS = (
    START_TRIAL,
    replace(TRIALS[1], candidate=WRITTEN),
    replace(TRIALS[2], candidate=Candidate("f", "gate:b/c", START.id, TWO, 0)),
    replace(TRIALS[6], candidate=MENDED),
)
REPLIES = (
    reply("analysis/f0/p", "openai:analyst", 0.25, 900),
    reply(ONE, "openai:a", 0.5, 4000),
    reply(TWO, "gate:b/c", None, 3000),
    reply(f"{TWO.key}/1/q", "gate:b/c", None, 3000, "no answer"),
    reply(THREE, "openai:a", 0.75, 4000),
    reply(f"{THREE.key}/1/q", "openai:a", 0.0009, 10),
)
ENDINGS = (Ending(ONE.key, "judged"), Ending(TWO.key, "no reply", "no answer"), Ending(THREE.key, "judged"))
MODELS_RECORD = RunRecord("01jd3k7a", "rmsnorm_linear", BY_MODELS, (Stop.INTERRUPTED, Stop.USD), REPLIES, ENDINGS)
AGREED = (Agreed("matrix_units", 3, 1, 0, 0), Agreed("wide_sums", 1, 0, 2, 1), Agreed("async_copy", 0, 0, 0, 0))
PROVENANCE = Provenance("01jd3k7a", "0.1.0", "tilesmith evaluate examples/rmsnorm_linear rmsnorm_linear_tilesmith.py")


def drawn(page: RenderableType) -> str:
    """The page as text without colours, every line without the blanks at its end."""
    console = Console(file=io.StringIO(), width=140, color_system=None, highlight=False, markup=False)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("number", range(len(TRIALS)))
def test_evaluation(golden: Golden, number: int) -> None:
    name = words.verdict_name(TRIALS[number].verdict)
    golden(f"report/evaluation-{number}-{name}.txt", drawn(tables.evaluation(TRIALS[number])))


def test_run(golden: Golden) -> None:
    golden("report/run.txt", drawn(tables.run(RunRecord("01jd3k7a", "rmsnorm_linear", TRIALS, (Stop.ROUNDS,)))))


def test_run_without_trials(golden: Golden) -> None:
    golden("report/run-empty.txt", drawn(tables.run(RunRecord("01jd3k7a", "rmsnorm_linear", (), ()))))


def test_run_with_models(golden: Golden) -> None:
    golden("report/run-models.txt", drawn(tables.run(MODELS_RECORD)))


def test_agreement(golden: Golden) -> None:
    golden("report/agreement.txt", drawn(tables.agreement(AGREED)))


def test_runs(golden: Golden) -> None:
    lines = (
        RunLine("01jd3k7a", "rmsnorm_linear", 8, TRIALS[6], Stop.ROUNDS, False),
        RunLine("01jd3k7b", "matvec", 3, MEASURED, None, True),
        RunLine("01jd3k7c", "matvec", 0, None, None, False),
        RunLine("01jd3k7d", "matvec", 90, MEASURED, Stop.USD, False, 12.345, 1_234_567),
        RunLine("01jd3k7e", "matvec", 90, MEASURED, Stop.ROUNDS, False, 0.0, 4_567),
    )
    golden("report/runs.txt", drawn(tables.runs(lines)))


@pytest.mark.parametrize("seen", [0, 1, 8])
def test_progress(golden: Golden, seen: int) -> None:
    limits = Limits(rounds=3, trials=20, seconds=90.0, gpu_seconds=30.0)
    progress = Progress("rmsnorm_linear", "01jd3k7a", "offline", limits, TRIALS[:seen], 75.4)
    golden(f"report/progress-{seen}.txt", drawn(live.Panel()(progress)))


def test_log(golden: Golden) -> None:
    progress = Progress("rmsnorm_linear", "01jd3k7a", "offline", Limits(), TRIALS, 3.2)
    lines = [live.line(replace(progress, trials=TRIALS[: seen + 1])) for seen in range(len(TRIALS))]
    golden("report/log.txt", "".join(f"{line}\n" for line in [*lines, live.left(progress)]))


@pytest.mark.parametrize(("seen", "replied", "ended"), [(0, 0, 0), (1, 0, 0), (2, 3, 1), (4, 6, 3)])
def test_progress_with_models(golden: Golden, seen: int, replied: int, ended: int) -> None:
    limits = Limits(rounds=2, seconds=3600.0, gpu_seconds=600.0, usd=2.5, tokens=1_000_000)
    now = Progress(
        "rmsnorm_linear", "01jd3k7a", "local", limits, BY_MODELS[:seen], 75.4, REPLIES[:replied], ENDINGS[:ended], 2
    )
    golden(f"report/progress-models-{seen}.txt", drawn(live.Panel()(now)) + live.status(now) + "\n")


def test_winner_by_a_model(golden: Golden) -> None:
    text = winner_file(PROBLEM, BY_MODELS[-1], BY_MODELS, PROVENANCE, REPLIES)
    golden("report/winner-model.txt", text)
    assert without_header(text) == MENDED.source


@pytest.mark.parametrize(("name", "best"), [("estimated", TRIALS[6]), ("measured", MEASURED)])
def test_winner(golden: Golden, name: str, best: Trial) -> None:
    first = MEASURED_START if best is MEASURED else START_TRIAL
    golden(f"report/winner-{name}.txt", winner_file(PROBLEM, best, [first, *TRIALS[1:6], best], PROVENANCE))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evaluation", document.evaluation(TRIALS[1])),
        ("optimization", document.optimization(RunRecord("01jd3k7a", "p", TRIALS, (Stop.ROUNDS,)), "there.py")),
        ("nothing-found", document.optimization(RunRecord("01jd3k7a", "p", TRIALS[3:4], (Stop.START,)), None)),
        ("with-models", document.optimization(MODELS_RECORD, "there.py", AGREED)),
        ("show-models", document.run(MODELS_RECORD)),
        ("fault", document.fault("the disk is full")),
    ],
)
def test_documents(golden: Golden, name: str, text: str) -> None:
    golden(f"report/{name}.json", json.dumps(json.loads(text), indent=2) + "\n")


def test_an_estimate_is_not_compared_with_a_measurement() -> None:
    assert words.gain(TRIALS) == pytest.approx(93.17 / 31.9)
    assert words.gain([TRIALS[0], MEASURED]) is None
    assert "times as fast" not in winner_file(PROBLEM, MEASURED, [TRIALS[0], MEASURED], PROVENANCE)


def test_only_what_is_correct_has_a_file() -> None:
    with pytest.raises(ValueError, match="not correct"):
        winner_file(PROBLEM, TRIALS[2], TRIALS, PROVENANCE)


@given(name=st.text(), run=st.text(), origin=st.text(), gpu=st.text())
def test_no_words_escape_from_the_header(name: str, run: str, origin: str, gpu: str) -> None:
    hostile = replace(TRIALS[6], candidate=replace(STAGED, origin=origin), environment=replace(LOCAL, gpu=gpu))
    text = winner_file(replace(PROBLEM, name=name), hostile, TRIALS, replace(PROVENANCE, run=run, reproduce=name))
    assert without_header(text) == STAGED.source
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(STAGED.source))
    encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)
    assert encoding == "utf-8"


def test_a_header_can_name_no_encoding() -> None:
    text = winner_file(replace(PROBLEM, name="coding: rot13"), TRIALS[6], TRIALS, PROVENANCE)
    assert tokenize.detect_encoding(io.BytesIO(text.encode()).readline)[0] == "utf-8"


def test_a_header_does_not_pile_up() -> None:
    once = winner_file(PROBLEM, TRIALS[6], TRIALS, PROVENANCE)
    again = replace(TRIALS[6], candidate=replace(STAGED, source=once))
    assert winner_file(PROBLEM, again, [*TRIALS, again], PROVENANCE).count("Found by Tilesmith") == 1


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()), st.lists)
)
def test_documents_are_strict(value: object) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = document.text({"value": value})
    assert "\n" not in text
    assert document.text(json.loads(text, parse_constant=refuse)) == text


def test_what_is_not_finite_is_null() -> None:
    assert json.loads(document.text({"a": math.nan, "b": [math.inf], "c": "\ud800"})) == {
        "a": None,
        "b": [None],
        "c": "?",
    }


@pytest.mark.parametrize(
    ("time_us", "told"),
    [(0.5, "0.5 µs"), (41.234, "41.23 µs"), (975.31, "975.3 µs"), (1018.0, "1.018 ms"), (2.5e6, "2.5 s")],
)
def test_micros(time_us: float, told: str) -> None:
    assert words.micros(time_us) == told


@pytest.mark.parametrize(("spent_s", "told"), [(8.9, "8 s"), (200, "3 min 20 s"), (7505, "2 h 5 min")])
def test_seconds(spent_s: float, told: str) -> None:
    assert words.seconds(spent_s) == told


STEPS = (
    Step("c1", "capturing", "openai:a"),
    Step("c2", "queued", "gate:b/c"),
    Step("c3", "judging", "openai:a", "0", exclusive=True),
    Step("c4", "judging", "gate:b/c", "1"),
    Step("c5", "judging", "openai:a", "1"),
)


def busy() -> Progress:
    limits = Limits(rounds=2, seconds=3600.0, usd=2.5)
    pool = (("matrix_units, wide_sums", 2), ("async_copy", 1), ("masked_edges", 1), ("split_reduction", 1))
    trials = (MEASURED_START, MEASURED, *TRIALS[2:6])
    return Progress(
        "rmsnorm_linear", "01jd3k7a", "local", limits, trials, 75.4, REPLIES, ENDINGS, 12, STEPS, ("0", "1", "2"), pool
    )


def test_a_busy_run(golden: Golden) -> None:
    golden("report/progress-busy.txt", drawn(live.Panel()(busy())))


@pytest.mark.parametrize("width", [24, 40, 80])
def test_a_narrow_terminal_is_calm(width: int) -> None:
    """Nothing is cut off without a word, nothing is wider than the screen, and names stay where they are."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    console.print(live.Panel()(busy()))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for name in ("directions", "GPU 0", "GPU 2", "best", "pool", "models", "left"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1


def test_of_many_gpus_those_in_use_come_first() -> None:
    devices = tuple(f"node-{at}/{n}" for at in range(4) for n in range(8))
    steps = [Step(f"c{at}", "judging", f"by:{at}", devices[at]) for at in (3, 17, 31)]
    told = live.rows(replace(busy(), devices=devices, steps=steps))
    names = [name for name, _ in told]
    first = names.index("GPU node-0/3")
    assert [words for _, words in told[first : first + 4]] == [
        "checking by:3",
        "checking by:17",
        "checking by:31",
        "idle",
    ]
    assert sum(name.startswith("GPU ") for name in names) == live.GPU_ROWS
    assert ("", f"and {32 - live.GPU_ROWS} GPUs more, {32 - live.GPU_ROWS} of them idle") in told


def test_a_panel_shows_what_is_new_at_once() -> None:
    panel, now = live.Panel(lambda: 0.0), busy()
    assert drawn(panel(now)) == drawn(live.Panel()(now))
    later = replace(now, trials=(*now.trials, TRIALS[7]), steps=STEPS[:2], spent_s=90.0)
    assert drawn(panel(later)) == drawn(live.Panel()(later))
    assert drawn(panel(later)) != drawn(panel(now))


def test_a_panel_that_has_much_to_work_out_does_so_less_often() -> None:
    ticks = iter(range(10_000))
    panel, now = live.Panel(lambda: float(next(ticks))), busy()
    first = drawn(panel(now))
    later = replace(now, trials=(*now.trials, TRIALS[7]))
    # Working it out took one tick of this clock, so the next time is hundreds of ticks away.
    assert drawn(panel(later)) == first
    for _ in range(int(1 / live.SHARE)):
        next(ticks)
    assert drawn(panel(later)) == drawn(live.Panel()(later))


def printed(page: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_can_be_read_on_any_screen(width: int) -> None:
    """Whole ids and whole times; on a narrow screen each row is a list."""
    record = RunRecord("01jd3k7axyz", "rmsnorm_linear", TRIALS, (Stop.ROUNDS,))
    for page in (
        tables.run(record),
        tables.trials(TRIALS),
        tables.runs([RunLine("01jd3k7axyz", "rmsnorm_linear", 7, TRIALS[0], Stop.ROUNDS, False)]),
    ):
        lines = printed(page, width)
        assert max(map(len, lines)) <= width
        assert not any("…" in line for line in lines)
    assert any("01jd3k7axyz" in line for line in lines)
    assert any("93.2 µs" in line or "measured" in line or "estimated" in line for line in lines)


def test_a_column_that_says_nothing_is_left_out() -> None:
    head = printed(tables.trials([TRIALS[0]]), 200)[0]
    assert "origin" in head
    assert "because" not in head


def test_words_of_others_cannot_move_a_terminal() -> None:
    evil = "a\x1b[2Jb\u202ec\x00d\x07\u2028e"
    trial = replace(TRIALS[0], verdict=Wrong(f"one\n{evil}"), protection=evil, evidence=(evil,))
    record = RunRecord("r", evil, [trial], (Stop.ROUNDS,))
    for page in (tables.evaluation(trial), tables.run(record)):
        text = "\n".join(printed(page, 80))
        assert all(character.isprintable() or character == "\n" for character in text)
    assert words.harmless(f"one\n{evil}") == "one\na [2Jb c d  e"
