"""What `imgflow up` looks at while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from imgflow.catalog.database import engine as connecting
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import expect_ticks
from imgflow.service.supervision import alarm, watching
from imgflow.service.supervision.alarm import Alarm
from imgflow.service.supervision.watching import Watch
from imgflow_tests.dagster_tables import add_sensor
from imgflow_tests.receivers import webhook
from imgflow_tests.running import wait_until


def test_a_look_that_fails_is_said_once_and_the_next_one_comes(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def disks(_folders: Mapping[str, Path]) -> dict[str, str]:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise PermissionError("nobody may look there")
        return {}

    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "full_disks", disks)
    watch = Watch(catalog, (), {}, None, Alarm((), 0, lambda _line: None))
    said: list[str] = []
    watch.start()
    try:
        wait_until(lambda: said.extend(watch.news()) or any("photos:" in line for line in said), 30)
    finally:
        watch.stop()
    assert said[0] == "imgflow up could not look: PermissionError: nobody may look there"
    assert sum("could not look" in line for line in said) == 1


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and alerts that come at once."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(alarm, "ALERT_AFTER_SECONDS", 0.2)


@contextmanager
def away(postgres: EmbeddedPostgres, url: str) -> Iterator[None]:
    """Take a database away, for whoever has a connection too."""
    name = sa.make_url(url).database
    engine = sa.create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        try:
            yield
        finally:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    engine.dispose()


@pytest.mark.usefixtures("soon")
def test_a_database_that_goes_away_is_told_and_makes_nothing_well(
    catalog: PostgresCatalog, postgres: EmbeddedPostgres, database_url: str
) -> None:
    add_sensor(catalog.engine)
    expect_ticks(catalog.engine, catalog.source, ("arrivals",))
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sensor_ticks SET due_at = now() - interval '1 hour'")
    said: list[str] = []
    with webhook() as hook:
        watch = Watch(catalog, ("arrivals",), {}, None, Alarm((hook.url,), 0, said.append))
        watch.start()
        try:
            wait_until(lambda: hook.messages, 30)
            with away(postgres, database_url):
                wait_until(lambda: len(hook.messages) > 1, 30)
            wait_until(lambda: said.extend(watch.news()) or "The database is well again." in said)
        finally:
            watch.stop()
    assert [message["title"] for message in hook.messages] == [
        "imgflow: processing has stopped"
    ] * 2
    assert "The sensor arrivals has never had a good tick" in hook.messages[0]["message"]
    assert "does not answer" in hook.messages[1]["message"]
    assert "The sensor arrivals has never had a good tick" in hook.messages[1]["message"]
    assert not any("arrivals is well again" in line for line in said)
    assert len([line for line in said if "does not answer" in line]) == 1


@pytest.mark.usefixtures("soon")
def test_a_table_that_somebody_locks_is_noticed(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STATEMENT_SECONDS", 0.2)
    monkeypatch.setattr(connecting, "RETRY_SECONDS", ())
    watch = Watch(catalog, (), {}, None, Alarm((), 0, lambda _line: None))
    said: list[str] = []
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE images")
        watch.start()
        try:
            wait_until(lambda: said.extend(watch.news()) or said, 30)
            wait_until(lambda: watch.is_hard, 30)
        finally:
            watch.stop()
    assert "does not answer" in said[0]


@pytest.mark.usefixtures("soon")
def test_what_comes_back_while_something_else_is_wrong_is_told_again() -> None:
    with webhook() as hook:
        told = Alarm((hook.url,), 0, lambda _line: None)

        def lasts(wrong: Mapping[str, str]) -> None:
            told.update(wrong)
            time.sleep(0.3)
            told.update(wrong)

        lasts({"a": "A", "b": "B"})
        wait_until(lambda: len(hook.messages) == 1, 10)
        lasts({"b": "B"})
        lasts({"a": "A", "b": "B"})
        wait_until(lambda: len(hook.messages) == 2, 10)


@pytest.mark.usefixtures("soon")
def test_a_message_that_is_late_does_not_follow_the_one_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarm, "FIRST_PAUSE_SECONDS", 1.5)
    with webhook() as hook:
        hook.status = 500
        told = Alarm((hook.url,), 0, lambda _line: None)
        told.update({"a": "A"})
        time.sleep(0.3)
        told.update({"a": "A"})
        wait_until(lambda: hook.requests, 10)
        hook.status = 200
        told.update({})
        wait_until(lambda: hook.messages, 10)
        time.sleep(2.5)
        assert [message["title"] for message in hook.messages] == ["imgflow: processing goes on"]
