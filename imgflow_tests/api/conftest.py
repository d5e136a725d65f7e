"""One library for tests that only read, and a fresh one for those that change something."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import depth_csv, jpeg, png

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
HOLE = depth_csv(rows=40, columns=200, first=9000.1, seed=3)


@pytest.fixture(scope="session")
def library(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Library]:
    """Photographs, depth images, rejected and pending ones; tests leave it as it is."""
    name = f"api{uuid.uuid4().hex}"
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    url = postgres.url.replace("/imgflow?", f"/{name}?")
    library = Library(tmp_path_factory.mktemp("api"), url)
    for key, body in (
        ("photos/a.jpg", jpeg(400, 300, seed=1)),
        ("photos/b.png", png(80, 60, seed=2)),
        ("holes/one.csv", HOLE),
        ("page.jpg", HTML),
        ("drawing.svg", SVG),
    ):
        library.put(key, body)
    library.announce()
    library.process()
    library.put("waiting.jpg", jpeg(seed=9))
    library.put("waiting.csv", depth_csv(seed=9))
    library.announce()
    yield library
    library.engine.dispose()


@pytest.fixture(scope="session")
def client(library: Library) -> Iterator[TestClient]:
    with library.client() as client:
        yield client


@pytest.fixture
def make_library(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Library]]:
    made: list[Library] = []

    def make(**settings: Any) -> Library:
        made.append(Library(tmp_path / "home", database_url, **settings))
        return made[-1]

    yield make
    for library in made:
        library.engine.dispose()


@pytest.fixture
def own_library(make_library: Callable[..., Library]) -> Library:
    """A library of this test's own."""
    return make_library()
