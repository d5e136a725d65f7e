"""Catalogues of earlier schemas come forward with their images, and go on without pixel work."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from imgflow.api.app import create_app
from imgflow.catalog.database import schema
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.settings.tokens import own_token
from imgflow.store.naming import MARKER
from imgflow_tests.api.library import bearer, encoded, local
from imgflow_tests.catalog.migrating import migrate_at_once
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.pictures import depth_csv, jpeg, png
from imgflow_tests.upgrade.earlier import NEWEST, VERSIONS, bring_back, describe, make_schema

EARLIER = VERSIONS[:-1]

# What an earlier version wrote into the columns that all of them have.
BY_AN_EARLIER_ONE = """
    INSERT INTO images (source, key, kind, state, announced, announced_etag, announced_size,
        announced_last_modified)
    VALUES (%s, %s, 'photo', 'pending', %s, %s, %s, %s)
"""


def put(project: Project, key: str, body: bytes) -> Path:
    file = project.source.location.folder / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    return file


@pytest.fixture
def processed(project: Project) -> Project:
    """Two photographs, a depth image, and one that is none."""
    put(project, "in/a.jpg", jpeg(120, 80, seed=1))
    put(project, "in/b c.png", png(60, 90, seed=2))
    put(project, "w/1.csv", depth_csv(rows=40, seed=3))
    put(project, "in/bad.jpg", b"no picture")
    report = project.ingest()
    assert (report.processed, report.rejected) == (3, 1)
    return project


def facts(project: Project) -> list[tuple[object, ...]]:
    """What the rows say of images, whatever the schema."""
    with project.catalog.engine.connect() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                sa.text(
                    "SELECT id, key, state, reason_code, processed, announced, sha256, recipe, "
                    "outputs::text, updated_at FROM images ORDER BY id"
                )
            )
        ]


@pytest.mark.parametrize("version", VERSIONS)
def test_images_of_an_earlier_schema_are_kept_and_cost_no_pixel_work(
    version: str, processed: Project
) -> None:
    engine = processed.catalog.engine
    bring_back(engine, version)
    processed.outputs.delete([MARKER])  # names another catalogue now, and earlier ones wrote none
    assert schema.current_version(engine) == version
    rows, stored = facts(processed), processed.stored()
    processed.catalog.migrate()
    assert schema.current_version(engine) == NEWEST
    assert facts(processed) == rows
    tick = processed.tick()
    assert not tick.run_requests
    assert "4 objects listed; nothing new." in str(tick.skip_reason)
    again = processed.materialize(["in/a.jpg", "in/b c.png"])
    assert again.success
    assert processed.newest("photo/thumbnail", "in/a.jpg").metadata["noop"].value is True
    assert (facts(processed), processed.stored()) == (rows, stored)
    put(processed, "in/new.jpg", jpeg(50, 40, seed=9))
    put(processed, "in/old.jpg", jpeg(50, 40, seed=8))
    write_as_an_earlier_version(processed, "in/old.jpg")
    processed.run_requests(processed.tick())
    for asset in PHOTO_ASSETS:
        assert processed.statuses(f"photo/{asset}") == {
            **dict.fromkeys(("in/a.jpg", "in/b c.png", "in/new.jpg", "in/old.jpg"), "green"),
            "in/bad.jpg": "red",
        }
    assert processed.stored().items() >= stored.items()
    with local(create_app(processed.settings)) as client:
        client.headers.update(bearer(own_token(processed.settings.home)))
        listed = {item["key"]: item for item in client.get("/images").json()["items"]}
        assert {key: item["state"] for key, item in listed.items()} == {
            "in/a.jpg": "ready",
            "in/b c.png": "ready",
            "in/bad.jpg": "rejected",
            "in/new.jpg": "ready",
            "in/old.jpg": "ready",
            "w/1.csv": "ready",
        }
        for name in ("grayscale", "thumbnail"):
            assert client.get(listed["in/a.jpg"]["outputs"][name]["url"]).status_code == 200
        frame = client.get(f"/image/{encoded('w/1.csv')}")
        assert (frame.status_code, frame.headers["X-Imgflow-Rows"]) == (200, "40")
        assert frame.headers["X-Imgflow-Missing"] == "0"


@pytest.mark.parametrize("version", EARLIER)
def test_what_comes_forward_is_what_a_fresh_start_makes(
    version: str, catalog: PostgresCatalog
) -> None:
    fresh = describe(catalog.engine)
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    make_schema(catalog.engine, version)
    assert describe(catalog.engine) != fresh
    catalog.migrate()
    assert describe(catalog.engine) == fresh


def write_as_an_earlier_version(project: Project, key: str) -> None:
    """A process that was started before the schema came forward announces an upload."""
    upload = next(o for o in project.source.list_page(None, 100).objects if o.key == key)
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql(
            BY_AN_EARLIER_ONE,
            (
                *(project.catalog.source, upload.key, upload.identity, upload.etag),
                *(upload.size, upload.last_modified),
            ),
        )


def test_processes_that_start_at_once_bring_an_earlier_schema_forward_once(
    processed: Project,
) -> None:
    bring_back(processed.catalog.engine, VERSIONS[0])
    rows = facts(processed)
    migrate_at_once(processed.settings.database_url)
    assert schema.current_version(processed.catalog.engine) == NEWEST
    assert facts(processed) == rows


FILL = """
    INSERT INTO images (source, key, kind, state, announced, announced_etag, announced_size,
        announced_last_modified, processed, size, sha256)
    SELECT 'file:///s/', 'a/' || g, 'photo', 'ready', 'e' || g, 'e', g, now(), 'e' || g, g,
        md5(g::text) FROM generate_series(1, 50000) AS g
