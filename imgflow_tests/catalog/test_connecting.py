"""What happens when the database goes away, with servers of the tests' own that really do."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from imgflow.catalog.database import engine as connecting
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.depth.ordering import ResizedChunk
from imgflow.errors import Trouble
from imgflow_tests.catalog.test_depth_arrays import chunks
from imgflow_tests.catalog.uploads import announced, upload, verdict
from imgflow_tests.ceph import free_port

PASSWORD = "pass-word-0123"  # noqa: S105 - of nobody


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop and start."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own"))
    yield server
    EmbeddedPostgres(server._folder.parent).close()
    server.close()


@pytest.fixture
def own(server: EmbeddedPostgres) -> Iterator[PostgresCatalog]:
    engine = make_engine(server.url)
    catalog = PostgresCatalog(engine, "file:///in/")
    catalog.migrate()
    yield catalog
    engine.dispose()


def test_a_database_that_restarts_between_calls_is_not_noticed(
    server: EmbeddedPostgres, own: PostgresCatalog
) -> None:
    (image,) = announced(own, "a.jpg")
    server._server.stop()
    server._server.start()
    own.record([verdict(image)])
    assert own.by_id(image.id) is not None
    assert own.announce([upload("a.jpg")]).unchanged == 1


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    server: EmbeddedPostgres, own: PostgresCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    (image,) = announced(own, "hole.csv")
    DepthArrays(own.engine).store(image.id, "one", chunks(10))
    own.record([verdict(image, outputs={"resized": {"name": "one", "fingerprint": "f"}})])
    server._server.stop()
    starting = threading.Timer(0.5, server._server.start)
    starting.start()
    with caplog.at_level(logging.WARNING):
        assert own.counts()[0].count == 1
    assert "It is tried again" in caplog.text
    starting.join()
    assert len(DepthArrays(own.engine).read(image.id).depths) == 10


def test_a_killed_server_comes_back_with_all_that_was_recorded(
    server: EmbeddedPostgres, own: PostgresCatalog
) -> None:
    announced(own, *(f"{number}.jpg" for number in range(500)))
    os.kill(server._server.get_pid(), signal.SIGKILL)
    time.sleep(0.1)
    again = EmbeddedPostgres(server._folder.parent)
    assert own.counts()[0].count == 500
    again.close()


def test_an_array_whose_database_goes_away_is_trouble_and_leaves_nothing(
    server: EmbeddedPostgres, own: PostgresCatalog
) -> None:
    (image,) = announced(own, "hole.csv")
    arrays = DepthArrays(own.engine)

    def interrupted() -> Iterator[ResizedChunk]:
        for chunk in chunks(60_000):
            if chunk.index == 30:
                server._server.stop()
            yield chunk

    with pytest.raises(Trouble, match=r"does not answer.*IMGFLOW_DATABASE_URL"):
        arrays.store(image.id, "one", interrupted())
    with pytest.raises(Trouble, match="does not answer"):
        arrays.store(image.id, "one", chunks(10))
    server._server.start()
    assert arrays.store(image.id, "one", chunks(10)) > 0
    with own.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM depth_chunks")).scalar() == 1


def test_a_database_that_stays_away_is_trouble_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "RETRY_SECONDS", (0.05, 0.05))
    port = free_port()
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:{port}/images"
    catalog = PostgresCatalog(make_engine(url), "file:///in/")
    for ask in (
        catalog.migrate,
        catalog.check,
        lambda: catalog.announce([upload("a")]),
        lambda: DepthArrays(catalog.engine).read(1),
        lambda: DepthArrays(catalog.engine).store(1, "one", chunks(1)),
    ):
        with pytest.raises(Trouble, match=r"does not answer.*IMGFLOW_DATABASE_URL") as caught:
            ask()
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_patience_ends_within_seconds() -> None:
    assert sum(connecting.RETRY_SECONDS) < 10


def test_a_refused_statement_is_neither_retried_nor_an_outage(catalog: PostgresCatalog) -> None:
    tries: list[int] = []

    def refused() -> None:
        tries.append(1)
        with catalog.engine.begin() as connection:
            connection.execute(sa.text("SELECT 1 / 0"))

    with pytest.raises(sa.exc.DataError):
        connecting.retried(catalog.engine, refused)
    assert len(tries) == 1


def test_a_database_that_is_read_only_for_now_is_an_outage(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails over is for some seconds; no image is rejected for that."""
    monkeypatch.setattr(connecting, "RETRY_SECONDS", (0.0,))
    (image,) = announced(catalog, "a.jpg")
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE {catalog.engine.url.database} SET default_transaction_read_only = on"
        )
    catalog.engine.dispose()
    with pytest.raises(Trouble, match="read-only"):
        catalog.record([verdict(image)])


def test_a_key_too_long_for_the_index_is_no_outage(catalog: PostgresCatalog) -> None:
    """No source lists one; should one come all the same, waiting would not fix it."""
    key = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(3_000))
    with pytest.raises(sa.exc.OperationalError, match="index row"):
        catalog.announce([upload(key)])


def test_a_deadlock_runs_again(catalog: PostgresCatalog) -> None:
    first, second = announced(catalog, "a.jpg", "b.jpg")
    together = threading.Barrier(2)
    tries: list[int] = []

    def crosswise(ids: tuple[int, int]) -> None:
        def work() -> None:
            is_first_try = len(tries) < 2
            tries.append(1)
            with catalog.engine.begin() as connection:
                for image_id in ids:
                    connection.execute(
                        sa.text("UPDATE images SET attempts = attempts + 1 WHERE id = :id"),
                        {"id": image_id},
                    )
                    if is_first_try and image_id == ids[0]:
                        together.wait(10)

        connecting.retried(catalog.engine, work)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(crosswise, [(first.id, second.id), (second.id, first.id)]))
    assert len(tries) == 3
    assert {image.attempts for image in catalog.page(limit=9)} == {2}


def test_a_pool_that_is_used_up_is_trouble(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "RETRY_SECONDS", (0.05,))
    engine = make_engine(database_url, pool_size=1, max_overflow=0)
    engine.pool._timeout = 0.1  # type: ignore[attr-defined]
    with engine.connect(), pytest.raises(Trouble, match=r"connections .* in use"):
        PostgresCatalog(engine, "file:///in/").check()
    engine.dispose()
