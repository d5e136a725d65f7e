"""What is done to a cluster in tests of faults, and how to find the right moment for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from imgflow_tests.cluster.cluster import Cluster, until
from imgflow_tests.cluster.conftest import UNDER, Observer
from imgflow_tests.pictures import jpeg

GOING_ON = sa.text(
    """
    SELECT h.run_id, cardinality(h.image_ids) AS images, count(i.id) AS done
    FROM run_holds h JOIN runs r USING (run_id)
    LEFT JOIN images i ON i.run_id = h.run_id AND i.state = 'ready' AND i.id = ANY(h.image_ids)
    WHERE h.ended_at IS NULL AND r.status = 'STARTED' GROUP BY 1, 2
    """
)


@dataclass(frozen=True)
class Half:
    """A run in the middle of its batch.

    Attributes:
        run_id: the run.
        worker: that has it.
        images: in its batch.
    """

    run_id: str
    worker: str
    images: int


def upload_batch(observer: Observer, folder: str, count: int = 100) -> list[str]:
    """Upload photographs of which no two are the same, that take a worker some seconds."""
    picture = jpeg(2_400, 1_800)
    s3 = observer.cluster.s3()
    keys = [f"{folder}/{number:03}.jpg" for number in range(count)]

    def put(number: int) -> None:
        # Behind its end a JPEG may have what it likes; the folder makes it new in each test.
        body = picture + f"{folder} {number}".encode()
        s3.put_object(Bucket="imgflow", Key=UNDER + keys[number], Body=body)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(count)))
    return keys


def half_done(observer: Observer) -> Half:
    """Wait for a run that has done some of its images and not all."""

    def found() -> Half | None:
        with observer.engine.connect() as connection:
            for run_id, images, done in connection.execute(GOING_ON).tuples():
                if 0 < done < images and (worker := observer.worker_of(run_id)):
                    return Half(run_id, worker, images)
        return None

    half: Half = until(found, "a run is in the middle of its batch", seconds=60)
    return half


def made_by(observer: Observer, run_id: str) -> set[str]:
    """Keys of the images that a run has made ready."""
    with observer.engine.connect() as connection:
        return set(
            connection.exec_driver_sql(
                "SELECT key FROM images WHERE run_id = %s AND state = 'ready'", (run_id,)
            ).scalars()
        )


@contextmanager
def silence(cluster: Cluster, one: str, other: str) -> Iterator[None]:
    """Let no packet come through between two machines, and tell neither of them.

    Each sends to an address of the link layer that nobody has.
    """
    if not cluster.network.has_namespaces:
        pytest.skip("only machines that are network namespaces can be cut off")
    pairs = [(one, other), (other, one)]
    for here, there in pairs:
        _neighbour(cluster, here, there, "replace", "lladdr", "02:00:00:00:00:01", "nud", "noarp")
    try:
        yield
    finally:
        for here, there in pairs:
            _neighbour(cluster, here, there, "delete")


def _neighbour(cluster: Cluster, here: str, there: str, verb: str, *more: str) -> None:
    prefix = cluster.machines[here].prefix
    address = cluster.address(there)
    command = [*prefix, "ip", "neigh", verb, address, *more, "dev", "eth0"]
    subprocess.run(command, check=True, capture_output=True)
