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
    """Run both in turn, each from an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "in", images)
        ours, bare = [], []
        for number in range(rounds):
            bare.append(_bare(folder, number))
            ours.append(_ingest(folder, number))
    ratios = [b / o for b, o in zip(bare, ours, strict=True)]
    return [
        Measure(
            f"ingest of {images} JPEGs of 1024x768, two workers, images/s",
            images / median(ours),
            "bare Pillow loop, two processes",
            images / median(bare),
            median(ratios),
            ">= 0.5",
        )
    ]


def _bare(folder: Path, number: int) -> float:
    return _seconds(
        [sys.executable, "-m", "benchmarks.bare_pillow", folder / "in", folder / f"bare{number}"],
        {},
    )


def _ingest(folder: Path, number: int) -> float:
    return _seconds(
        [sys.executable, "-m", "imgflow", "ingest", "--json"],
        {
            "IMGFLOW_HOME": str(folder / f"home{number}"),
            "IMGFLOW_SOURCE_URL": (folder / "in").as_uri(),
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
