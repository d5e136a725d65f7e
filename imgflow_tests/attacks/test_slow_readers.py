"""Clients that ask for large answers and do not read them: what they hold in memory is bounded."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from imgflow.api.http.outgoing import GRACE_SECONDS, ROOM_BYTES
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow_tests.api.library import Library
from imgflow_tests.attacks.raw_http import MIB, Attacked, attacked, is_ended
from imgflow_tests.patience import PATIENCE_SECONDS

ROWS = 100_000  # of 150 pixels: 57 MiB as npy
READERS = 40
WINDOW_BYTES = 4_096
# Two intervals that are being read, in float64 and float32, and what allocators keep of them.
WORK_BYTES = 2 * 6 * 57 * MIB


@pytest.fixture(scope="module")
def library(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Library]:
    library = Library(tmp_path_factory.mktemp("slow") / "home", postgres.url)
    table = np.random.default_rng(0).random((ROWS, 5), dtype=np.float32)
    table[:, 0] = np.arange(ROWS)
    file = io.BytesIO()
    np.save(file, table)
    library.put("deep.npy", file.getvalue())
    library.put("large.bin", bytes(64 * MIB))
    library.announce()
    library.process("deep.npy")
    yield library
    library.engine.dispose()


@pytest.fixture(scope="module")
def api(library: Library) -> Iterator[Attacked]:
    bounds = "stall_seconds=4.0, sweep_seconds=0.5"
    with attacked(library.settings, bounds=bounds) as running:
        running.get("/image/key:deep.npy?depth_max=10")
        yield running


def ask(api: Attacked, path: str, times: int = 1) -> socket.socket:
    attacker = api.connect(WINDOW_BYTES)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{api.authorization}\r\n".encode()
    attacker.sendall(request * times)
    return attacker


def first_bytes(attacker: socket.socket) -> bytes:
    return attacker.recv(12, socket.MSG_PEEK)


def test_readers_that_do_not_read_hold_no_more_than_the_room(api: Attacked) -> None:
    before = api.memory
    with ExitStack() as held, ThreadPoolExecutor(READERS) as threads:
        attackers = [
            held.enter_context(ask(api, "/image/key:deep.npy?format=npy")) for _ in range(READERS)
        ]
        for _ in threads.map(first_bytes, attackers):
            assert api.memory < before + ROOM_BYTES + WORK_BYTES
        # Others read on meanwhile, and the room itself is had back from who does not read.
        assert api.slowest("/image/key:deep.npy?depth_max=100", lambda: None) < 2
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (large := api.get("/image/key:deep.npy?format=npy")).status_code == 503:
            assert large.json()["code"] == "busy"
            assert large.headers["Retry-After"] == "5"
            assert time.monotonic() < give_up
            time.sleep(0.5)
        assert len(large.content) > 50 * MIB
        assert all(threads.map(is_stalled_to_the_end, attackers))


def is_stalled_to_the_end(attacker: socket.socket) -> bool:
    """Whether a connection was ended with its answer not complete; read only now."""
    time.sleep(GRACE_SECONDS)
    return is_ended(attacker)


def test_requests_sent_ahead_do_not_hold_an_answer_each(api: Attacked) -> None:
    before = api.memory
    with ask(api, "/image/key:deep.npy?format=npy", times=30) as attacker:
        first_bytes(attacker)
        assert api.slowest("/image/key:deep.npy?depth_max=100", lambda: None) < 2
        assert api.memory < before + WORK_BYTES
        time.sleep(GRACE_SECONDS)
        assert is_ended(attacker)


def test_streams_share_the_room_too(api: Attacked) -> None:
    before = api.memory
    with ExitStack() as held, ThreadPoolExecutor(READERS) as threads:
        path = "/images/key:large.bin/original"
        attackers = [held.enter_context(ask(api, path)) for _ in range(200)]
        for _ in threads.map(first_bytes, attackers):
            assert api.memory < before + 2 * ROOM_BYTES
        assert api.get("/images").status_code == 200
