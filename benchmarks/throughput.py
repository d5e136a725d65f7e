"""`imgflow ingest` beside a bare Pillow loop with two processes that writes the same outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.pictures import write_jpegs
from benchmarks.table import Measure


def measure(images: int = 1_000, rounds: int = 3) -> list[Measure]:
    """Measure photographs of 1024 x 768, and a tenth as many of 12 megapixels if enough."""
    found = [_compare(images, rounds, (1024, 768), ">= 0.8")]
    if images >= 1_000:
        found.append(_compare(images // 10, rounds, (4000, 3000), ">= 0.95"))
    return found


def _compare(images: int, rounds: int, size: tuple[int, int], wanted: str) -> Measure:
    """Run both in turn, each starting with an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "in", images, size)
        ours, bare = [], []
        for number in range(rounds):
            bare.append(_bare(folder, number))
            ours.append(time_ingest(folder / "in", folder / f"home{number}"))
    return Measure(
        f"ingest of {images} JPEGs of {size[0]}x{size[1]}, two workers, images/s",
        images / median(ours),
        "bare Pillow loop, two processes",
        images / median(bare),
        median(b / o for b, o in zip(bare, ours, strict=True)),
        wanted,
    )


def _bare(folder: Path, number: int) -> float:
    return _seconds(
        [sys.executable, "-m", "benchmarks.bare_pillow", folder / "in", folder / f"bare{number}"],
        {},
    )


def time_ingest(source: Path, home: Path) -> float:
    """Return the seconds of `imgflow ingest` of a folder, from the listing to the last event."""
    return _seconds(
        [sys.executable, "-m", "imgflow", "ingest", "--json"],
        {
            "IMGFLOW_HOME": str(home),
            "IMGFLOW_SOURCE_URL": source.as_uri(),
            "IMGFLOW_WORKERS": "2",
        },
    )


def _seconds(command: list[str | Path], variables: dict[str, str]) -> float:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
