"""What a soak has left: compared with what its stories say, by other ways than imgflow's own."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import numpy as np
import sqlalchemy as sa
from PIL import Image as Picture

from imgflow.assembly import build_families
from imgflow.catalog.partition_keys import object_key, partition_key
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.orchestration.dagster_storage.instance import open_instance
from imgflow.orchestration.runs.liveness import UNFINISHED
from imgflow.orchestration.upkeep import reconcile
from imgflow.settings.variables import load_settings
from imgflow.store.config import StoreConfig
from imgflow.store.naming import MARKER
from imgflow_tests.cluster.cluster import Cluster
from imgflow_tests.cluster.conftest import SOURCE
from imgflow_tests.cluster.soak_stored import (
    Judgement,
    judge_requests,
    judge_stored,
    listed,
    names_of,
)
from imgflow_tests.cluster.soak_stories import Content, Step, ends

OUTPUTS = {"photo": {"grayscale", "thumbnail"}, "depth": {"preview", "resized"}}

# Mean difference of grey levels: JPEG leaves about two, another picture has about sixty.
MOST_DIFFERENCE = 12.0


def still_to_do(engine: sa.Engine, etags: Mapping[str, str]) -> str:
    """What is still to be done, in words; empty when nothing is.

    Args:
        engine: of the catalogue.
        etags: of all objects that are in the bucket, by key.
    """
    with engine.connect() as connection:
        pending, unsaid, leaving = connection.exec_driver_sql(
            "SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE unreported), "
            "count(*) FILTER (WHERE state = 'deleted' AND in_partitions) FROM images"
        ).one()
        seen = dict(
            connection.exec_driver_sql(
                "SELECT key, announced_etag FROM images WHERE state <> 'deleted'"
            )
            .tuples()
            .all()
        )
        runs = connection.exec_driver_sql(
            "SELECT count(*) FROM runs WHERE status = ANY(%s)", ([s.value for s in UNFINISHED],)
        ).scalar_one()
    counts = {
        "pending": pending,
        "unreported": unsaid,
        "partitions to be removed": leaving,
        "uploads not seen": sum(seen.get(key) != etag for key, etag in etags.items()),
        "deletions not seen": len(seen.keys() - etags.keys()),
        "runs": runs,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def judge(cluster: Cluster, steps: Sequence[Step], in_hand: Counter[str]) -> Judgement:
    """Compare everything there is with the stories.

    Args:
        cluster: in which nothing goes on any more.
        steps: all that happened.
        in_hand: keys that killed workers had in hand, how often.
    """
    judgement, engine = Judgement(), cluster.engine()
    try:
        with cluster.environment("daemon"):
            catalog = PostgresCatalog(engine, SOURCE)
            images = {image.key: image for image in _all(catalog)}
            expected = ends(steps)
            _objects(cluster, expected, judgement)
            _rows(images, expected, judgement)
            _outputs(cluster, images, expected, judgement)
            judge_requests(cluster, steps, in_hand, judgement)
            judge_stored(cluster, steps, images, judgement)
            _dagster(cluster, catalog, images, judgement)
            _reconciled(cluster, catalog, judgement)
            named = {name for image in images.values() for name in names_of(image)}
            judgement.compare("outputs in the end", listed(cluster, "out/") - {MARKER}, named)
    finally:
        engine.dispose()
    return judgement


def etag_of(content: Content) -> str:
    """The ETag that S3 gives an object."""
    return hashlib.md5(content.body(), usedforsecurity=False).hexdigest()


def _all(catalog: PostgresCatalog) -> Iterable[Image]:
    after = 0
    while page := catalog.page(limit=1_000, after_id=after):
        yield from page
        after = page[-1].id


def _objects(cluster: Cluster, expected: Mapping[str, Content], judgement: Judgement) -> None:
    judgement.compare("objects of the bucket", listed(cluster, "in/"), expected)


def _rows(
    images: Mapping[str, Image], expected: Mapping[str, Content], judgement: Judgement
) -> None:
    """Every object has its row, with the newest upload and the verdict that its bytes deserve."""
    judgement.compare("rows", images, expected)
    judgement.counts["rows"] = len(images)
    for key in images.keys() & expected.keys():
        image, content = images[key], expected[key]
        body = content.body()
        wanted = "ready" if content.is_whole else "rejected"
        if image.state != wanted:
            judgement.wrong.append(
                f"{key} ({content.form}) is {image.state}, not {wanted}: {image.reason}"
            )
        if image.announced_etag != etag_of(content) or image.processed != image.announced:
            judgement.wrong.append(f"{key}: the row is of an older upload")
        if content.is_whole and image.sha256 != hashlib.sha256(body).hexdigest():
            judgement.wrong.append(f"{key}: the row is of other bytes")
        outputs = OUTPUTS[image.kind] if content.is_whole else set()
        if set(image.outputs) != outputs:
            judgement.wrong.append(f"{key} has the outputs {sorted(image.outputs)}")
        judgement.counts[image.state] = judgement.counts.get(image.state, 0) + 1


def _outputs(
    cluster: Cluster,
    images: Mapping[str, Image],
    expected: Mapping[str, Content],
    judgement: Judgement,
) -> None:
    """Every output is whole, and of the newest bytes: its pixels say so."""
    s3, engine = cluster.s3(), cluster.engine()
    arrays = DepthArrays(engine)

    def look(key: str) -> str:
        image, body = images[key], expected[key].body()
        for name, record in image.outputs.items():
            if name == "resized":
                depths = np.loadtxt(io.BytesIO(body), delimiter=",", skiprows=1)
                rows = arrays.read(image.id).pixels
                if rows.shape != (len(depths), 150):
                    return f"{key}: the array is {rows.shape}"
                apart = np.abs(rows.mean(axis=1) - depths[:, 1:].mean(axis=1)).max()
                if apart > 3:  # another image's rows are about five apart
                    return f"{key}: the rows of the array are {apart:.1f} apart"
                continue
            stored = s3.get_object(Bucket="imgflow", Key=f"out/{record['name']}")["Body"].read()
            if hashlib.sha256(stored).hexdigest() != record["sha256"]:
                return f"{key}: {name} has other bytes than the row says"
            picture = Picture.open(io.BytesIO(stored))
            picture.load()
            if name != "preview" and (apart := _difference(picture, body)) > MOST_DIFFERENCE:
                return f"{key}: {name} is {apart:.1f} grey levels from its upload"
        return ""

    keys = [key for key in images.keys() & expected.keys() if expected[key].is_whole]
    with ThreadPoolExecutor(4) as threads:
        judgement.wrong += [sentence for sentence in threads.map(_said(look), keys) if sentence]
    judgement.counts["outputs that were looked at"] = sum(len(images[key].outputs) for key in keys)
    engine.dispose()


def _said(look: Any) -> Any:
    def looked(key: str) -> str:
        try:
            return str(look(key))
        except Exception as error:  # whatever it is, it is a finding
            return f"{key}: {error}"

    return looked


def _difference(picture: Picture.Image, body: bytes) -> float:
    source = Picture.open(io.BytesIO(body)).convert("L")
    if picture.size != source.size:
        return 255.0
    pixels = [np.asarray(one.convert("L"), dtype=np.float32) for one in (picture, source)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def _dagster(
    cluster: Cluster, catalog: PostgresCatalog, images: Mapping[str, Image], judgement: Judgement
) -> None:
    """Partitions are those of the rows, green or red as the rows say, and no run goes on."""
    settings = load_settings(_env_file=None)
    with open_instance(settings, cluster.database_url) as instance:
        for family in build_families(settings):
            rows = {
                partition_key(image.key): image.state
                for image in images.values()
                if image.kind == family.kind
            }
            name = str(family.partitions.name)
            keys = instance.get_dynamic_partitions(name)
            judgement.compare(f"partitions of {name}", keys, rows)
            for asset in sorted(family.made, key=str):
                found = instance.get_status_by_partition(asset, keys, family.partitions) or {}
                for state, colour in (("ready", "MATERIALIZED"), ("rejected", "FAILED")):
                    judgement.compare(
                        f"{colour} partitions of {asset.to_user_string()}",
                        [object_key(key) for key, s in found.items() if s and s.name == colour],
                        [object_key(key) for key in rows if rows[key] == state],
                    )
    with catalog.engine.connect() as connection:
        statuses = dict(
            connection.exec_driver_sql("SELECT status, count(*) FROM runs GROUP BY 1")
            .tuples()
            .all()
        )
        holds = connection.exec_driver_sql(
            "SELECT count(*) FROM run_holds WHERE ended_at IS NULL"
        ).scalar_one()
    for status, count in statuses.items():
        judgement.counts[f"runs {status}"] = count
        if status in {unfinished.value for unfinished in UNFINISHED}:
            judgement.wrong.append(f"{count} runs are left {status}")
    if holds:
        judgement.wrong.append(f"{holds} runs still have images in hand")


def _reconciled(cluster: Cluster, catalog: PostgresCatalog, judgement: Judgement) -> None:
    """The nightly reconciliation finds nothing but outputs of older contents."""
    settings = load_settings(_env_file=None)
    stores = StoreConfig(settings.source_url, settings.output_url)
    with (
        open_instance(settings, cluster.database_url) as instance,
        patch.object(reconcile, "ORPHAN_AGE", timedelta(seconds=-5)),
    ):
        found = reconcile.reconcile(
            build_families(settings),
            catalog,
            instance,
            stores.open_source(),
            stores.open_outputs(),
            follow=lambda _keys: None,
            # A soak overwrites within minutes what a bucket does in weeks; the judge has looked at
            # each of these outputs before.
            allow_many=True,
        ).counts()
    judgement.counts["listed by the reconciliation"] = found.pop("listed")
    del found["orphaned_outputs"]
    judgement.wrong += [
        f"the reconciliation found {count} {what.replace('_', ' ')}"
        for what, count in found.items()
        if count
    ]
