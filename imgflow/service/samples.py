"""Sample input for a first look: photographs of the scikit-image wheel, and a depth CSV."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

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
    """Put the samples into a source, those that are there already left alone.

    Returns:
        How many were uploaded.
    """
    uploaded = 0
    for name in PHOTOGRAPHS:
        key = f"{FOLDER}/{name}"
        if source.stat(key) is None:
            source.upload(key, sample_pictures() / name)
            uploaded += 1
    key = f"{FOLDER}/{DEPTH_CSV}"
    if source.stat(key) is None:
        # Only here: numpy takes a moment to import, and most starts find the samples in place.
        from imgflow.depth.samples import write_sample_depth_csv

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / DEPTH_CSV
            write_sample_depth_csv(file)
            source.upload(key, file)
        uploaded += 1
    return uploaded


def sample_pictures() -> Path:
    """The folder of the scikit-image wheel's pictures."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise FileNotFoundError("scikit-image, which carries the samples, is not installed")
    return Path(found.origin).parent / "data"
