"""What answers hold in memory while their clients read them: bounded for all together.

An answer larger than what a connection buffers takes its bytes from one room for as long as it is
being sent, and goes out in pieces. A client that reads slowly may take its time while there is
room; when others need it, the slow ones lose theirs.
"""

from __future__ import annotations

import asyncio
import math
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgflow.api.http.problems import Refused
from imgflow.errors import Trouble
from imgflow.store.objects import CHUNK_BYTES

# As many depth arrays of the largest size as are read at once, and some.
ROOM_BYTES = 256 * 2**20
# What the server buffers for a connection whatever it is for; less than this is not counted.
PIECE_BYTES = 64 * 1024

GRACE_SECONDS = 5.0
SLOW_BYTES_PER_SECOND = 512 * 1024
# The kernel takes so much for a client that reads nothing.
BUFFERED_BYTES = 4 * 2**20
RETRY_SECONDS = 5


class Room:
    """Memory for answers that are being sent.

    Attributes:
        free: Bytes that nobody holds.
        holders: Answers that hold some.
    """

    def __init__(self, size: int) -> None:
        self.free: float = size
        self.holders: set[Answer] = set()

    def take(self, answer: Answer, size: float) -> None:
        """Let an answer hold so many bytes, if need be at the cost of slow clients.

        Raises:
            Refused: there is no room.
        """
        wanted = size - answer.held
        if wanted <= 0:
            return
        # One that has begun cannot be refused any more; its pieces are small.
        if wanted > self.free and self.holders and not answer.held:
            self._make_free(wanted)
        self.free -= wanted
        answer.held = size
        self.holders.add(answer)

    def leave(self, answer: Answer) -> None:
        """Give back what an answer holds."""
        self.free += answer.held
        answer.held = 0
        self.holders.discard(answer)

    def _make_free(self, wanted: float) -> None:
        now = time.monotonic()
        slow = sorted((a for a in self.holders if a.is_slow(now)), key=lambda a: a.rate(now))
        if self.free + sum(answer.held for answer in slow) < wanted:
            raise Refused(
                "busy",
                "Too many large answers are being read; ask again in a few seconds.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        for answer in slow:
            if self.free >= wanted:
                return
            self.leave(answer)
            answer.end()


class Answer:
    """One answer on its way.

    Attributes:
        held: Bytes of the room.
        has_lost: Whether it was ended to make room.
    """

    def __init__(self, room: Room, send: Send) -> None:
        self.held: float = 0
        self.has_lost = False
        self._room = room
        self._send = send
        self._task = asyncio.current_task()
        self._start: Message | None = None
        self._length: float = math.inf
        self._sent = 0
        self._began = 0.0

    async def send(self, message: Message) -> None:
        """Send a message, a large body in pieces.

        The start waits for the first byte of the body: until then the answer can be refused.

        Raises:
            Refused: there is no room for the body.
        """
        if message["type"] == "http.response.start":
            self._start = message
            told = Headers(raw=message["headers"]).get("content-length", "")
            self._length = int(told) if told.isdecimal() else math.inf
            return
        body: bytes = message.get("body", b"")
        has_more = message.get("more_body", False)
        holds = self._stream_holds(len(body)) if has_more else len(body)
        if holds > PIECE_BYTES:
            self._began = self._began or time.monotonic()
            self._room.take(self, holds)
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        if len(body) <= PIECE_BYTES:
            self._sent += len(body)
            await self._send(message)
            return
        view = memoryview(body)
        for at in range(0, len(body), PIECE_BYTES):
            piece = bytes(view[at : at + PIECE_BYTES])
            is_last = at + PIECE_BYTES >= len(body)
            await self._send(
                {"type": message["type"], "body": piece, "more_body": has_more or not is_last}
            )
            self._sent += len(piece)

    def _stream_holds(self, size: int) -> float:
        """What a stream comes to hold: its next piece is in hand while one of this size is sent.

        The first one may be small, as that of a range which begins near the end of a piece.
        """
        return min(2 * max(size, CHUNK_BYTES), self._length)

    def rate(self, now: float) -> float:
        """Bytes a second that the client takes."""
        return (self._sent - BUFFERED_BYTES) / (now - self._began)

    def is_slow(self, now: float) -> bool:
        """Whether the client has had time, and took little."""
        return now - self._began > GRACE_SECONDS and self.rate(now) < SLOW_BYTES_PER_SECOND

    def end(self) -> None:
        """End it, to make room."""
        self.has_lost = True
        if self._task is not None:
            self._task.cancel()


class Outgoing:
    """The ASGI layer, inside the one that makes problems of exceptions."""

    def __init__(self, app: ASGIApp, room_bytes: int = ROOM_BYTES) -> None:
        self._app = app
        self._room = Room(room_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = Answer(self._room, send)
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not answer.has_lost:
                raise
            raise Trouble("It was read slowly, and others needed the room") from None
        finally:
            self._room.leave(answer)
