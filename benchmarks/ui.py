"""The Dagster UI's page of an asset with 100,000 partitions beside one with 1,000, in Chromium.

`python -m benchmarks.ui [PARTITIONS]` measures. With `fill PARTITIONS`, it makes that many images
by runs that skip the pixels, which give a realistic event log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
from playwright.sync_api import sync_playwright

from benchmarks.bookkeeping import LIMIT_MILLISECONDS, Bookkeeping
from benchmarks.latency import free_port
from benchmarks.table import Measure, show
from imgflow.catalog.database.engine import database_url
from imgflow.orchestration.dagster_storage.instance import environment
from imgflow.settings.variables import load_settings

SMALL, LARGE = 1_000, 100_000
BATCH = 5_000
KNOWN = 1_000
ROUNDS = 5
PAGES = {
    "the asset's partitions": "assets/photo/thumbnail?view=partitions",
    "the asset's newest events": "assets/photo/thumbnail?view=events",
}


def measure(partitions: int = LARGE) -> list[Measure]:
    """Open each page several times, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        found = {count: _times(Path(folder) / str(count), count) for count in (SMALL, partitions)}
    return [
        Measure(
            f"{partitions:,} partitions: {page} in the Dagster UI, s",
            found[partitions][page],
            f"with {SMALL:,}",
            found[SMALL][page],
            found[partitions][page] / found[SMALL][page],
            "<= 1.5",
        )
        for page in PAGES
    ] + [
        Measure(
            f"bookkeeping of {KNOWN:,} images beside {count:,} known, ms an image",
            found[count]["bookkeeping"],
            "limit",
            LIMIT_MILLISECONDS,
            found[count]["bookkeeping"] / LIMIT_MILLISECONDS,
            "<= 1",
        )
        for count in found
    ]


def _times(home: Path, partitions: int) -> dict[str, float]:
    filled = subprocess.run(
        [sys.executable, "-m", "benchmarks.ui", "fill", str(partitions)],
        env={**os.environ, "IMGFLOW_HOME": str(home), "IMGFLOW_WORKERS": "2"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    os.environ["IMGFLOW_HOME"] = str(home)
    with _webserver() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        found: dict[str, list[float]] = {name: [] for name in PAGES}
        for _ in range(ROUNDS + 1):
            for name, path in PAGES.items():
                began = time.monotonic()
                page.goto(f"{address}/{path}")
                page.get_by_text("img_", exact=False).first.wait_for(timeout=60_000)
                found[name].append(time.monotonic() - began)
        browser.close()
    bookkeeping = float(filled.stdout.splitlines()[-1])
    return {"bookkeeping": bookkeeping, **{name: median(t[1:]) for name, t in found.items()}}


@contextmanager
def _webserver() -> Iterator[str]:
    settings = load_settings()
    variables = {**os.environ, **environment(settings, database_url(settings))}
    address = f"http://127.0.0.1:{(port := free_port())}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "imgflow.service.webserver"),
            *("-m", "imgflow.definitions", "-h", "127.0.0.1", "-p", str(port)),
        ],
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                httpx.get(f"{address}/server_info").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def fill(partitions: int) -> None:
    """Make this many images."""
    with Bookkeeping().opened() as books:
        for start in range(0, partitions, BATCH):
            books.run(start, min(BATCH, partitions - start))
        seconds = [books.run(partitions + wave * KNOWN, KNOWN) for wave in range(3)]
    print(min(seconds) / KNOWN * 1000)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        fill(int(sys.argv[2]))
    else:
        show(measure(int(sys.argv[1]) if sys.argv[1:] else LARGE))
