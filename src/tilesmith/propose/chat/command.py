"""A program of the user's own in the place of a model: it reads the prompt on its input and prints the reply.

Everything that it starts ends with the call, however the call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from tilesmith.core.reply import Prompt, Reply, Usage
from tilesmith.propose.chat import tokens
from tilesmith.propose.chat.book import Price
from tilesmith.propose.chat.lane import Lane
from tilesmith.propose.chat.seam import Call
from tilesmith.propose.chat.words import REAL_SECRET, Secrets, sentence

MARK = "TILESMITH_CALL"
"""An environment variable that tells the processes of one call, wherever they hide."""
MAX_BYTES = 8 << 20
GRACE_S = 0.2
"""How long output may still come once the program itself has ended."""
POLL_S = 0.02
END_S = 2.0
"""How long killed processes may take to be gone."""
ROUNDS = 20


def written(prompt: Prompt) -> str:
    """A conversation as one text."""
    if len(prompt.turns) == 1:
        return f"{prompt.system}\n\n{prompt.turns[0]}\n"
    said = [f"## {'Your reply' if at % 2 else 'Request'}\n\n{turn}" for at, turn in enumerate(prompt.turns)]
    last = "Answer the last request."
    return "\n\n".join([prompt.system, *said, last]) + "\n"


class CommandChat:
    """Runs the program once a question."""

    def __init__(
        self, name: str, argv: tuple[str, ...], environ: Mapping[str, str], lane: Lane, price: Price | None,
        secrets: Secrets,
    ) -> None:  # fmt: skip
        self.name = name
        self._argv = argv
        self._environ = dict(environ)
        self._lane = lane
        self._price = price
        self._secrets = secrets

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        text, fault, began_s = "", None, None
        try:
            async with asyncio.timeout(call.deadline_s) as limit, self._lane.slot(tokens.of_prompt(prompt)):
                began_s = time.monotonic()
                text, fault = await self._run(written(prompt))
        except TimeoutError:
            if not limit.expired():
                raise
            fault = f"the command gave no answer within {call.deadline_s:g} s"
        started = began_s is not None
        usage, usd = Usage(), None if started else 0.0
        if self._price is not None and started:
            # A program does not say what it used: where it has a price, that is of the text that can be seen.
            usage = Usage(tokens.of_prompt(prompt), tokens.about(text))
            usd = self._price.usd(usage)
        return Reply(
            call.key,
            self.name,
            self._secrets.scrubbed(text, REAL_SECRET),
            usage,
            usd,
            0.0 if began_s is None else time.monotonic() - began_s,
            int(started),
            None if fault is None else sentence(self._secrets.scrubbed(fault)),
        )

    async def _run(self, question: str) -> tuple[str, str | None]:
        mark = uuid.uuid4().hex
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=pipe, stdout=pipe, stderr=pipe, env={**self._environ, MARK: mark},
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return "", f"the command cannot be started ({error.strerror})"
        return await _conversation(process, question, mark)

    async def close(self) -> None:
        pass


async def _conversation(process: asyncio.subprocess.Process, question: str, mark: str) -> tuple[str, str | None]:
    out, err = _Output(), _Output()
    tasks = [
        asyncio.ensure_future(_tell(process.stdin, question)),
        asyncio.ensure_future(out.read(process.stdout)),
        asyncio.ensure_future(err.read(process.stderr)),
        asyncio.ensure_future(process.wait()),
    ]
    try:
        # In some versions of Python `wait` returns only when nobody holds the pipes any more.
        while process.returncode is None and not out.full:
            await asyncio.wait(tasks[3:], timeout=POLL_S)
        if process.returncode is not None:
            await asyncio.wait(tasks[1:3], timeout=GRACE_S)
    finally:
        _end(process, mark)
        # Read to the end, now near, so that no pipe stays open; the tasks go on even if this is cancelled again.
        await asyncio.shield(asyncio.wait(tasks, timeout=END_S))
    if out.full:
        return "", f"the command printed more than {MAX_BYTES:,} bytes"
    if process.returncode:
        complaint = err.text.strip().splitlines()
        last = complaint[-1] if complaint else "it said nothing on its error output"
        how = f"status {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        return out.text, f"the command ended with {how}: {last}"
    if not out.text.strip():
        return out.text, "the command printed nothing"
    return out.text, None


async def _tell(stdin: asyncio.StreamWriter | None, question: str) -> None:
    assert stdin is not None
    # A program need not read what it is told.
    with contextlib.suppress(ConnectionError):
        stdin.write(question.encode("utf-8", "replace"))
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(ConnectionError):
        await stdin.wait_closed()


class _Output:
    """What came through one pipe, so far."""

    def __init__(self) -> None:
        self.full = False
        self._bytes = bytearray()

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        """To its end; what is too much is read and dropped."""
        assert stream is not None
        while chunk := await stream.read(1 << 16):
            self.full = self.full or len(self._bytes) + len(chunk) > MAX_BYTES
            if not self.full:
                self._bytes += chunk

    @property
    def text(self) -> str:
        return self._bytes.decode("utf-8", "replace")


def _end(process: asyncio.subprocess.Process, mark: str) -> None:
    """Kill every process of the call: its session, and whoever left that but still has the call's mark."""
    session = process.pid if process.returncode is None else None
    if session is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
    # Who was being started during one look is found by the next.
    for _ in range(ROUNDS):
        alive = list(_marked(mark, session))
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not alive:
            return


def _marked(mark: str, session: int | None) -> Iterator[int]:
    """The living processes of a call, where the system shows them."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        # It may end while it is being looked at, or be somebody else's.
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, _, _, leader = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            if state not in "ZX" and (int(leader) == session or wanted in (folder / "environ").read_bytes()):
                yield pid
