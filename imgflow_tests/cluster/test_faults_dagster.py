"""Dagster's daemon is killed within a tick; its webserver is down."""

from __future__ import annotations

import signal

import pytest

from imgflow_tests.cluster.agreement import Work, agree
from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.cluster.faults import upload_batch

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

ASKS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%asking%'"
)
UNSENT = "SELECT count(*) FROM runs WHERE status IN ('NOT_STARTED', 'STARTING')"


def count(observer: Observer, query: str) -> int:
    with observer.engine.connect() as connection:
        return int(connection.exec_driver_sql(query.replace("%", "%%")).scalar_one())


def test_a_daemon_that_is_killed_while_the_sensor_looks_asks_once(
    observer: Observer, name: str
) -> None:
    before = Work.so_far(observer)
    with observer.catalog.holds.asking():
        keys = upload_batch(observer, name, 40)
        until(lambda: count(observer, ASKS), "a tick is about to ask for runs")
        observer.cluster.kill("daemon")
    observer.cluster.start("daemon", wait=False)
    observer.ready(*keys, seconds=60)
    agree(observer, name)
    assert Work.so_far(observer).since(before).processed == len(keys)
    observer.cluster.wait("daemon")


# Killed when it has written down that it launches and has not, it is given up after that time.
@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_is_killed_while_it_launches_a_run_launches_each_once(
    observer: Observer, name: str
) -> None:
    cluster = observer.cluster
    before = Work.so_far(observer)
    cluster.signal("redis", signal.SIGSTOP)
    try:
        keys = upload_batch(observer, name, 40)
        until(lambda: count(observer, UNSENT), "a run is about to be sent to the broker")
        cluster.kill("daemon")
    finally:
        cluster.signal("redis", signal.SIGCONT)
    cluster.start("daemon", wait=False)
    observer.ready(*keys, seconds=120)
    agree(observer, name)
    assert Work.so_far(observer).since(before).processed == len(keys)
    cluster.wait("daemon")


def test_uploads_are_processed_while_the_webserver_is_down(observer: Observer, name: str) -> None:
    cluster = observer.cluster
    before = Work.so_far(observer)
    cluster.kill("webserver")
    keys = upload_batch(observer, name, 20)
    observer.ready(*keys)
    agree(observer, name)
    assert Work.so_far(observer).since(before).processed == len(keys)
    cluster.start("webserver")
    assert observer.ui.locations() == {"imgflow": "LOADED"}
