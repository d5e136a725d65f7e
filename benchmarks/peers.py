"""What others do with the same files: a function call an image, and plain Dagster in two ways.

- `function`: the common serverless way. One call an object, each in a fresh state: download,
  `convert("L")`, PNG, upload, insert with a new connection. No network and no cold start are
  counted, only the work, in as many processes as imgflow has workers.
- `run_per_image`: Dagster with one run for each partition, in this process.
- `ranged`: Dagster with one run over all partitions, its own event log, and pictures made in the
  asset one after the other.

Called as `python -m benchmarks.peers PEER IN OUT`; prints the seconds that it took.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure
from benchmarks.throughput import _ingest
from imgflow.catalog.embedded import close_embedded_postgres, embedded_postgres

IMAGES = {"function": 300, "run_per_image": 12, "ranged": 100}
PEERS = {
    "function": "a function call an object: PNG, row",
    "run_per_image": "plain Dagster, a run an image",
    "ranged": "plain Dagster, a ranged run",
}


def call(out: Path, url: str, file: Path) -> None:
    """One call of the function."""
    import psycopg2

    body = file.read_bytes()
    with Image.open(io.BytesIO(body)) as image:
        gray = io.BytesIO()
        image.convert("L").save(gray, "PNG")
        size = image.size
    (out / f"{file.stem}.png").write_bytes(gray.getvalue())
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO made VALUES (%s, %s, %s)", (file.name, *size))
    connection.close()


def function(source: Path, out: Path, url: str) -> float:
    """All objects, in two processes."""
    import psycopg2

    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE made (key text, width int, height int)")
    connection.close()
    began = time.monotonic()
    with multiprocessing.Pool(2) as pool:
        pool.map(partial(call, out, url), sorted(source.iterdir()), chunksize=1)
    return time.monotonic() - began


def dagster(source: Path, out: Path, url: str, *, is_ranged: bool) -> float:
    """Plain Dagster on PostgreSQL with an asset for each picture."""
    import dagster as dg

    files = dg.DynamicPartitionsDefinition(name="files")

    @dg.multi_asset(
        specs=[dg.AssetSpec("grayscale"), dg.AssetSpec("thumbnail")],
        partitions_def=files,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def pictures(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        for key in context.partition_keys:
            with Image.open(source / key) as image:
                image.convert("L").save(out / f"gray-{key}", quality=85)
                image.thumbnail((256, 256))
                image.save(out / f"thumb-{key}", quality=85)
        yield dg.MaterializeResult("grayscale")
        yield dg.MaterializeResult("thumbnail")

    storage = {"postgres_url": url}
    overrides = {
        "storage": {"postgres": storage},
        "telemetry": {"enabled": False},
    }
    job = dg.Definitions(
        assets=[pictures], jobs=[dg.define_asset_job("job", selection=dg.AssetSelection.all())]
    ).resolve_job_def("job")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    keys = sorted(file.name for file in source.iterdir())
    home = out / "dagster"
    home.mkdir()
    with dg.instance_for_test(overrides=overrides, temp_dir=str(home)) as instance:
        instance.add_dynamic_partitions("files", keys)
        began = time.monotonic()
        if is_ranged:
            job.execute_in_process(
                quiet,
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": keys[0],
                    "dagster/asset_partition_range_end": keys[-1],
                },
            )
        else:
            for key in keys:
                job.execute_in_process(quiet, instance=instance, partition_key=key)
        return time.monotonic() - began


def measure() -> list[Measure]:
    """Run each peer and `imgflow ingest`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "in", 1_000)
        ours = 1_000 / _ingest(folder, 0)
        measures = []
        for peer, images in IMAGES.items():
            write_jpegs(folder / peer / "in", images)
            (folder / peer / "out").mkdir()
            theirs = images / _peer(peer, folder / peer)
            measures.append(
                Measure(
                    f"images/s beside {PEERS[peer]} ({images} images)",
                    ours,
                    PEERS[peer],
                    theirs,
                    ours / theirs,
                    ">= 1",
                )
            )
        return measures


def _peer(name: str, folder: Path) -> float:
    database = embedded_postgres(folder / "home")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers", name, folder / "in", folder / "out"],
            env={**os.environ, "PEER_DATABASE": database.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        )
    finally:
        close_embedded_postgres(folder / "home")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    name, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    url = os.environ["PEER_DATABASE"]
    if name == "function":
        seconds = function(source, out, url)
    else:
        seconds = dagster(source, out, url, is_ranged=name == "ranged")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
