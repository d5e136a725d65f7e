from __future__ import annotations

import asyncio
import shutil
import threading
import time
from urllib.parse import urlsplit

import psycopg2
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.api.backend import readiness
from imgflow.api.backend.readiness import Probe, silent_parts
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.postgres.sensing import recorded_tick
from imgflow.errors import SettingsError, Trouble
from imgflow.settings.tokens import own_token
from imgflow.settings.variables import load_settings
from imgflow.status import read_status
from imgflow_tests.api.library import Library, bearer, local
from imgflow_tests.dagster_tables import add_sensor
from imgflow_tests.running import wait_until


def silent(client: TestClient) -> list[str]:
    answer = client.get("/health/ready")
    if answer.status_code == 200:
        assert answer.json() == {"status": "ready"}
        return []
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    parts: list[str] = answer.json()["parts"]
    assert all(part in answer.json()["detail"] for part in parts)
    return parts


def test_a_process_that_is_up_says_so(client: TestClient) -> None:
    answer = client.get("/health/")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert client.head("/health/").status_code == 200
    assert client.get("/health").headers["Location"].endswith("/health/")


def test_an_api_whose_parts_answer_is_ready(client: TestClient) -> None:
    assert silent(client) == []


def test_readiness_names_the_store_that_is_gone_until_it_is_back(own_library: Library) -> None:
    outputs = own_library.worker.outputs.location.folder
    with own_library.client() as client:
        shutil.rmtree(own_library.folder)
        assert silent(client) == ["source"]
        shutil.rmtree(outputs)
        # An answer is kept for two seconds.
        wait_until(lambda: silent(client) == ["source", "outputs"], 10)
        assert client.get("/health/").status_code == 200
        own_library.folder.mkdir()
        outputs.mkdir()
        wait_until(lambda: silent(client) == [], 10)


def test_however_many_ask_a_part_is_asked_once_in_two_seconds(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_library.client() as client:
        source = client.app.state.connections.probes[1]  # type: ignore[attr-defined]
        asked: list[float] = []
        check = source._check
        monkeypatch.setattr(source, "_check", lambda: (asked.append(time.monotonic()), check()))
        began = time.monotonic()
        wait_until(lambda: silent(client) == [] and len(asked) > 1, 10)
        assert asked[1] - began >= readiness.FRESH_SECONDS


def test_an_api_starts_without_its_database_and_finds_it_later(
    own_library: Library, postgres: EmbeddedPostgres
) -> None:
    name = "later_" + urlsplit(own_library.settings.database_url).path.strip("/")
    url = postgres.url.replace("/imgflow?", f"/{name}?")
    settings = own_library.settings.model_copy(update={"database_url": url})
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with local(create_app(settings)) as client:
        client.headers.update(bearer(own_token(settings.home)))
        began = time.monotonic()
        assert silent(client) == ["database"]
        assert client.get("/health/").status_code == 200
        assert client.get("/images").status_code == 503
        assert time.monotonic() - began < 3
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        assert client.get("/images").json() == {"items": [], "next": None}
        wait_until(lambda: silent(client) == [], 10)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


def test_a_part_that_hangs_is_silent_and_holds_one_thread_only() -> None:
    release = threading.Event()
    calls: list[int] = []

    def hang() -> None:
        calls.append(1)
        release.wait(10)

    def fail() -> None:
        raise Trouble("away")

    probes = [Probe("one", hang), Probe("two", lambda: None), Probe("three", fail)]
    for _ in range(5):
        assert asyncio.run(silent_parts(probes, 0.05)) == ["one", "three"]
    assert len(calls) == 1
    release.set()
    time.sleep(0.05)
    assert asyncio.run(silent_parts(probes, 1)) == ["three"]


def test_making_an_app_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(psycopg2, "connect", refuse)
    create_app(
        load_settings(
            _env_file=None,
            source_url="s3://no-such-bucket/in",
            output_url="s3://no-such-bucket/out",
            database_url="postgresql://nobody@192.0.2.1/none",
        )
    )


def test_a_wrong_setting_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="IMGFLOW_SOURCE_URL"):
        create_app(load_settings(_env_file=None, source_url="ftp://somewhere"))


def test_readiness_names_a_sensor_that_is_silent_and_not_one_that_somebody_stopped(
    own_library: Library,
) -> None:
    engine, source = own_library.engine, own_library.catalog.source
    with own_library.client() as client:
        assert silent(client) == [], "nothing of Dagster is there"
        add_sensor(engine)
        with recorded_tick(engine, source, "arrivals", 1.0):
            pass
        assert silent(client) == []
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE sensor_ticks SET due_at = now() - interval '1 s'")
        wait_until(lambda: silent(client) == ["sensor"], 30)  # an answer is kept for 2 s
        assert client.get("/health/").status_code == 200
        metrics = client.get("/metrics").text
        assert 'imgflow_sensor_silent{sensor="arrivals"} 1.0' in metrics
        found = read_status(own_library.catalog, ("arrivals",))
        assert found.as_json()["sensors"]["arrivals"]["state"] == "silent"
        assert found.as_json()["last_tick_seconds"] is not None
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE instigators SET status = 'STOPPED'")
        wait_until(lambda: silent(client) == [], 30)
        stopped = read_status(own_library.catalog, ("arrivals",))
        assert stopped.as_json()["sensors"]["arrivals"]["state"] == "stopped"
        assert "Somebody stopped the sensor arrivals" in stopped.pulse_lines()[0]
