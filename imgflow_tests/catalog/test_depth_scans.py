from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres.depth_arrays import DepthArrays, Interval
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow_tests.catalog.test_depth_arrays import chunks
from imgflow_tests.catalog.uploads import announced, verdict

KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE query LIKE 'COPY%depth_rows%' AND state = 'active' AND pid <> pg_backend_pid()
    AND datname = current_database()
"""


class Seen:
    """Row numbers that came, and how often they began anew."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self.longest = self.restarts = 0

    def restart(self) -> None:
        self.numbers.clear()
        self.restarts += 1

    def take(self, part: Interval) -> None:
        assert np.isin(part.depths, 100 + np.arange(40_000) * 0.1).all()
        self.numbers += part.pixels[:, 0].tolist()
        self.longest = max(self.longest, len(part.depths))


@pytest.fixture
def scanned(catalog: PostgresCatalog) -> tuple[DepthArrays, int]:
    (image,) = announced(catalog, "hole.csv")
    arrays = DepthArrays(catalog.engine)
    arrays.store(image.id, "one", chunks(40_000))
    catalog.record([verdict(image, outputs={"resized": {"name": "one", "fingerprint": "f"}})])
    return arrays, image.id


@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [(None, None, 0, 39_999), (100.05, 200.01, 1, 1_000), (4_099.9, None, 39_999, 39_999)],
)
def test_a_scan_brings_the_rows_of_an_interval_a_chunk_at_a_time(
    *,
    scanned: tuple[DepthArrays, int],
    catalog: PostgresCatalog,
    low: float | None,
    high: float | None,
    first: int,
    last: int,
) -> None:
    arrays, image_id = scanned
    for image in (image_id, "hole.csv"):
        seen = Seen()
        arrays.scan(image, low, high, source=catalog.source, restart=seen.restart, take=seen.take)
        assert seen.numbers == list(range(first, last + 1))
        assert (seen.restarts, seen.longest <= CHUNK_ROWS) == (1, True)


def test_a_scan_whose_connection_breaks_begins_anew(
    scanned: tuple[DepthArrays, int], catalog: PostgresCatalog
) -> None:
    arrays, image_id = scanned
    seen = Seen()

    def take(part: Interval) -> None:
        if seen.restarts == 1 and len(seen.numbers) == 5 * CHUNK_ROWS:
            with catalog.engine.connect() as connection:
                assert connection.execute(sa.text(KILL)).all() == [(True,)]
        seen.take(part)

    arrays.scan(image_id, None, None, source=catalog.source, restart=seen.restart, take=take)
    assert seen.restarts == 2
    assert seen.numbers == list(range(40_000))
