"""`imgflow ingest` of a bucket beside bare loops over it, on a real S3 server of this machine.

The peers are what most people write first, one process with boto3 (`loop`), and the fastest loop
that we know, two processes of eight threads each with `obstore` (`threads`). Both write the same
pictures as imgflow but keep no records. `python -m benchmarks.bucket PEER BUCKET` prints the
seconds that a peer took.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pool
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from PIL import Image

from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure
from imgflow_tests import ceph

BOX = (256, 256)
PROCESSES, THREADS = 2, 8

# Number of images for the loop, which would take minutes for all.
LOOPED = 100
JPEG = "image/jpeg"

# Duration of a small request to a bucket in the same region.
AWAY_SECONDS = 0.02


def pictures(body: bytes) -> dict[str, bytes]:
    """Make grayscale and thumbnail as `benchmarks.bare_pillow` does."""
    made = {}
    with Image.open(io.BytesIO(body)) as image:
        file = io.BytesIO()
        image.convert("L").save(file, "JPEG", quality=85)
        made["grayscale"] = file.getvalue()
    with Image.open(io.BytesIO(body)) as image:
        ratio = min(BOX[0] / image.width, BOX[1] / image.height)
        size = round(image.width * ratio), round(image.height * ratio)
        image.draft("RGB", (2 * size[0], 2 * size[1]))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=85)
        made["thumbnail"] = file.getvalue()
    return made


def keys_of(client: Any, bucket: str) -> list[str]:
    """Return all keys below `in/`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="in/")
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def loop(bucket: str) -> None:
    """Process the first `LOOPED` images, one after the other."""
    client = boto3.client("s3")
    for key in keys_of(client, bucket)[:LOOPED]:
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for name, data in pictures(body).items():
            client.put_object(Bucket=bucket, Key=f"loop/{name}/{key}", Body=data, ContentType=JPEG)


def threads(bucket: str) -> None:
    """Process all images in parallel."""
    keys = keys_of(boto3.client("s3"), bucket)
    with Pool(PROCESSES) as pool:
        pool.starmap(_some, [(bucket, keys[start::PROCESSES]) for start in range(PROCESSES)])


def _some(bucket: str, keys: list[str]) -> None:
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )

    def one(key: str) -> None:
        for name, data in pictures(bytes(store.get(key).bytes())).items():
            store.put(
                f"threads/{name}/{key}",
                data,
                attributes={"Content-Type": JPEG},
                use_multipart=False,
            )

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, keys))


def measure(images: int = 1_000, rounds: int = 2) -> list[Measure]:
    """Run all in turn, with the server next door, and as far away as a bucket in one's region."""
    if not ceph.is_installed():
        raise SystemExit("The bucket is one of Ceph: install ceph-mon, ceph-osd and radosgw.")
    with tempfile.TemporaryDirectory() as name, _server(Path(name)) as server:
        folder = Path(name)
        os.environ.update(_variables(server))
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        write_jpegs(folder / "in", images)
        for file in (folder / "in").iterdir():
            client.upload_file(str(file), "bench", f"in/{file.name}")
        near = _compare(server, folder / "near", images, rounds, "on the same machine")
        with _far_away(server):
            return near + _compare(
                server, folder / "far", images, rounds, f"{AWAY_SECONDS * 1000:.0f} ms away"
            )


def _compare(
    server: ceph.Ceph, folder: Path, images: int, rounds: int, where: str
) -> list[Measure]:
    folder.mkdir()
    found: dict[str, list[float]] = {"loop": [], "threads": [], "imgflow": []}
    requests = 0
    for number in range(rounds):
        for peer in ("loop", "threads"):
            found[peer].append(_peer(peer))
        before = server.requests()
        found["imgflow"].append(_ingest(folder, number))
        requests = server.requests() - before
    rates = {
        peer: [(min(images, LOOPED) if peer == "loop" else images) / t for t in seconds]
        for peer, seconds in found.items()
    }
    what = f"ingest of {images} JPEGs of 1024x768, S3 {where}"
    ratios = [
        Measure(
            f"{what}, images/s",
            median(rates["imgflow"]),
            peer,
            median(rates[name]),
            median(
                ours / theirs for ours, theirs in zip(rates["imgflow"], rates[name], strict=True)
            ),
            wanted,
        )
        for name, peer, wanted in (
            ("loop", "boto3 loop, one process", ">= 3"),
            ("threads", "obstore, 2 x 8 threads", ">= 0.9"),
        )
    ]
    counted = Measure(
        f"{what}, requests an image",
        requests / images,
        "one read, two writes",
        3,
        requests / images / 3,
        "<= 1.1",
    )
    return [*ratios, counted]


@contextmanager
def _far_away(server: ceph.Ceph) -> Iterator[None]:
    network = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_network", str(server.port), str(AWAY_SECONDS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int((network.stdout or io.StringIO()).readline())
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        yield
    finally:
        network.terminate()
        network.wait()


def _peer(name: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bucket", name, "bench"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _ingest(folder: Path, number: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "imgflow", "ingest", "--json"],
        env={
            **os.environ,
            "IMGFLOW_HOME": str(folder / f"home{number}"),
            "IMGFLOW_SOURCE_URL": "s3://bench/in",
            "IMGFLOW_OUTPUT_URL": f"s3://bench/made-{folder.name}{number}",
            "IMGFLOW_WORKERS": str(PROCESSES),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["failed"] or answer["rejected"]:
        raise SystemExit(f"not all were processed: {answer}")
    return float(answer["seconds"])


@contextmanager
def _server(folder: Path) -> Iterator[ceph.Ceph]:
    server = ceph.Ceph(folder / "ceph")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _variables(server: ceph.Ceph) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": ceph.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ceph.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


if __name__ == "__main__":
    began = time.monotonic()
    {"loop": loop, "threads": threads}[sys.argv[1]](sys.argv[2])
    print(json.dumps({"seconds": time.monotonic() - began}))
