"""Whether all that a cluster knows of its images agrees, and whether nothing is left over.

Bucket, catalogue, output store, Dagster's partitions and events each have a say of every image;
runs, locks and queues are over when nothing is left to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.postgres import counters
from imgflow.catalog.postgres.counters import Counters, series
from imgflow.catalog.records import Image
from imgflow.orchestration.runs.liveness import UNFINISHED
from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.conftest import UNDER, Observer

SETS = {"photo": "photos", "depth": "depth_images"}
ASSETS = {
    "photo": ("source", "grayscale", "thumbnail", "metadata"),
    "depth": ("source", "resized", "preview", "metadata"),
}
QUEUES = ("photo", "depth", "dagster")

MATERIALIZED = sa.text(
    """
    SELECT DISTINCT ON (e.asset_key, e.partition) e.asset_key, e.partition, t.value
    FROM event_logs e LEFT JOIN asset_event_tags t
        ON t.event_id = e.id AND t.key = 'dagster/data_version'
    WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.partition LIKE :folder || '/%'
    ORDER BY e.asset_key, e.partition, e.id DESC
    """
)


@dataclass(frozen=True)
class Work:
    """What was done to images since the cluster was made; see `postgres.counters`."""

    processed: float
    copied: float

    @classmethod
    def so_far(cls, observer: Observer, kind: str = "photo") -> Work:
        counts = Counters(observer.engine, observer.catalog.source).read()
        return cls(
            counts.get(series(counters.OUTCOMES, kind=kind, outcome="processed"), 0),
            counts.get(series(counters.COPIED, kind=kind), 0),
        )

    def since(self, before: Work) -> Work:
        return Work(self.processed - before.processed, self.copied - before.copied)


def agree(observer: Observer, folder: str, *, seconds: float = 60) -> list[Image]:
    """Wait until nothing is left to do, check that everything agrees, and return the images.

    Args:
        observer: of the cluster.
        folder: of the uploads that are compared.
        seconds: that runs may take to end.
    """
    until(lambda: not list(left_over(observer)), "nothing is left over", seconds=seconds)
    images = list(in_catalog(observer, folder))
    wrong = list(disagreements(observer, folder, images))
    assert not wrong, "\n".join(wrong)
    return images


def left_over(observer: Observer) -> Iterator[str]:
    """Runs, holds, locks and messages that are not over."""
    statuses = [status.value for status in UNFINISHED]
    with observer.engine.connect() as connection:
        for run_id, status in connection.exec_driver_sql(
            "SELECT run_id, status FROM runs WHERE status = ANY(%s)", (statuses,)
        ).tuples():
            yield f"run {run_id} is {status}"
        for run_id in connection.exec_driver_sql(
            "SELECT run_id FROM run_holds WHERE ended_at IS NULL"
        ).scalars():
            yield f"run {run_id} holds images"
        for key in connection.exec_driver_sql(
            "SELECT key FROM images WHERE state = 'pending' OR unreported"
        ).scalars():
            yield f"{key} waits"
        for key in connection.exec_driver_sql("SELECT step_key FROM concurrency_slots").scalars():
            yield f"{key} has a slot of a pool"
    for queue in QUEUES:
        if (length := redis(observer, "LLEN", queue)) != "0":
            yield f"the queue {queue} has {length} messages"


def in_catalog(observer: Observer, folder: str) -> Iterable[Image]:
    with observer.engine.connect() as connection:
        keys = list(
            connection.exec_driver_sql(
                "SELECT key FROM images WHERE key LIKE %s", (f"{folder}/%",)
            ).scalars()
        )
    return observer.catalog.by_keys(keys).values()


def disagreements(observer: Observer, folder: str, images: Iterable[Image]) -> Iterator[str]:
    """Whatever two parts say differently of these images."""
    uploads = objects(observer, UNDER + folder + "/")
    keys = {image.key for image in images}
    if in_bucket := {key.removeprefix(UNDER) for key in uploads}.symmetric_difference(keys):
        yield f"only in one of bucket and catalogue: {sorted(in_bucket)}"
    yield from _outputs(observer, images)
    yield from _partitions(observer, folder, images)
    yield from _events(observer, folder, images)


def _outputs(observer: Observer, images: Iterable[Image]) -> Iterator[str]:
    s3 = observer.cluster.s3()
    named = set()
    for image in images:
        if image.state != "ready" or image.processed != image.announced:
            yield f"{image.key} is {image.state}"
        for output, record in image.outputs.items():
            if output == "resized":
                continue
            named.add(f"out/{record['name']}")
            body = s3.get_object(Bucket="imgflow", Key=f"out/{record['name']}")["Body"].read()
            if hashlib.sha256(body).hexdigest() != record["sha256"]:
                yield f"{image.key}: {record['name']} has other bytes than the row says"
    for name in objects(observer, "out/"):
        if any(f"/{image.key}" in name for image in images) and name not in named:
            yield f"{name} belongs to nothing"


def _partitions(observer: Observer, folder: str, images: Iterable[Image]) -> Iterator[str]:
    with observer.engine.connect() as connection:
        found = set(
            connection.exec_driver_sql(
                "SELECT partitions_def_name, partition FROM dynamic_partitions "
                "WHERE partition LIKE %s",
                (f"{folder}/%",),
            ).tuples()
        )
    expected = {(SETS[image.kind], partition_key(image.key)) for image in images}
    if odd := found ^ expected:
        yield f"only one of partitions and catalogue: {sorted(odd)}"


def _events(observer: Observer, folder: str, images: Iterable[Image]) -> Iterator[str]:
    with observer.engine.connect() as connection:
        rows = connection.execute(MATERIALIZED, {"folder": folder}).all()
    found = {(row.asset_key, row.partition): row.value for row in rows}
    for image in images:
        for asset in ASSETS[image.kind]:
            version = found.pop((f'["{image.kind}", "{asset}"]', partition_key(image.key)), None)
            record = image.outputs.get(asset)
            if version is None or (record and version != record["sha256"][:32]):
                yield f"{image.key}: the newest event of {asset} has {version}"
    yield from (f"an event of {asset} {partition} too many" for asset, partition in found)


def objects(observer: Observer, prefix: str) -> list[str]:
    """All objects below a prefix."""
    pages = observer.cluster.s3().get_paginator("list_objects_v2")
    found = pages.paginate(Bucket="imgflow", Prefix=prefix)
    return [entry["Key"] for page in found for entry in page.get("Contents", [])]


def redis(observer: Observer, *command: str) -> str:
    """Ask the broker."""
    return observer.cluster.execute("redis", "redis-cli", *command).strip()
