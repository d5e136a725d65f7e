"""The database restarts, or is away for longer than anybody waits, in the middle of a batch."""

from __future__ import annotations

import signal

import pytest

from imgflow_tests.cluster.agreement import Work, agree
from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.cluster.faults import half_done, upload_batch

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_run_goes_on_when_the_database_restarts(observer: Observer, name: str) -> None:
    before = Work.so_far(observer)
    keys = upload_batch(observer, name)
    half = half_done(observer)
    observer.cluster.signal("postgres", signal.SIGINT)  # cuts connections, as the image is stopped
    assert observer.cluster.stop("postgres") == 0
    observer.cluster.start("postgres")
    observer.engine.dispose()
    observer.ready(*keys)
    until(lambda: observer.run(half.run_id)[0] == "SUCCESS", "the run has ended well")
    agree(observer, name)
    work = Work.so_far(observer).since(before)
    assert work.processed <= len(keys)
    assert work.copied == 0


def test_images_are_asked_for_again_when_the_database_was_away_for_long(
    observer: Observer, name: str
) -> None:
    before = Work.so_far(observer)
    keys = upload_batch(observer, name)
    half = half_done(observer)
    said = len(observer.cluster.log(half.worker, 10**7))
    observer.cluster.kill("postgres")
    try:
        until(
            lambda: "too many retries for DB" in observer.cluster.log(half.worker, 10**7)[said:],
            "the run has given up",
        )
    finally:
        observer.cluster.start("postgres")
    observer.engine.dispose()
    observer.ready(*keys, seconds=90)
    agree(observer, name)
    assert Work.so_far(observer).since(before).processed <= len(keys)
