"""A proxy in front of a real S3 server that misbehaves by programme.

Requests pass unchanged, with their `Host`, so their signatures hold. A fault takes the place of an
answer, or does something to it.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REFUSED = b"<?xml version='1.0'?><Error><Code>%s</Code></Error>"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"


@dataclass(frozen=True)
class Request:
    """What was asked for: `LIST`, `HEAD`, `GET`, `PUT` …, the object's key, and the how manieth."""

    kind: str
    key: str
    number: int
    is_resumed: bool = False


@dataclass(frozen=True)
class Fault:
    """What happens to an answer.

    Attributes:
        busy: it is 503 SlowDown.
        refused: it is 403 with this code, which nobody tries again.
        reset: there is none; the connection is reset.
        cut_at: its body ends after so many bytes, and so does the connection.
        bytes_per_second: its body comes so slowly, in ten pieces a second at most.
        delay_seconds: it comes so late.
        clock_seconds: its date is so much later.
    """

    busy: bool = False
    refused: str = ""
    reset: bool = False
    cut_at: int | None = None
    bytes_per_second: float | None = None
    delay_seconds: float = 0.0
    clock_seconds: float = 0.0


BUSY, RESET = Fault(busy=True), Fault(reset=True)

Programme = Callable[[Request], Fault | None]


def healthy(_: Request) -> None:
    """No faults."""


def first(count: int, fault: Fault, *kinds: str) -> Programme:
    """The first requests of these kinds for each key."""
    lock, seen = threading.Lock(), dict[tuple[str, str], int]()

    def programme(request: Request) -> Fault | None:
        if request.kind not in kinds:
            return None
        with lock:
            number = seen[request.kind, request.key] = seen.get((request.kind, request.key), 0) + 1
        return fault if number <= count else None

    return programme


def sometimes(probability: float, fault: Fault, *kinds: str, seed: int = 0) -> Programme:
    """Requests of these kinds by chance, the same ones in every test run with one client."""
    chance, lock = random.Random(seed), threading.Lock()

    def programme(request: Request) -> Fault | None:
        with lock:
            is_hit = chance.random() < probability
        return fault if is_hit and request.kind in kinds else None

    return programme


def always(fault: Fault, *kinds: str) -> Programme:
    """Every request of these kinds."""
    return lambda request: fault if request.kind in kinds else None


@dataclass
class Proxy:
    """An S3 endpoint; `programme` may be replaced at any time.

    Attributes:
        target: the server behind it, `http://host:port`.
        programme: which requests have a fault.
        before: called before a request goes to the server.
        requests: all so far.
        deletions: with which status each was answered.
    """

    target: str
    programme: Programme = healthy
    before: Callable[[Request], None] = healthy
    requests: list[Request] = field(default_factory=list)
    deletions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, kind: str, key: str | None = None) -> int:
        """Requests of a kind so far, of one key or of all."""
        return sum(r.kind == kind and key in (None, r.key) for r in self.requests)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        request = self._request()
        self.owner.requests.append(request)
        fault = self.owner.programme(request) or Fault()
        time.sleep(fault.delay_seconds)
        if fault.reset:
            # Without lingering, a close is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault.busy:
            self._answer(503, [], SLOW_DOWN, Fault())
        elif fault.refused:
            self._answer(403, [], REFUSED % fault.refused.encode(), Fault())
        else:
            self.owner.before(request)
            answer = self._ask(body)
            if self.command == "DELETE":
                self.owner.deletions.append(answer[0])
            self._answer(*answer, fault)

    do_HEAD = do_PUT = do_DELETE = do_POST = do_GET

    def _request(self) -> Request:
        address = urlsplit(self.path)
        key = unquote(address.path).lstrip("/").partition("/")[2]
        is_listing = self.command == "GET" and "list-type" in parse_qs(address.query)
        kind = "LIST" if is_listing else self.command
        number = self.owner.count(kind, key) + 1
        return Request(kind, key, number, "Range" in self.headers)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        target = http.client.HTTPConnection(urlsplit(self.owner.target).netloc, timeout=30)
        try:
            target.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    target.putheader(name, value)
            target.endheaders(body)
            answer = target.getresponse()
            headers = [
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "content-length")
            ]
            content = answer.read()
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            return (
                answer.status,
                [*headers, ("Content-Length", length or str(len(content)))],
                content,
            )
        finally:
            target.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault
    ) -> None:
        self.send_response_only(status)
        if fault.clock_seconds:
            date = formatdate(time.time() + fault.clock_seconds, usegmt=True)
            headers = [(n, date if n.lower() == "date" else value) for n, value in headers]
        for name, value in headers or [("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[: fault.cut_at]
        try:
            if fault.bytes_per_second is None:
                self.wfile.write(body)
            else:
                step = max(1, round(fault.bytes_per_second / 10))
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    self.wfile.flush()
                    time.sleep(step / fault.bytes_per_second)
        except OSError:  # the client has given up
            self.close_connection = True
        if fault.cut_at is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
