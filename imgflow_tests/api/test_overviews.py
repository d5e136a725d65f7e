from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from imgflow.api.backend import depth_reads
from imgflow_tests.api.library import Library

ROWS, WIDTH = 2_048, 150
PIXELS = np.random.default_rng(4).integers(0, 256, (ROWS, WIDTH)).astype(np.float64)
PIXELS[500:600, :20] = np.nan


@pytest.fixture(scope="module")
def tall(library: Library) -> Iterator[tuple[TestClient, int]]:
    """Row number n is at depth n; its pixels need no resize."""
    tall = Library(library.settings.home / "overviews", library.settings.database_url)
    table = io.BytesIO()
    np.save(table, np.column_stack([np.arange(ROWS), PIXELS]))
    image = tall.add("tall.npy", table.getvalue())
    with tall.client() as client:
        yield client, image.id
    tall.engine.dispose()


def averaged(first: int, last: int, height: int) -> NDArray[np.float64]:
    """Means of equal numbers of rows, where at least half have a value."""
    parts = PIXELS[first : last + 1].reshape(height, -1, WIDTH)
    share = np.isfinite(parts).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.nansum(parts, axis=1) / parts.shape[1] / share
    return np.where(share >= 0.5, means, np.nan)


@pytest.mark.parametrize(
    ("first", "last", "most", "height"),
    [(0, 2_047, 128, 128), (0, 2_047, 2_048, 2_048), (384, 1_407, 64, 64), (0, 99, 500, 100)],
)
def test_rows_are_averaged_until_they_fit_and_a_header_says_so(
    *, tall: tuple[TestClient, int], first: int, last: int, most: int, height: int
) -> None:
    client, image_id = tall
    query = {"depth_min": first, "depth_max": last, "max_rows": most, "format": "npy"}
    answer = client.get(f"/image/{image_id}", params=query)
    found = np.load(io.BytesIO(answer.content))
    np.testing.assert_allclose(found, averaged(first, last, height), rtol=0, atol=1e-3)
    assert answer.headers["X-Imgflow-Rows"] == str(last - first + 1)
    assert float(answer.headers["X-Imgflow-Rows-Per-Pixel"]) == (last - first + 1) / height
    assert float(answer.headers["X-Imgflow-Depth-First"]) == first
    assert float(answer.headers["X-Imgflow-Depth-Last"]) == last


def test_an_interval_too_long_for_a_frame_can_still_be_seen(
    tall: tuple[TestClient, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, image_id = tall
    monkeypatch.setattr(depth_reads, "MOST_PIXELS", WIDTH * 1_000)
    refused = client.get(f"/image/{image_id}")
    assert refused.json()["code"] == "too_many_rows"
    assert "max_rows" in refused.json()["detail"]
    shown = client.get(f"/image/{image_id}?max_rows=100")
    assert Image.open(io.BytesIO(shown.content)).size == (WIDTH, 100)
    known = {"If-None-Match": shown.headers["ETag"]}
    assert client.get(f"/image/{image_id}?max_rows=100", headers=known).status_code == 304
    assert client.get(f"/image/{image_id}?max_rows=101", headers=known).status_code == 200


def test_what_cannot_be_averaged_has_a_code(
    tall: tuple[TestClient, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, image_id = tall

    def code(query: str) -> str:
        return str(client.get(f"/image/{image_id}?{query}").json()["code"])

    assert code("max_rows=0") == code("max_rows=8193") == "invalid_parameter"
    assert code("max_rows=5&depth_min=1e9") == "depth_outside"
    assert code("max_rows=5&depth_min=3.1&depth_max=3.2") == "no_rows"
    monkeypatch.setattr(depth_reads, "MOST_AVERAGED", WIDTH * 50)
    assert code("max_rows=51") == "too_many_rows"
    assert client.get(f"/image/{image_id}?max_rows=50").status_code == 200
