"""Limits the memory that all answers together hold while their clients read them.

An answer larger than what a connection buffers reserves its bytes in one shared room for as long as
it is being sent, and goes out in pieces. Slow clients may take their time while there is room; when
others need it, the slow ones are cut off. Building the answers is in `serving`.
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

# Enough for as many depth arrays of maximum size as are read at once, and some more.
ROOM_BYTES = 256 * 2**20
# The server buffers this much for any connection, so smaller answers are not counted.
PIECE_BYTES = 64 * 1024

GRACE_SECONDS = 5.0
SLOW_BYTES_PER_SECOND = 512 * 1024
# The kernel accepts this much for a client that reads nothing.
BUFFERED_BYTES = 4 * 2**20
RETRY_SECONDS = 5


class Room:
    """Memory for answers that are being sent.

    Attributes:
        free: Number of bytes that no answer holds.
        holders: Answers that hold some bytes.
    """

    def __init__(self, size: int) -> None:
        self.free: float = size
        self.holders: set[Answer] = set()

    def take(self, answer: Answer, size: float) -> None:
        """Reserve bytes for an answer, cutting off slow clients if necessary.

        Raises:
            Refused: There is no room.
        """
        wanted = size - answer.held
        if wanted <= 0:
            return
        # An answer that has started can no longer be refused; its pieces are small.
        if wanted > self.free and self.holders and not answer.held:
            self._make_free(wanted)
        self.free -= wanted
        answer.held = size
        self.holders.add(answer)

    def leave(self, answer: Answer) -> None:
        """Release the bytes that an answer holds."""
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
    """An answer that is being sent.

    Attributes:
        held: Number of bytes it holds of the room.
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
        """Send a message; a large body goes out in pieces.

        The start is held until the first byte of the body, so that the answer can still be refused.

        Raises:
            Refused: There is no room for the body.
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
        """Return how many bytes a stream holds: the next piece is read while one of `size` is sent.

        The first piece may be small, such as for a range that starts near the end of a piece.
        """
        return min(2 * max(size, CHUNK_BYTES), self._length)

    def rate(self, now: float) -> float:
        """Return how many bytes per second the client reads."""
        return (self._sent - BUFFERED_BYTES) / (now - self._began)

    def is_slow(self, now: float) -> bool:
        """Return whether the client has had time to read but has read little."""
        return now - self._began > GRACE_SECONDS and self.rate(now) < SLOW_BYTES_PER_SECOND

    def end(self) -> None:
        """End the answer to make room."""
        self.has_lost = True
        if self._task is not None:
            self._task.cancel()


class Outgoing:
    """The ASGI layer, inside the one that turns exceptions into problems."""

    def __init__(self, app: ASGIApp, room_bytes: int = ROOM_BYTES) -> None:
        self._app = app
        self._room = Room(room_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with its answer's bytes counted in the room."""
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
