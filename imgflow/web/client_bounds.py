"""What clients of a server may take: bytes of headers, time, and connections.

uvicorn alone takes headers of any length, waits for ever for a request that was begun, and keeps
for ever what a client does not read.
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
"""Beyond the limit, for questions after the server's health."""

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class Bounds:
    """What clients may take.

    Attributes:
        head_bytes: Request line and headers; also what frames a body: chunk extensions, trailers.
        headers: Number of them.
        head_seconds: From the connection, or the last answer, to the end of the headers.
        stall_seconds: Within each of these a client sends `progress_bytes` of a body that it owes,
            or reads as much of an answer. There is no limit on the whole, so slow lines work.
        progress_bytes: See there.
        keep_alive_seconds: Between an answer and the first byte of the next request.
        pipelined: Requests that may be sent ahead of the answers.
        connections: At a time; above it, the one is ended that has waited longest for its client.
        sweep_seconds: Between two looks at all connections.
        closing_seconds: For answers in progress when the server is told to end.
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
    """All connections of a server, and which of them wait for what their client owes.

    Attributes:
        bounds: What clients may take.
        health: Start of the paths that are always answered.
        most: Connections at a time.
        open: All of them, WebSockets too.
        waiting: Those that have no complete request, and since when; longest first.
        stalled: Those whose client owes something, and moved nothing since the last sweep.
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
        """End a connection that waits for its client, when there are too many.

        Returns:
            Whether there is room.
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
        """Wait no more for what a client owes."""
        self.waiting.pop(client, None)
        self.stalled.pop(client, None)

    def _sweep(self, loop: AbstractEventLoop) -> None:
        now = time.monotonic()
        for client in [client for client in self.open if isinstance(client, Client)]:
            client.judge(now)
        loop.call_later(self.bounds.sweep_seconds, self._sweep, loop)


class Progress(NamedTuple):
    """What a client owes, and how far it was when."""

    owed: str
    done: int
    at: float


NOTHING_OWED = Progress("", 0, 0.0)
# More than any buffer holds: each time one was emptied is progress, whatever it holds by now.
EMPTIED = 2**40


class Unacceptable(Exception):
    """Ends a request while it is parsed."""


class Client(HttpToolsProtocol):
    """A connection that keeps the bounds."""

    def __init__(self, clients: Clients, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._clients = clients
        self._bounds = clients.bounds
        clients.open = self.connections
        # Bytes since the parser last said what they were.
        self._unexplained = 0
        # Of the last read, and of the one in which the last request ended: what follows it there
        # is not among the former.
        self._read = self._shared = 0
        self._received = 0
        self._emptied = 0
        self._progress = NOTHING_OWED

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio calls it so
        if self._clients.make_room(self.loop):
            self._clients.waiting[self] = time.monotonic()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._clients.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as it leads somewhere: the parser itself would keep it all."""
        self._read = len(data)
        self._unexplained += self._read
        super().data_received(data)
        if self._unexplained > self._bounds.head_bytes and not self.transport.is_closing():
            self.send_400_response("Too many bytes of headers.")

    def on_headers_complete(self) -> None:
        """Begin to answer, or refuse to."""
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
        """Note progress."""
        self._unexplained = 0
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that what follows is another request."""
        self._unexplained = 0
        self._shared = self._read
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; what still comes of this one has no longer than that."""
        if not self.pipeline:
            self._clients.waiting[self] = time.monotonic()
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Note progress."""
        self._emptied += EMPTIED
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request; not in the midst of the answer to another one."""
        if self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def judge(self, now: float) -> None:
        """End the connection when its client has not done in time what it owes."""
        owed, done = self._owed()
        before = self._progress
        if owed != before.owed or done >= before.done + self._bounds.progress_bytes:
            self._progress = Progress(owed, done, now)
            self._clients.stalled.pop(self, None)
        elif owed == "request":
            if now - self._clients.waiting[self] > self._bounds.head_seconds:
                self._give_up()
        elif owed:
            # More may have been written to a client that reads nothing.
            self._progress = before._replace(done=min(before.done, done))
            self._clients.stalled[self] = None
            if now - before.at > self._bounds.stall_seconds:
                self.transport.abort()

    def _owed(self) -> tuple[str, int]:
        """What the client has to do next, and how far it is with that."""
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
        """Bytes on their way to the client, here and in the kernel.

        The kernel takes more only once a third of its buffer is free, which can be a megabyte.
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
    """Answer when there are more connections than the server keeps."""
    body = b"Too many connections; try again in a few seconds."
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"5"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
