"""An S3 server that is busy, slow, away or breaks off: all becomes ready, nothing is misjudged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import numpy as np
import pytest

from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.settings.variables import Settings
from imgflow_tests.conftest import S3Server
from imgflow_tests.orchestration.crash_points import half_visible
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_trouble import failure_text
from imgflow_tests.pictures import depth_csv, jpeg
from imgflow_tests.s3_proxy import (
    BUSY,
    RESET,
    Fault,
    Programme,
    Proxy,
    Request,
    always,
    first,
    healthy,
    sometimes,
)

pytestmark = pytest.mark.long

PHOTOS = ["a.jpg", "b.jpg", "odd//c.jpg"]  # boto3 reads the last one, obstore the others
DEPTH_IMAGE = "hole.csv"
BODIES = {key: jpeg(seed=seed) for seed, key in enumerate(PHOTOS)} | {DEPTH_IMAGE: depth_csv(30)}
KEYS = list(BODIES)


@pytest.fixture
def proxy(s3_server: S3Server, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    assert s3
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.stop()


@pytest.fixture
def project(
    proxy: Proxy, bucket: str, make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Project:
    """Source and outputs in one bucket, behind the proxy."""
    assert proxy
    settings = make_settings(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out")
    return Project(settings, instance)


@pytest.fixture
def uploads(project: Project, s3: Any) -> Project:
    for key, body in BODIES.items():
        put(project, s3, key, body)
    return project


def put(project: Project, s3: Any, key: str, body: bytes) -> None:
    s3.put_object(Bucket=project.source.location.bucket, Key=f"in/{key}", Body=body)


def states(project: Project) -> dict[str, str]:
    return {image.key: image.state for image in project.catalog.page(limit=100)}


def assert_sources_are_whole(project: Project) -> None:
    """What was processed are all bytes of the uploads."""
    assert half_visible(project) == []
    for image in project.catalog.page(limit=100):
        if image.state == "ready":
            assert image.sha256 == hashlib.sha256(BODIES[image.key]).hexdigest()


def assert_all_is_ready(project: Project) -> None:
    assert states(project) == dict.fromkeys(KEYS, "ready")
    assert half_visible(project) == []
    depth_image = project.catalog.by_keys([DEPTH_IMAGE])[DEPTH_IMAGE]
    interval = DepthArrays(project.catalog.engine).read(depth_image.id)
    assert interval.pixels.shape == (30, 150)
    assert np.isfinite(interval.pixels).all()
    assert set(project.statuses("photo/thumbnail").values()) == {"green"}
    assert set(project.statuses("depth/resized").values()) == {"green"}


@pytest.mark.parametrize(
    "programme",
    [
        pytest.param(first(2, BUSY, "LIST", "HEAD", "GET", "PUT"), id="busy twice"),
        pytest.param(first(1, RESET, "LIST", "HEAD", "GET", "PUT"), id="reset once"),
        pytest.param(sometimes(0.2, BUSY, "LIST", "HEAD", "GET", "PUT"), id="busy by chance"),
        pytest.param(always(Fault(delay_seconds=0.3), "LIST", "HEAD", "GET", "PUT"), id="slow"),
        pytest.param(first(1, Fault(cut_at=100), "LIST", "GET"), id="cut once"),
    ],
)
def test_passing_trouble_is_ridden_out(
    uploads: Project, proxy: Proxy, programme: Programme
) -> None:
    proxy.programme = programme
    for _ in range(3):
        uploads.end_pauses()
        uploads.run_requests(uploads.tick())
        assert "rejected" not in states(uploads).values()
        if set(states(uploads).values()) == {"ready"}:
            break
    proxy.programme = healthy
    assert_sources_are_whole(uploads)
    assert_all_is_ready(uploads)


@pytest.mark.parametrize("cut_at", [1, 300])
def test_a_body_cut_short_never_becomes_a_picture(
    uploads: Project, proxy: Proxy, cut_at: int
) -> None:
    """`obstore` goes on behind the cut a few times, which may be enough for a small body."""
    proxy.programme = always(Fault(cut_at=cut_at), "GET")
    uploads.run_requests(uploads.tick())
    found = states(uploads)
    assert "rejected" not in found.values()
    assert found[DEPTH_IMAGE] == found["odd//c.jpg"] == "pending"

    proxy.programme = healthy  # also for what looks at the outputs
    assert_sources_are_whole(uploads)
    uploads.end_pauses()
    uploads.run_requests(uploads.tick())
    assert_all_is_ready(uploads)


@pytest.mark.parametrize("kind", ["GET", "PUT"])
def test_trouble_that_lasts_is_named_in_the_row_and_the_run(
    uploads: Project, proxy: Proxy, kind: str
) -> None:
    proxy.programme = always(BUSY, kind)
    for run in uploads.run_requests(uploads.tick()):
        assert "Delayed by an external error" in failure_text(run)
    for image in uploads.catalog.page(limit=10):
        assert image.state == "pending"
        assert "SlowDown" in str(image.reason), image.reason
        assert uploads.source.location.bucket in str(image.reason)
    proxy.programme = healthy
    uploads.end_pauses()
    uploads.run_requests(uploads.tick())
    assert_all_is_ready(uploads)


def test_a_listing_that_fails_is_a_skip_and_no_deletion(uploads: Project, proxy: Proxy) -> None:
    uploads.run_requests(uploads.tick())
    before = uploads.rows()
    for fault in (BUSY, RESET, Fault(cut_at=200)):
        proxy.programme = always(fault, "LIST")
        result = uploads.tick()
        assert uploads.source.location.url in str(result.skip_reason)
        assert uploads.rows() == before
    proxy.programme = healthy
    assert uploads.tick().run_requests == []
    assert uploads.rows() == before


def test_a_store_that_is_away_completely_costs_nothing_but_time(
    uploads: Project, proxy: Proxy
) -> None:
    result = uploads.tick()
    proxy.programme = lambda _: RESET
    runs = uploads.run_requests(result)
    assert [run.success for run in runs] == [False, False]
    for image in uploads.catalog.page(limit=10):
        assert (image.state, image.gone_at) == ("pending", None)
        assert "AWS_ENDPOINT_URL" in str(image.reason), image.reason
    uploads.end_pauses()
    skipped = uploads.tick()
    assert proxy.endpoint in str(skipped.skip_reason)
    assert not skipped.run_requests

    proxy.programme = healthy
    uploads.end_pauses()
    uploads.run_requests(uploads.tick())
    assert_all_is_ready(uploads)


def test_an_object_overwritten_between_listing_and_reading_is_processed_as_it_is_now(
    uploads: Project, s3: Any
) -> None:
    newer = {"a.jpg": jpeg(90, 30, seed=7), DEPTH_IMAGE: depth_csv(30, seed=8)}
    result = uploads.tick()
    for key, body in newer.items():
        put(uploads, s3, key, body)
    runs = uploads.run_requests(result)

    assert [run.success for run in runs] == [True, True]
    assert_all_is_ready(uploads)
    images = uploads.catalog.by_keys(list(newer))
    assert images["a.jpg"].width == 90
    for key, asset in (("a.jpg", "photo/source"), (DEPTH_IMAGE, "depth/source")):
        assert images[key].size == len(newer[key])
        assert uploads.newest(asset, key).tags["dagster/data_version"] == images[key].announced
        assert materializations(uploads, asset, key) == 1
    assert uploads.tick().run_requests == []


def test_an_object_overwritten_at_each_read_is_trouble_and_no_loop(
    uploads: Project, proxy: Proxy, s3: Any
) -> None:
    def overwrite(request: Request) -> None:
        if (request.kind, request.key) == ("GET", "in/a.jpg"):
            put(uploads, s3, "a.jpg", jpeg(seed=100 + request.number))

    proxy.before = overwrite
    runs = uploads.run_requests(uploads.tick())
    assert proxy.count("GET", "in/a.jpg") == 2
    (failed,) = [run for run in runs if not run.success]
    assert "'a.jpg' is being overwritten all the time" in failure_text(failed)
    assert states(uploads) == dict.fromkeys(KEYS, "ready") | {"a.jpg": "pending"}

    proxy.before = healthy
    uploads.end_pauses()
    uploads.run_requests(uploads.tick())
    assert_all_is_ready(uploads)
    assert materializations(uploads, "photo/source", "a.jpg") == 1


def materializations(project: Project, asset: str, partition: str) -> int:
    """How many there are of one image."""
    records = project.instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset.split("/")), asset_partitions=[partition]
        ),
        limit=10,
    )
    return len(records.records)
