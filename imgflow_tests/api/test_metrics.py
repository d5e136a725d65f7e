"""`GET /metrics`: well-formed, bounded, and of use while the database is away."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg2
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from imgflow.api.app import create_app
from imgflow.api.routes.metrics import CatalogMetrics
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.postgres import counters as monitoring
from imgflow.catalog.postgres.counters import OUTCOMES, Counters, read_state, series
from imgflow.catalog.postgres.sensing import UnreadableMessage, UnreadableMessages
from imgflow.errors import OutputFailed, Trouble
from imgflow.settings.tokens import own_token
from imgflow_tests.api.library import Library, bearer, encoded, local

# What Prometheus sends.
ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
TYPES = {"counter", "gauge", "histogram"}


def families(client: TestClient, accept: str = "*/*") -> list[Metric]:
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    parse = openmetrics if "openmetrics" in answer.headers["Content-Type"] else plain
    return list(parse(answer.text))


def values(client: TestClient) -> dict[tuple[str, ...], float]:
    """Name and values of labels to value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(client)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        (ACCEPT, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="),
    ],
)
def test_the_format_is_the_one_that_was_asked_for(
    client: TestClient, accept: str, content_type: str
) -> None:
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in content_type)
    assert client.head("/metrics", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", ACCEPT])
def test_names_types_and_units_are_as_prometheus_advises(client: TestClient, accept: str) -> None:
    client.get("/images")
    found = families(client, accept)
    names = [family.name for family in found]
    assert len(names) == len(set(names)), "a name has one type, also without its _total"
    for family in found:
        assert family.documentation, family.name
        assert family.documentation.endswith("."), family.name
        assert family.type in TYPES, family.name
        assert re.fullmatch(r"(imgflow|process)_[a-z_]+", family.name), family.name
        assert not re.search(r"(milliseconds|_ms|kilobytes|minutes)$", family.name)
        for sample in family.samples:
            is_total = sample.name.endswith("_total")
            assert is_total == (family.type == "counter"), sample.name
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_images_are_counted_by_kind_state_and_reason(client: TestClient) -> None:
    found = values(client)
    assert found["imgflow_up",] == 1
    assert found["imgflow_images", "photo", "ready"] == 2
    assert found["imgflow_images", "photo", "rejected"] == 2
    assert found["imgflow_images", "photo", "deleted"] == 0
    assert found["imgflow_images", "depth", "pending"] == 1
    rejected = {
        name[2]: value for name, value in found.items() if name[0].endswith("rejected_images")
    }
    assert sum(rejected.values()) == 2
    assert found["imgflow_backlog_images",] == 2
    assert found["imgflow_backlog_seconds",] > 0
    assert found["imgflow_unreadable_messages",] == 0


def test_an_empty_catalogue_has_zeros_rather_than_gaps(own_library: Library) -> None:
    with own_library.client() as client:
        found = values(client)
    assert found["imgflow_backlog_seconds",] == 0
    for kind in ("photo", "depth"):
        assert found["imgflow_image_outcomes_total", kind, "noop"] == 0
        assert found["imgflow_copied_total", kind] == 0
        assert found["imgflow_arrival_to_ready_seconds_bucket", kind, "+Inf"] == 0


def test_unreadable_messages_are_counted(own_library: Library) -> None:
    messages = UnreadableMessages(own_library.engine, own_library.catalog.source)
    messages.keep([UnreadableMessage("1", "no JSON", b"?")])
    with own_library.client() as client:
        assert values(client)["imgflow_unreadable_messages",] == 1


def test_images_that_wait_are_counted_by_what_keeps_them(own_library: Library) -> None:
    own_library.put("waiting.jpg", b"not looked at")
    own_library.announce()
    image = own_library.image("waiting.jpg")
    own_library.catalog.note_trouble({image.id: "it raised"}, code=OutputFailed.code)
    with own_library.client() as client:
        found = values(client)
    assert found["imgflow_waiting_images", "output_failed", "photo"] == 1
    assert found["imgflow_waiting_images", "trouble", "photo"] == 0


def test_what_runs_counted_outlives_the_api(own_library: Library) -> None:
    counters = Counters(own_library.engine, own_library.catalog.source)
    name = ("imgflow_image_outcomes_total", "photo", "noop")
    for total in (3, 6):
        counters.add({series(OUTCOMES, kind="photo", outcome="noop"): 3})
        with own_library.client() as client:
            assert values(client)[name] == total


def test_requests_are_counted_by_route_and_never_by_path(library: Library) -> None:
    with library.client() as client:
        one = library.image("photos/a.jpg").id
        for path in (
            f"/images/{one}",
            f"/images/{encoded('photos/a.jpg')}",
            "/images/0",
            "/images",
        ):
            client.get(path)
        client.get("/images/key:photos/a.jpg/thumbnail")
        client.put("/images")
        client.request("BREW", "/images")
        for number in range(3):
            client.get(f"/no/such/path/{number}")
        found = {
            name[1:]: value
            for name, value in values(client).items()
            if name[0] == "imgflow_http_requests_total"
        }
        assert found == {
            ("GET", "/images/{image}", "200"): 2,
            ("GET", "/images/{image}", "404"): 1,
            ("GET", "/images/{image}/thumbnail", "200"): 1,
            ("GET", "/images", "200"): 1,
            ("PUT", "/images", "405"): 1,
            ("other", "/images", "405"): 1,
            ("GET", "other", "404"): 3,
        }
        seconds = ("imgflow_http_request_duration_seconds_count", "GET", "/images/{image}")
        assert values(client)[seconds] == 3


def test_a_request_that_fails_is_counted_as_a_500(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    with library.client() as client:
        monkeypatch.setattr(type(library.catalog), "page", fail)
        assert client.get("/images").status_code == 500
        assert values(client)["imgflow_http_requests_total", "GET", "/images", "500"] == 1


def test_frames_that_are_made_are_timed(library: Library) -> None:
    with library.client() as client:
        path = f"/image/{encoded('holes/one.csv')}"
        first = client.get(path)
        assert first.status_code == 200
        client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        client.get(path, params={"format": "png"})
        found = values(client)
        assert found["imgflow_frame_seconds_count", "image/jpeg"] == 1
        assert found["imgflow_frame_seconds_count", "image/png"] == 1
        assert 0 < found["imgflow_frame_seconds_sum", "image/jpeg"] < 10


def test_without_its_database_the_api_says_so_and_what_it_still_knows(
    own_library: Library, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FRESH_SECONDS", "FRESH_PER_SECOND"):
        monkeypatch.setattr(f"imgflow.api.routes.metrics.{name}", 0.0)
    monkeypatch.setattr("imgflow.api.backend.readiness.FRESH_SECONDS", 0.0)
    name = "later_" + urlsplit(own_library.settings.database_url).path.strip("/")
    url = postgres.url.replace("/imgflow?", f"/{name}?")
    settings = own_library.settings.model_copy(update={"database_url": url})
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with local(create_app(settings)) as client:
        client.headers.update(bearer(own_token(settings.home)))
        began = time.monotonic()
        found = values(client)
        assert time.monotonic() - began < 3
        assert found["imgflow_up",] == 0
        assert not [key for key in found if key[0].startswith(("imgflow_images", "imgflow_image_"))]
        assert found["process_resident_memory_bytes",] > 0
        assert values(client)["imgflow_http_requests_total", "GET", "/metrics", "200"] == 1
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        assert values(client)["imgflow_up",] == 1
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        assert values(client)["imgflow_up",] == 0, "it was there and is gone"
    connection.close()


def collected(metrics: CatalogMetrics) -> dict[str, float]:
    return {sample.name: sample.value for family in metrics.collect() for sample in family.samples}


class Database:
    """Counts its questions, and answers them with an error if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    def check(self) -> None:
        self.asked += 1
        if self.error:
            raise self.error


def test_many_scrapes_at_once_ask_the_database_once(own_library: Library) -> None:
    database = Database()
    metrics = CatalogMetrics(
        database.check, lambda: read_state(own_library.engine, own_library.catalog.source)
    )
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: collected(metrics)["imgflow_up"], range(32)))
    assert answers == [1] * 32
    assert database.asked == 1


def test_a_database_that_is_away_is_not_asked_for_each_scrape_either(library: Library) -> None:
    database = Database(Trouble("away"))
    metrics = CatalogMetrics(
        database.check, lambda: read_state(library.engine, library.catalog.source)
    )
    assert [collected(metrics), collected(metrics)] == [{"imgflow_up": 0}] * 2
    assert database.asked == 1


def test_a_catalogue_that_cannot_be_counted_in_time_is_up_without_counts(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "STATEMENT_SECONDS", 0.05)
    monkeypatch.setattr(monitoring, "COUNTS", sa.text("SELECT pg_sleep(10), :source"))
    metrics = CatalogMetrics(
        Database().check, lambda: read_state(library.engine, library.catalog.source)
    )
    began = time.monotonic()
    assert collected(metrics) == {"imgflow_up": 1}
    assert time.monotonic() - began < 2


def test_bytes_in_and_out_are_counted_by_route(own_library: Library) -> None:
    token = {"Authorization": "Bearer the-token"}
    own_library.settings = own_library.settings.model_copy(update={"api_token": "the-token"})
    with own_library.client() as client:
        put = client.put("/images/key:a.csv/original", content=bytes(70_000), headers=token)
        shown = client.get(f"/images/{put.json()['id']}/original").content
        found = values(client)
    route = "/images/{image}/original"
    assert found["imgflow_http_received_bytes_total", "PUT", route] == 70_000
    assert found["imgflow_http_sent_bytes_total", "PUT", route] == len(put.content)
    assert found["imgflow_http_sent_bytes_total", "GET", route] == len(shown) == 70_000
    assert found["imgflow_http_requests_in_progress",] == 1, "the scrape itself"
    assert found["imgflow_process_requests_waiting",] == 0
