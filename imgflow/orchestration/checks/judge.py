"""What counts as a defect of an image: pure decisions, without Dagster or stores.

An image that could not be read has no defect: the stores raise `Trouble`, which ends an examination
without a result. Reading is in `examine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imgflow.catalog.records import Image
from imgflow.images.inspection import Damaged, inspect_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# If thousands of images share a defect, the first few say as much.
MOST_NAMED = 50

READABLE, FITS_BOX, NOTHING_PRIVATE = "readable", "fits_box", "nothing_private"
DEPTHS_RISE, AGREEMENT = "depths_rise", "agreement"

ADVICE = {
    READABLE: "Materialise the partitions with `force: true`; missing outputs are also made again "
    "by the nightly `reconcile`.",
    FITS_BOX: "Materialise the partitions with `force: true`.",
    NOTHING_PRIVATE: "Materialise the partitions with `force: true`, and find out who wrote "
    "the objects: imgflow's encoders write artist and copyright only.",
    DEPTHS_RISE: "Materialise the partitions with `force: true`; the array is read anew from its "
    "upload.",
    AGREEMENT: "Run the job `reconcile`, which repairs such differences every night.",
}

DESCRIPTIONS = {
    READABLE: "The object is in the output store, is what was written, decodes, and has the pixels "
    "that its row says.",
    FITS_BOX: "The picture fits its box and is no larger than the upload.",
    NOTHING_PRIVATE: "The picture carries artist and copyright and no other metadata: no place, no "
    "camera, no comment, no profile.",
    DEPTHS_RISE: "Depths never fall; their number and bounds are those of the row.",
    AGREEMENT: "Bucket, table and partitions know the same images.",
}

# ERROR: users of the images run into it, or it must not get out. WARN: it is fixed automatically or
# does no harm.
ERRORS = frozenset({READABLE, NOTHING_PRIVATE, DEPTHS_RISE})


@dataclass
class Findings:
    """What one check found.

    Attributes:
        examined: Number of images examined.
        skipped: Number of images to which the check does not apply now, such as those made with
            another recipe than the current one.
        defective: Number of images with the defect.
        named: What is wrong, by object key, for the first few.
    """

    examined: int = 0
    skipped: int = 0
    defective: int = 0
    named: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, problem: str | None) -> None:
        """Count an examined image, and its defect if there is one."""
        self.examined += 1
        if problem:
            self.report(key, problem)

    def report(self, key: str, problem: str) -> None:
        """Count a defect, and keep it by name while there are few."""
        self.defective += 1
        if len(self.named) < MOST_NAMED:
            self.named[key] = problem

    def take_back(self, key: str) -> None:
        """Drop a named defect, because the image has changed meanwhile."""
        if self.named.pop(key, None) is not None:
            self.defective -= 1


def judge_picture(
    image: Image, name: str, body: bytes | None, box: tuple[int, int] | None = None
) -> dict[str, str]:
    """What is wrong with one output of an image, by check; empty if nothing is.

    Args:
        image: The row that the output has to match.
        name: Name of the output, such as `thumbnail`.
        body: The stored object; None if it is missing.
        box: Maximum width and height in pixels, if the output has any.
    """
    record = image.outputs[name]
    if body is None:
        return {READABLE: f"{record['name']} is not in the output store"}
    if not str(record["media_type"]).startswith("image/"):
        unlike = _unlike_written(record, body)
        return {READABLE: unlike} if unlike else {}
    pixels = record["width"] * record["height"]
    try:
        seen = inspect_output(body, 4 * pixels + 1_000_000)
    except Damaged as damage:
        return {READABLE: f"{record['name']} does not decode: {damage}"}
    found = {}
    expected = (record["width"], record["height"])
    size = (seen.width, seen.height)
    if size != expected:
        found[READABLE] = f"{_by(size)} pixels, and its row says {_by(expected)}"
    elif name == "grayscale" and expected != (image.width, image.height):
        found[READABLE] = (
            f"{_by(expected)} pixels, and the row says that the upload has "
            f"{image.width} x {image.height}"
        )
    elif unlike := _unlike_written(record, body):
        found[READABLE] = unlike
    if box and (size[0] > box[0] or size[1] > box[1]):
        found[FITS_BOX] = f"{_by(size)} pixels do not fit {_by(box)}"
    elif box and (size[0] > (image.width or size[0]) or size[1] > (image.height or size[1])):
        found[FITS_BOX] = f"{_by(size)} pixels, larger than the upload"
    if seen.private:
        found[NOTHING_PRIVATE] = "has " + ", ".join(seen.private)
    return found


def _unlike_written(record: Mapping[str, Any], body: bytes) -> str | None:
    if len(body) != record["size"]:
        return f"{len(body):,} bytes, and {record['size']:,} were written"
    if hashlib.sha256(body).hexdigest() != record["sha256"]:
        return "other bytes than were written"
    return None


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def judge_depths(image: Image, depths: NDArray[np.float64]) -> str | None:
    """What is wrong with the depths of an array; None if nothing is.

    Args:
        image: The row that number and bounds of the depths have to match.
        depths: Array of float64 and shape (rows,), in stored order.
    """
    import numpy as np  # for depth images only

    if not len(depths):
        return "the database has no row of its array"
    falls = np.flatnonzero(np.diff(depths) < 0)
    if len(falls):
        first = int(falls[0])
        return f"depths fall from {depths[first]} to {depths[first + 1]} after row {first + 1}"
    if not np.isfinite(depths).all():
        return "a depth is not finite"
    if len(depths) != image.height:
        return f"{len(depths):,} rows, and its row says {image.height}"
    bounds = (float(depths[0]), float(depths[-1]))
    said = (image.facts.get("depth_min"), image.facts.get("depth_max"))
    if bounds != said:
        return f"depths from {bounds[0]} to {bounds[1]}, and its row says {said[0]} to {said[1]}"
    return None
