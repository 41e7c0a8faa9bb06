"""`tilesmith serve`: a run's page while the run goes on, for this machine, or for who has the token."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tilesmith.cli.report import browser, chronicle
from tilesmith.cli.screen import answer, say
from tilesmith.core.errors import MachineError, OptionError, TilesmithError
from tilesmith.journal import Run, open_store
from tilesmith.report import document
from tilesmith.report.page import page

COOKIE = "tilesmith"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def serve(prefix: str, host: str, port: int, token: str, look: bool, journal: Path, as_json: bool) -> int:
    """Until it is interrupted. Raises `OptionError` for an address that is none, `MachineError` where it is taken."""
    if not 0 <= port <= 65535:
        raise OptionError(f"--port is {port}; it must be 0 to 65535, where 0 takes any that is free")
    if not re.fullmatch(r"[\w.~-]*", token, re.ASCII):
        raise OptionError("--token may have letters, digits and .~_- only: it is part of an address")
    alone = loopback(host)
    token = token or ("" if alone else secrets.token_urlsafe(16))
    if look:
        browser()
    with open_store(journal, must_exist=True) as store:
        run = store.run(prefix)
        with _listening(host, port, Desk(run, token, _names(host) if alone else None)) as server:
            address = f"http://{_quoted(host)}:{server.server_address[1]}/" + (
                f"?token={quote(token)}" if token else ""
            )
            if as_json:
                answer(document.done({"run": run.id, "address": address}))
            else:
                answer(f"run {run.id}: {address}")
            if not alone:
                say("whoever has this address, the token included, can read the run; nothing of it is encrypted")
            say("Ctrl-C ends it")
            if look:
                browser().open(address)
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                say("ended")
    return 0


@dataclass(slots=True)
class Desk:
    """What is served: the page of one run, made anew only when the run has news."""

    run: Run
    token: str
    """What must be shown; empty lets everyone in."""
    names: frozenset[str] | None
    """Names by which this machine may be called: a page from elsewhere must not reach it under a name of its own."""
    make: Callable[[Run], str] = field(default=lambda run: page(chronicle(run), live=True))
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _made: tuple[object, bytes] = (None, b"")

    def news(self) -> Mapping[str, object]:
        return {"revision": self.run.revision, "running": "yes" if self.run.live else "no"}

    def html(self) -> bytes:
        with self._turn:
            state = tuple(self.news().values())
            if self._made[0] != state:
                self._made = (state, self.make(self.run).encode())
            return self._made[1]


def handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    """What answers one connection: two addresses, to be read only."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, protocol_version, timeout = "tilesmith", "", "HTTP/1.1", 30

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if desk.names is not None and _host(self.headers.get("Host", "")) not in desk.names:
                self._tell(HTTPStatus.FORBIDDEN, "This machine is not called that.")
            elif not self._let_in(parse_qs(parts.query).get("token", [""])[0]):
                self._tell(HTTPStatus.FORBIDDEN, "The address lacks its token; copy all of it from the terminal.")
            elif parts.path in ("/", "/revision"):
                try:
                    self._serve(parts.path)
                except TilesmithError as error:
                    self._tell(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            else:
                self._tell(HTTPStatus.NOT_FOUND, "There is nothing here.")

        def _serve(self, path: str) -> None:
            if path == "/":
                self._send(HTTPStatus.OK, "text/html", desk.html())
            else:
                self._send(HTTPStatus.OK, "application/json", json.dumps(desk.news()).encode())

        def _let_in(self, shown: str) -> bool:
            if not desk.token:
                return True
            try:
                kept = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
            except CookieError:
                kept = None
            told = (shown, kept.value if kept else "")
            return any(hmac.compare_digest(each.encode(), desk.token.encode()) for each in told)

        def _tell(self, status: HTTPStatus, words: str) -> None:
            self._send(status, "text/plain", f"{words}\n".encode())

        def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            for name, words in HEADERS.items():
                self.send_header(name, words)
            if desk.token and status == HTTPStatus.OK:
                self.send_header("Set-Cookie", f"{COOKIE}={desk.token}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the parent's name)
            """Nobody reads a line for each request; and an address holds the token."""

    return Handler


def loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listening(host: str, port: int, desk: Desk) -> ThreadingHTTPServer:
    if not (host.isascii() and host.strip()):
        raise OptionError(f"--host is {host!r}, which is no address of this machine")
    try:
        return (_Server6 if ":" in host else _Server)((host, port), handler(desk))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MachineError(f"port {port} of {host} is in use; name another with --port, or 0 for any") from None
        if error.errno == errno.EACCES:
            raise MachineError(f"port {port} of {host} may not be used by this user; name one above 1023") from None
        raise OptionError(f"--host is {host!r}, which is no address of this machine ({error.strerror})") from None


def _names(host: str) -> frozenset[str]:
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()})


def _host(header: str) -> str:
    """A Host header without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _quoted(host: str) -> str:
    return f"[{host}]" if ":" in host else host
