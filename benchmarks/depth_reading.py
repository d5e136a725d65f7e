"""Depth CSV to resized rows: imgflow against bare pandas and scikit-image, on the same file.

The bare loop reads 20,000 rows at a time, and does no sorting, no checks and no statistics.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.transform import resize

from benchmarks.table import Measure, show
from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.depth.ordering import ResizedDepth
from imgflow.service.samples import sample_block

WIDTH = 150
SPELLINGS: dict[str, Callable[[int], str]] = {
    "whole numbers": str,
    "one decimal": lambda value: f"{value}.0",
    "long fractions": lambda value: repr(value / 7),
}


def write_csv(path: Path, spelling: Callable[[int], str], megabytes: int) -> None:
    bodies = [",".join(spelling(v) for v in row) for row in sample_block().tolist()]
    row = 0
    with path.open("w", encoding="ascii") as file:
        file.write("depth," + ",".join(f"col{i}" for i in range(1, 201)) + "\n")
        while file.tell() < megabytes * 1e6:
            for body in bodies:
                file.write(f"{9000.1 + row * 0.1:.1f},{body}\n")
                row += 1


def resized(frame: pd.DataFrame) -> int:
    pixels = frame.drop(columns="depth").to_numpy(dtype=np.float64)
    image = resize(pixels, (len(pixels), WIDTH), preserve_range=True, anti_aliasing=True)
    return len(image.astype(np.float32))


def bare_loop(path: Path) -> int:
    return sum(resized(frame) for frame in pd.read_csv(path, chunksize=20_000))


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(2**20):
            yield data


def imgflow_way(path: Path) -> int:
    image = ResizedDepth(lambda: blocks(path), path.name, DepthRecipe(width=WIDTH))
    return sum(len(chunk.depths) for chunk in image)


def measure(megabytes: int = 150, rounds: int = 3) -> list[Measure]:
    """Alternate both, and take the best round of each, since other load only slows rounds down."""
    measures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, spelling in SPELLINGS.items():
            path = Path(folder) / "depth.csv"
            write_csv(path, spelling, megabytes)
            speed = dict.fromkeys((imgflow_way, bare_loop), 0.0)
            for _ in range(rounds):
                for way in speed:
                    began = time.perf_counter()
                    way(path)
                    seconds = time.perf_counter() - began
                    speed[way] = max(speed[way], path.stat().st_size / 1e6 / seconds)
            measures.append(
                Measure(
                    f"depth CSV, {name}, MB/s",
                    speed[imgflow_way],
                    "bare pandas and scikit-image loop",
                    speed[bare_loop],
                    speed[imgflow_way] / speed[bare_loop],
                    ">= 1",
                )
            )
    return measures


if __name__ == "__main__":
    show(measure())
