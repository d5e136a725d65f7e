"""Servers that break off, refuse and heal: a stub where a real one does not misbehave on demand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imgflow.errors import SourceChanged, Trouble
from imgflow.store.location import parse_location
from imgflow.store.objects import SourceObject
from imgflow.store.output_store import OutputStore
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests.ceph import free_port

BODY = b"0123456789"
ETAG = "e7"
ANNOUNCED = {
    "obstore": SourceObject("a.jpg", ETAG, None, len(BODY), datetime.now(UTC)),
    "boto3": SourceObject("a//b.jpg", ETAG, None, len(BODY), datetime.now(UTC)),
}
paths = pytest.mark.parametrize("path", ["obstore", "boto3"])

Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Stub:
    """An HTTP server that answers with one function of the request and its number."""

    def __init__(self) -> None:
        self.answer: Answer = whole
        self.requests: list[BaseHTTPRequestHandler] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.requests.append(self)
                stub.answer(self, len(stub.requests))

            do_HEAD = do_PUT = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    request.send_response(status)
    headers = {
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): headers[k] for k in headers},
    }
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Last-Modified", "Sat, 01 Aug 2026 12:00:00 GMT")
    request.end_headers()
    request.wfile.write(body)


def whole(request: BaseHTTPRequestHandler, _: int) -> None:
    """All of it, or the range that was asked for."""
    wanted = request.headers.get("Range")
    if wanted:
        first = int(wanted.removeprefix("bytes=").partition("-")[0])
        send(
            request,
            206,
            BODY[first:],
            ETag=f'"{ETAG}"',
            Content_Range=f"bytes {first}-{len(BODY) - 1}/{len(BODY)}",
        )
        return
    send(request, 200, BODY, ETag=f'"{ETAG}"')


def cut(request: BaseHTTPRequestHandler, _: int) -> None:
    send(request, 200, BODY[:3], ETag=f'"{ETAG}"', Content_Length=str(len(BODY)))
    request.close_connection = True


def cut_once(request: BaseHTTPRequestHandler, number: int) -> None:
    (cut if number == 1 else whole)(request, number)


def cut_then_other(request: BaseHTTPRequestHandler, number: int) -> None:
    if number == 1:
        cut(request, number)
    else:
        send(
            request,
            206 if request.headers.get("Range") else 200,
            b"X" * 7 if request.headers.get("Range") else b"X" * 10,
            ETag='"e8"',
            Content_Range=f"bytes 3-9/{len(BODY)}",
        )


def short_but_complete(request: BaseHTTPRequestHandler, _: int) -> None:
    send(request, 200, BODY[:3], ETag=f'"{ETAG}"')


def busy(request: BaseHTTPRequestHandler, _: int) -> None:
    send(request, 503, b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>")


def busy_once(request: BaseHTTPRequestHandler, number: int) -> None:
    (busy if number == 1 else whole)(request, number)


def telling(request: BaseHTTPRequestHandler, _: int) -> None:
    """As Amazon answers a wrong secret: with all that was signed."""
    send(
        request,
        403,
        b"<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>"
        b"<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId><StringToSign>AWS4-HMAC</StringToSign>"
        b"<SignatureProvided>0123abcd</SignatureProvided></Error>",
    )


def no_s3(request: BaseHTTPRequestHandler, _: int) -> None:
    send(request, 200, b"<html><body>Welcome to nginx, token=hunter2</body></html>")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    stub = Stub()
    monkeypatch.setenv("AWS_ENDPOINT_URL", stub.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield stub
    stub.stop()


@pytest.fixture
def source(stub: Stub) -> S3Source:
    assert stub.requests == []
    return S3Source(parse_location("s3://bucket", setting="TEST"))


@paths
def test_a_whole_body_is_read_and_asked_for_once_with_the_token(
    source: S3Source, stub: Stub, path: str
) -> None:
    assert source.read(ANNOUNCED[path]) == BODY
    assert b"".join(source.stream(ANNOUNCED[path])) == BODY
    tokens = [request.headers["X-Amz-Security-Token"] for request in stub.requests]
    assert tokens == ["the-session-token"] * 2


@paths
def test_a_body_that_is_always_cut_short_is_trouble(
    source: S3Source, stub: Stub, path: str
) -> None:
    stub.answer = cut
    started = time.monotonic()
    with pytest.raises(Trouble) as caught:
        source.read(ANNOUNCED[path])
    assert not isinstance(caught.value, SourceChanged)
    received: list[bytes] = []
    with pytest.raises(Trouble):
        received.extend(source.stream(ANNOUNCED[path]))
    assert BODY.startswith(b"".join(received))
    assert time.monotonic() - started < 20


@paths
def test_a_body_cut_short_once_is_healed_or_trouble_but_never_short(
    source: S3Source, stub: Stub, path: str
) -> None:
    for read in (source.read, lambda o: b"".join(source.stream(o))):
        stub.requests.clear()
        stub.answer = cut_once
        try:
            assert read(ANNOUNCED[path]) == BODY
        except Trouble:
            stub.requests.clear()
            stub.answer = whole
            assert read(ANNOUNCED[path]) == BODY


@paths
def test_a_body_that_goes_on_with_another_upload_is_never_mixed(
    source: S3Source, stub: Stub, path: str
) -> None:
    stub.answer = cut_then_other
    with pytest.raises(Trouble):
        source.read(ANNOUNCED[path])
    stub.requests.clear()
    with pytest.raises(Trouble):
        list(source.stream(ANNOUNCED[path]))


@paths
def test_a_body_of_another_size_than_announced_is_trouble(
    source: S3Source, stub: Stub, path: str
) -> None:
    stub.answer = short_but_complete
    with pytest.raises(Trouble, match="came short: 3 of 10 bytes"):
        source.read(ANNOUNCED[path])
    with pytest.raises(Trouble, match="came short: 3 of 10 bytes"):
        list(source.stream(ANNOUNCED[path]))


@paths
def test_a_server_that_is_busy_once_is_asked_again(source: S3Source, stub: Stub, path: str) -> None:
    stub.answer = busy_once
    assert source.read(ANNOUNCED[path]) == BODY
    assert len(stub.requests) == 2


@paths
def test_a_server_that_stays_busy_is_trouble_within_seconds(
    source: S3Source, stub: Stub, path: str
) -> None:
    stub.answer = busy
    started = time.monotonic()
    with pytest.raises(Trouble, match=r"s3://bucket/.*(SlowDown; it is tried again|503)"):
        source.read(ANNOUNCED[path])
    assert time.monotonic() - started < 10


@paths
def test_what_a_server_tells_of_a_signature_is_not_repeated(
    source: S3Source, stub: Stub, path: str
) -> None:
    stub.answer = telling
    with pytest.raises(
        Trouble, match="SignatureDoesNotMatch; check AWS_SECRET_ACCESS_KEY"
    ) as caught:
        source.read(ANNOUNCED[path])
    for secret in ("AKIAEXAMPLE", "wJalrXUtnFEMI", "0123abcd", "AWS4-HMAC", "session-token"):
        assert secret not in str(caught.value)
    outputs = OutputStore(parse_location("s3://bucket/out", setting="TEST"))
    with pytest.raises(Trouble, match="check AWS_SECRET_ACCESS_KEY") as caught:
        outputs.put("thumbnail/a", b"x", "image/jpeg")
    assert "0123abcd" not in str(caught.value)


def test_a_web_page_in_place_of_s3_is_trouble(source: S3Source, stub: Stub) -> None:
    stub.answer = no_s3
    with pytest.raises(Trouble, match="s3://bucket/ could not be listed") as caught:
        source.check()
    assert "hunter2" not in str(caught.value)


def listing(request: BaseHTTPRequestHandler, _: int) -> None:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag>"
        "<LastModified>2026-08-01T12:00:00.789Z</LastModified></Contents>"
        for key in ("a%00b.jpg", "c.jpg")
    )
    send(
        request,
        200,
        b"<ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType>"
        b"<IsTruncated>false</IsTruncated>%s</ListBucketResult>" % entries.encode(),
    )


def test_a_key_with_nul_does_not_reach_the_database(source: S3Source, stub: Stub) -> None:
    """Ceph refuses such a key; other servers are said not to."""
    stub.answer = listing
    page = source.list_page(None, 10)
    assert [found.key for found in page.objects] == ["c.jpg"]
    assert page.ignored == 1
    assert page.objects[0].identity == "e/1/20260801T120000Z"


@pytest.mark.usefixtures("stub")
def test_an_endpoint_where_nobody_listens_is_trouble_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    source = S3Source(parse_location("s3://bucket/in", setting="TEST"))
    (tmp_path / "file").write_bytes(b"x")
    started = time.monotonic()
    for ask in (
        source.check,
        lambda: source.stat("a"),
        lambda: source.read(ANNOUNCED["obstore"]),
        lambda: source.upload("a", tmp_path / "file"),
    ):
        with pytest.raises(Trouble, match=r"s3://bucket/in/.*AWS_ENDPOINT_URL") as caught:
            ask()
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "wJalrXUtnFEMI" not in str(caught.value)
    assert time.monotonic() - started < 35


@pytest.mark.usefixtures("stub")
def test_an_endpoint_that_never_answers_the_call_is_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:  # the queue of a listener that accepts nobody is full
            one.setblocking(False)
            one.connect_ex(address)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{address[1]}")
        monkeypatch.setattr("imgflow.store.s3.clients.ATTEMPTS", 1)
        started = time.monotonic()
        with pytest.raises(Trouble, match="does not answer"):
            S3Source(parse_location("s3://bucket", setting="TEST")).check()
        assert time.monotonic() - started < 8
        for one in waiting:
            one.close()
