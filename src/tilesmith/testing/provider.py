"""A provider of language models on this machine: real HTTP on loopback, both protocols, streamed or not.

    with ProviderServer(lambda asked: Behaviour("an answer")) as server:
        client = anthropic.Anthropic(base_url=server.url, api_key="any")
        client = openai.OpenAI(base_url=server.openai_url, api_key="any")

A script says how it behaves to each request: slow, over its limits, broken, stalled, cut off, unwilling. It serves
hundreds of streams at once from one thread, and remembers what it was asked.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from tilesmith.core.reply import Prompt, Usage
from tilesmith.testing import provider_wire as wire

Failure = Literal["drop", "noise", "stall", "cut", "finish", "rubbish", "error"]
"""How an answer goes wrong: the connection is closed before it, or what comes is not HTTP; and halfway through: nothing
more comes, the connection breaks, the stream ends in good order but too early, what comes is not of the protocol, the
provider reports an error of its own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    protocol: wire.Protocol
    model: str
    prompt: Prompt
    max_output_tokens: int
    stream: bool
    key: str
    number: int
    """In the order of arrival, from 0."""
    repeat: int
    """How often the same was asked of the same model before."""
    in_flight: int
    """Requests being answered when it came, itself included."""
    headers: tuple[tuple[str, str], ...]
    """Names in small letters."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What becomes of one request."""

    text: str = ""
    latency_s: float = 0.0
    """From the request to the end of the answer."""
    first: float = 0.25
    """The share of the latency after which a stream begins."""
    pieces: int = 8
    """In which the text is streamed."""
    end: wire.End = "done"
    failure: Failure | None = None
    status: int = 200
    """From 400 on there is an error instead of an answer, of this `kind` with this `message`."""
    kind: str = "api_error"
    message: str = "the server says no"
    retry_after_s: float | None = None
    usage: Usage | None = None
    """As it is reported. None: counted, a token for four bytes."""
    reports: bool = True
    """Whether the usage is reported at all."""


Script = Callable[[Asked], Behaviour]


class ProviderServer:
    """Serves while its context is open."""

    def __init__(self, script: Script, models: Sequence[str] = (), keys: Collection[str] | None = None) -> None:
        """`models` are listed where they are asked for, `keys` the only ones accepted; None accepts any."""
        self._script = script
        self._models = tuple(models)
        self._keys = keys
        self._asked: list[Asked] = []
        self._repeats: Counter[tuple[str, str]] = Counter()
        self._in_flight = 0
        self._port = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base address for the SDK of the Anthropic protocol."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """The base address for the SDK of the OpenAI protocol."""
        return f"{self.url}/v1"

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every request for a reply so far, in the order of arrival."""
        return tuple(self._asked)

    @property
    def peak(self) -> int:
        """The most requests that were being answered at once."""
        return max((asked.in_flight for asked in self._asked), default=0)

    @property
    def in_flight(self) -> int:
        """Requests being answered now."""
        return self._in_flight

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="provider", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client is gone, or this server is about to be.
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether another may follow on the same connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        protocol: wire.Protocol = "anthropic" if "anthropic-version" in headers else "openai"
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if self._keys is not None and key not in self._keys:
            return await _send(writer, *wire.error(protocol, 401, "authentication_error", f"invalid key {key}"))
        path = path.partition("?")[0]
        if method == "GET" and path.startswith("/v1/models"):
            return await _send(writer, *wire.models(protocol, self._models, path.removeprefix("/v1/models").strip("/")))
        if method != "POST" or path != wire.PATHS[protocol]:
            return await _send(writer, *wire.error(protocol, 404, "not_found_error", f"no {path} here"))
        self._in_flight += 1
        try:
            asked = self._recorded(protocol, key, headers, json.loads(body))
            return await self._answer(asked, self._script(asked), reader, writer)
        finally:
            self._in_flight -= 1

    def _recorded(self, protocol: wire.Protocol, key: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
        model, prompt, most, stream = wire.request(protocol, body)
        same = (model, prompt.id)
        asked = Asked(
            protocol,
            model,
            prompt,
            most,
            stream,
            key,
            len(self._asked),
            self._repeats[same],
            self._in_flight,
            tuple(sorted(headers.items())),
        )
        self._repeats[same] += 1
        self._asked.append(asked)
        return asked

    async def _answer(
        self, asked: Asked, how: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        whole = how.status >= 400 or not asked.stream
        await _pause(reader, how.latency_s * (1.0 if whole else how.first))
        if how.failure == "drop":
            return False
        if how.failure == "noise":
            writer.write(b"\x00\xff\x13 this is no HTTP \x07\r\n\r\n")
            await writer.drain()
            return False
        if how.status >= 400:
            after = {} if how.retry_after_s is None else {"retry-after": f"{how.retry_after_s:g}"}
            return await _send(writer, *wire.error(asked.protocol, how.status, how.kind, how.message), after)
        usage = how.usage or Usage(wire.count(asked.prompt.system, *asked.prompt.turns), wire.count(how.text))
        shown = usage if how.reports else None
        if not asked.stream:
            if how.failure is not None:
                return False
            return await _send(writer, *wire.whole(asked.protocol, asked.model, how.text, how.end, shown))
        return await self._streamed(asked, how, shown, reader, writer)

    async def _streamed(
        self,
        asked: Asked,
        how: Behaviour,
        usage: Usage | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        events = wire.events(asked.protocol, asked.model, _cut(how.text, how.pieces), how.end, usage)
        writer.write(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        pause_s = how.latency_s * (1.0 - how.first) / len(events)
        for at, event in enumerate(events):
            if how.failure is not None and at == len(events) // 2:
                if how.failure == "stall":
                    await _gone(reader)
                if how.failure in ("rubbish", "error"):
                    broken = wire.RUBBISH if how.failure == "rubbish" else wire.late_error(asked.protocol, how.message)
                    writer.write(_chunk(broken))
                    await writer.drain()
                if how.failure == "cut":
                    return False
                break
            writer.write(_chunk(event))
            await writer.drain()
            await _pause(reader, pause_s)
        writer.write(_chunk(b""))
        await writer.drain()
        return True


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[at : at + size] for at in range(0, len(text), size)]


async def _pause(reader: asyncio.StreamReader, seconds: float) -> None:
    """Sleeps, unless the client goes away meanwhile."""
    if seconds > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(_gone(reader), seconds)


async def _gone(reader: asyncio.StreamReader) -> None:
    # A client of ours sends its next request only after the answer to this one.
    await reader.read(1)
    raise ConnectionAbortedError


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, more: dict[str, str] | None = None) -> bool:
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(more or {})}
    writer.write(_head(status, headers) + body)
    await writer.drain()
    return True


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
