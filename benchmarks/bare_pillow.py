"""The peer: a loop in two processes that writes the same outputs but keeps no records.

Called as `python -m benchmarks.bare_pillow IN OUT`; prints the seconds it took.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from functools import partial
from pathlib import Path

from PIL import Image

BOX = (256, 256)


def one(out: Path, file: Path) -> None:
    """Work as a plain script does: luma of the colours, like imgflow's, and a scaled decode."""
    with Image.open(file) as image:
        image.convert("L").save(out / "grayscale" / file.name, quality=85)
    with Image.open(file) as image:
        ratio = min(BOX[0] / image.width, BOX[1] / image.height)
        size = round(image.width * ratio), round(image.height * ratio)
        image.draft("RGB", (2 * size[0], 2 * size[1]))
        image.resize(size, Image.Resampling.LANCZOS).save(out / "thumbnail" / file.name, quality=85)


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in ("grayscale", "thumbnail"):
        (out / name).mkdir(parents=True)
    began = time.monotonic()
    files = sorted(source.iterdir())
    with multiprocessing.Pool(2) as pool:
        for _ in pool.imap_unordered(partial(one, out), files, chunksize=8):
            pass
    print(json.dumps({"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
