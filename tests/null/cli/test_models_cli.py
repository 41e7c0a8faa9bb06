"""A run with models as its user sees it: a process of its own, a real provider's server, the real journal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_fakes import PROBLEM, Answer, kernel

from tilesmith.cli import screen
from tilesmith.core.budget import Limits
from tilesmith.core.reply import Reply, Usage
from tilesmith.journal import open_store
from tilesmith.propose.taxonomy import default
from tilesmith.report.live import Progress
from tilesmith.testing.provider import Asked, Behaviour, ProviderServer
from tilesmith.testing.provider_replies import plain

FAKES = Path(__file__).parent
KEY = "sk-live-4f9a1c77d2e84b06"
SHAPE = ("--preset", "beam", "--rounds", "2", "--max-output-tokens", "100", "--models", "gate:a,gate:b")
"""Two rounds of 2 × 2 × 2 × 1 = 8 directions."""
TOLD = Usage(900, 100)
CALL_USD = 1.0
SCRIPT = f"""
    import sys
    from contextlib import nullcontext
    sys.path.insert(0, {str(FAKES)!r})
    from cli_fakes import WordBench
    from tilesmith.cli import main, rooms

    rooms.bench = lambda *_: nullcontext(WordBench())
    rooms.gpus.find = tuple
    sys.exit(main(sys.argv[1:]))
