"""What only a process of its own shows: start-up, pipes, full devices, signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

TILESMITH = [sys.executable, "-m", "tilesmith.cli"]
FAKES = Path(__file__).parent


def run(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TILESMITH, *words], cwd=here, capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_no_room() -> None:
    """What makes `--help` quick; the time itself is a benchmark's."""
    heavy = ("rich", "pydantic", "torch", "triton", "numpy", "tilesmith.bench", "tilesmith.config", "sqlite3")
    script = f"""
        import sys
        from tilesmith.cli import main
        status = main(["--help"])
        print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
        sys.exit(status)
    """
    asked = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (asked.returncode, asked.stderr) == (0, "[]\n")


def test_no_command_imports_torch(here: Path) -> None:
    script = "import sys; from tilesmith.cli import main; main(['doctor']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, check=False).returncode == 0


def test_a_usage_error_is_one_object(here: Path) -> None:
    asked = run(here, "optimize", "toy", "--tarket", "h200", "--json")
    assert asked.returncode == 2
    assert json.loads(asked.stdout)["verdict"] is None
    assert "--target" in json.loads(asked.stdout)["message"]
    assert asked.stderr.count("\n") == 1


def test_a_reader_that_hangs_up(here: Path) -> None:
    process = subprocess.Popen(
        [*TILESMITH, "doctor"], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("words", [("runs", "--json"), ("--help",), ("doctor",)])
def test_a_full_device_for_the_answer(here: Path, words: Sequence[str]) -> None:
    with Path("/dev/full").open("w") as full:
        asked = subprocess.run(
            [*TILESMITH, *words], cwd=here, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert asked.returncode == 2
    assert asked.stderr.startswith("tilesmith: No space left on device")
    assert asked.stderr.count("\n") == 1


def test_nobody_listens_at_all(here: Path) -> None:
    script = f'"{sys.executable}" -m tilesmith.cli runs --json >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", script], cwd=here, check=False).returncode == 0


def searching(here: Path, put_away_s: float) -> subprocess.Popen[str]:
    """A search that waits for ever for its fourth candidate, and takes `put_away_s` to put its bench away."""
    script = f"""
        import sys, time
        from contextlib import contextmanager, nullcontext
        sys.path.insert(0, {str(FAKES)!r})
        from cli_fakes import Halving, WordBench
        from tilesmith.cli import main, rooms

        def wait(_):
            if len(fake.judged) == 3:
                print("waiting", file=sys.stderr, flush=True)
                time.sleep(60)

        @contextmanager
        def enter(*_):
            try:
                yield fake
            finally:
                print("putting away", file=sys.stderr, flush=True)
                time.sleep({put_away_s})

        fake = WordBench(before=wait)
        rooms.bench, rooms.proposer = enter, lambda *_: nullcontext(Halving())
        sys.exit(main(["optimize", "toy", "--bench", "offline", "--json"]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _await(process, "waiting")
    return process


def _await(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip() == words:
            return
    raise AssertionError(f"ended with {process.wait()} before {words!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_with_what_was_found(here: Path, number: signal.Signals) -> None:
    process = searching(here, put_away_s=0)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    document = json.loads(out)
    assert process.returncode == 0
    assert (document["stop"], document["trials"]) == ("interrupted", 3)
    assert Path(document["best"]["path"]).exists()
    assert "Traceback" not in err


def test_the_second_signal_ends_at_once(here: Path) -> None:
    process = searching(here, put_away_s=60)
    process.send_signal(signal.SIGINT)
    _await(process, "putting away")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 20
    assert "Traceback" not in err


def test_a_killed_run_resumes_and_ends_as_an_unbroken_one(here: Path) -> None:
    process = searching(here, put_away_s=0)
    process.kill()
    process.communicate(timeout=60)
    [row] = json.loads(run(here, "runs", "--json").stdout)["runs"]
    assert (row["trials"], row["stop"], row["live"]) == (3, None, False)
    script = f"""
        import sys
        from contextlib import nullcontext
        sys.path.insert(0, {str(FAKES)!r})
        from cli_fakes import Halving, WordBench
        from tilesmith.cli import main, rooms

        rooms.bench, rooms.proposer = lambda *_: nullcontext(WordBench()), lambda *_: nullcontext(Halving())
        main(["resume", {row["run"]!r}])
        main(["optimize", "toy", "--bench", "offline"])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=here, check=True, capture_output=True)
    resumed, whole = json.loads(run(here, "runs", "--json").stdout)["runs"]
    told = ("trials", "best", "stop")
    assert [resumed[name] for name in told] == [whole[name] for name in told]


def test_a_terminal_sees_a_panel_and_a_dumb_one_lines(here: Path) -> None:
    script = f"""
        import sys
        from contextlib import nullcontext
        sys.path.insert(0, {str(FAKES)!r})
        from cli_fakes import Halving, WordBench
        from tilesmith.cli import main, rooms

        rooms.bench, rooms.proposer = lambda *_: nullcontext(WordBench()), lambda *_: nullcontext(Halving())
        sys.exit(main(["optimize", "toy", "--bench", "offline", "--json"]))
    """
    for kind, panel in (("xterm", True), ("dumb", False)):
        master, slave = pty.openpty()
        asked = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=here, env={**os.environ, "TERM": kind}, stdout=subprocess.PIPE, stderr=slave, timeout=60, check=False,
        )  # fmt: skip
        os.close(slave)
        drawn = os.read(master, 1 << 16).decode()
        os.close(master)
        assert asked.returncode == 0
        assert json.loads(asked.stdout)["best"]["estimate_us"] == 1.0
        hides_the_cursor = "\x1b[?25l" in drawn
        assert hides_the_cursor == panel
        assert ("64.00 times as fast as the start kernel" in drawn) == panel
        assert ("round 1, trial 2" in drawn) != panel
