"""`report`, `serve`, `compare` and `export`, as commands."""

from __future__ import annotations

import csv
import html
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_fakes import Answer
from pyarrow import parquet

from tilesmith.cli.options import Options
from tilesmith.cli.report import chronicle
from tilesmith.cli.serve import Desk, handler, loopback
from tilesmith.core.budget import Stop
from tilesmith.core.trial import Candidate, Correct, Estimate, Trial
from tilesmith.journal import Run, RunOptions, open_store
from tilesmith.testing.history import history, recorded

Command = Callable[..., Answer]


@pytest.fixture
def run(tilesmith: Command) -> str:
    """A finished run of the toy problem, its id."""
    assert tilesmith("optimize", "toy", "--rounds", "2").status == 0
    return str(tilesmith("runs", "--json").document["runs"][0]["run"])


def test_a_report_is_one_file(tilesmith: Command, run: str, place: Path) -> None:
    answer = tilesmith("report", run, "--json")
    assert answer.status == 0
    assert answer.document["path"] == str(place / "report.html")
    text = (place / "report.html").read_text("utf-8")
    assert len(text.encode()) == answer.document["bytes"]
    assert "Every time on this page is an estimate" in text
    assert f"tilesmith resume {run}" in text
    assert "tilesmith optimize toy" in text
    # Written whole or not at all: no draft is left.
    assert {path.name for path in place.iterdir() if path.name.startswith(".")} == set()


def test_how_to_begin_anew_names_a_start_that_was_left_out(place: Path) -> None:
    made = history(3)
    options = Options("toy", "toy.py").to_json()
    with open_store(place / "starts.db") as store:
        for start, said in ((made.problem.start or "x = 1", False), (None, True)):
            begun = store.create(replace(made.problem, start=start), RunOptions(options))
            commands = dict(chronicle(begun).again)
            assert ("--no-start-kernel" in commands["Begin the same search anew"]) is said


def test_what_is_wrong_is_one_sentence(tilesmith: Command, run: str, place: Path) -> None:
    (place / "folder").mkdir()
    for words, told in (
        (("report", "zzzz"), "No run begins with 'zzzz'"),
        (("report", run, "--journal", "nowhere.db"), "There is no journal"),
        (("report", run, "--out", "nowhere/report.html"), "its folder does not exist"),
        (("report", run, "--out", "folder"), "which is no file"),
        (("export", run, "--format", "cvs"), "csv"),
        (("compare", run), "two runs or more"),
        (("serve", run, "--host", "no.such.host.invalid"), "no address of this machine"),
        (("serve", run, "--port", "99999"), "--port"),
        (("serve", run, "--host", "\u202e"), "no address of this machine"),
        (("serve", run, "--host", ""), "no address of this machine"),
        (("serve", run, "--token", "a\nb"), "--token may have"),
        (("report", run, "--out", "/proc/report.html"), "nothing can be written there"),
        (("export", run, "--out", "/proc/trials.parquet", "--format", "parquet"), "nothing can be written there"),
    ):
        answer = tilesmith(*words, "--json")
        assert answer.status == 2, words
        assert told in answer.document["message"]
        assert not (place / "report.html").exists()


def test_the_nearest_run_is_named(tilesmith: Command, run: str) -> None:
    wrong = run[:6] + ("0" if run[6] != "0" else "1") + run[7:]
    message = tilesmith("report", wrong, "--json").document["message"]
    assert f"did you mean {run}" in message


