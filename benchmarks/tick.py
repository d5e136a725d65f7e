"""What a tick over known uploads costs beside a bare listing of the same source.

`python -m benchmarks.tick (folder|s3) OBJECTS ROUNDS` measures in a separate process, with a home
that `measure` has filled before (with 0 rounds). A tick is a complete evaluation of the sensor,
including its connections and its queries to Dagster, and lists everything.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.list_server import key_of
from benchmarks.table import Measure

LIMIT = 1.3
SIZES = (1_000, 10_000, 100_000)
ROUNDS = 5


def bare_folder(folder: Path) -> int:
    """List a folder in plain Python: key, size and time of every file, in no order."""
    seen = 0
    root = str(folder)
    for place, _, names in os.walk(root):
        for name in names:
            path = f"{place}/{name}"
            status = os.stat(path)  # noqa: PTH116 - the peer should be fast
            seen += bool((path[len(root) + 1 :], status.st_size, status.st_mtime_ns))
    return seen


def bare_s3(bucket: str) -> int:
    """List a bucket with the paginator of boto3: key, ETag, size and time of every object."""
    import boto3

    seen = 0
    for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page["Contents"]:
            seen += bool((entry["Key"], entry["ETag"], entry["Size"], entry["LastModified"]))
    return seen


def fill_catalog(catalog: Any) -> None:
    """Mark as processed everything that a first tick announced."""
    import sqlalchemy as sa

    with catalog.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE images SET state = 'ready', processed = announced, in_partitions = true, "
                "batch = NULL, not_before = NULL"
            )
        )
    with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE images"))


def make_files(folder: Path, objects: int) -> None:
    """Write small files, each with a different time."""
    for number in range(objects):
        file = folder / key_of(number)
        if number % 1_000 == 0:
            file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        os.utime(file, ns=(0, (1_700_000_000 + number * 97) * 10**9 + number))


def main() -> None:
    import dagster as dg

    from imgflow.assembly import build_definitions, build_resources
    from imgflow.catalog.database.engine import database_url, make_engine
    from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
    from imgflow.orchestration.dagster_storage.instance import open_instance
    from imgflow.orchestration.sensing.listing import Round, list_and_announce
    from imgflow.settings.variables import load_settings
    from imgflow.store.config import StoreConfig
    from imgflow.store.folder import writers

    # The files are new, but should count as old, as most known files are.
    writers.RECENT_SECONDS = 0.0
    what, objects, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    settings = load_settings()
    url = database_url(settings)
    stores = StoreConfig(settings.source_url, settings.output_url)
    location = stores.locations()[0]
    bare: Callable[[], int] = {
        "folder": lambda: bare_folder(location.folder),
        "s3": lambda: bare_s3(location.bucket),
    }[what]
    catalog = PostgresCatalog(make_engine(url), location.url)
    catalog.migrate()
    sensor = build_definitions(settings).resolve_sensor_def("arrivals")

    def tick() -> str:
        result = sensor(dg.build_sensor_context(instance, resources=build_resources(settings)))
        if not isinstance(result, dg.SensorResult) or result.skip_reason is None:
            raise SystemExit("the tick found work")
        return str(result.skip_reason.skip_message)

    def timed(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    with open_instance(settings, url) as instance:
        if not rounds:  # fill
            list_and_announce(
                stores.open_source(), catalog, Round(), pages=1_000, follow=lambda _: None
            )
            fill_catalog(catalog)
            return
        if not (said := tick()).startswith(f"{objects} objects listed; nothing new."):
            raise SystemExit(said)
        times = []
        if rounds > 1:
            bare()
            times = [(timed(bare), timed(tick)) for _ in range(rounds)]
        status = Path("/proc/self/status").read_text()
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    sys.stdout.write(json.dumps({"times": times, "megabytes": peak}) + "\n")


@contextmanager
def source_of(what: str, objects: int, folder: Path) -> Iterator[dict[str, str]]:
    """Make a source with this many objects; yields the variables of an imgflow for it."""
    variables = {
        "IMGFLOW_HOME": str(folder / "home"),
        "IMGFLOW_TICK_PAGES": "1000",
        "IMGFLOW_SENSOR_SECONDS": "5",  # a tick lists only once
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if what == "folder":
        make_files(folder / "in", objects)
        yield {**variables, "IMGFLOW_SOURCE_URL": (folder / "in").as_uri()}
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.list_server", str(objects)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = server.stdout.readline().strip() if server.stdout else ""
        yield {
            **variables,
            "IMGFLOW_SOURCE_URL": "s3://bucket/",
            "IMGFLOW_OUTPUT_URL": (folder / "out").as_uri(),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.communicate()


def _run(what: str, objects: int, rounds: int, variables: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tick", what, str(objects), str(rounds)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1]) if rounds else None


def measure(sizes: tuple[int, ...] = SIZES) -> list[Measure]:
    """Measure time at the largest size, and memory at all of them."""
    found = []
    for what, peer in (("folder", "os.walk and os.stat"), ("s3", "boto3's paginator")):
        megabytes = []
        for objects in sizes:
            with (
                tempfile.TemporaryDirectory() as folder,
                source_of(what, objects, Path(folder)) as variables,
            ):
                _run(what, objects, 0, variables)
                megabytes.append(_run(what, objects, 1, variables)["megabytes"])
                if objects == sizes[-1]:
                    times = _run(what, objects, ROUNDS, variables)["times"]
        found.append(
            Measure(
                f"tick over {sizes[-1]:,} known objects, {what}, s",
                statistics.median(tick for _, tick in times),
                peer,
                statistics.median(bare for bare, _ in times),
                statistics.median(tick / bare for bare, tick in times),
                f"<= {LIMIT}",
            )
        )
        found.append(
            Measure(
                f"its peak memory, {what}, MB",
                megabytes[-1],
                f"with {sizes[0]:,} objects",
                megabytes[0],
                megabytes[-1] / megabytes[0],
                "<= 1.05",
            )
        )
    return found


if __name__ == "__main__":
    main()
