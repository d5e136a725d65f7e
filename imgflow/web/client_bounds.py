"""Bounds on what a server's clients may use: bytes of headers, time, and connections.

uvicorn alone accepts headers of any length, waits for ever for the rest of a request, and keeps
for ever what a client does not read. Memory for answers is bounded in `imgflow.api.http.outgoing`.
"""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from asyncio import AbstractEventLoop, BaseTransport
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SPARE_CONNECTIONS = 16
"""Connections beyond the limit, for health checks."""

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class Bounds:
    """What clients may use; a client that exceeds a bound is refused or disconnected.

    Attributes:
        head_bytes: Maximum size of request line and headers, and of what frames a body (chunk
            extensions, trailers).
        headers: Maximum number of headers.
        head_seconds: Maximum time from the connection, or the last answer, to the end of headers.
        stall_seconds: Time in which a client must send `progress_bytes` of a body it owes, or read
            as many of an answer. The total time is not limited, so slow connections work.
        progress_bytes: Minimum progress in `stall_seconds`.
        keep_alive_seconds: Maximum time between an answer and the next request's first byte.
        pipelined: Maximum number of requests sent ahead of their answers.
        connections: Maximum number at a time; above it, the connection that has waited longest for
            its client is ended.
        sweep_seconds: Time between two checks of all connections.
        closing_seconds: Time for answers in progress to finish when the server stops.
    """

    head_bytes: int = 64 * 1024
    headers: int = 200
    head_seconds: float = 20.0
    stall_seconds: float = 30.0
    progress_bytes: int = 4 * 1024
    keep_alive_seconds: int = 5
    pipelined: int = 32
    connections: int = 2_000
    sweep_seconds: float = 1.0
    closing_seconds: int = 10


class Clients:
    """All connections of a server, and which of them are waiting for their client.

    Attributes:
        bounds: Applied to each connection.
        health: Prefix of the paths that are always answered.
        most: Maximum number of connections at a time.
        open: All connections, including WebSockets.
        waiting: Connections without a complete request, and since when; longest first.
        stalled: Connections whose client owes something and made no progress since the last sweep.
    """

    def __init__(self, bounds: Bounds, health: bytes, most: int) -> None:
        self.bounds = bounds
        self.health = health
        self.most = most
        self.open: set[Any] = set()
        self.waiting: dict[Client, float] = {}
        self.stalled: dict[Client, None] = {}
        self._is_sweeping = False

    def make_room(self, loop: AbstractEventLoop) -> bool:
        """If there are too many connections, end one that is waiting for its client.

        Returns:
            Whether a new connection may stay.
        """
        if not self._is_sweeping:
            self._is_sweeping = True
            self._sweep(loop)
        if len(self.open) <= self.most:
            return True
        idle = next(iter(self.waiting), None) or next(iter(self.stalled), None)
        if idle is not None:
            self.forget(idle)
            idle.transport.abort()
        return len(self.open) <= self.most + SPARE_CONNECTIONS

    def forget(self, client: Client) -> None:
        """Stop waiting for a client."""
        self.waiting.pop(client, None)
        self.stalled.pop(client, None)

    def _sweep(self, loop: AbstractEventLoop) -> None:
        now = time.monotonic()
        for client in [client for client in self.open if isinstance(client, Client)]:
            client.judge(now)
        loop.call_later(self.bounds.sweep_seconds, self._sweep, loop)


class Progress(NamedTuple):
    """What a client owes, and how much of it was done at a time."""

    owed: str
    done: int
    at: float


NOTHING_OWED = Progress("", 0, 0.0)
# More than any buffer holds, so that emptying one always counts as progress.
EMPTIED = 2**40


class Unacceptable(Exception):
    """Ends a request during parsing."""


class Client(HttpToolsProtocol):
    """A connection that enforces the bounds on its client."""

    def __init__(self, clients: Clients, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._clients = clients
        self._bounds = clients.bounds
        clients.open = self.connections
        # Bytes that the parser has not yet reported as headers or body.
        self._unexplained = 0
        # Sizes of the last read, and of the read in which the last request ended: `_unexplained`
        # does not count what follows that request in the same read.
        self._read = self._shared = 0
        self._received = 0
        self._emptied = 0
        self._progress = NOTHING_OWED

    def connection_made(self, transport: BaseTransport) -> None:
        """Start waiting for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio calls it so
        if self._clients.make_room(self.loop):
            self._clients.waiting[self] = time.monotonic()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._clients.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and refuse too many headers; the parser itself would keep them all."""
        self._read = len(data)
        self._unexplained += self._read
        super().data_received(data)
        if self._unexplained > self._bounds.head_bytes and not self.transport.is_closing():
            self.send_400_response("Too many bytes of headers.")

    def on_headers_complete(self) -> None:
        """Start to answer, or refuse."""
        bounds = self._bounds
        if self._unexplained + self._shared > bounds.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > bounds.head_bytes:
                raise Unacceptable
        if len(self.headers) > bounds.headers or len(self.pipeline) >= bounds.pipelined:
            raise Unacceptable
        self._unexplained = 0
        self._clients.forget(self)
        is_too_much = len(self.connections) > self._clients.most
        if is_too_much and not self.url.startswith(self._clients.health):
            self.app = too_busy
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Record progress."""
        self._unexplained = 0
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record that what follows is another request."""
        self._unexplained = 0
        self._shared = self._read
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; any rest of this one must arrive in the same time."""
        if not self.pipeline:
            self._clients.waiting[self] = time.monotonic()
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Record progress."""
        self._emptied += EMPTIED
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request, or just disconnect if another answer is in progress."""
        if self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def judge(self, now: float) -> None:
        """End the connection if its client made too little progress by `now`."""
        owed, done = self._owed()
        before = self._progress
        if owed != before.owed or done >= before.done + self._bounds.progress_bytes:
            self._progress = Progress(owed, done, now)
            self._clients.stalled.pop(self, None)
        elif owed == "request":
            if now - self._clients.waiting[self] > self._bounds.head_seconds:
                self._give_up()
        elif owed:
            # `done` may fall: more may have been written to a client that reads nothing.
            self._progress = before._replace(done=min(before.done, done))
            self._clients.stalled[self] = None
            if now - before.at > self._bounds.stall_seconds:
                self.transport.abort()

    def _owed(self) -> tuple[str, int]:
        """What the client must do next, and how much of it is done."""
        if self.transport.get_write_buffer_size():
            return "answer", self._emptied - self._unread()
        if self in self._clients.waiting:
            return "request", 0
        cycle = self.cycle
        is_expected = (
            cycle is not None
            and cycle.more_body
            and not cycle.waiting_for_100_continue
            and not self.flow.read_paused
        )
        return ("body", self._received) if is_expected else ("", 0)

    def _unread(self) -> int:
        """Bytes on their way to the client, in this process and in the kernel.

        The kernel accepts more only once a third of its buffer is free, which can be a megabyte.
        """
        unread = self.transport.get_write_buffer_size()
        try:
            queued = fcntl.ioctl(
                self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
            )
        except OSError:
            return unread
        return unread + int(struct.unpack("i", queued)[0])

    def _give_up(self) -> None:
        """End a connection whose request is not complete in time."""
        if self._unexplained and not self.transport.is_closing():
            self.transport.write(TIMED_OUT)
        self.transport.close()


async def too_busy(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer 503 to requests on connections beyond the limit."""
    body = b"Too many connections; try again in a few seconds."
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"5"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
