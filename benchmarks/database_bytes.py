"""What an image costs in PostgreSQL, measured in a real database after `imgflow ingest`.

`python -m benchmarks.database_bytes [IMAGES [SINGLE]]` processes IMAGES photographs in one run and
then SINGLE more in a run each, and prints bytes by table, with indexes. `benchmarks/sizing.py`
computes with what it printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.pictures import write_jpegs

# Events of this type are deleted 30 days after their run, unless they make a partition red.
PLANNED = "ASSET_MATERIALIZATION_PLANNED"
TABLES = ("images", "event_logs", "asset_event_tags", "dynamic_partitions", "runs", "run_tags")


def table_bytes(engine: sa.Engine) -> dict[str, int]:
    """Return the bytes of each table, without dead rows but with indexes and long values."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = {}
        for table in TABLES:
            connection.execute(sa.text(f"VACUUM FULL {table}"))
            size = sa.text("SELECT pg_total_relation_size(CAST(:name AS regclass))")
            found[table] = int(connection.execute(size, {"name": table}).scalar_one())
    return found


def drop_planned(engine: sa.Engine) -> None:
    """Delete the events that retention would delete for images that were processed once."""
    with engine.begin() as connection:
        statement = "DELETE FROM event_logs WHERE dagster_event_type = :planned"
        connection.execute(sa.text(statement), {"planned": PLANNED})


def per_image(engine: sa.Engine, images: int, empty: dict[str, int]) -> dict[str, float]:
    """Return bytes per image in a database whose images were processed once, in few runs.

    Args:
        engine: Connects to the database.
        images: Number of images in it.
        empty: Result of `table_bytes` before there were any: the first pages of indexes.

    Returns:
        Bytes by part: row, partition, events that stay, and events deleted after 30 days.
    """
    whole = _less(table_bytes(engine), empty)
    drop_planned(engine)
    kept = _less(table_bytes(engine), empty)
    return {
        "row": whole["images"] / images,
        "partition": whole["dynamic_partitions"] / images,
        "kept": (kept["event_logs"] + kept["asset_event_tags"]) / images,
        "planned": (whole["event_logs"] - kept["event_logs"]) / images,
    }


def _less(found: dict[str, int], empty: dict[str, int]) -> dict[str, int]:
    return {table: size - empty[table] for table, size in found.items()}


@contextmanager
def counted_connections(url: str) -> Iterator[list[int]]:
    """Count others' connections to a database until the end; the list has the maximum."""
    most, stop = [0], threading.Event()
    engine = sa.create_engine(url)
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def count() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not stop.wait(0.02):
                most[0] = max(most[0], int(connection.execute(query).scalar_one()))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()
        engine.dispose()


def ingest(home: Path, source: Path, url: str) -> dict[str, Any]:
    """Run `imgflow ingest` to its end."""
    variables = {
        "IMGFLOW_HOME": str(home),
        "IMGFLOW_SOURCE_URL": source.as_uri(),
        "IMGFLOW_DATABASE_URL": url,
        "IMGFLOW_WORKERS": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "imgflow", "ingest", "--json"],
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _log_position(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        position = sa.text("SELECT pg_current_wal_lsn() - CAST('0/0' AS pg_lsn)")
        return int(connection.execute(position).scalar_one())


def main(images: int, single: int) -> None:
    """Measure and print."""
    from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres = EmbeddedPostgres(folder / "pg")
        try:
            # Keys as long as in folders by date with names from cameras.
            source = folder / "in" / "2026" / "11"
            engine = sa.create_engine(postgres.url)
            first = source / "first.jpg"  # so that the tables are there
            write_jpegs(folder / "first", 1, (170, 120))
            source.mkdir(parents=True)
            next((folder / "first").iterdir()).rename(first)
            ingest(folder / "home", folder / "in", postgres.url)
            empty = table_bytes(engine)
            write_jpegs(source, images, (160, 120))
            written = _log_position(engine)
            with counted_connections(postgres.url) as most:
                print(json.dumps(ingest(folder / "home", folder / "in", postgres.url)))
            written = _log_position(engine) - written
            print(f"connections of a run, at most: {most[0]}")
            print(f"write-ahead log: {written / images:,.0f} bytes an image")
            for part, value in per_image(engine, images, empty).items():
                print(f"{part}: {value:,.0f} bytes an image")
            before = sum(table_bytes(engine).values())
            write_jpegs(folder / "later", single, (150, 120))
            for file in sorted((folder / "later").iterdir()):
                file.rename(source / f"later-{file.name}")
                ingest(folder / "home", folder / "in", postgres.url)
            drop_planned(engine)
            alone = sum(table_bytes(engine).values()) - before
            if single:
                print(f"an image alone in its run, without planned events: {alone / single:,.0f}")
            engine.dispose()
        finally:
            postgres.close()


if __name__ == "__main__":
    main(*(int(number) for number in (*sys.argv[1:], *("2000", "8")[len(sys.argv) - 1 :])))
