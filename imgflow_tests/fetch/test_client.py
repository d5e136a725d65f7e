"""Fetching from servers that want to do harm; a DNS that changes its answers among them."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imgflow.errors import SettingsError
from imgflow.fetch.client import (
    Fetcher,
    FetchFailed,
    FetchRefused,
    Limits,
    Shown,
    TooManyBytes,
    trusting,
)
from imgflow.fetch.hosts import AllowedHosts, NotAllowed
from imgflow_tests.fetch.servers import make_certificate, ok, serving, status

NAME = "photos.example.org"
SECRET = "X-Amz-Signature=5ecre7"  # noqa: S105 - of nobody
LIMITS = Limits(bytes=100_000, seconds=5.0)
QUICK = Limits(bytes=100_000, seconds=0.4)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture(scope="module")
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def near(port: int, limits: Limits = LIMITS) -> Fetcher:
    """What fetches from a server of one's own, by its address."""
    return Fetcher(AllowedHosts([f"http://127.0.0.1:{port}"]), limits)


def url(port: int, path: str = "/a.jpg") -> str:
    return f"http://127.0.0.1:{port}{path}?{SECRET}"


def test_a_body_comes_with_its_etag_and_is_asked_for_as_signed() -> None:
    with serving(ok(b"picture", 'ETag: "e1"')) as server:
        fetched = near(server.port).fetch(url(server.port, "/a%2Fb%20c.jpg"))
    assert (fetched.body, fetched.etag) == (b"picture", '"e1"')
    assert server.paths == [f"/a%2Fb%20c.jpg?{SECRET}"]
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in server.heads[0]


def test_what_is_known_is_not_sent_again() -> None:
    with serving(status("304 Not Modified")) as server:
        fetched = near(server.port).fetch(url(server.port), etag='"e1"')
    assert fetched.body is None
    assert '\r\nIf-None-Match: "e1"\r\n' in server.heads[0]


TIME = "Sun, 29 Nov 2026 20:00:00 GMT"
SHOWN = Shown("e1", 7, datetime(2026, 11, 29, 20, tzinfo=UTC))


def check(port: int, path: str = "/a.jpg", **more: Any) -> Shown:
    return near(port).check(url(port, path), **{"may_lead": lambda _: True, **more})


def test_looking_which_object_would_come_asks_for_one_byte() -> None:
    headers = ("Content-Range: bytes 0-0/7", 'ETag: "e1"', f"Last-Modified: {TIME}")
    with serving(status("206 Partial Content", *headers)) as server:
        assert check(server.port) == SHOWN
    assert "\r\nRange: bytes=0-0\r\n" in server.heads[0]
    with serving(ok(b"picture", *headers[1:])) as server:  # it knows no ranges
        assert check(server.port) == SHOWN
    with serving(status("403 Forbidden")) as server, pytest.raises(FetchRefused, match="403"):
        check(server.port)


