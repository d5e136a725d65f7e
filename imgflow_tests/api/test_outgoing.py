"""The room that large answers share while they are being sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI, Response
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope, Send

from imgflow.api.http import outgoing
from imgflow.api.http.envelope import Envelope
from imgflow.api.http.exceptions import add_handlers
from imgflow.api.http.measures import Measured, Measures
from imgflow.api.http.outgoing import PIECE_BYTES, Outgoing
from imgflow.api.http.problems import Refused
from imgflow.errors import Trouble

MIB = 2**20
SCOPE = {"type": "http"}


async def receive() -> Message:
    return {"type": "http.request", "body": b""}


def answering(*bodies: bytes) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        size = str(sum(map(len, bodies))).encode()
        headers = [(b"content-length", size)] if len(bodies) > 1 else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, body in enumerate(bodies, start=1):
            more_body = number < len(bodies)
            await send({"type": "http.response.body", "body": body, "more_body": more_body})

    return app


class Client:
    """Takes what is sent, once it may."""

    def __init__(self, *, reads: bool = True) -> None:
        self.messages: list[Message] = []
        self.may_read = asyncio.Event()
        if reads:
            self.may_read.set()

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            await self.may_read.wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * MIB])
def test_bodies_arrive_as_they_were_in_pieces_that_a_connection_can_buffer(size: int) -> None:
    async def run() -> None:
        body = bytes(range(256)) * (size // 256 + 1)
        client = Client()
        await Outgoing(answering(body[:size], b"end"))(SCOPE, receive, client.send)
        start, *pieces = client.messages
        assert start["type"] == "http.response.start"
        assert client.body == body[:size] + b"end"
        assert max(len(piece["body"]) for piece in pieces) <= PIECE_BYTES
        assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]

    asyncio.run(run())


def test_an_answer_without_room_is_refused_before_it_began_and_small_ones_are_not() -> None:
    async def run() -> None:
        large = Outgoing(answering(bytes(MIB)), room_bytes=MIB)
        slow, other = Client(reads=False), Client()
        first = asyncio.create_task(large(SCOPE, receive, slow.send))
        while not slow.body:
            await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await large(SCOPE, receive, other.send)
        assert (refused.value.code, refused.value.headers) == ("busy", {"Retry-After": "5"})
        assert other.messages == []
        slow.may_read.set()
        await first
        await large(SCOPE, receive, other.send)
        assert len(other.body) == MIB

    asyncio.run(run())


def test_a_caller_without_room_is_told_so_and_the_metrics_count_what_it_was_told() -> None:
    measures = Measures()
    app = FastAPI(
        middleware=[
            Middleware(Envelope),
            Middleware(Outgoing, room_bytes=MIB),
            Middleware(Measured, measures=measures),
        ]
    )
    add_handlers(app)

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(MIB))

    scope = {"method": "GET", "path": "/large", "query_string": b"", "headers": []}

    async def run() -> None:
        slow, other = Client(reads=False), Client()
        first = asyncio.create_task(app({**SCOPE, **scope}, receive, slow.send))
        while not slow.body:
            await asyncio.sleep(0.001)
        await app({**SCOPE, **scope}, receive, other.send)
        assert other.messages[0]["status"] == 503
        assert json.loads(other.body)["code"] == "busy"
        slow.may_read.set()
        await first

    asyncio.run(run())
    for status in ("200", "503"):
        labels = {"method": "GET", "route": "/large", "status": status}
        assert measures.registry.get_sample_value("imgflow_http_requests_total", labels) == 1


@pytest.mark.parametrize("first", [b"a", bytes(PIECE_BYTES + 1)], ids=["small", "larger"])
def test_a_stream_whose_first_piece_is_small_is_refused_before_it_began_too(first: bytes) -> None:
    async def run() -> None:
        stream = Outgoing(answering(first, bytes(MIB), bytes(MIB), b""), room_bytes=4 * MIB)
        clients = [Client(reads=False) for _ in range(20)]
        tasks = [asyncio.create_task(stream(SCOPE, receive, client.send)) for client in clients]
        for _ in range(20):
            await asyncio.sleep(0)
        begun = [client for client in clients if client.messages]
        assert len(begun) == 2
        for client in clients:
            client.may_read.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(len(client.body) == len(first) + 2 * MIB for client in begun)
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 18

    asyncio.run(run())


def test_a_small_answer_in_pieces_takes_no_room() -> None:
    async def run() -> None:
        slow, other = Client(reads=False), Client()
        large = Outgoing(answering(bytes(MIB)), room_bytes=MIB)
        first = asyncio.create_task(large(SCOPE, receive, slow.send))
        while not slow.body:
            await asyncio.sleep(0)
        large._app = answering(b"two", b"pieces", b"")
        await large(SCOPE, receive, other.send)
        assert other.body == b"twopieces"
        slow.may_read.set()
        await first

    asyncio.run(run())


def test_who_reads_slowly_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "GRACE_SECONDS", 0.0)

    async def run() -> None:
        large = Outgoing(answering(bytes(MIB)), room_bytes=MIB)
        slow, other = Client(reads=False), Client()
        first = asyncio.create_task(large(SCOPE, receive, slow.send))
        while not slow.body:
            await asyncio.sleep(0)
        await large(SCOPE, receive, other.send)
        assert len(other.body) == MIB
        with pytest.raises(Trouble):
            await first

    asyncio.run(run())


def test_an_answer_larger_than_the_room_is_sent_when_nobody_else_holds_any() -> None:
    async def run() -> None:
        client = Client()
        large = Outgoing(answering(bytes(3 * MIB)), room_bytes=MIB)
        for _ in range(2):
            await large(SCOPE, receive, client.send)
        assert len(client.body) == 6 * MIB

    asyncio.run(run())
