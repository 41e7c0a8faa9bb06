"""A program of the user's own as a model; nothing of it outlives the call."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.core.errors import OptionError
from tilesmith.core.reply import Prompt, Reply
from tilesmith.propose.chat import Call, Chat, ModelBook, Price, Rates, open_models
from tilesmith.propose.chat.command import MARK, written
from tilesmith.testing.provider_conformance import CALL, PROMPT, WaitingChatConformance

# Starts children in every way that programs leave some behind: one of its session, one of a session of its own, one
# that nobody is the parent of. Each writes its number and waits.
FAMILY = """
import os, subprocess, sys, time
wait = [sys.executable, "-c", "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"]
folder, ends = sys.argv[1], sys.argv[2] == "ends"
subprocess.Popen([*wait, folder + "/child"])
subprocess.Popen([*wait, folder + "/session"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [*wait, folder + "/orphan"])
    os._exit(0)
files = [f"{folder}/{name}" for name in ("child", "session", "orphan")]
while not all(os.path.exists(file) and open(file).read() for file in files):
    time.sleep(0.01)
print("a reply", flush=True)
if not ends:
    time.sleep(60)
"""


def named(code: str, *arguments: str) -> str:
    return "command:" + shlex.join([sys.executable, "-c", code, *arguments])


def chat(name: str, environ: Mapping[str, str] = os.environ, book: ModelBook | None = None) -> Chat:
    return open_models([name], book or ModelBook(), environ)[name]


def asked(name: str, call: Call = CALL, prompt: Prompt = PROMPT, environ: Mapping[str, str] = os.environ) -> Reply:
    return asyncio.run(chat(name, environ).ask(prompt, call))


class TestCommandConforms(WaitingChatConformance):
    @pytest.fixture
    def chat(self) -> Chat:
        return chat("command:cat")

    @pytest.fixture
    def failing(self) -> Chat:
        return chat("command:false")

    @pytest.fixture
    def hanging(self) -> Chat:
        return chat("command:sleep 60")


def test_it_reads_the_prompt_and_prints_the_reply() -> None:
    prompt = Prompt("Sÿstem.", ("Request.\n```python\nx = '\N{MATHEMATICAL BOLD SMALL X}'\n```",))
    reply = asked("command:cat", prompt=prompt)
    assert reply.text == written(prompt)
    assert all(part in reply.text for part in (prompt.system, prompt.turns[0]))
    assert (reply.fault, reply.attempts, reply.usd) == (None, 1, None)


def test_a_conversation_says_who_said_what() -> None:
    text = written(Prompt("S", ("first", "answer", "second")))
    places = [text.index(part) for part in ("S", "Request\n\nfirst", "Your reply\n\nanswer", "Request\n\nsecond")]
    assert places == sorted(places)


def test_it_keeps_the_users_environment() -> None:
    reply = asked(named("import os; print(os.environ['MINE'])"), environ={**os.environ, "MINE": "yes"})
    assert reply.text == "yes\n"


def test_a_large_prompt_that_nobody_reads_is_no_fault() -> None:
    reply = asked(named("print('short')"), prompt=Prompt("", ("x" * 1_000_000,)))
    assert (reply.text, reply.fault) == ("short\n", None)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no quota left')", "ended with status 1: no quota left"),
        ("import sys; sys.exit(3)", "ended with status 3: it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print()", "printed nothing"),
        ("while True: print('y' * 100000)", "printed more than"),
    ],
)
def test_what_goes_wrong_is_told(code: str, says: str) -> None:
    reply = asked(named(code))
    assert reply.fault is not None
    assert says in reply.fault


def test_bytes_that_are_no_text_are_no_fault() -> None:
    reply = asked(named("import sys; sys.stdout.buffer.write(b'a \\xff b')"))
    assert reply.text == "a \N{REPLACEMENT CHARACTER} b"


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return True
    return state in "ZX"


@pytest.mark.parametrize("how", ["ends", "stays"])
def test_all_of_its_children_end_with_the_call(tmp_path: Path, how: str) -> None:
    began = time.monotonic()
    reply = asked(named(FAMILY, str(tmp_path), how), replace(CALL, deadline_s=30.0 if how == "ends" else 3.0))
    assert time.monotonic() - began < 25.0
    if how == "ends":
        assert (reply.text, reply.fault) == ("a reply\n", None)
    else:
        assert reply.fault == "the command gave no answer within 3 s"
    pids = [int((tmp_path / name).read_text()) for name in ("child", "session", "orphan")]
    until = time.monotonic() + 5.0
    while not all(map(gone, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert all(map(gone, pids))


def test_processes_of_others_live_on() -> None:
    async def run() -> None:
        other = await asyncio.create_subprocess_exec("sleep", "60", env={MARK: "another call"})
        try:
            await chat(named("print('done')")).ask(PROMPT, CALL)
            assert other.returncode is None
            assert not gone(other.pid)
        finally:
            other.kill()
            await other.wait()

    asyncio.run(run())


def test_no_more_run_at_once_than_the_provider_may(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').close(); time.sleep(0.05)\n"
        f"print(len(os.listdir({str(tmp_path)!r}))); os.remove({str(tmp_path)!r} + f'/{{os.getpid()}}')"
    )
    providers = {**ModelBook().providers}
    providers["command"] = replace(providers["command"], concurrent=2)

    async def run() -> list[Reply]:
        model = chat(named(code), book=ModelBook(providers))
        return list(await asyncio.gather(*(model.ask(PROMPT, CALL) for _ in range(6))))

    assert max(int(reply.text) for reply in asyncio.run(run())) <= 2


def test_with_a_price_it_is_counted_by_length() -> None:
    book = ModelBook(prices={"command:cat": Price(Rates(3.0, 3.0, 3.0, 3.0))})
    reply = asyncio.run(chat("command:cat", book=book).ask(PROMPT, CALL))
    assert reply.usd == pytest.approx(reply.usage.tokens * 3e-6)
    assert reply.usage.output_tokens > 0


@pytest.mark.parametrize("name", ["command:no-such-program-here --fast", "command:'", "command: "])
def test_what_cannot_be_run_is_refused_at_once(name: str) -> None:
    with pytest.raises(OptionError):
        chat(name)
