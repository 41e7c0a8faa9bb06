"""Messages between processes: whatever a process sends, its reader gets a message or one of three named refusals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.bench.wire import BLOB_LIMIT, HEADER_LIMIT, Garbled, Gone, Late, Message, Wire, WireError, adopt, pair

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(), JSON, max_size=5)
quick = settings(max_examples=60, deadline=None)


@dataclass
class Line:
    """Our end, and the other process's raw socket."""

    wire: Wire
    raw: socket.socket


@contextlib.contextmanager
def line() -> Iterator[Line]:
    wire, raw = pair()
    try:
        yield Line(wire, raw)
    finally:
        wire.close()
        raw.close()


def frame(header: bytes, blob: bytes = b"") -> bytes:
    return struct.pack("!II", len(header), len(blob)) + header + blob


# Honest traffic ------------------------------------------------------------------------------------------------------


@quick
@given(MESSAGES, st.binary(max_size=300))
def test_what_is_sent_arrives(message: Message, blob: bytes) -> None:
    with line() as ours:
        other = Wire(ours.raw)
        other.send(message, blob)
        other.send({"next": 1})
        assert ours.wire.receive(5.0) == (message, blob)
        assert ours.wire.receive(5.0) == ({"next": 1}, b"")


@quick
@given(MESSAGES, st.binary(max_size=100), st.lists(st.integers(1, 7), min_size=1))
def test_a_message_in_pieces_arrives(message: Message, blob: bytes, sizes: list[int]) -> None:
    data = frame(json.dumps(message).encode(), blob)
    with line() as ours:

        def drip() -> None:
            at = 0
            while at < len(data):
                size = sizes[at % len(sizes)]
                ours.raw.sendall(data[at : at + size])
                at += size

        sender = threading.Thread(target=drip)
        sender.start()
        assert ours.wire.receive(10.0) == (message, blob)
        sender.join()


def test_more_than_any_buffer_holds() -> None:
    blob = os.urandom(5 << 20)
    with line() as ours:
        other = Wire(ours.raw)
        sender = threading.Thread(target=other.send, args=({"large": "x" * (1 << 20)}, blob))
        sender.start()
        message, got = ours.wire.receive(20.0)
        sender.join()
    assert len(message["large"]) == 1 << 20
    assert got == blob


def test_both_ends_in_processes_of_their_own() -> None:
    code = """
        import sys
        from tilesmith.bench.wire import adopt
        wire = adopt(int(sys.argv[1]))
        while True:
            message, blob = wire.receive(20.0)
            if message.get("end"):
                break
            wire.send({"sum": sum(message["numbers"])}, blob[::-1])
    """
    with process(code) as (wire, _):
        for number in range(20):
            wire.send({"numbers": [number, 1]}, b"abc")
            assert wire.receive(20.0) == ({"sum": number + 1}, b"cba")
        wire.send({"end": True})
        with pytest.raises(Gone):
            wire.receive(20.0)


def test_numbers_that_json_has_not_are_not_sent() -> None:
    with line() as ours, pytest.raises(ValueError, match="JSON"):
        ours.wire.send({"time": float("nan")})


# Senders that mean no good, or fail ----------------------------------------------------------------------------------


@quick
@given(MESSAGES, st.binary(max_size=50), st.data())
def test_a_message_that_is_cut_short(message: Message, blob: bytes, data: st.DataObject) -> None:
    whole = frame(json.dumps(message).encode(), blob)
    kept = data.draw(st.integers(0, len(whole) - 1))
    with line() as ours:
        ours.raw.sendall(whole[:kept])
        ours.raw.close()
        with pytest.raises(Gone):
            ours.wire.receive(5.0)


@pytest.mark.parametrize(
    ("header_bytes", "blob_bytes"),
    [(HEADER_LIMIT + 1, 0), (0, BLOB_LIMIT + 1), (2**32 - 1, 2**32 - 1), (2, 2**32 - 1), (0x7B7D7B7D, 0)],
)
def test_lengths_beyond_the_limit_are_refused_before_anything_is_read(header_bytes: int, blob_bytes: int) -> None:
    with line() as ours:
        ours.raw.sendall(struct.pack("!II", header_bytes, blob_bytes))
        began = time.monotonic()
        with pytest.raises(Garbled):
            ours.wire.receive(30.0)
        assert time.monotonic() - began < 5


def test_a_length_within_the_limit_takes_no_memory_until_it_comes() -> None:
    with line() as ours:
        ours.raw.sendall(struct.pack("!II", 10, BLOB_LIMIT) + b'{"a": 123}')
        with pytest.raises(Late):
            ours.wire.receive(0.2)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"{}{}",
        b"{'a': 1}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x80\x04K\x01.",
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda header: repr(header[:12]),
)
def test_what_is_no_object_is_refused(header: bytes) -> None:
    with line() as ours:
        sender = threading.Thread(target=ours.raw.sendall, args=(frame(header),))
        sender.start()
        with pytest.raises(Garbled):
            ours.wire.receive(10.0)
        sender.join()


