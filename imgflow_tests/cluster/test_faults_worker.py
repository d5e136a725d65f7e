"""A worker dies, or loses sight of the database, in the middle of a batch."""

from __future__ import annotations

import pytest

from imgflow_tests.cluster.agreement import Work, agree
from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.cluster.faults import half_done, made_by, silence, upload_batch

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

NOTICED_SECONDS = 45
"""25 until a silent connection is given up, and some ticks."""


def test_a_batch_whose_worker_is_killed_is_finished_by_another(
    observer: Observer, name: str
) -> None:
    before = Work.so_far(observer)
    keys = upload_batch(observer, name)
    half = half_done(observer)
    observer.cluster.kill(half.worker)
    done = made_by(observer, half.run_id)
    assert 0 < len(done) < half.images
    until(lambda: observer.run(half.run_id)[0] == "FAILURE", "the run is over", seconds=20)
    observer.ready(*keys, seconds=60)
    assert made_by(observer, half.run_id) == done, "what was done is not done again"
    observer.cluster.start(half.worker)
    agree(observer, name)
    work = Work.so_far(observer).since(before)
    assert work.processed <= len(keys)
    assert work.copied == 0


def test_a_batch_whose_worker_is_cut_off_from_the_database_is_finished_by_another(
    observer: Observer, name: str
) -> None:
    before = Work.so_far(observer)
    keys = upload_batch(observer, name)
    half = half_done(observer)
    with silence(observer.cluster, half.worker, "postgres"):
        done = made_by(observer, half.run_id)
        until(
            lambda: observer.run(half.run_id)[0] == "FAILURE",
            "the run is over",
            seconds=NOTICED_SECONDS,
        )
        observer.ready(*keys, seconds=60)
        assert made_by(observer, half.run_id) == done
    agree(observer, name)
    work = Work.so_far(observer).since(before)
    assert work.processed <= len(keys)
    more = upload_batch(observer, f"{name}/more", 20)
    observer.ready(*more)
    until(lambda: observer.cluster.check(half.worker).returncode == 0, "it is well again")
