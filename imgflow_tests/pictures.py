"""Small pictures and depth images that tests make themselves."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image


def jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A JPEG with some structure, a different one for every seed."""
    return _encoded(_picture(width, height, seed), "JPEG")


def png(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A PNG with some structure, a different one for every seed."""
    return _encoded(_picture(width, height, seed), "PNG")


def depth_csv(rows: int = 40, columns: int = 200, first: float = 9000.1, seed: int = 0) -> bytes:
    """A depth CSV with whole numbers, depths rising by 0.1."""
    pixels = np.random.default_rng(seed).integers(13, 238, (rows, columns))
    lines = ["depth," + ",".join(f"col{number}" for number in range(1, columns + 1))]
    tenths = round(first * 10)
    for number, row in enumerate(pixels):
        whole, tenth = divmod(tenths + number, 10)
        lines.append(f"{whole}.{tenth}," + ",".join(map(str, row)))
    return ("\n".join(lines) + "\n").encode()


def mixed_objects() -> Iterator[tuple[str, bytes, bool]]:
    """Sixty objects: key, bytes, and whether it is whole. Three are broken."""
    for number in range(40):
        yield f"photos/IMG_{number:04d}.JPG", jpeg(seed=number), True
    for number in range(11):
        yield f"scans/scan {number}.png", png(seed=100 + number), True
    for number in range(6):
        yield f"holes/hole-{number}.csv", depth_csv(seed=number), True
    yield "photos/cut.jpg", jpeg(256, 256, seed=999)[:2_000], False
    yield "notes.png", b"these are notes, not a picture\n", False
    yield "empty.jpg", b"", False


def _picture(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, format_name: str) -> bytes:
    out = io.BytesIO()
    image.save(out, format_name)
    return out.getvalue()
