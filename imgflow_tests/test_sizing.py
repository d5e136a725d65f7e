"""docs/scaling.md says what is true: its tables are computed, from bytes as they are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from benchmarks import sizing
from benchmarks.database_bytes import counted_connections, per_image, table_bytes
from benchmarks.pictures import write_jpegs
from imgflow.api.backend import connections as api_connections
from imgflow.catalog.database.engine import make_engine
from imgflow.settings.variables import Settings
from imgflow.store.s3.sqs import REQUEST_MESSAGES
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv, jpeg

IMAGES = 400


def test_the_tables_of_the_document_are_the_computed_ones() -> None:
    text = sizing.DOCUMENT.read_text()
    assert {found[2] for found in sizing.TABLES.finditer(text)} == sizing.MAKERS.keys()
    assert text == sizing.rewritten(text), "run `python -m benchmarks.sizing`"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Of as many characters as a bucket's URL: an image's row and its indexes hold it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_an_image_takes_the_bytes_and_connections_that_are_computed_with(
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    database_url: str,
    short_folder: Path,
) -> None:
    project = Project(make_settings(source_url=short_folder.as_uri()), instance)
    folder = short_folder / "2026" / "11"
    folder.mkdir(parents=True)
    (folder / "first.jpg").write_bytes(jpeg())
    assert project.ingest().processed == 1
    engine = make_engine(database_url)
    empty = table_bytes(engine)
    write_jpegs(folder, IMAGES, (160, 120))
    with counted_connections(database_url) as most:
        assert project.ingest().processed == IMAGES
    found = per_image(engine, IMAGES, empty)
    engine.dispose()
    measured = sizing.MEASURED
    for part, value in found.items():
        assert value == pytest.approx(getattr(measured, part), rel=0.2, abs=60), (part, found)
    # This process is the sensor and the listing as well.
    assert most[0] <= measured.run_connections + 5


def test_a_depth_image_takes_the_bytes_that_are_computed_with(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance, database_url: str
) -> None:
    project = Project(make_settings(), instance)
    rows = 5_000
    (project.source.location.folder / "deep.csv").write_bytes(depth_csv(rows=rows))
    assert project.ingest().processed == 1
    engine = make_engine(database_url)
    with engine.connect() as connection:
        # Autovacuum, when it comes by, adds a page of visibility map to each of the two heaps.
        size = sa.text("SELECT pg_total_relation_size('depth_chunks')")
        assert connection.execute(size).scalar_one() == pytest.approx(
            sizing.depth_bytes(rows), rel=0.05
        )
    engine.dispose()


def test_connections_of_the_api_are_those_of_its_pools() -> None:
    pool = api_connections.POOL_SIZE + api_connections.POOL_OVERFLOW
    assert pool + api_connections.INTERVALS_AT_ONCE + 2 == sizing.API_CONNECTIONS
    # A tenth of a request to receive, and one to delete, for each message.
    assert REQUEST_MESSAGES == 10


def test_settings_that_the_document_names_exist_and_take_what_it_says() -> None:
    text = sizing.DOCUMENT.read_text()
    table = text.partition("## What to set")[2].partition("##")[0]
    for line in table.splitlines():
        names = [part for part in line.split("`") if part.startswith("IMGFLOW_")]
        fields = [name.removeprefix("IMGFLOW_").lower() for name in names]
        assert set(fields) <= Settings.model_fields.keys()
        for cell in line.split("|")[2:-1] if fields else ():
            numbers = [json.loads(number) for number in cell.split(",") if number.strip().isdigit()]
            if numbers:
                assert Settings(**dict(zip(fields, numbers, strict=True)), _env_file=None)


def test_small_objects_stay_where_they_are() -> None:
    prices = sizing.Prices()
    small = sizing.payback_months(
        sizing.MEASURED.thumbnail, prices.glacier_ir, prices.to_glacier_ir, prices
    )
    large = sizing.payback_months(4_000_000, prices.glacier_ir, prices.to_glacier_ir, prices)
    assert small > 24
    assert large < 1