def test_an_empty_object_is_asked_for_without_a_range() -> None:
    with serving(status("416 Range Not Satisfiable")) as server:

        def without_range(connection: socket.socket, path: str) -> None:
            empty = ok(b"", 'ETag: "e0"', f"Last-Modified: {TIME}")
            (status("416 No") if "Range:" in server.heads[-1] else empty)(connection, path)

        server.answer = without_range
        assert (check(server.port).etag, check(server.port).size) == ("e0", 0)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ('ETag: "e1"', f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 0-0/*", 'ETag: "e1"', f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 0-0/-7", 'ETag: "e1"', f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 1-1/7", 'ETag: "e1"', f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 0-0/7", f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 0-0/7", 'ETag: ""', f"Last-Modified: {TIME}"),
        ("Content-Range: bytes 0-0/7", 'ETag: "e1"'),
        ("Content-Range: bytes 0-0/7", 'ETag: "e1"', "Last-Modified: yesterday"),
    ],
)
def test_an_answer_that_does_not_say_which_object_it_is_of_proves_nothing(
    headers: tuple[str, ...],
) -> None:
    with serving(status("206 Partial Content", *headers)) as server, pytest.raises(FetchRefused):
        check(server.port)


def test_what_leads_to_another_object_is_not_followed() -> None:
    with serving(ok(b"x", 'ETag: "e1"')) as server:
        there = ok(b"picture", 'ETag: "e1"', f"Last-Modified: {TIME}")
        moved = status("307 Moved", f"Location: {url(server.port, '/b.jpg')}")
        server.answer = lambda connection, path: (moved if "/a" in path else there)(
            connection, path
        )
        assert check(server.port) == SHOWN
        with pytest.raises(NotAllowed, match="not the same object"):
            check(server.port, may_lead=lambda to: "/a.jpg" in to)
    assert len(server.paths) == 3


@pytest.mark.parametrize("line", ["403 Forbidden", "404 Not Found", "400 Bad Request", "204 No"])
def test_a_refusal_is_told_from_a_failure(line: str) -> None:
    with serving(status(line)) as server, pytest.raises(FetchRefused, match=line[:3]):
        near(server.port).fetch(url(server.port))


@pytest.mark.parametrize("line", ["500 Oh", "503 Slow Down", "304 Not Modified"])
def test_a_failure_may_be_asked_again(line: str) -> None:
    with serving(status(line)) as server, pytest.raises(FetchFailed, match=line[:3]):
        near(server.port).fetch(url(server.port))


# Connecting to the address that was checked.


class ChangingDNS:
    """Answers with another address at every question."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_the_address_that_was_judged_is_connected_to_whatever_dns_says_later(
    server_tls: ssl.SSLContext, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns = ChangingDNS(["93.184.216.34"], ["127.0.0.1"])
    connected: list[tuple[str, int]] = []
    with serving(ok(b"picture"), server_tls) as server:

        def redirected(address: tuple[str, int], *_: object) -> socket.socket:
            """The internet: leads to our server, and notes where it was asked to lead."""
            connected.append(address)
            connection = socket.socket()
            connection.connect(("127.0.0.1", server.port))
            return connection

        monkeypatch.setattr(socket, "create_connection", redirected)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("resolved again"))
        fetcher = Fetcher(AllowedHosts([NAME]), LIMITS, resolve=dns, tls=tls)
        # SNI, certificate and Host have the name, though the connection is to an address.
        assert fetcher.fetch(f"https://{NAME}/a").body == b"picture"
        assert f"\r\nHost: {NAME}\r\n" in server.heads[0]
        assert connected == [("93.184.216.34", 443)]
        with pytest.raises(NotAllowed, match="public internet"):
            fetcher.fetch(f"https://{NAME}/a")
    assert connected == [("93.184.216.34", 443)]
    assert dns.asked == [(NAME, 443)] * 2


def test_a_certificate_of_another_name_is_not_taken(
    server_tls: ssl.SSLContext, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_connection
    with serving(ok(b"picture"), server_tls) as server:
        monkeypatch.setattr(
            socket, "create_connection", lambda *_: create(("127.0.0.1", server.port))
        )
        for name, context in (("other.example.org", tls), (NAME, None)):
            fetcher = Fetcher(
                AllowedHosts([name]), LIMITS, resolve=lambda *_: ["93.184.216.34"], tls=context
            )
            with pytest.raises(FetchFailed, match="certificate"):
                fetcher.fetch(f"https://{name}/a")
    assert server.paths == []


def test_certificates_of_ones_own_are_trusted_besides_those_of_the_system(
    certificate: Path, tmp_path: Path
) -> None:
    context = trusting(str(certificate))
    assert any(NAME in str(found) for found in context.get_ca_certs())
    assert context.check_hostname
    (tmp_path / "none.pem").write_text("nothing")
    for file in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=r"^AWS_CA_BUNDLE=.*none|missing"):
            trusting(str(file))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["10.0.0.5"], ["169.254.169.254"], ["::1"], ["::ffff:127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"], ["fe80::1%eth0"], [],
    ],
)  # fmt: skip
def test_a_name_that_leads_inside_is_not_connected_to(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    fetcher = Fetcher(AllowedHosts([NAME]), LIMITS, resolve=lambda *_: addresses)
    with pytest.raises(NotAllowed, match="public internet"):
        fetcher.fetch(f"https://{NAME}/a?{SECRET}")


@pytest.mark.parametrize(
    "host", ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "127.1", "localhost", "017700000001"]
)
def test_however_loopback_is_written_it_is_loopback(host: str) -> None:
    """These reach the system's resolver, which reads them as 127.0.0.1."""
    with pytest.raises(NotAllowed, match="public internet"):
        Fetcher(AllowedHosts([host]), LIMITS).fetch(f"https://{host}/")


def test_of_several_addresses_the_first_that_answers_is_taken() -> None:
    with serving(ok(b"picture")) as server:
        allowed = AllowedHosts(endpoint=f"http://ceph.internal:{server.port}")
        # Nobody listens on the first.
        fetcher = Fetcher(allowed, LIMITS, resolve=lambda *_: ["127.0.0.77", "127.0.0.1"])
        assert fetcher.fetch(f"http://ceph.internal:{server.port}/a").body == b"picture"
        assert f"\r\nHost: ceph.internal:{server.port}\r\n" in server.heads[0]


# Redirects.


def test_a_redirect_is_followed_to_what_is_allowed_only() -> None:
    with (
        serving(ok(b"picture")) as there,
        serving(status("307 Other Region", f"Location: {url(there.port, '/b')}")) as here,
    ):
        both = [f"http://127.0.0.1:{server.port}" for server in (here, there)]
        assert Fetcher(AllowedHosts(both), LIMITS).fetch(url(here.port)).body == b"picture"
        assert there.paths == [f"/b?{SECRET}"]
        with pytest.raises(NotAllowed, match="not among the servers"):
            near(here.port).fetch(url(here.port))
    assert there.connections == 1


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://localhost/", "file:///etc/passwd",
     "//[::1]/", "http://2130706433/", "https://evil.example/", "http://127.0.0.1:1/",
     "gopher://a/"],
)  # fmt: skip
def test_a_redirect_to_the_inside_is_refused(location: str) -> None:
    with serving(status("302 Found", f"Location: {location}")) as server, pytest.raises(NotAllowed):
        near(server.port).fetch(url(server.port))


@pytest.mark.parametrize("location", ["http://[", "//[x]/", "http://a.example@[/"])
def test_a_redirect_to_what_is_no_url_is_refused(location: str) -> None:
    answer = status("302 Found", f"Location: {location}")
    with serving(answer) as server, pytest.raises(NotAllowed):
        near(server.port).fetch(url(server.port))


def test_redirects_are_resolved_and_judged_again() -> None:
    with serving(status("302 Found", "Location: /again")) as server:
        dns = ChangingDNS(["127.0.0.1"], ["169.254.169.254"])
        allowed = AllowedHosts(endpoint=f"http://ceph.internal:{server.port}")
        with pytest.raises(NotAllowed, match="public internet"):
            Fetcher(allowed, LIMITS, resolve=dns).fetch(f"http://ceph.internal:{server.port}/a")
    assert server.paths == ["/a"]


def test_a_circle_of_redirects_ends() -> None:
    with (
        serving(status("302 Found", f"Location: /a?{SECRET}")) as server,
        pytest.raises(NotAllowed, match="more than 3 times"),
    ):
        near(server.port).fetch(url(server.port))
    assert len(server.paths) == 4


# Bodies that are too large, slow, endless or cut.


def test_a_body_that_is_too_large_is_not_read() -> None:
    with serving(ok(bytes(100_001))) as server, pytest.raises(TooManyBytes, match="100,000"):
        near(server.port).fetch(url(server.port))
    with serving(ok(bytes(100_000))) as server:
        assert near(server.port).fetch(url(server.port)).body == bytes(100_000)


def endless(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")


def test_an_endless_body_is_cut() -> None:
    with serving(endless) as server, pytest.raises(TooManyBytes):
        near(server.port).fetch(url(server.port))


def drip(connection: socket.socket, begin: bytes, piece: bytes) -> None:
    connection.sendall(begin)
    while True:
        time.sleep(0.02)
        connection.sendall(piece)


SLOW = {
    "silence": lambda connection, _: drip(connection, b"", b""),
    "status line": lambda connection, _: drip(connection, b"HTTP/1.1 2", b"0"),
    "header": lambda connection, _: drip(connection, b"HTTP/1.1 200 OK\r\nA: ", b"a"),
    "continue": lambda connection, _: drip(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": lambda connection, _: drip(
        connection, b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", b"a"
    ),
    "chunk": lambda connection, _: drip(
        connection, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"
    ),
}


@pytest.mark.parametrize("part", SLOW)
def test_whatever_comes_slowly_is_ended_in_time(part: str) -> None:
    with serving(SLOW[part]) as server:
        began = time.monotonic()
        with pytest.raises(FetchFailed, match="in time"):
            near(server.port, QUICK).fetch(url(server.port))
        assert time.monotonic() - began < 2


def test_a_slow_greeting_is_ended_in_time(tls: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        allowed = AllowedHosts([f"https://127.0.0.1:{port}"])
        began = time.monotonic()
        with pytest.raises(FetchFailed, match="in time"):
            Fetcher(allowed, QUICK, tls=tls).fetch(f"https://127.0.0.1:{port}/")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwithout an end",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000,
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_failure(said: bytes) -> None:
    with (
        serving(lambda connection, _: connection.sendall(said)) as server,
        pytest.raises(FetchFailed),
    ):
        near(server.port).fetch(url(server.port))


@pytest.mark.parametrize("port", [1])
def test_a_server_that_is_not_there_is_a_failure(port: int) -> None:
    with pytest.raises(FetchFailed, match="did not answer well"):
        near(port).fetch(url(port))


def test_a_name_that_nobody_knows_is_a_failure() -> None:
    def nobody(*_: object) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(FetchFailed, match="cannot be resolved"):
        Fetcher(AllowedHosts([NAME]), LIMITS, resolve=nobody).fetch(f"https://{NAME}/")


def test_no_failure_and_no_log_shows_what_is_secret_of_a_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = [
        *(status("403 No"), status("500 No"), status("302 F", f"Location: /?{SECRET}")),
        *(SLOW["body"], endless, lambda *_: None),
    ]
    with caplog.at_level(logging.DEBUG):
        for answer in refusals:
            with serving(answer) as server, pytest.raises(Exception, match=r".") as caught:
                near(server.port, QUICK).fetch(url(server.port, "/path-5ecre7"))
            assert "5ecre7" not in repr(caught.value)
            assert "5ecre7" not in repr(caught.value.__cause__)
    assert "5ecre7" not in caplog.text


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    with serving(ok(b"x")) as server:
        for _ in range(20):
            near(server.port).fetch(url(server.port))
    for _ in range(100):
        if threading.active_count() <= before + 1:
            break
        time.sleep(0.02)
    assert threading.active_count() <= before + 1