"""


def quick(asked: Asked) -> Behaviour:
    """Another kernel for every question, the faster the later."""
    return Behaviour(plain(kernel(str(60.0 - asked.number))), usage=TOLD)


class Place:
    """A folder with a problem in it, a provider whose behaviour can be changed, and commands run there."""

    def __init__(self, folder: Path, server: ProviderServer) -> None:
        self.folder, self.server = folder, server
        self.behaviour: Callable[[Asked], Behaviour] = quick
        self.environment = {**os.environ, "GATE_KEY": KEY, "HOME": str(folder)}

    def behaves(self, asked: Asked) -> Behaviour:
        return self.behaviour(asked)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), *words],
            cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> Answer:
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err
        return Answer(process.returncode, out, err)

    def run(self, *words: str) -> Answer:
        return self.end(self.begin(*words))

    def optimize(self, *words: str) -> subprocess.Popen[str]:
        return self.begin("optimize", "toy", "--bench", "offline", "--models-file", "models.yaml", *SHAPE, *words)

    def recorded(self) -> tuple[int, list[Reply]]:
        """Trials and replies of the last run so far."""
        if not (self.folder / "tilesmith.db").exists():
            return 0, []
        with open_store(self.folder / "tilesmith.db") as store:
            runs = store.runs()
            return (runs[-1].trials, list(store.run(runs[-1].id).facts(Reply))) if runs else (0, [])

    def until(self, true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 50
        while not true():
            assert process.poll() is None, self.end(process)
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    (folder / "toy").mkdir()
    (folder / "toy" / "problem.py").write_text(PROBLEM)
    (folder / "toy" / "kernel.py").write_text(kernel("64.0"))
    with ProviderServer(lambda asked: here.behaves(asked), ("a", "b", "c"), {KEY}) as server:  # noqa: PLW0108 (later)
        here = Place(folder, server)
        prices = "".join(f"  gate:{name}: {{input: 1000, output: 1000}}\n" for name in "abc")
        (folder / "models.yaml").write_text(
            f"providers:\n  gate:\n    base_url: {server.openai_url}\n    key_env: GATE_KEY\nprices:\n{prices}"
        )
        yield here


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with opened(tmp_path) as place:
        yield place


def nowhere(place: Place, *answers: Answer) -> None:
    """The key stands in no answer, no log, no file that a run wrote, and no prompt."""
    for answer in answers:
        assert KEY not in answer.out + answer.err
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("tilesmith.db") for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert {asked.key for asked in place.server.asked} <= {KEY}
    assert not [asked for asked in place.server.asked if any(KEY in turn for turn in asked.prompt.turns)]


def test_a_whole_run_and_its_bill(place: Place) -> None:
    answer = place.end(place.optimize("--json"))
    document = answer.document
    assert (answer.status, document["verdict"], document["stop"], document["trials"]) == (0, "correct", "rounds", 17)
    costs = document["costs"]
    assert (costs["usd"], costs["tokens"]) == (pytest.approx(16 * CALL_USD), 16 * TOLD.tokens)
    assert {row["model"]: (row["calls"], row["faults"], row["proposals"]) for row in costs["models"]} == {
        "gate:a": (8, 0, 8),
        "gate:b": (8, 0, 8),
    }
    assert sum(row["usd"] for row in costs["models"]) == pytest.approx(costs["usd"])
    assert [(row["round"], row["trials"], row["directions"]) for row in costs["rounds"]] == [
        (0, 1, {}),
        (1, 8, {"judged": 8}),
        (2, 8, {"judged": 8}),
    ]
    assert min(row["best_us"] for row in costs["models"]) == document["best"]["estimate_us"]
    assert all(0 < row["improved"] <= row["correct"] == 8 for row in costs["models"])
    assert document["agreement"] is None
    written = Path(document["best"]["path"]).read_text()
    assert f"# model      {document['best']['origin']} (round 2, parent " in written
    assert "the whole run 16.00 USD, 16,000 tokens, 16 calls" in written
    nowhere(place, answer)


def test_people_are_told_the_same(place: Place) -> None:
    answer = place.end(place.optimize())
    assert "models: 16.00 USD, 16,000 tokens, 16 calls" in answer.out
    assert "  gate:b: 8.00 USD, 8,000 tokens, 8 calls: 8 kernels, 8 correct, " in answer.out
    listed = place.run("runs")
    assert "16.00 USD" in listed.out
    [line] = place.run("runs", "--json").document["runs"]
    assert (line["usd"], line["tokens"]) == (pytest.approx(16.0), 16_000)
    shown = place.run("show", line["run"])
    assert "models   16.00 USD, 16,000 tokens, 16 calls" in shown.out
    assert "8 judged" in shown.out
    nowhere(place, answer, listed, shown)


def halting(at: int) -> Callable[[Asked], Behaviour]:
    """The first `at` questions are answered, all others keep their askers waiting."""
    return lambda asked: quick(asked) if asked.number < at else Behaviour("", latency_s=600.0)


def test_ctrl_c_and_resume(place: Place) -> None:
    place.behaviour = halting(11)
    process = place.optimize("--json")
    # The first round is complete, of the second three directions are, and five models think.
    place.until(lambda: place.recorded()[0] == 12 and place.server.in_flight == 5, process)
    process.send_signal(signal.SIGINT)
    interrupted = place.end(process)
    document = interrupted.document
    assert (interrupted.status, document["stop"], document["trials"]) == (0, "interrupted", 12)
    assert document["best"]["estimate_us"] == 50.0
    assert Path(document["best"]["path"]).exists()
    assert document["costs"]["usd"] == pytest.approx(11 * CALL_USD)
    shown = place.run("show", document["run"], "--json").document
    assert shown["costs"] == document["costs"], "an unfinished run reads the same"

    place.behaviour = quick
    before, paid = len(place.server.asked), {reply.key for reply in place.recorded()[1]}
    resumed = place.run("resume", document["run"], "--json")
    again = resumed.document
    assert (resumed.status, again["stop"], again["trials"], again["run"]) == (0, "rounds", 17, document["run"])
    assert len(place.server.asked) - before == 5, "only what nobody had answered is asked again"
    keys = [reply.key for reply in place.recorded()[1]]
    assert len(keys) == len(set(keys)) == 16
    assert paid < set(keys)
    assert again["costs"]["usd"] == pytest.approx(16 * CALL_USD)
    assert [row["directions"] for row in again["costs"]["rounds"]] == [{}, {"judged": 8}, {"judged": 8}]
    assert place.run("show", document["run"], "--json").document["stops"] == ["interrupted", "rounds"]
    nowhere(place, interrupted, resumed)


def test_a_killed_run_shows_what_it_cost_and_goes_on(place: Place) -> None:
    place.behaviour = halting(5)
    process = place.optimize()
    place.until(lambda: place.recorded()[0] == 6 and place.server.in_flight == 3, process)
    process.kill()
    process.communicate(timeout=60)
    [line] = place.run("runs", "--json").document["runs"]
    assert (line["stop"], line["live"], line["usd"], line["tokens"]) == (None, False, pytest.approx(5.0), 5_000)
    place.behaviour = quick
    assert place.run("resume", line["run"], "--json").document["costs"]["usd"] == pytest.approx(16.0)


def test_ctrl_c_tells_people_the_best_so_far(place: Place) -> None:
    place.behaviour = halting(3)
    process = place.optimize()
    place.until(lambda: place.recorded()[0] == 4 and place.server.in_flight == 5, process)
    process.send_signal(signal.SIGINT)
    answer = place.end(process)
    assert answer.status == 0
    assert "stopped: interrupted" in answer.out
    assert "best: 58 µs estimated, 1.10 times as fast as the start kernel" in answer.out
    assert "models: 3.00 USD, 3,000 tokens, 3 calls" in answer.out


def test_ctrl_c_before_anything_was_found(place: Place) -> None:
    (place.folder / "toy" / "kernel.py").unlink()
    place.behaviour = halting(0)
    process = place.optimize("--json")
    place.until(lambda: place.server.in_flight == 8, process)
    process.send_signal(signal.SIGINT)
    answer = place.end(process)
    assert (answer.status, answer.document["best"], answer.document["stop"]) == (1, None, "interrupted")
    assert answer.document["message"] == "nothing was judged: interrupted"
    nowhere(place, answer)


def test_a_budget_in_money_holds_over_both_parts_of_a_run(place: Place) -> None:
    first = place.end(place.optimize("--json", "--budget-usd", "12")).document
    asked = len(place.server.asked)
    assert first["costs"]["usd"] == pytest.approx(asked * CALL_USD)
    assert 0 < first["costs"]["usd"] <= 12
    assert sum(row["directions"].get("unpaid", 0) for row in first["costs"]["rounds"]) > 0
    same = place.run("resume", first["run"])
    assert same.status == 0
    assert len(place.server.asked) <= 12
    assert "a budget had no room for the next call" in same.out
    more = place.run("resume", first["run"], "--json", "--budget-usd", "4000").document
    assert more["stop"] == "rounds"
    assert more["costs"]["rounds"][-1]["directions"] == {"judged": 8}
    assert more["costs"]["usd"] == pytest.approx(len(place.server.asked) * CALL_USD), "nothing was paid for twice"
    assert len(place.recorded()[1]) == len(place.server.asked)


REFUSED = [
    # the words; what is told
    ("--models gate:a,gat:b", "gate"),
    ("--models gate:nobody", "nobody"),
    ("--models gate:a --budget-usd -1", "--budget-usd"),
    ("--models gate:a --candidate-pool-size 0", "candidate_pool_size"),
    ("--models gate:a --preset beem", "beam"),
    ("--models gate:a --preset no/preset.yaml", "no/preset.yaml"),
    ("--models anthropic:claude-opus-5-5", "ANTHROPIC_API_KEY"),
    ("--models gate:d --budget-usd 5", "gate:d"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_a_fault_costs_nothing(place: Place, words: str, told: str) -> None:
    place.environment.pop("ANTHROPIC_API_KEY", None)
    answer = place.end(place.optimize("--json", *words.split()))
    assert answer.status == 2
    assert told in answer.document["message"]
    assert place.server.asked == ()
    assert KEY not in answer.out + answer.err


def test_a_key_that_the_provider_repeats_is_told_to_nobody(place: Place) -> None:
    """Providers quote the key that they refuse; some quote it in other errors too."""
    wrong = f"{KEY}-and-more"
    place.environment["GATE_KEY"] = wrong
    answer = place.end(place.optimize("--json"))
    assert answer.status == 2
    assert "GATE_KEY" in answer.document["message"]
    assert KEY not in answer.out + answer.err
    assert not list(place.folder.glob("tilesmith.db*"))

    place.environment["GATE_KEY"] = KEY
    place.behaviour = lambda _: Behaviour(status=400, message=f"key {KEY} may not do this")
    answer = place.end(place.optimize("--json"))
    assert (answer.status, answer.document["stop"]) == (0, "exhausted")
    assert all(row["faults"] == row["calls"] > 0 for row in answer.document["costs"]["models"])
    assert answer.document["costs"]["rounds"][1]["directions"] == {"no reply": 8}
    assert "set aside" in answer.err
    nowhere(place, answer)


def test_both_classifiers_are_compared_at_the_end(place: Place) -> None:
    names = default().names

    def classify(asked: Asked) -> Behaviour:
        if asked.model != "c":
            return quick(asked)
        return Behaviour(json.dumps(dict.fromkeys(names, 0)), usage=TOLD)

    place.behaviour = classify
    words = ("--technique-clustering", "--classifier", "both", "--classifier-model", "gate:c")
    document = place.end(place.optimize("--json", *words)).document
    rows = {row["technique"]: row for row in document["agreement"]}
    shown = {entry.name for entry in default().entries if entry.shows}
    assert rows.keys() == shown
    kernels = {row["both"] + row["neither"] + row["only_compiled"] + row["only_model"] for row in rows.values()}
    classifier = next(row for row in document["costs"]["models"] if row["model"] == "gate:c")
    assert kernels == {classifier["calls"]}, "every kernel that the model was asked about"
    assert classifier["proposals"] == 0
    text = place.run("resume", document["run"]).out
    assert "only the model sees it" in text
    assert "matrix_units" in text


def test_a_model_without_a_price_is_said_to_have_none(tmp_path: Path) -> None:
    with opened(tmp_path) as place:
        path = tmp_path / "models.yaml"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "gate:b" not in line))
        document = place.end(place.optimize("--json")).document
        assert {row["model"]: row["usd"] for row in document["costs"]["models"]} == {"gate:a": 8.0, "gate:b": None}
        assert document["costs"]["usd"] == pytest.approx(8.0)
        page = place.run("show", document["run"]).out
        assert "at least 8.00 USD" in page
        assert "the price of gate:b is not known" in page


def test_recorded_replies_cost_nothing(place: Place) -> None:
    replies = [{"text": plain(kernel(f"{30 + number}.0"))} for number in range(4)]
    (place.folder / "mine.jsonl").write_text("\n".join(map(json.dumps, replies)))
    words = ("optimize", "toy", "--bench", "offline", "--models", "replay:mine.jsonl", "--rounds", "2", "--json")
    answer = place.run(*words)
    document = answer.document
    assert (answer.status, document["best"]["origin"]) == (0, "replay:mine.jsonl")
    assert (document["best"]["estimate_us"], document["costs"]["usd"], document["costs"]["tokens"]) == (30.0, 0.0, 0)
    assert document["costs"]["rounds"][2]["directions"] == {"known": 4}
    assert place.server.asked == ()


def test_a_log_says_how_models_are_getting_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen, "PULSE_S", 0.01)
    reply = Reply("1/1/1/gate:a/1/0/p", "gate:a", "", TOLD, 1.0)
    now = Progress("toy", "01jd3k7a", "offline", Limits(usd=5.0), (), 75.0, (reply,), (), 8)
    err = ""
    with screen.watching(lambda: now):
        deadline = time.monotonic() + 20
        while "8 under way" not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capsys.readouterr().err
    line = err.splitlines()[0]
    assert line == "round 1, directions: 0 of 8 ended, 8 under way, 1.00 USD, 1,000 tokens; left: 4.00 USD"


def test_a_terminal_shows_the_bill_and_keeps_what_was_said_meanwhile() -> None:
    script = """
        import time
        from tilesmith.cli import screen
        from tilesmith.core.budget import Limits
        from tilesmith.core.reply import Reply, Usage
        from tilesmith.report.live import Progress

        reply = Reply("1/1/1/gate:a/1/0/p", "gate:a", "", Usage(900, 100), 1.0)
        now = Progress("toy", "01jd3k7a", "offline", Limits(usd=5.0), (), 75.0, (reply,), (), 8)
        with screen.watching(lambda: now):
            time.sleep(0.6)
            screen.say("gate:b failed 5 times in a row and is set aside")
            time.sleep(0.6)
    """
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "TERM": "xterm"}, stderr=slave, stdout=subprocess.DEVNULL, timeout=60, check=True,
    )  # fmt: skip
    os.close(slave)
    drawn = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "0 of 8 ended, 8 under way" in drawn
    assert "1 min 15 s, 1.00 USD, 1,000 tokens" in drawn
    assert "4.00 USD" in drawn
    said = drawn.index("gate:b failed")
    # A line of its own: what is drawn next is the panel below it, and nothing goes up to erase it.
    assert drawn[said:].split("\r\n")[0] == "gate:b failed 5 times in a row and is set aside"
    assert drawn[said:].split("\r\n")[1].startswith("\x1b[2mproblem")


def test_a_wrong_name_is_told_before_anything_is_written(place: Place) -> None:
    answer = place.end(place.optimize("--models", "gate:d", "--json"))
    assert answer.status == 2
    assert "unknown model gate:d" in answer.document["message"]
    assert not list(place.folder.glob("tilesmith.db*"))