def test_without_a_browser_nothing_is_written(
    tilesmith: Command, run: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", "no-such-browser")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("webbrowser._tryorder", [])
    answer = tilesmith("report", run, "--open", "--json")
    assert answer.status == 2
    assert "no browser was found" in answer.document["message"]
    assert not (place / "report.html").exists()


def test_an_interrupted_write_leaves_the_old_page(
    tilesmith: Command, run: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "report.html").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tilesmith.cli.winner.os.fsync", full)
    answer = tilesmith("report", run, "--json")
    assert answer.status == 2
    assert (place / "report.html").read_text() == "old"
    assert [path.name for path in place.iterdir() if "report.html" in path.name] == ["report.html"]


def test_a_run_that_is_being_written_has_a_page(place: Path, tilesmith: Command) -> None:
    made = history(12)
    with open_store(place / "tilesmith.db") as store:
        live = store.create(made.problem, RunOptions("{}"))
        for trial in made.trials:
            live.record(trial)
        assert tilesmith("report", live.id).status == 0
        assert "Running now" in (place / "report.html").read_text()


def test_of_very_many_trials_the_latest_are_told(place: Path) -> None:
    id_ = recorded(history(60), place / "many.db")
    with open_store(place / "many.db") as store:
        run = store.run(id_)
        everything, some = chronicle(run), chronicle(run, 10)
    assert everything.whole == 0
    assert some.whole == len(everything.trials)
    numbers = [number for number, _ in some.numbered()]
    assert numbers[-10:] == list(range(some.whole - 9, some.whole + 1))
    assert numbers[0] == 1
    best_us = min(trial.time_us for trial in everything.trials if trial.time_us is not None)
    assert best_us == min(trial.time_us for trial in some.trials if trial.time_us is not None)
    told = dict(everything.numbered())
    assert all(told[number].candidate == trial.candidate for number, trial in some.numbered())
    assert len(some.record.replies) == len(some.reply_times_s) <= 10


def test_compare_puts_intervals_side_by_side(place: Path, tilesmith: Command) -> None:
    one, two = (recorded(history(60, seed=seed), place / "tilesmith.db") for seed in (1, 2))
    three = recorded(history(20, measured=False), place / "tilesmith.db")
    answer = tilesmith("compare", one, two, three, "--out", "sides.html", "--json")
    assert answer.status == 0
    first, second, third = answer.document["runs"]
    assert first["against_first"] is None
    ratio = second["against_first"]
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert ratio["ratio"] == pytest.approx(first["time_us"] / second["time_us"])
    assert not ratio["timed_in_turns"]
    assert first["speedup"]["timed_in_turns"]
    assert third["against_first"] is None
    assert "estimated" in third["apart"]
    page = (place / "sides.html").read_text()
    assert all(words in page for words in (one, two, three, "95 % interval"))
    assert one in tilesmith("compare", one, two).out


def test_export_is_every_trial_in_every_format(place: Path, tilesmith: Command) -> None:
    made = history(25)
    hostile = 'a,"b"\n=1+1\ud800'
    wild = Trial(Candidate(hostile, "m"), Correct(Estimate(float("inf")), 0.1), round=10)
    id_ = recorded(replace(made, trials=(*made.trials, wild)), place / "tilesmith.db")
    lines = [json.loads(line) for line in tilesmith("export", id_).out.splitlines()]
    assert [line["trial"] for line in lines] == list(range(1, len(made.trials) + 2))
    assert lines[-1]["source"] == hostile.replace("\ud800", "?")
    assert lines[-1]["estimate_us"] is None
    assert tilesmith("export", id_, "--format", "csv", "--out", "rows.csv").status == 0
    with (place / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [line["source"] for line in lines]
    answer = tilesmith("export", id_, "--format", "parquet", "--json")
    assert parquet.read_table(answer.document["path"]).to_pylist() == lines


def test_without_pyarrow_parquet_says_what_to_install(place: Path) -> None:
    id_ = recorded(history(2), place / "tilesmith.db")
    # In a process of its own, in which nothing has imported it.
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        f"from tilesmith.cli import main; sys.exit(main(['export', '{id_}', '--format', 'parquet']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'tilesmith[parquet]'" in done.stderr
    assert not list(place.glob("*parquet*"))


# Serving --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(place: Path) -> Iterator[Run]:
    made = history(6)
    with open_store(place / "live.db") as store:
        run = store.create(made.problem, RunOptions("{}"))
        for trial in made.trials[:-1]:
            run.record(trial)
        yield run


def served(desk: Desk) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(desk))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(address: str, **headers: str) -> tuple[int, str, str]:
    """Status, body, and the cookie that was set."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers.get("Set-Cookie", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), ""


def test_the_page_is_made_anew_when_the_run_has_news(live: Run) -> None:
    made: list[int] = []

    def make(run: Run) -> str:
        made.append(len(run.trials()))
        return f"{len(run.trials())} trials"

    for address in served(Desk(live, "", frozenset({"127.0.0.1"}), make)):
        assert get(f"{address}/")[1] == get(f"{address}/")[1] == f"{len(live.trials())} trials"
        assert len(made) == 1
        before = json.loads(get(f"{address}/revision")[1])
        assert before["running"] == "yes"
        live.record(history(6).trials[-1])
        assert json.loads(get(f"{address}/revision")[1])["revision"] > before["revision"]
        assert get(f"{address}/")[1] == f"{len(live.trials())} trials"
        assert len(made) == 2
        live.stop(Stop.ROUNDS)
        live.release()
        assert json.loads(get(f"{address}/revision")[1])["running"] == "no"


def test_the_served_page_may_ask_its_own_server_only(live: Run) -> None:
    for address in served(Desk(live, "", frozenset({"127.0.0.1"}))):
        _, text, _ = get(f"{address}/")
        assert "connect-src 'self'" in html.unescape(text)
        assert "Running now" in text


def test_another_name_for_this_machine_is_refused(live: Run) -> None:
    for address in served(Desk(live, "", frozenset({"127.0.0.1", "localhost"}), lambda _: "page")):
        assert get(f"{address}/", Host="evil.example")[0] == 403
        assert get(f"{address}/", Host="localhost:80")[0] == 200
        assert get(f"{address}/tilesmith.db")[0] == 404
        assert get(f"{address}/../../etc/passwd")[0] == 404


def test_a_token_lets_in_by_address_and_then_by_cookie(live: Run) -> None:
    for address in served(Desk(live, "s3cret", None, lambda _: "page")):
        assert get(f"{address}/")[0] == 403
        assert get(f"{address}/?token=S3CRET")[0] == 403
        assert get(f"{address}/?token=%FF%00")[0] == 403
        status, _, cookie = get(f"{address}/?token=s3cret")
        assert status == 200
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert get(f"{address}/revision", Cookie=cookie.partition(";")[0])[0] == 200
        assert get(f"{address}/revision", Cookie="tilesmith=other")[0] == 403


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.7", False)],
)
def test_what_is_loopback(host: str, alone: bool) -> None:
    assert loopback(host) is alone
