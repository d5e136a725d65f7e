"""An uploader sends a few bytes that become gigabytes in the database, or hours of a processor.

Each bomb is rejected by its code, or takes in the database no more than a few times what was
uploaded; an image beside them is done.
"""

from __future__ import annotations

import gzip
import io
import time
import zlib
from collections.abc import Callable, Iterator

import dagster as dg
import numpy as np
import psycopg2
import pytest
from PIL import Image

from imgflow.depth.limits import (
    FREE_ROWS,
    FREE_SECONDS,
    FREE_TEXT_BYTES,
    DepthLimits,
    processor_seconds,
)
from imgflow.settings.variables import Settings
from imgflow_tests.depth.tables import npy_bytes, whole
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv

MIB = 2**20


@pytest.fixture
def make_project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    return lambda **values: Project(make_settings(**values), instance)


def packed(pieces: Iterator[bytes]) -> bytes:
    deflate = zlib.compressobj(9, wbits=31)
    return b"".join([*(deflate.compress(piece) for piece in pieces), deflate.flush()])


def zeros(rows: int) -> bytes:
    """A table of int8 zeros under its header, as `numpy.save` writes it."""
    header = npy_bytes(np.zeros((0, 2), np.int8)).replace(b"(0, 2)", f"({rows}, 2)".encode())
    header = header[:127].rstrip(b"\n").ljust(127)[:127] + b"\n"
    block = bytes(MIB)
    size = 2 * rows
    pieces = [block] * (size // MIB) + [bytes(size % MIB)]
    return packed(iter([header, *pieces]))


def map_of_zeros(rows: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((rows, 4), np.uint8)).save(out, "PNG", compress_level=9)
    return out.getvalue()


def bombs() -> dict[str, tuple[bytes, str]]:
    line = b"1,2\n" * (MIB // 4)
    blank = b"\n" * MIB
    return {
        "zeros.npy.gz": (zeros(5_000_000), "too_many_rows"),
        "fewer.npy.gz": (zeros(1_900_000), "too_many_rows"),
        "rows.csv.gz": (packed(iter([b"depth,a\n", *[line] * 8])), "too_many_rows"),
        "blank.csv.gz": (
            packed(iter([b"depth,a\n1,2\n", *[blank] * (FREE_TEXT_BYTES // MIB + 2)])),
            "too_many_bytes",
        ),
        "separators.csv.gz": (
            packed(iter([b"depth,a\n1,2\n", *[b",\n ,\n" * (MIB // 5)] * 70])),
            "too_many_bytes",
        ),
        "map.depth.png": (map_of_zeros(1_000_000), "too_many_rows"),
    }


def database_bytes(url: str) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            (size,) = cursor.fetchone() or (0,)
            return int(size)
    finally:
        connection.close()


def log_bytes(url: str) -> int:
    """Bytes that the server's write-ahead log has had in all."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_lsn() - CAST('0/0' AS pg_lsn)")
            (size,) = cursor.fetchone() or (0,)
            return int(size)
    finally:
        connection.close()


@pytest.mark.slow
def test_bombs_of_depth_images_are_rejected_by_code_and_what_is_beside_them_is_done(
    make_project: Callable[..., Project], database_url: str
) -> None:
    project = make_project()
    folder = project.source.location.folder
    made = bombs()
    for key, (body, _) in made.items():
        assert len(body) < 200_000, key
        (folder / key).write_bytes(body)
    (folder / "good.csv").write_bytes(depth_csv(rows=500))
    before, logged = database_bytes(database_url), log_bytes(database_url)
    report = project.ingest()
    grown, log = database_bytes(database_url) - before, log_bytes(database_url) - logged
    rows = project.catalog.by_keys([*made, "good.csv"])
    assert rows["good.csv"].state == "ready"
    assert {key: rows[key].reason_code for key in made} == {
        key: code for key, (_, code) in made.items()
    }
    assert "the most that an upload of" in str(rows["zeros.npy.gz"].reason)
    assert (report.processed, report.failed) == (1, 0)
    assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB"
    assert log < 60 * MIB, f"{log / MIB:.0f} MiB"


@pytest.mark.slow
def test_twenty_files_of_nothing_take_little_of_the_database(
    make_project: Callable[..., Project], database_url: str
) -> None:
    project = make_project()
    folder = project.source.location.folder
    most = zeros(FREE_ROWS)
    assert len(most) < 1_000
    for number in range(20):
        (folder / f"{number}.npy.gz").write_bytes(most)
    before, logged = database_bytes(database_url), log_bytes(database_url)
    project.ingest()
    grown, log = database_bytes(database_url) - before, log_bytes(database_url) - logged
    states = {
        image.state
        for image in project.catalog.by_keys([f"{n}.npy.gz" for n in range(20)]).values()
    }
    assert states == {"ready"}
    # Of width 150 as they are, they would be 1.2 GB.
    assert grown < 80 * MIB, f"{grown / MIB:.0f} MiB"
    assert log < 150 * MIB, f"{log / MIB:.0f} MiB"


def test_processor_time_goes_by_the_bytes_of_the_upload() -> None:
    assert processor_seconds(0, 3_600) == FREE_SECONDS
    assert processor_seconds(10_000_000, 3_600) == FREE_SECONDS + 100
    assert processor_seconds(10**12, 3_600) == 3_600
    assert processor_seconds(10**12, 5) == 5


def test_blank_lines_are_read_about_as_fast_as_others() -> None:
    def seconds(lines: bytes) -> float:
        body = b"depth,a\n1,2\n" + lines * (4 * MIB // len(lines)) + b"2,3\n"
        began = time.process_time()
        whole(body, part=MIB)
        return time.process_time() - began

    rounds = [(seconds(b"1,2\n"), seconds(b"\n")) for _ in range(5)]
    rows, blank = (min(times) for times in zip(*rounds, strict=True))
    # It was thirty times as long, and is two and a half.
    assert blank < 8 * rows, (rows, blank)


def test_limits_of_an_upload_are_those_of_all_where_these_are_lower() -> None:
    limits = DepthLimits(max_rows=50, max_bytes=1_000).for_upload(10**9)
    assert (limits.max_rows, limits.max_bytes) == (50, 1_000)
    honest = gzip.compress(depth_csv(rows=2_000), mtime=0)
    limits = DepthLimits().for_upload(len(honest))
    assert len(whole(honest, limits=limits)[0]) == 2_000
