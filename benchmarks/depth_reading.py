"""Depth CSV to resized rows: imgflow against bare pandas and scikit-image, on the same file.

    python benchmarks/depth_reading.py [--megabytes 150] [--rounds 3]

A ratio above 1 means that imgflow is faster. The bare ways keep neither order nor rules nor facts;
`whole` reads the file in one call and holds it in memory, `loop` reads 20,000 rows at a time.
Rounds alternate, and the best of each counts, since other load only ever makes a round slower.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.transform import resize

from imgflow.depth.ordering import ResizedDepth
from imgflow.depth.recipe import DepthRecipe
from imgflow.depth.samples import sample_block

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


def bare_whole(path: Path) -> int:
    return resized(pd.read_csv(path))


def bare_loop(path: Path) -> int:
    return sum(resized(frame) for frame in pd.read_csv(path, chunksize=20_000))


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(2**20):
            yield data


def imgflow_way(path: Path) -> int:
    image = ResizedDepth(lambda: blocks(path), path.name, DepthRecipe(width=WIDTH))
    return sum(len(chunk.depths) for chunk in image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways = {"imgflow": imgflow_way, "loop": bare_loop, "whole": bare_whole}
    print(f"{'pixels':16}{'imgflow MB/s':>14}{'ratio to loop':>15}{'ratio to whole':>16}")
    with tempfile.TemporaryDirectory() as folder:
        for name, spelling in SPELLINGS.items():
            path = Path(folder) / "depth.csv"
            write_csv(path, spelling, arguments.megabytes)
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(arguments.rounds):
                for way, run in ways.items():
                    started = time.perf_counter()
                    run(path)
                    best[way] = min(best[way], time.perf_counter() - started)
            speed = path.stat().st_size / best["imgflow"] / 1e6
            loop, whole = (best[way] / best["imgflow"] for way in ("loop", "whole"))
            print(f"{name:16}{speed:14.0f}{loop:15.2f}{whole:16.2f}", flush=True)


if __name__ == "__main__":
    main()
