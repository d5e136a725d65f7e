"""A short soak: workers are killed while objects come, change and go, and nothing is lost.

`make soak` is the long one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.store.naming import source_part
from imgflow_tests.cluster.cluster import Cluster
from imgflow_tests.cluster.conftest import SOURCE, check_parts
from imgflow_tests.cluster.soak import Plan, Soaked, running, soak
from imgflow_tests.cluster.soak_judge import judge
from imgflow_tests.cluster.soak_stories import tell

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

PLAN = Plan(images=1_500, minutes=1.5, kill_seconds=20, seed=5, only_busy=True)


@dataclass(frozen=True)
class After:
    """A cluster after its soak."""

    cluster: Cluster
    soaked: Soaked


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[After]:
    check_parts()
    with running(tmp_path_factory.mktemp("soak") / "cluster") as cluster:
        cluster.up()
        yield After(cluster, soak(cluster, PLAN))


@pytest.fixture
def soaked(after: After) -> Soaked:
    return after.soaked


def test_workers_died_with_images_in_their_hands(soaked: Soaked) -> None:
    assert len(soaked.kills) >= 2
    assert sum(in_hand for _, in_hand in soaked.kills) > 0


def test_nothing_is_lost_nothing_is_done_twice_and_all_parts_agree(soaked: Soaked) -> None:
    assert soaked.judgement.wrong == []
    counts = soaked.judgement.counts
    assert counts["rows"] == counts["ready"] + counts["rejected"] > 1_200
    assert counts["outputs that were looked at"] > 2_000


def test_memory_and_connections_stay_within_their_bounds(soaked: Soaked) -> None:
    assert soaked.measures.excesses() == []
    assert {"daemon", "webserver", "api"} <= {life.service for life in soaked.measures.long_lives()}


def test_the_judge_would_see_what_is_lost_done_twice_or_apart(after: After) -> None:
    """The last one: it spoils what the others look at."""
    cluster, s3, engine = after.cluster, after.cluster.s3(), after.cluster.engine()
    steps = tell(PLAN.images, PLAN.seed)
    catalog = PostgresCatalog(engine, SOURCE)
    in_hand = after.soaked.in_hand  # what killed workers had in hand may be written again
    found_ready = catalog.page(limit=300, kind="photo", state="ready")
    ready = [image for image in found_ready if image.key not in in_hand][:6]
    lost, mixed, turned, unseen, ghost, late = (image.key for image in ready)
    part = source_part(SOURCE)
    names = [f"out/{image.outputs['thumbnail']['name']}" for image in ready]
    other = s3.get_object(Bucket="imgflow", Key=names[0])["Body"].read()
    cluster.stop("daemon")  # it would heal some of it
    s3.delete_object(Bucket="imgflow", Key=names[0])
    s3.put_object(Bucket="imgflow", Key=names[1], Body=other)
    s3.put_object(Bucket="imgflow", Key=f"out/thumbnail/{part}/{ghost}/@0123.jpg", Body=other)
    s3.put_object(Bucket="imgflow", Key=f"in/{late}", Body=other)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET state = 'rejected' WHERE key = %s", (turned,))
        connection.exec_driver_sql("DELETE FROM images WHERE key = %s", (unseen,))
    engine.dispose()
    found = "\n".join(judge(cluster, steps, in_hand).wrong)
    for sentence in (
        f"{lost}: An error occurred (NoSuchKey)",
        f"{mixed}: thumbnail has other bytes than the row says",
        f"{names[1].removeprefix('out/')} was written 2 times",
        "is rejected, not ready",
        f"rows: 1 missing: ['{unseen}']",
        f"@0123.jpg is of no content that {ghost} has ever had",
        "partitions of photos: 1 too many",
        "the reconciliation found 1 changed",
        "the reconciliation found 1 missing outputs",
    ):
        assert sentence in found, found
