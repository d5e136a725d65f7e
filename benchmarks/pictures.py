"""Photographs for benchmarks, made from those in the scikit-image wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")


def write_jpegs(folder: Path, count: int, size: tuple[int, int] = (1024, 768)) -> None:
    """Write `count` JPEGs of quality 85, no two of them the same."""
    folder.mkdir(parents=True, exist_ok=True)
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("scikit-image is not installed")
    data = Path(found.origin).parent / "data"
    pictures = [Image.open(data / name).convert("RGB").resize(size) for name in NAMES]
    for number in range(count):
        picture = pictures[number % len(pictures)].copy()
        for bit in range(16):
            picture.putpixel((8 * bit, 0), (255 * (number >> bit & 1), 0, 0))
        picture.save(folder / f"img_{number:05d}.jpg", quality=85)
