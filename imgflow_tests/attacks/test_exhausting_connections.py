"""Requests that never end, from anybody who can connect: nobody else is kept from an answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.settings.variables import Settings, load_settings
from imgflow_tests.attacks.raw_http import MIB, Attacked, attacked, flood, is_ended

HEAD = b"GET /health/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
QUICK_SECONDS = 1.0
# The kernel's buffers on both sides of a connection take some of what is sent.
KERNEL_BYTES = 16 * MIB
FLOOD_BYTES = 60 * MIB


@pytest.fixture(scope="module")
def settings(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("attacked") / "home"
    return load_settings(_env_file=None, home=home, database_url=postgres.url)


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[Attacked]:
    with attacked(settings) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(settings: Settings) -> Iterator[Attacked]:
    """With time-outs that a test can wait for."""
    bounds = "head_seconds=1.0, stall_seconds=2.0, sweep_seconds=0.1"
    with attacked(settings, bounds=bounds) as running:
        yield running


UPLOAD = b"PUT /images/key:x.jpg/original HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"a" * 65_536),
        (HEAD + b"X: ", b"a" * 65_536),
        (HEAD + b"X", b"a" * 65_536),
        (HEAD, b"X-Y: 1\r\n" * 8_192),
        (HEAD + b"X: 1\r\n", b" folded\r\n" * 8_192),
        (UPLOAD + b"{token}\r\n1;x=", b"a" * 65_536),
        (UPLOAD + b"{token}\r\n0\r\n", b"X-Y: 1\r\n" * 8_192),
        (UPLOAD + b"{token}\r\n0\r\nX: ", b"a" * 65_536),
    ],
    ids=["line", "header", "name", "headers", "folded", "extension", "trailers", "trailer"],
)
def test_a_head_without_end_costs_others_nothing_and_is_ended(
    api: Attacked, begin: bytes, piece: bytes
) -> None:
    before = api.memory
    with api.connect() as attacker:
        attacker.sendall(begin.replace(b"{token}", api.authorization.encode()))
        taken: list[int] = []
        flooding = threading.Thread(
            target=lambda: taken.append(flood(attacker, piece, FLOOD_BYTES))
        )
        flooding.start()
        assert api.slowest("/health/", lambda: None) < QUICK_SECONDS
        flooding.join()
    assert taken[0] < KERNEL_BYTES
    assert api.memory < before + KERNEL_BYTES


@pytest.mark.parametrize("size", [60_000, 70_000])
def test_headers_of_a_size_that_some_program_may_send_are_taken(api: Attacked, size: int) -> None:
    with api.connect() as client:
        client.sendall(HEAD + b"X: " + b"a" * size + b"\r\nConnection: close\r\n\r\n")
        status = client.recv(65_536).split()[1]
    assert status == (b"200" if size < 65_536 else b"400")


@pytest.mark.parametrize("size", [60_000, 70_000, 180_000])
def test_headers_are_bounded_behind_another_request_too(api: Attacked, size: int) -> None:
    with api.connect() as client:
        # Both come in one read.
        api.process.suspend()
        try:
            client.sendall(HEAD + b"\r\n" + HEAD + b"X: " + b"a" * size)
            client.sendall(b"\r\nConnection: close\r\n\r\n")
        finally:
            api.process.resume()
        answers = b""
        try:
            while piece := client.recv(65_536):
                answers += piece
        except ConnectionResetError:
            pass
    assert (answers.count(b"HTTP/1.1 200") == 2) == (size < 65_536)


def test_a_request_that_was_begun_is_not_waited_for_for_ever(hasty: Attacked) -> None:
    began = time.monotonic()
    with ExitStack() as held:
        attackers = [held.enter_context(hasty.connect()) for _ in range(4)]
        _silent, begun, after_another, slowly = attackers
        begun.sendall(HEAD)
        after_another.sendall(HEAD + b"\r\n" + b"G")
        # A byte now and then is no progress.
        threading.Thread(target=trickle, args=(slowly,), daemon=True).start()
        assert all(is_ended(attacker) for attacker in attackers)
    assert time.monotonic() - began < 10
    assert hasty.get("/health/").status_code == 200


def trickle(attacker: socket.socket) -> None:
    try:
        for byte in HEAD + b"X: " + b"a" * 1_000:
            attacker.sendall(bytes([byte]))
            time.sleep(0.1)
    except OSError:
        return


def test_half_sent_requests_beyond_all_descriptors_shut_nobody_out(settings: Settings) -> None:
    with attacked(settings, files=1024) as api, ExitStack() as held:
        for _ in range(1_100):
            held.enter_context(api.connect()).sendall(HEAD)
        slowest = api.slowest("/health/", lambda: held.enter_context(api.connect()).sendall(HEAD))
        assert slowest < QUICK_SECONDS
        assert api.get("/images").status_code == 200
        assert api.process.num_fds() < 1_000


def test_the_soft_limit_of_descriptors_is_raised(api: Attacked) -> None:
    limits = Path(f"/proc/{api.process.pid}/limits").read_text()
    soft, hard = next(line for line in limits.splitlines() if "open files" in line).split()[3:5]
    assert int(soft) == min(int(hard), 65_536)


def test_bodies_that_stall_are_ended_and_slow_ones_arrive(hasty: Attacked) -> None:
    head = (
        "PUT /images/key:slow.jpg/original HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"{hasty.authorization}Content-Length: 40000\r\n\r\n"
    ).encode()
    with hasty.connect() as stalled, hasty.connect() as trickled, hasty.connect() as slow:
        for client in (stalled, trickled, slow):
            client.sendall(head)
        stalled.sendall(bytes(20_000))
        threading.Thread(target=trickle, args=(trickled,), daemon=True).start()
        for _ in range(10):  # in all longer than the time-out
            slow.sendall(bytes(4_000))
            slow.sendall(b"")
            time.sleep(0.3)
        assert slow.recv(65_536).startswith(b"HTTP/1.1 201")
        assert is_ended(stalled)
        assert is_ended(trickled)


def test_a_body_that_nobody_wants_is_not_taken_for_ever(hasty: Attacked) -> None:
    with hasty.connect() as stranger:
        stranger.sendall(
            b"PUT /images/key:x.jpg/original HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 9999999999\r\n\r\n"
        )
        assert b"401" in stranger.recv(65_536).splitlines()[0]
        trickle(stranger)
        assert is_ended(stranger)


def test_requests_sent_ahead_of_their_answers_are_bounded(api: Attacked) -> None:
    before = api.memory
    request = b"GET /health/ HTTP/1.1\r\nHost: x\r\n\r\n"
    with api.connect(receive_bytes=4_096) as attacker:
        flood(attacker, request * 2_000, FLOOD_BYTES)
        assert is_ended(attacker)
    assert api.memory < before + 40 * MIB
    with api.connect() as client:
        client.sendall(request * 16)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 16:
            answers += client.recv(65_536)