@quick
@given(st.binary(max_size=200))
def test_garbage_is_refused_by_name(garbage: bytes) -> None:
    with line() as ours:
        ours.raw.sendall(garbage)
        ours.raw.close()
        with contextlib.suppress(WireError):
            message, blob = ours.wire.receive(5.0)
            assert isinstance(message, dict)
            assert isinstance(blob, bytes)


def test_a_refusal_does_not_depend_on_what_follows() -> None:
    with line() as ours:
        ours.raw.sendall(frame(b"[1]") + frame(b"{}"))
        with pytest.raises(Garbled):
            ours.wire.receive(5.0)


# Time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack("!II", 10, 0), struct.pack("!II", 2, 5) + b"{}ab"])
def test_the_deadline_holds_wherever_the_sender_stops(sent: bytes) -> None:
    with line() as ours:
        ours.raw.sendall(sent)
        began = time.monotonic()
        with pytest.raises(Late):
            ours.wire.receive(0.2)
        assert 0.15 < time.monotonic() - began < 5


def test_a_sender_that_drips_cannot_stretch_the_deadline() -> None:
    """Every byte comes in time, and the whole does not."""
    data = frame(b'{"long": "' + b"x" * 1000 + b'"}')
    stop = threading.Event()
    with line() as ours:

        def drip() -> None:
            for byte in data:
                if stop.wait(0.01):
                    return
                ours.raw.sendall(bytes([byte]))

        sender = threading.Thread(target=drip)
        sender.start()
        began = time.monotonic()
        try:
            with pytest.raises(Late):
                ours.wire.receive(0.4)
            assert time.monotonic() - began < 5
        finally:
            stop.set()
            sender.join()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_deadline_that_has_passed(timeout_s: float) -> None:
    with line() as ours, pytest.raises(Late):
        ours.wire.receive(timeout_s)


def test_a_reader_that_does_not_read() -> None:
    with line() as ours:
        began = time.monotonic()
        with pytest.raises(Late):
            ours.wire.send({}, bytes(32 << 20), timeout_s=0.3)
        assert time.monotonic() - began < 10


def test_sending_to_nobody() -> None:
    with line() as ours:
        ours.raw.close()
        with pytest.raises(Gone):
            ours.wire.send({"anybody": "there"})


# Processes that end --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(code: str) -> Iterator[tuple[Wire, subprocess.Popen[bytes]]]:
    """A process that has the other end; its descriptor is its first argument."""
    wire, raw = pair()
    body = "\n".join(row.removeprefix("        ") for row in code.splitlines())
    child = subprocess.Popen([sys.executable, "-c", body, str(raw.fileno())], pass_fds=(raw.fileno(),))
    raw.close()
    try:
        yield wire, child
    finally:
        wire.close()
        child.kill()
        child.wait()


def test_a_process_that_is_killed_in_the_middle_of_a_message() -> None:
    code = """
        import os, signal, struct, sys
        os.write(int(sys.argv[1]), struct.pack("!II", 20, 5) + b'{"half": ')
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with process(code) as (wire, child):
        with pytest.raises(Gone):
            wire.receive(20.0)
        assert child.wait(20) == -signal.SIGKILL


def test_a_process_that_stops_in_the_middle_of_a_message() -> None:
    code = """
        import os, signal, struct, sys
        os.write(int(sys.argv[1]), struct.pack("!II", 20, 5) + b'{"half": ')
        os.kill(os.getpid(), signal.SIGSTOP)
    """
    with process(code) as (wire, _), pytest.raises(Late):
        wire.receive(1.0)


def test_a_process_that_sends_without_end() -> None:
    code = """
        import os, sys
        while True:
            os.write(int(sys.argv[1]), b"A" * 65536)
    """
    with process(code) as (wire, _), pytest.raises(Garbled):
        wire.receive(20.0)


def test_a_descriptor_is_adopted() -> None:
    with line() as ours:
        other = adopt(os.dup(ours.raw.fileno()))
        other.send({"from": "there"})
        assert ours.wire.receive(5.0) == ({"from": "there"}, b"")
        other.close()


def test_an_end_that_was_closed_here_is_gone() -> None:
    """Another thread may have ended the process that this one still wants to ask."""
    wire, there = pair()
    wire.close()
    for deed in (lambda: wire.send({}), lambda: wire.receive(1.0)):
        with pytest.raises(Gone):
            deed()
    there.close()
