"""Chunks whose pixels repeat take little of the database, and are read as they were stored."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow.depth.ordering import ResizedChunk
from imgflow_tests.catalog.uploads import announced, verdict


@pytest.mark.parametrize("copied", [False, True])
def test_chunks_that_repeat_are_compressed_and_read_as_they_were(
    catalog: PostgresCatalog, copied: bool
) -> None:
    """A column that was widened, rows that are all the same, holes, and chunks of noise between."""
    rows, width = 40 * CHUNK_ROWS, 150
    rng = np.random.default_rng(3)
    pixels = np.zeros((rows, width), np.float32)
    pixels[: rows // 4] = rng.random((rows // 4, 1))
    pixels[rows // 4 : rows // 2] = rng.random(width)
    pixels[rows // 2 : rows // 2 + CHUNK_ROWS] = np.nan
    noise = slice(rows - 2 * CHUNK_ROWS, rows)
    pixels[noise] = rng.random((2 * CHUNK_ROWS, width))
    depths = np.arange(rows, dtype=np.float64)
    image, other = announced(catalog, "a.csv", "b.csv")
    arrays = DepthArrays(catalog.engine)
    chunks = (
        ResizedChunk(first // CHUNK_ROWS, first, depths[part], pixels[part])
        for first in range(0, rows, CHUNK_ROWS)
        for part in [slice(first, first + CHUNK_ROWS)]
    )
    assert arrays.store(image.id, "whole", chunks) == rows * (8 + 4 * width)
    shown = image
    if copied:
        assert arrays.copy(image.id, "whole", to_image=other.id, to_array="whole") == 40
        shown = other
    outputs = {"resized": {"name": "whole", "fingerprint": "f", "width": width}}
    catalog.record([verdict(shown, outputs=outputs)])
    found = arrays.read(shown.id)
    np.testing.assert_array_equal(found.pixels, pixels)
    np.testing.assert_array_equal(found.depths, depths)
    few = arrays.read(shown.id, rows - 300, rows - 200)
    np.testing.assert_array_equal(few.pixels, pixels[rows - 300 : rows - 199])
    with catalog.engine.connect() as connection:
        sizes = connection.execute(
            sa.text(
                "SELECT sum(pg_column_size(repeating)), sum(pg_column_size(pixels)), count(pixels) "
                "FROM depth_chunks WHERE image_id = :id"
            ),
            {"id": shown.id},
        ).one()
    assert sizes[2] == 2, "chunks of noise"
    assert sizes[1] >= 2 * CHUNK_ROWS * 4 * width
    assert sizes[0] < 38 * CHUNK_ROWS * 4 * width / 20
