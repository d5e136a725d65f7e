"""Regressions of speed show: reduced benchmarks with generous ratios, each beside its peer."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import bookkeeping, bucket, memory, peers, throughput
from benchmarks.pictures import write_jpegs
from imgflow_tests import ceph

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(900)]


def test_ingest_keeps_up_with_a_bare_loop() -> None:
    """Start-up counts for more in so few images: 0.8 is reached with 1,000."""
    (measured,) = throughput.measure(images=300, rounds=1)
    assert measured.ratio > 0.2


def test_bookkeeping_is_small_beside_the_pixels(tmp_path: Path) -> None:
    write_jpegs(tmp_path, 20)
    began = time.process_time()
    for file in tmp_path.iterdir():
        with Image.open(file) as image:
            image.convert("L").save(io.BytesIO(), "JPEG", quality=85)
            image.resize((256, 192), Image.Resampling.LANCZOS).save(io.BytesIO(), "JPEG")
    pixels = (time.process_time() - began) / 20 * 1_000
    measured = bookkeeping.measure(500)[0]
    assert measured.ours < pixels


def test_a_ranged_run_is_many_times_as_quick_as_one_of_plain_dagster(tmp_path: Path) -> None:
    images = 40
    write_jpegs(tmp_path / "in", images)
    (tmp_path / "out").mkdir()
    theirs = peers.time_peer("ranged", tmp_path) / images
    ours = throughput.time_ingest(tmp_path / "in", tmp_path / "home") / images
    assert theirs / ours > 0.5  # with 40 images our start-up is most of it; 7 with 1,000


def test_memory_does_not_grow_from_batch_to_batch(tmp_path: Path) -> None:
    found = memory.after_batches(tmp_path, batches=5, images=60)
    assert found[-1] / found[1] < 1.1


@pytest.mark.skipif(not ceph.is_installed(), reason="needs Ceph, which CI installs")
def test_a_bucket_far_away_is_read_and_written_while_pixels_are_computed() -> None:
    beside_loop, _, requests = bucket.measure(images=100, rounds=1)[3:]
    assert beside_loop.ratio > 1.5
    assert requests.ours < 3.3
