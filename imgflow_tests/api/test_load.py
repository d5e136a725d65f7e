"""Many clients at once, and what happens when there are too many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa

from benchmarks.api_load import fill, load, serving_library
from imgflow.api.backend import connections
from imgflow_tests.api.library import Library
from imgflow_tests.api.test_problems import check

CLIENTS = 200
SECONDS = 6.0


@pytest.mark.alone
@pytest.mark.slow
def test_two_hundred_clients_see_no_error_and_memory_stays_flat(own_library: Library) -> None:
    """For a minute, and with figures: `python -m benchmarks.api_load 60`."""
    paths = fill(own_library, 20)
    with serving_library(own_library) as (address, pid):
        asked = partial(load, address, paths, clients=CLIENTS, pid=pid, token=own_library.token)
        asyncio.run(asked(seconds=2))  # warms up
        seen = asyncio.run(asked(seconds=SECONDS))
    assert seen.errors == []
    # As many as that on a machine that is busy with much else.
    assert all(len(seconds) > CLIENTS / 2 for seconds in seen.seconds.values())
    assert seen.growth() < 1.1, seen.megabytes[::20]
    assert max(seen.megabytes) < 400


def test_when_all_connections_are_in_use_callers_are_asked_to_come_back(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "POOL_SIZE", 1)
    monkeypatch.setattr(connections, "POOL_OVERFLOW", 0)
    monkeypatch.setattr(connections, "POOL_SECONDS", 0.1)
    with own_library.client() as client:
        engine = client.app.state.connections.catalog.engine  # type: ignore[attr-defined]
        with engine.connect():
            began = time.monotonic()
            for path in ("/images", "/images/1", "/images/1/thumbnail", "/image/1"):
                answer = client.get(path)
                check(answer, "unavailable")
                assert answer.headers["Retry-After"] == "5"
            assert time.monotonic() - began < 3
            assert client.get("/health/").status_code == 200
        assert client.get("/images").status_code == 200


def test_no_more_connections_are_made_than_the_pool_has(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "POOL_SIZE", 2)
    monkeypatch.setattr(connections, "POOL_OVERFLOW", 1)
    most = 0

    def look(is_over: Callable[[], bool]) -> None:
        nonlocal most
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        with own_library.engine.connect() as connection:
            while not is_over():
                most = max(most, connection.execute(sa.text(query)).scalar_one())

    with own_library.client() as client:
        asking = [
            threading.Thread(target=lambda: [client.get("/images") for _ in range(10)])
            for _ in range(20)
        ]
        for thread in asking:
            thread.start()
        look(lambda: not any(thread.is_alive() for thread in asking))
    # One is of this test, and two of its library's own pool at most.
    assert 2 <= most <= 3 + 1 + 2
