"""The broker restarts while runs wait in it, with its data and without."""

from __future__ import annotations

import shutil

import pytest

from imgflow_tests.cluster.agreement import Work, agree, redis
from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.cluster.faults import upload_batch
from imgflow_tests.pictures import depth_csv

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

PHOTO_WORKERS = ("worker", "worker-2")


@pytest.mark.parametrize("keeps_data", [True, False], ids=["with its data", "without its data"])
def test_runs_that_wait_in_a_broker_that_restarts_are_not_lost(
    observer: Observer, name: str, request: pytest.FixtureRequest, *, keeps_data: bool
) -> None:
    if not keeps_data:
        request.getfixturevalue("impatient")
    cluster = observer.cluster
    before = Work.so_far(observer)
    for worker in PHOTO_WORKERS:
        assert cluster.stop(worker) == 0
    keys = upload_batch(observer, name, 40)
    until(lambda: redis(observer, "LLEN", "photo") != "0", "a run waits in the broker")
    cluster.kill("redis")
    if not keeps_data:
        shutil.rmtree(cluster.folder / "redis")
    cluster.start("redis")
    assert (redis(observer, "LLEN", "photo") != "0") is keeps_data
    for worker in PHOTO_WORKERS:
        cluster.start(worker, wait=False)
    observer.ready(*keys, seconds=60 if keeps_data else 120)
    agree(observer, name)
    work = Work.so_far(observer).since(before)
    assert work.processed == len(keys)
    # Also the workers that went through it.
    for service in ("worker", "worker-2", "worker-depth", "worker-other"):
        until(lambda service=service: cluster.check(service).returncode == 0, f"{service} is well")


def test_a_run_that_goes_on_while_the_broker_loses_its_data_is_left_alone(
    observer: Observer, name: str
) -> None:
    cluster = observer.cluster
    before = Work.so_far(observer, "depth")
    with observer.depth_runs_held():
        observer.upload({f"{name}/a.csv": depth_csv(seed=60)})
        (run_id,) = until(lambda: observer.going_on("depth"), "it goes on")
        cluster.kill("redis")
        shutil.rmtree(cluster.folder / "redis")
        cluster.start("redis")
        said = len(cluster.log("daemon", 10**7))
        until(
            lambda: cluster.log("daemon", 10**7)[said:].count(f"Checking run {run_id}") > 1,
            "Dagster has looked after its runs",
        )
        assert observer.run(run_id)[0] == "STARTED"
    observer.ready(f"{name}/a.csv")
    agree(observer, name)
    assert observer.run(run_id)[0] == "SUCCESS"
    assert Work.so_far(observer, "depth").since(before).processed == 1
