"""The services of `docker-compose.yml`: upload to ready with warm workers, and two workers or one.

`python -m benchmarks.cluster [UPLOADS [IMAGES]]` also prints the parts of an upload's time.

This machine plays all machines of the cluster. So that a second worker adds what a second machine
would, each worker gets a share of a core, small enough to leave store, database and daemon what
they need. Without control groups, each worker has a core that it shares with the services.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.latency import PATIENCE_SECONDS, QUIET_SECONDS, Upload, time_one
from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.dagster_storage.instance import open_instance
from imgflow.settings.variables import load_settings
from imgflow_tests.cluster.cluster import Cluster, until

LIMIT_SECONDS = 1.5
WANTED_SPEED_UP = 1.8

# Share of a core that each worker gets.
SHARE = 0.3
QUOTAS = Path("/sys/fs/cgroup/cpu")
PERIOD_MICROSECONDS = 20_000

WORKERS = ("worker", "worker-2")
SOURCE = "s3://imgflow/in/"


def measure(uploads: int = 8, images: int = 700, rounds: int = 1) -> list[Measure]:
    """Measure single uploads, and many at once."""
    with running() as cluster:
        middle = median(upload.ready for upload in time_uploads(cluster, uploads))
        speeds = compare(cluster, images, rounds)
    one, two = median(speeds[1]), median(speeds[2])
    return [
        Measure(
            f"upload to ready through a bucket and a warm worker, median of {uploads}, seconds",
            middle,
            "limit",
            LIMIT_SECONDS,
            middle / LIMIT_SECONDS,
            "<= 1",
        ),
        Measure(
            f"two workers of {share_in_words()} each, {images} JPEGs of 1024x768, images/s",
            two,
            "one worker",
            one,
            median(two / one for one, two in zip(speeds[1], speeds[2], strict=True)),
            f">= {WANTED_SPEED_UP}",
        ),
    ]


@contextmanager
def running() -> Iterator[Cluster]:
    """Run a healthy cluster with two workers of each kind and one process in each run."""
    with (
        tempfile.TemporaryDirectory() as name,
        Cluster(Path(name), WORKERS="2", WORKER_PROCESSES="1") as cluster,
    ):
        cluster.up()
        yield cluster


def time_uploads(cluster: Cluster, uploads: int) -> list[Upload]:
    """Upload photographs one by one, each some seconds after the previous one is ready."""
    with tempfile.TemporaryDirectory() as name, cluster.environment("daemon"):
        write_jpegs(Path(name), uploads + 1)
        settings = load_settings(_env_file=None)
        engine, s3, found = cluster.engine(), cluster.s3(), []
        catalog = PostgresCatalog(engine, SOURCE)
        with open_instance(settings, cluster.database_url) as instance:
            for file in sorted(Path(name).iterdir()):
                time.sleep(random.uniform(*QUIET_SECONDS))
                key = f"single/{file.name}"
                body = file.read_bytes()
                put = partial(s3.put_object, Bucket="imgflow", Key=f"in/{key}", Body=body)
                found.append(time_one(key, put, catalog, instance))
        engine.dispose()
        return found[1:]  # the very first has cold caches


def compare(cluster: Cluster, images: int, rounds: int) -> dict[int, list[float]]:
    """Measure images per second with one worker and with two, in turn."""
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        # All files differ, in all rounds, since imgflow copies outputs of known content.
        write_jpegs(Path(name), images * rounds * 2)
        files = sorted(Path(name).iterdir())
        for number in range(rounds * 2):
            workers = number % 2 + 1
            part = files[number * images : (number + 1) * images]
            found[workers].append(images / _seconds(cluster, f"many{number}", part, workers))
    return found


def _seconds(cluster: Cluster, folder: str, files: list[Path], workers: int) -> float:
    """Return the seconds from the start of the first run to the last image being ready."""
    cluster.stop("daemon")  # so that all images wait
    s3 = cluster.s3()
    keys = [f"{folder}/{file.name}" for file in files]
    with ThreadPoolExecutor(8) as threads:
        for key, file in zip(keys, files, strict=True):
            body = file.read_bytes()
            threads.submit(s3.put_object, Bucket="imgflow", Key=f"in/{key}", Body=body)
    with_quota = [name for name in WORKERS[:workers] if cluster.is_running(name)]
    for name in WORKERS[workers:]:
        cluster.stop(name)
    with _shares(cluster, with_quota):
        cluster.start("daemon", wait=False)
        engine = cluster.engine()
        catalog = PostgresCatalog(engine, SOURCE)
        until(
            lambda: (
                len(found := catalog.by_keys(keys)) == len(keys)
                and all(image.state == "ready" for image in found.values())
            ),
            "all images are ready",
            seconds=PATIENCE_SECONDS,
        )
        runs = {image.run_id for image in catalog.by_keys(keys).values()}
        with engine.connect() as connection:
            began = connection.exec_driver_sql(
                "SELECT min(start_time) FROM runs WHERE run_id = ANY(%s)", (list(runs),)
            ).scalar_one()
        ended = max(image.updated_at for image in catalog.by_keys(keys).values()).timestamp()
        engine.dispose()
    for name in WORKERS[workers:]:
        cluster.start(name)
    return float(ended - began)


def share_in_words() -> str:
    """Describe what each worker gets."""
    return f"{SHARE:g} of a core" if QUOTAS.is_dir() else "a core that it shares with the services"


@contextmanager
def _shares(cluster: Cluster, names: list[str]) -> Iterator[None]:
    """Limit each worker to its share of a core."""
    groups = []
    for core, name in enumerate(names):
        processes = cluster.processes(name)
        if not QUOTAS.is_dir():
            for process in processes:
                process.cpu_affinity([core % (os.cpu_count() or 1)])
            continue
        group = QUOTAS / f"imgflow-benchmark-{os.getpid()}-{name}"
        group.mkdir()
        groups.append(group)
        (group / "cpu.cfs_period_us").write_text(f"{PERIOD_MICROSECONDS}")
        (group / "cpu.cfs_quota_us").write_text(f"{round(SHARE * PERIOD_MICROSECONDS)}")
        # Within its share, a worker has priority over everything else on this machine.
        (group / "cpu.shares").write_text("50000")
        for process in processes:
            (group / "cgroup.procs").write_text(f"{process.pid}")
    try:
        yield
    finally:
        for group in groups:
            until(partial(_is_removed, group), "its processes are out of the group")


def _is_removed(group: Path) -> bool:
    """Move the remaining processes out of a group, and remove it."""
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):  # it may have ended meanwhile
            (QUOTAS / "cgroup.procs").write_text(pid)
    try:
        group.rmdir()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]]
    with running() as cluster_that_runs:
        for step in time_uploads(cluster_that_runs, counts[0] if counts else 8):
            print(step)
        print(compare(cluster_that_runs, counts[1] if counts[1:] else 700, 1))
