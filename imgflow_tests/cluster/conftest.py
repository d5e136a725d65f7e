"""One cluster for all tests that leave it as they found it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow_tests import ceph
from imgflow_tests.cluster.cluster import Cluster, until
from imgflow_tests.cluster.dagster_ui import DagsterUi

SOURCE = "s3://imgflow/in/"
UNDER = "in/"

START_SECONDS = 25
"""For which a launched run may stay away from an impatient daemon, instead of three minutes."""


def check_parts() -> None:
    """Real parts or nothing: Ceph and Redis, which CI installs."""
    if ceph.is_installed() and shutil.which("redis-server"):
        return
    if os.environ.get("CI"):
        pytest.fail("CI must have Ceph and redis-server")
    pytest.skip("needs Ceph and redis-server, which .ci/run installs")


# Not longer than for these tests: a dozen processes that look for uploads every second.
@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything of the compose file, well, with two workers of each kind."""
    check_parts()
    with Cluster(tmp_path_factory.mktemp("cluster"), WORKERS="2", WORKER_PROCESSES="1") as made:
        made.up()
        yield made


@dataclass
class Observer:
    """A cluster as its users see it."""

    cluster: Cluster
    engine: sa.Engine

    def __post_init__(self) -> None:
        self.catalog = PostgresCatalog(self.engine, SOURCE)
        self.ui = DagsterUi(self.cluster.url("webserver", 3000))

    def upload(self, files: Mapping[str, bytes]) -> None:
        """Put objects into the source."""
        s3 = self.cluster.s3()
        for key, body in files.items():
            s3.put_object(Bucket="imgflow", Key=UNDER + key, Body=body)

    def ready(self, *keys: str, seconds: float = 60) -> list[Image]:
        """Wait until images are ready."""

        def found() -> list[Image]:
            images = self.catalog.by_keys(keys)
            is_ready = len(images) == len(keys) and all(
                image.state == "ready" for image in images.values()
            )
            return [images[key] for key in keys] if is_ready else []

        made: list[Image] = until(found, f"{len(keys)} images are ready", seconds=seconds)
        return made

    def run(self, run_id: str | None) -> tuple[str, dict[str, str]]:
        """Status and tags of a run, as Dagster's tables have them."""
        with self.engine.connect() as connection:
            status = connection.exec_driver_sql(
                "SELECT status FROM runs WHERE run_id = %s", (run_id,)
            ).scalar_one()
            tags = connection.exec_driver_sql(
                "SELECT key, value FROM run_tags WHERE run_id = %s", (run_id,)
            ).all()
        return str(status), {str(key): str(value) for key, value in tags}

    def going_on(self, kind: str) -> list[str]:
        """Ids of the runs of a kind that have started and not ended."""
        with self.engine.connect() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT runs.run_id FROM runs JOIN run_tags USING (run_id) WHERE "
                    "status = 'STARTED' AND key = 'imgflow/kind' AND value = %s",
                    (kind,),
                ).scalars()
            )

    def worker_of(self, run_id: str) -> str | None:
        """The worker that has a run in its log."""
        workers = [name for name in self.cluster.specs if name.startswith("worker")]
        found = [name for name in workers if run_id in self.cluster.log(name, 10**7)]
        assert len(found) <= 1, found
        return found[0] if found else None

    @contextmanager
    def depth_runs_held(self) -> Iterator[None]:
        """Depth runs go on for as long as this does: what they write waits for it."""
        until(lambda: not self.going_on("depth"), "those of earlier tests have ended")
        with self.engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE depth_chunks IN ACCESS EXCLUSIVE MODE")
            yield


@pytest.fixture
def observer(cluster: Cluster) -> Iterator[Observer]:
    engine = cluster.engine()
    yield Observer(cluster, engine)
    engine.dispose()


@pytest.fixture
def name() -> str:
    """A folder of the source for this test alone."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def impatient(cluster: Cluster) -> Iterator[None]:
    """A daemon whose operator has changed its `dagster.yaml`."""
    file = cluster.folder / "daemon" / "home" / "dagster" / "dagster.yaml"
    before = file.read_text()
    changed = before.replace(
        "start_timeout_seconds: 180", f"start_timeout_seconds: {START_SECONDS}"
    )
    assert changed != before
    for text in (changed, before):
        cluster.stop("daemon")
        file.write_text(text)
        cluster.start("daemon", wait=False)
        if text == changed:
            yield
    cluster.wait("daemon")
