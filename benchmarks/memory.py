"""Peak memory of `imgflow ingest`: batches of 1,000 and of 10,000, ten batches, the largest image.

`python -m benchmarks.memory BATCHES IMAGES`, in a separate process, prints its memory after each
batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.table import Measure
from imgflow.settings.variables import load_settings

MIB = 2**20
LOOK_SECONDS = 0.05


def measure() -> list[Measure]:
    """Measure everything, with photographs so small that record keeping dominates."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks = {count: _peaks(folder, count) for count in (1_000, 10_000)}
        grown = after_batches(folder / "batches", batches=10, images=500)
        largest = _largest(folder / "largest")
    limit = load_settings().photo_limits.max_memory / MIB
    return [
        Measure(
            f"peak of the {process} in a batch of 10,000 images, MiB",
            peaks[10_000][process],
            "in a batch of 1,000",
            peaks[1_000][process],
            peaks[10_000][process] / peaks[1_000][process],
            "<= 1.5",
        )
        for process in ("run", "worker")
    ] + [
        Measure(
            "the run after ten batches of 500, MiB",
            grown[-1],
            "after two",
            grown[1],
            grown[-1] / grown[1],
            "<= 1.05",
        ),
        Measure(
            "peak of a worker with the largest JPEG that is allowed, MiB",
            largest,
            "limit",
            limit,
            largest / limit,
            "<= 1",
        ),
    ]


def _write(folder: Path, count: int, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = Image.new("RGB", (48, 32), (number % 256, number // 256, 100))
        picture.save(folder / f"{prefix}{number:05d}.jpg")


def _peaks(folder: Path, count: int) -> dict[str, float]:
    source = folder / f"in{count}"
    _write(source, count)
    return _watched(folder / f"home{count}", source)


def _largest(folder: Path) -> float:
    """Measure a JPEG with as many pixels as the settings allow."""
    most = load_settings().photo_limits.max_pixels
    side = int(most**0.5) // 16 * 16
    (folder / "in").mkdir(parents=True)
    Image.new("RGB", (side, side), (90, 120, 60)).save(folder / "in/largest.jpg", quality=85)
    return _watched(folder / "home", folder / "in")["worker"]


def _watched(home: Path, source: Path) -> dict[str, float]:
    """Return the peak resident memory of the ingest and of one of its workers, in MiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "imgflow", "ingest", "--json"],
        env=_variables(home, source),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    run = psutil.Process(process.pid)
    peaks = {"run": 0.0, "worker": 0.0}
    while process.poll() is None:
        try:
            peaks["run"] = max(peaks["run"], run.memory_info().rss / MIB)
            for child in run.children(recursive=True):
                if "forkserver" in " ".join(child.cmdline()):
                    peaks["worker"] = max(peaks["worker"], child.memory_info().rss / MIB)
        except psutil.NoSuchProcess:
            continue
        time.sleep(LOOK_SECONDS)
    answer = json.loads((process.stdout or sys.stdin).read().splitlines()[-1])
    if answer["processed"] != answer["listed"]:
        raise SystemExit(f"not all were processed: {answer}")
    return peaks


def after_batches(folder: Path, batches: int, images: int) -> list[float]:
    """Return the resident memory of a process after each batch that it ingests, in MiB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(batches), str(images)],
        env=_variables(folder / "home", folder / "in"),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return [float(line) for line in done.stdout.split()]


def _variables(home: Path, source: Path) -> dict[str, str]:
    return {
        **os.environ,
        "IMGFLOW_HOME": str(home),
        "IMGFLOW_SOURCE_URL": source.as_uri(),
        "IMGFLOW_WORKERS": "2",
        "IMGFLOW_BATCH_SIZE": "10000",
        "IMGFLOW_BATCH_SECONDS": "3600",
    }


def main() -> None:
    """Ingest again and again in one process, each time with new images."""
    from imgflow.assembly import build_batching, build_definitions, build_families
    from imgflow.catalog.database.engine import database_url, make_engine
    from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
    from imgflow.orchestration.dagster_storage.instance import open_instance
    from imgflow.service.ingest import ingest
    from imgflow.store.config import StoreConfig

    batches, images = int(sys.argv[1]), int(sys.argv[2])
    settings = load_settings()
    url = database_url(settings)
    stores = StoreConfig(settings.source_url, settings.output_url)
    folder = stores.locations()[0].folder
    folder.mkdir(parents=True)
    source = stores.open_source()
    catalog = PostgresCatalog(make_engine(url), source.location.url)
    catalog.migrate()
    definitions, families = build_definitions(settings), build_families(settings)
    with open_instance(settings, url) as instance:
        for number in range(batches):
            _write(folder, images, prefix=f"{number}-")
            report = ingest(
                source,
                catalog,
                instance,
                definitions,
                families,
                batching=build_batching(settings),
                follow=lambda _keys: None,
                progress=lambda _line: None,
            )
            if report.processed != images:
                raise SystemExit(f"{report.processed} of {images} were processed")
            print(psutil.Process().memory_info().rss / MIB)


if __name__ == "__main__":
    main()
