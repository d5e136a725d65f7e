"""Sample input for a first look: photographs from the scikit-image wheel, and a depth CSV.

The CSV is drawn here; benchmarks use it too.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from imgflow.store.objects import Source

# PNG, JPEG, TIFF and GIF; colour, grayscale and palette.
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "multipage.tif",
    "no_time_for_that_tiny.gif",
    "retina.jpg",
    "rocket.jpg",
)
DEPTH_CSV = "borehole.csv"
FOLDER = "samples"


def upload_samples(source: Source) -> int:
    """Put the samples into a source, except those that are there already.

    Returns:
        Number of uploaded samples.
    """
    uploaded = 0
    for name in PHOTOGRAPHS:
        key = f"{FOLDER}/{name}"
        if source.stat(key) is None:
            source.upload(key, sample_pictures() / name)
            uploaded += 1
    key = f"{FOLDER}/{DEPTH_CSV}"
    if source.stat(key) is None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / DEPTH_CSV
            write_sample_depth_csv(file)
            source.upload(key, file)
        uploaded += 1
    return uploaded


def sample_pictures() -> Path:
    """Return the folder with the pictures of the scikit-image wheel."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise FileNotFoundError("scikit-image, which carries the samples, is not installed")
    return Path(found.origin).parent / "data"


# A synthetic depth CSV in the shape of real ones, for demonstrations and benchmarks.


BLOCK_ROWS = 1_365
BLOCKS = 4
PIXELS = 200
FIRST_DEPTH_TENTHS = 90_001
_DARKEST, _BRIGHTEST = 13, 237
_FLAT_ROWS, _FLAT_VALUE = 96, 224


def sample_block(seed: int = 1) -> NDArray[np.uint8]:
    """Draw a picture like a borehole's: a flat band, beds, fractures as sine waves, noise.

    Returns:
        Array of uint8 with shape (`BLOCK_ROWS`, `PIXELS`) and values from 13 to 237; the first 96
        rows are 224.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(BLOCK_ROWS, dtype=np.float64)[:, None]
    around = np.arange(PIXELS) * (2 * np.pi / PIXELS)
    picture = np.full((BLOCK_ROWS, PIXELS), 150.0)
    edges = np.sort(rng.choice(np.arange(_FLAT_ROWS + 20, BLOCK_ROWS - 10), 34, replace=False))
    for top in edges:
        dip, turn = rng.uniform(0, 9), rng.uniform(0, 2 * np.pi)
        change = rng.uniform(-42, 42)
        picture += change * 0.5 * (1 + np.tanh((rows - top - dip * np.sin(around + turn)) / 3))
    picture = 150 + 60 * np.tanh((picture - picture.mean()) / 90)
    for _ in range(14):
        centre, height = rng.uniform(_FLAT_ROWS + 40, BLOCK_ROWS - 40), rng.uniform(6, 30)
        turn, thickness, depth = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(1.2, 4),
            rng.uniform(60, 150),
        )
        distance = (rows - centre - height * np.sin(around + turn)) / thickness
        picture -= depth * np.exp(-(distance**2))
    noise = rng.normal(0, 11, (BLOCK_ROWS, PIXELS))
    picture += (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=0)) / 1.7
    whole: NDArray[np.uint8] = np.clip(np.rint(picture), _DARKEST, _BRIGHTEST).astype(np.uint8)
    whole[-1, 0], whole[-1, 1] = _DARKEST, _BRIGHTEST
    whole[:_FLAT_ROWS] = _FLAT_VALUE
    return whole


def write_sample_depth_csv(target: str | Path | BinaryIO, seed: int = 1) -> None:
    """Write a depth CSV; the same seed always gives the same bytes.

    The header is `depth,col1..col200`. It has 5,460 rows with depths from 9000.1 to 9546.0 in steps
    of 0.1 and integers from 13 to 237: one block of 1,365 rows, four times. A last row contains
    only commas. A `target` that is an open file stays open.
    """
    bodies = [",".join(map(str, row)) for row in sample_block(seed).tolist()] * BLOCKS
    lines = ["depth," + ",".join(f"col{i}" for i in range(1, PIXELS + 1))]
    for number, body in enumerate(bodies):
        whole, tenth = divmod(FIRST_DEPTH_TENTHS + number, 10)
        lines.append(f"{whole}.{tenth},{body}")
    lines.append("," * PIXELS)
    data = ("\n".join(lines) + "\n").encode("ascii")
    if isinstance(target, (str, Path)):
        Path(target).write_bytes(data)
    else:
        target.write(data)
