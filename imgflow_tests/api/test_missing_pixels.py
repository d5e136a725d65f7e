from __future__ import annotations

import io

import numpy as np
from PIL import Image

from imgflow_tests.api.library import Library

ROWS = [f"{depth},{depth},,{depth + 1}" for depth in range(20)]


def test_holes_reach_frames_numbers_statistics_and_facts(own_library: Library) -> None:
    table = "\n".join(["depth,a,b,c", *ROWS, "20,,,", "21,nan,,", "22,5,5,5", ""])
    row = own_library.add("a.csv", table.encode())
    assert row.state == "ready"
    assert row.facts["missing_pixels"] == 20 + 2 * 3
    assert row.facts["rows_with_missing"] == 22
    assert row.facts["missing_lines"] == list(range(2, 12))
    assert "Missing pixels, kept as holes: 26" in row.facts["notes"][0]
    with own_library.client() as client:
        url = f"/image/{row.id}?depth_min=20&depth_max=22"
        array = np.load(io.BytesIO(client.get(f"{url}&format=npy").content))
        assert np.isnan(array[:2]).all()
        assert (array[2] == 5).all()
        png = client.get(f"{url}&format=png")
        assert png.headers["X-Imgflow-Missing"] == "300"
        alpha = np.asarray(Image.open(io.BytesIO(png.content)).convert("RGBA"))[..., 3]
        assert alpha.tolist() == [[0] * 150, [0] * 150, [255] * 150]
        whole = client.get(f"/depth/{row.id}/statistics").json()
        assert whole["missing"] > 300
        assert whole["count"] + whole["missing"] == 23 * 150
        assert whole["max"] <= 20
        nothing = client.get(f"/depth/{row.id}/statistics?depth_min=20&depth_max=21")
        assert (nothing.status_code, nothing.json()["code"]) == (422, "no_pixels")
        preview = client.get(f"/images/{row.id}/preview")
    found = np.asarray(Image.open(io.BytesIO(preview.content)).convert("RGB")).astype(int)
    assert np.abs(found[20:22, 20:130].mean((0, 1)) - (0x55, 0x88, 0xFF)).max() < 40
