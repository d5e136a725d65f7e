"""What requests read from the database: bytes are counted where they arrive."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from imgflow.catalog.database.copy import CopiedRows
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow_tests.api.library import Library

WIDTH = 150
ROWS = 20_000


@pytest.fixture(scope="module")
def tall(library: Library) -> Iterator[tuple[TestClient, int]]:
    """A depth image of 12 MB as it lies in the database; row number n is at depth n."""
    tall = Library(library.settings.home / "reads", library.settings.database_url)
    table = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, WIDTH))
    np.save(table, np.column_stack([np.arange(ROWS), pixels]).astype(np.float64))
    image = tall.add("tall.npy", table.getvalue())
    with tall.client() as client:
        yield client, image.id
    tall.engine.dispose()


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each message that the database sends of depth arrays."""
    sizes: list[int] = []
    write = CopiedRows.write

    def counted(rows: CopiedRows, message: bytes) -> int:
        sizes.append(len(message))
        return write(rows, message)

    monkeypatch.setattr(CopiedRows, "write", counted)
    return sizes


@pytest.mark.parametrize("path", ["/image/{id}", "/depth/{id}/statistics"])
@pytest.mark.parametrize("rows", [1, 500])
def test_an_interval_reads_its_own_chunks_and_nothing_else(
    tall: tuple[TestClient, int], received: list[int], path: str, rows: int
) -> None:
    client, image_id = tall
    bounds = {"depth_min": 9_990, "depth_max": 9_990 + rows - 1}
    answer = client.get(path.format(id=image_id), params=bounds)
    assert answer.status_code == 200
    row_bytes = 8 + 4 * WIDTH
    most = (rows + 2 * (CHUNK_ROWS - 1)) * row_bytes
    assert rows * row_bytes < sum(received) < most + 100 * len(received)


def test_a_legend_reads_depths_and_no_pixel(
    tall: tuple[TestClient, int], received: list[int]
) -> None:
    client, image_id = tall
    answer = client.get(f"/depth/{image_id}/legend", params={"depth_min": 0, "depth_max": 999})
    assert answer.headers["X-Imgflow-Rows"] == "1000"
    assert sum(received) < (1_000 + 2 * CHUNK_ROWS) * 8 + 100 * len(received)
    whole = client.get(f"/depth/{image_id}/legend?label=depth (m)&height=300&colormap=gray_r")
    assert Image.open(io.BytesIO(whole.content)).size == (184, 322)


def test_a_known_answer_reads_nothing(tall: tuple[TestClient, int], received: list[int]) -> None:
    client, image_id = tall
    for path in (f"/image/{image_id}?depth_max=100", f"/depth/{image_id}/legend?depth_max=100"):
        tag = client.get(path).headers["ETag"]
        received.clear()
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, received) == (304, [])


def test_the_axis_of_a_legend_is_that_of_its_frame(tall: tuple[TestClient, int]) -> None:
    client, image_id = tall
    query = "depth_min=1000&depth_max=1499&rescale=0,100&colormap=viridis"
    frame = client.get(f"/image/{image_id}?format=png&{query}")
    legend = client.get(f"/depth/{image_id}/legend?{query}")
    assert legend.headers["Content-Type"] == "image/png"
    sizes = [Image.open(io.BytesIO(answer.content)).size for answer in (frame, legend)]
    assert sizes == [(150, 500), (184, 500)]
    refused = client.get(f"/depth/{image_id}/legend?height=10")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    outside = client.get(f"/depth/{image_id}/legend?depth_min=1e9")
    assert outside.json()["code"] == "depth_outside"
