from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgflow.catalog.database.copy import CopiedRows
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.depth_arrays import DepthArrays, TooManyRows
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow.depth.ordering import ResizedChunk
from imgflow.errors import Rejected
from imgflow_tests.catalog.uploads import announced, row, verdict

WIDTH = 150


def chunks(
    rows: int, *, first: float = 100.0, step: float = 0.1, value: float = 0, width: int = WIDTH
) -> Iterator[ResizedChunk]:
    """Rows whose pixels hold their own number, plus `value`."""
    for start in range(0, rows, CHUNK_ROWS):
        numbers = np.arange(start, min(start + CHUNK_ROWS, rows))
        depths = (first + numbers * step).astype(np.float64)
        pixels = np.repeat(numbers[:, None] + value, width, axis=1).astype(np.float32)
        yield ResizedChunk(start // CHUNK_ROWS, start, depths, pixels)


def numbers_of(arrays: DepthArrays, image: Image, *bounds: float | None) -> list[int]:
    found = arrays.read(image.id, *bounds)
    assert len(found.depths) == len(found.pixels)
    return [int(row[0]) for row in found.pixels]


@pytest.fixture
def arrays(catalog: PostgresCatalog) -> DepthArrays:
    return DepthArrays(catalog.engine)


@pytest.fixture
def image(catalog: PostgresCatalog) -> Image:
    (image,) = announced(catalog, "hole.csv")
    return image


def name(catalog: PostgresCatalog, image: Image, array: str) -> None:
    catalog.record([verdict(image, outputs={"resized": {"name": array, "fingerprint": "f"}})])


def test_an_array_comes_back_as_it_was_stored(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    assert arrays.store(image.id, "one", chunks(1_300)) == 1_300 * (8 + 4 * WIDTH)
    name(catalog, image, "one")
    found = arrays.read(image.id)
    assert found.array == "one"
    assert found.depths.dtype == np.float64
    assert found.pixels.dtype == np.float32
    assert np.array_equal(found.depths, 100.0 + np.arange(1_300) * 0.1)
    assert np.array_equal(found.pixels, np.repeat(np.arange(1_300.0)[:, None], WIDTH, axis=1))
    assert found.bytes_read == 1_300 * (8 + 4 * WIDTH)


def test_both_bounds_are_included_and_exact(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    arrays.store(image.id, "one", chunks(2_000, first=0, step=1))
    name(catalog, image, "one")
    just_below, just_above = np.nextafter(511, 0), np.nextafter(511, 9_999)
    assert numbers_of(arrays, image, 511, 512) == [511, 512]
    assert numbers_of(arrays, image, 511, 511) == [511]
    assert numbers_of(arrays, image, just_above, 512) == [512]
    assert numbers_of(arrays, image, 510, just_below) == [510]
    assert numbers_of(arrays, image, 511.2, 511.8) == []
    assert numbers_of(arrays, image, None, 1) == [0, 1]
    assert numbers_of(arrays, image, 1_998, None) == [1_998, 1_999]
    assert numbers_of(arrays, image, -5, -1) == []
    assert numbers_of(arrays, image, 2_000, 3_000) == []
    assert numbers_of(arrays, image, 512, 511) == []
    assert len(numbers_of(arrays, image, float("-inf"), float("inf"))) == 2_000


def test_rows_of_equal_depth_come_together_across_chunks(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    arrays.store(image.id, "one", chunks(1_500, first=7, step=0))
    name(catalog, image, "one")
    assert len(numbers_of(arrays, image, 7, 7)) == 1_500
    assert numbers_of(arrays, image, 7.1, 8) == []


def test_any_interval_is_what_numpy_says(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    arrays.store(image.id, "one", chunks(1_600, first=0, step=0.5))
    name(catalog, image, "one")
    depths = np.arange(1_600) * 0.5
    bounds = st.one_of(
        st.sampled_from([float(depth) for depth in depths[505:520]]), st.floats(-10, 900)
    )

    @given(bounds, bounds, st.integers(1, 1_700))
    @settings(
        max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def check(low: float, high: float, most: int) -> None:
        expected = np.flatnonzero((depths >= low) & (depths <= high)).tolist()
        assert numbers_of(arrays, image, low, high) == expected
        if len(expected) > most:
            with pytest.raises(TooManyRows, match=f"more than {most:,} rows"):
                arrays.read(image.id, low, high, most_rows=most)
        else:
            assert len(arrays.read(image.id, low, high, most_rows=most).depths) == len(expected)

    check()


def test_a_frame_reads_only_the_chunks_that_it_needs(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    # Narrow, so that a million rows are stored in a second.
    arrays.store(image.id, "one", chunks(1_000_000, width=3))
    name(catalog, image, "one")
    for first in (0, 12, 500_000, 500_300, 999_500):
        low = 100.0 + first * 0.1
        found = arrays.read(image.id, low - 0.01, low + 49.91)
        assert found.pixels[:, 0].tolist() == list(range(first, first + 500))
        assert found.bytes_read < (500 + 2 * CHUNK_ROWS) * (8 + 4 * 3)
    with pytest.raises(TooManyRows):
        arrays.read(image.id, most_rows=500)


def test_the_bytes_counted_are_all_that_comes_from_the_database(
    catalog: PostgresCatalog,
    arrays: DepthArrays,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays.store(image.id, "one", chunks(20_000))
    name(catalog, image, "one")
    received: list[int] = []
    write = CopiedRows.write

    def counted(rows: CopiedRows, message: bytes) -> int:
        received.append(len(message))
        return write(rows, message)

    monkeypatch.setattr(CopiedRows, "write", counted)
    found = arrays.read(image.id, 1_000, 1_050)
    assert found.bytes_read <= sum(received) < found.bytes_read + 200


def test_a_connection_that_broke_is_replaced_while_a_frame_is_read(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image, database_url: str
) -> None:
    arrays.store(image.id, "one", chunks(10))
    name(catalog, image, "one")
    # Without a ping before use, the break is found out by the statement itself.
    engine = sa.create_engine(database_url, pool_size=1, pool_pre_ping=False)
    with engine.connect() as connection:
        process = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    with catalog.engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:process)"), {"process": process})
    assert len(DepthArrays(engine).read(image.id).depths) == 10
    engine.dispose()


def test_nothing_is_there_before_the_row_names_it_or_after_it_names_another(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    assert arrays.read(image.id).depths.size == 0
    assert arrays.read(10**9).array == ""
    arrays.store(image.id, "one", chunks(10))
    assert arrays.read(image.id).pixels.size == 0
    name(catalog, image, "one")
    assert arrays.read(image.id).depths.size == 10
    name(catalog, image, "two")
    assert arrays.read(image.id).depths.size == 0


def test_an_iterator_that_fails_leaves_nothing_and_what_it_raised(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    def failing() -> Iterator[ResizedChunk]:
        yield from chunks(30_000)
        raise Rejected("not_a_number", "row 30,001 holds 'x'")

    with pytest.raises(Rejected, match="30,001"):
        arrays.store(image.id, "one", failing())
    assert _stored(catalog) == []
    arrays.store(image.id, "one", chunks(600))
    name(catalog, image, "one")
    with pytest.raises(Rejected):
        arrays.store(image.id, "one", failing())
    assert len(arrays.read(image.id).depths) == 600


def _stored(catalog: PostgresCatalog) -> list[tuple[str, int]]:
    with catalog.engine.connect() as connection:
        rows = connection.execute(
            sa.text('SELECT "array", count(*) FROM depth_chunks GROUP BY 1 ORDER BY 1')
        )
        return [(array, count) for array, count in rows]


def test_an_array_is_invisible_while_it_is_written_and_may_be_written_again(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    name(catalog, image, "one")
    seen: list[int] = []

    def watched(value: float) -> Iterator[ResizedChunk]:
        for chunk in chunks(20_000, value=value):
            if chunk.index % 10 == 0:
                seen.append(len(arrays.read(image.id).depths))
            yield chunk

    arrays.store(image.id, "one", watched(0))
    assert set(seen) == {0}
    del seen[:]
    arrays.store(image.id, "one", watched(0.5))
    assert set(seen) == {20_000}
    assert arrays.read(image.id).pixels[0, 0] == 0.5


def test_two_workers_may_write_the_same_array_at_once(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image, database_url: str
) -> None:
    name(catalog, image, "one")
    start = threading.Barrier(3)

    def work(_: int) -> int:
        engine = make_engine(database_url)
        try:
            start.wait()
            return DepthArrays(engine).store(image.id, "one", chunks(5_000))
        finally:
            engine.dispose()

    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(work, range(3)))) == 1
    assert numbers_of(arrays, image) == list(range(5_000))
    assert _stored(catalog) == [("one", 40)]


def test_a_reader_never_sees_two_arrays_mixed(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image, database_url: str
) -> None:
    arrays.store(image.id, "array-0", chunks(2_000))
    name(catalog, image, "array-0")
    done, seen = threading.Event(), set[str]()

    def look() -> None:
        engine = make_engine(database_url)
        while not done.is_set():
            found = DepthArrays(engine).read(image.id)
            assert len(found.depths) == 2_000
            values = found.pixels[:, 0] - np.arange(2_000)
            assert set(values.tolist()) == {float(found.array.removeprefix("array-"))}
            seen.add(found.array)
        engine.dispose()

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        for number in range(1, 12):
            arrays.store(image.id, f"array-{number}", chunks(2_000, value=number))
            name(catalog, image, f"array-{number}")
            arrays.drop_superseded([image.id])
        done.set()
        looking.result(30)
    assert len(seen) > 1
    assert _stored(catalog) == [("array-11", 16)]


def test_superseded_arrays_go_and_others_stay(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    (other,) = announced(catalog, "other.csv")
    for array in ("old", "new"):
        arrays.store(image.id, array, chunks(10))
        arrays.store(other.id, f"other-{array}", chunks(10))
    arrays.drop_superseded([image.id])
    assert len(_stored(catalog)) == 4  # pending: its worker may not have come to the row yet
    name(catalog, image, "new")
    arrays.drop_superseded([image.id])
    assert [array for array, _ in _stored(catalog)] == ["new", "other-new", "other-old"]
    catalog.record([verdict(row(catalog, "hole.csv"), "rejected")])
    arrays.drop_superseded([image.id, other.id])
    assert [array for array, _ in _stored(catalog)] == ["other-new", "other-old"]


def test_chunks_go_with_their_row(
    catalog: PostgresCatalog, arrays: DepthArrays, image: Image
) -> None:
    arrays.store(image.id, "one", chunks(10))
    with catalog.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM images"))
    assert _stored(catalog) == []
