"""The time from an upload to its pictures while `imgflow up` is idle, started as users do.

`python -m benchmarks.latency [UPLOADS]` also prints the parts of that time.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import dagster as dg

from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure, show
from imgflow.catalog.database.engine import database_url, make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.dagster_storage.instance import open_instance
from imgflow.settings.variables import load_settings
from imgflow.store.config import StoreConfig

LIMIT_SECONDS = 3.0
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 120.0
QUIET_SECONDS = (3.0, 9.0)


@dataclass(frozen=True)
class Upload:
    """Seconds from an upload to each step of its processing."""

    run_created: float
    run_taken_from_queue: float
    process_runs: float
    step_began: float
    ready: float


def measure(uploads: int = 8) -> list[Measure]:
    """Time single uploads."""
    found = time_uploads(uploads)
    middle = median(upload.ready for upload in found)
    return [
        Measure(
            f"upload to ready at a quiet time, median of {uploads}, seconds",
            middle,
            "limit",
            LIMIT_SECONDS,
            middle / LIMIT_SECONDS,
            "<= 1",
        )
    ]


def time_uploads(uploads: int) -> list[Upload]:
    """Upload photographs one by one, each some seconds after the previous one is ready."""
    with tempfile.TemporaryDirectory() as name, _running(Path(name)) as home:
        write_jpegs(Path(name) / "new", uploads + 1)
        os.environ["IMGFLOW_HOME"] = str(home)
        settings = load_settings()
        url = database_url(settings)
        engine = make_engine(url)
        stores = StoreConfig(settings.source_url, settings.output_url)
        catalog = PostgresCatalog(engine, stores.locations()[0].url)
        found = []
        with open_instance(settings, url) as instance:
            # The very first upload has cold caches, which is another measure.
            for file in sorted((Path(name) / "new").iterdir()):
                time.sleep(random.uniform(*QUIET_SECONDS))
                place = home / "source" / file.name
                found.append(time_one(file.name, partial(file.rename, place), catalog, instance))
        engine.dispose()
        return found[1:]


def time_one(
    key: str, put: Callable[[], object], catalog: PostgresCatalog, instance: dg.DagsterInstance
) -> Upload:
    """Upload one photograph, and find out when its image reached each step."""
    uploaded = time.time()
    put()
    while True:
        images = catalog.by_keys([key])
        if key in images and images[key].state == "ready":
            ready = time.time()
            break
        if time.time() - uploaded > PATIENCE_SECONDS:
            raise SystemExit(f"{key} was not processed in {PATIENCE_SECONDS:g} seconds")
        time.sleep(LOOK_SECONDS)
    run_id = str(images[key].run_id)
    record = instance.get_run_record_by_id(run_id)
    times = {
        entry.dagster_event.event_type_value: entry.timestamp
        for entry in reversed(instance.all_logs(run_id))
        if entry.dagster_event
    }
    if record is None:
        raise SystemExit(f"the run {run_id} is not there")
    return Upload(
        *(
            round(moment - uploaded, 2)
            for moment in (
                record.create_timestamp.timestamp(),
                times["PIPELINE_STARTING"],
                times["PIPELINE_START"],
                times["STEP_START"],
                ready,
            )
        )
    )


@contextmanager
def _running(folder: Path) -> Iterator[Path]:
    """Run `imgflow up` in a folder; the block starts once it is ready."""
    home, log = folder / "home", folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "imgflow", "up"],
            env={
                **os.environ,
                "IMGFLOW_HOME": str(home),
                "IMGFLOW_DAGSTER_PORT": str(free_port()),
                "IMGFLOW_API_PORT": str(free_port()),
            },
            stdout=out,
            stderr=out,
        )
    try:
        while not re.search("Ready", log.read_text()):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield home
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    for upload in (steps := time_uploads(int(sys.argv[1]) if len(sys.argv) > 1 else 8)):
        print(upload)
    show(
        [
            Measure(
                "upload to ready, median, seconds",
                median(upload.ready for upload in steps),
                "limit",
                LIMIT_SECONDS,
                median(upload.ready for upload in steps) / LIMIT_SECONDS,
                "<= 1",
            )
        ]
    )