"""


class OldProcess(threading.Thread):
    """Reads and writes as the first version did, on its own connection, until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        self.is_done = threading.Event()
        self.written = 0
        self.longest = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self.connection.cursor() as cursor:
                while not self.is_done.is_set():
                    began = time.monotonic()
                    key = f"old/{self.written}"
                    cursor.execute(
                        BY_AN_EARLIER_ONE, ("file:///s/", key, key, key, 1, "2026-01-01T00:00:00Z")
                    )
                    self.written += 1
                    cursor.execute(
                        "SELECT id, state, outputs FROM images WHERE source = %s AND key = %s",
                        ("file:///s/", key),
                    )
                    assert cursor.fetchone() is not None
                    self.longest = max(self.longest, time.monotonic() - began)
        except Exception as error:
            self.error = error
        finally:
            self.connection.close()


def test_a_process_of_an_earlier_version_reads_and_writes_while_the_schema_comes_forward(
    database_url: str,
) -> None:
    engine = make_engine(database_url)
    make_schema(engine, VERSIONS[0])
    with engine.begin() as connection:
        connection.exec_driver_sql(FILL)
    old = OldProcess(database_url)
    old.start()
    try:
        began = time.monotonic()
        PostgresCatalog(engine, "file:///s/").migrate()
        seconds = time.monotonic() - began
    finally:
        old.is_done.set()
        old.join(60)
    assert old.error is None
    assert old.longest < max(seconds, 1), "no statement waited for all migrations together"
    with engine.connect() as connection:
        count = connection.exec_driver_sql(
            "SELECT count(*) FROM images WHERE key LIKE 'old/%%' AND NOT unreported"
        ).scalar()
    assert count == old.written > 0
    engine.dispose()


def test_a_migration_that_waits_for_a_long_reader_lets_others_through_and_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_SECONDS", 1)
    engine = make_engine(database_url)
    make_schema(engine, VERSIONS[0])
    reader = psycopg2.connect(database_url)
    with reader.cursor() as cursor:
        cursor.execute("SELECT * FROM images")  # and its transaction stays open
    migrating = threading.Thread(target=PostgresCatalog(engine, "file:///s/").migrate)
    migrating.start()
    other = psycopg2.connect(database_url)
    other.autocommit = True
    give_up = time.monotonic() + 120
    with other.cursor() as cursor:
        while time.monotonic() < give_up:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted "
                "AND relation = CAST('images' AS regclass)"
            )
            if (cursor.fetchone() or (0,))[0]:
                break
        began = time.monotonic()
        cursor.execute("SELECT count(*) FROM images")
        assert time.monotonic() - began < 5
    reader.rollback()
    migrating.join(60)
    assert schema.current_version(engine) == NEWEST
    for connection in (reader, other):
        connection.close()
    engine.dispose()


def test_a_migration_that_fails_leaves_the_ones_before_it_done(database_url: str) -> None:
    engine = make_engine(database_url)
    make_schema(engine, VERSIONS[0])
    with engine.begin() as connection:  # in the way of 0004
        connection.exec_driver_sql("CREATE TABLE run_holds (x integer)")
    catalog = PostgresCatalog(engine, "file:///s/")
    with pytest.raises(sa.exc.ProgrammingError, match="run_holds"):
        catalog.migrate()
    assert schema.current_version(engine) == "0003"
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE run_holds")
    catalog.migrate()
    assert schema.current_version(engine) == NEWEST
    engine.dispose()
