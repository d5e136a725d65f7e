"""What a depth image may cost is held by the operating system, as for photographs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv

MEMORY = 64


def blank(format_name: str, dtype: type) -> bytes:
    """A depth map of 36 megapixels in few bytes: 72 MB in memory, 144 MB as floats."""
    file = io.BytesIO()
    options = {"compression": "tiff_adobe_deflate"} if format_name == "TIFF" else {}
    Image.fromarray(np.zeros((6_000, 6_000), dtype)).save(file, format_name, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("key", "format_name", "dtype"),
    [("map.depth.png", "PNG", np.uint16), ("map.depth.tif", "TIFF", np.float32)],
)
def test_a_depth_image_that_needs_too_much_memory_is_rejected_with_the_limit(
    key: str, format_name: str, dtype: type, make_project: Callable[..., Project]
) -> None:
    project = make_project(worker_memory=MEMORY, workers=1)
    folder = project.source.location.folder
    (folder / key).write_bytes(blank(format_name, dtype))
    (folder / "good.csv").write_bytes(depth_csv())
    report = project.ingest()
    rows = project.catalog.by_keys([key, "good.csv"])
    assert (rows["good.csv"].state, report.failed) == ("ready", 0)
    assert (rows[key].state, rows[key].reason_code) == ("rejected", "too_large"), rows[key].reason
    assert f"A worker may take {MEMORY} MiB." in str(rows[key].reason)
