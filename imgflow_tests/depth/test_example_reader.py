"""The file reader of the documentation, installed as a package: through the whole way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.depth.readers import registry
from imgflow.depth.readers.rows import DepthLimits
from imgflow.errors import Rejected
from imgflow.settings.variables import Settings
from imgflow_tests.depth.tables import whole
from imgflow_tests.docs_pages import ROOT, blocks
from imgflow_tests.orchestration.project import Project

EXAMPLES = ROOT / "docs" / "examples" / "readers"
WELL = b"""\
~Version
VERS.   2.0 : CWLS LOG ASCII STANDARD
~Well
NULL.   -999.25 : missing
~Curve
DEPT.M :
PAD1.  :
PAD2.  :
~Ascii
9000.1  10  20
9000.2  30  -999.25
9000.3  50  60
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example, as pip would install it with the entry point of the page."""
    (block,) = (b for b in blocks("docs/adding-a-reader.md") if b.language == "toml")
    point = block.text.splitlines()[-1].replace("my_package.las", "las").replace('"', "")
    info = tmp_path / "site" / "example_las-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-las\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[imgflow.depth_readers]\n{point}\n")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(info.parent))
    registry.readers.cache_clear()
    yield
    registry.readers.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_upload_of_the_format_becomes_a_depth_image(
    instance: dg.DagsterInstance, make_settings: Callable[..., Settings]
) -> None:
    project = Project(make_settings(depth_width=2), instance)
    (project.source.location.folder / "well.las").write_bytes(WELL)

    report = project.ingest()

    assert (report.processed, report.failed) == (1, 0)
    assert project.statuses("depth/resized") == {"well.las": "green"}
    row = project.catalog.by_keys(["well.las"])["well.las"]
    assert (row.kind, row.state, row.media_type) == ("depth", "ready", "application/x-las")
    found = DepthArrays(project.catalog.engine).read(row.id, 9000.2, 9000.3)
    assert found.depths.tolist() == [9000.2, 9000.3]
    np.testing.assert_array_equal(found.pixels, [[30, np.nan], [50, 60]])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("body", "code", "part"),
    [
        (WELL.replace(b"50", b"x"), "not_a_table", "below line 10"),
        (WELL.replace(b"  60", b""), "not_a_table", "below line 10"),
        (WELL.replace(b"-999.25 :", b"none :"), "not_a_table", "none"),
        (WELL.partition(b"9000")[0], "no_rows", "~A"),
        (b"a photograph", "no_rows", "~A"),
        (WELL.replace(b"9000.2", b"-999.25"), "empty_depth", "line 11"),
    ],
)
def test_what_the_reader_cannot_read_is_rejected_with_its_place(
    body: bytes, code: str, part: str
) -> None:
    with pytest.raises(Rejected) as caught:
        whole(body, name="well.las")
    assert caught.value.code == code
    assert part in caught.value.reason


@pytest.mark.usefixtures("installed")
def test_the_reader_keeps_to_its_limits_and_reads_in_blocks() -> None:
    limits = DepthLimits(block_bytes=80)
    rows = b"".join(b"%.1f 1 2\n" % (9000 + i / 10) for i in range(200))
    depths, pixels = whole(WELL + rows, name="well.las", limits=limits)
    assert (len(depths), pixels.shape) == (203, (203, 2))
    with pytest.raises(Rejected, match="more than 100 rows"):
        whole(WELL + rows, name="well.las", limits=DepthLimits(max_rows=100))


def test_the_reader_is_as_short_as_the_page_says() -> None:
    source = (EXAMPLES / "las.py").read_text()
    body = source[source.index("class ") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 32
