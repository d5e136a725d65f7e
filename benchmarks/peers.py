"""Other ways to process the same files: a function call per image, and plain Dagster in two ways.

- `function`: the common serverless way. One call per object, each with fresh state: download,
  `convert("L")`, PNG, upload, insert with a new connection. Only the work counts, without network
  and cold starts, in as many processes as imgflow has workers.
- `run_per_image`: Dagster with a sensor that requests a run for each file.
- `ranged`: Dagster with one run over all partitions, its own event log, and pictures made in the
  asset one after the other.

`python -m benchmarks.peers PEER IN OUT` prints the seconds that a peer took.
"""

import io
import json
import multiprocessing
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure
from benchmarks.throughput import time_ingest
from imgflow.catalog.database.embedded_postgres import close_embedded_postgres, embedded_postgres

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
IMAGES = {"function": 300, "run_per_image": 10, "ranged": 100}
WANTED = {"function": 1, "run_per_image": 300, "ranged": 1}
PEERS = {
    "function": "a function call an object: PNG, row",
    "run_per_image": "plain Dagster, a run an image",
    "ranged": "plain Dagster, a ranged run",
}


def call(out: Path, url: str, file: Path) -> None:
    """Call the function once."""
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
    """Process all objects in two processes."""
    import psycopg2

    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE made (key text, width int, height int)")
    connection.close()
    began = time.monotonic()
    with multiprocessing.Pool(2) as pool:
        pool.map(partial(call, out, url), sorted(source.iterdir()), chunksize=1)
    return time.monotonic() - began


def ranged(source: Path, out: Path, url: str) -> float:
    """Process all files in one run over all partitions, in this process."""
    with instance_of(source, out, url) as instance:
        from benchmarks.plain_dagster import defs

        keys = sorted(file.name for file in source.iterdir())
        instance.add_dynamic_partitions("files", keys)
        began = time.monotonic()
        defs.resolve_job_def("job").execute_in_process(
            QUIET,
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            },
        )
        return time.monotonic() - began


def run_per_image(source: Path, out: Path, url: str) -> float:
    """Time sensor, queue and default launcher, from the first run's creation to the last end."""
    with instance_of(source, out, url) as instance:
        wanted = len(list(source.iterdir()))
        daemon = subprocess.Popen(
            [
                Path(sysconfig.get_path("scripts")) / "dagster-daemon",
                *("run", "-m", "benchmarks.plain_dagster"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while True:
                records = instance.get_run_records()
                ends = [record.end_time for record in records if record.end_time]
                if len(ends) == wanted:
                    return max(ends) - min(r.create_timestamp.timestamp() for r in records)
                time.sleep(0.2)
        finally:
            daemon.terminate()
            daemon.wait()


@contextmanager
def instance_of(source: Path, out: Path, url: str) -> Iterator[Any]:
    """Open a Dagster instance on PostgreSQL, set up as in Dagster's documentation."""
    home = out / "dagster"
    home.mkdir()
    config = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
    (home / "dagster.yaml").write_text(json.dumps(config))
    os.environ.update(DAGSTER_HOME=str(home), PEER_SOURCE=str(source), PEER_OUT=str(out))
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        yield instance


def measure() -> list[Measure]:
    """Run each peer and `imgflow ingest`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "in", 1_000)
        ours = 1_000 / time_ingest(folder / "in", folder / "home")
        measures = []
        for peer, images in IMAGES.items():
            write_jpegs(folder / peer / "in", images)
            (folder / peer / "out").mkdir()
            theirs = images / time_peer(peer, folder / peer)
            measures.append(
                Measure(
                    f"images/s beside {PEERS[peer]} ({images} images)",
                    ours,
                    PEERS[peer],
                    theirs,
                    ours / theirs,
                    f">= {WANTED[peer]}",
                )
            )
        return measures


def time_peer(name: str, folder: Path) -> float:
    """Return the seconds that a peer takes for the files in `in`."""
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
    """Run the peer named in the arguments."""
    name, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    url = os.environ["PEER_DATABASE"]
    kinds = {"function": function, "ranged": ranged, "run_per_image": run_per_image}
    print(json.dumps({"seconds": kinds[name](source, out, url)}))


if __name__ == "__main__":
    main()
