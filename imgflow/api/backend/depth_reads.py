"""Reads depth intervals: their parameters, their limits, their rows, and averages of rows.

The SQL is in `imgflow.catalog.postgres.depth_arrays`; the routes are in
`imgflow.api.routes.depth_frames` and `depth_facts`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Query
from pydantic import WithJsonSchema

from imgflow.api.backend.connections import Connections
from imgflow.api.http.keys import find_image, id_of, key_of
from imgflow.api.http.problems import Refused
from imgflow.api.routes.pictures import output_record
from imgflow.catalog.postgres.depth_arrays import Interval, TooManyRows
from imgflow.catalog.records import Image
from imgflow.depth.preview import PreviewBuilder
from imgflow.errors import Trouble

# Statistics take 30 bytes per pixel at their peak and frames 20, so a request takes up to 600 MB.
MOST_PIXELS = 20_000_000
MOST_DEPTHS = 5_000_000  # the maximum of IMGFLOW_DEPTH_MAX_ROWS; 40 MB
WAIT_SECONDS = 10.0
ATTEMPTS = 2

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LONGEST_NUMBER = 400

DECIMAL = WithJsonSchema({"type": "number"})

INTERVAL_PROBLEMS = (
    *("invalid_id", "image_not_found", "image_deleted", "image_pending", "image_rejected"),
    *("not_a_depth_image", "bad_number", "bounds_descend", "depth_outside", "no_rows"),
    "too_many_rows",
)


@dataclass(frozen=True)
class Bounds:
    """Bounds of a depth interval, both included; None means up to that end of the image."""

    low: float | None
    high: float | None


async def bounds_of(
    depth_min: Annotated[
        str | None,
        Query(
            max_length=LONGEST_NUMBER,
            description="Smallest depth, included, in the unit of the file; by default that of the "
            "first row. Compared exactly with the depths of the file.",
        ),
        DECIMAL,
    ] = None,
    depth_max: Annotated[
        str | None,
        Query(
            max_length=LONGEST_NUMBER,
            description="Largest depth, included; by default that of the last row.",
        ),
        DECIMAL,
    ] = None,
) -> Bounds:
    """Read the bounds of an interval.

    Raises:
        Refused: A bound is not a number, or the smallest depth is above the largest.
    """
    low = None if depth_min is None else finite_number("depth_min", depth_min)
    high = None if depth_max is None else finite_number("depth_max", depth_max)
    if low is not None and high is not None and low > high:
        raise Refused("bounds_descend", f"depth_min {low!r} is above depth_max {high!r}.")
    return Bounds(low, high)


BoundsInQuery = Annotated[Bounds, Depends(bounds_of)]


def finite_number(name: str, text: str) -> float:
    """Parse a decimal number exactly as Python does.

    Raises:
        Refused: It is not a number, or it is too large.
    """
    text = text.strip()
    number = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise Refused("bad_number", f"{name}={text[:40]!r} is not a finite decimal number.")
    return number


@dataclass(frozen=True)
class DepthArray:
    """The array of a depth image, as its row describes it.

    Attributes:
        image: The row in the catalogue.
        name: Name of the array, which differs for other content and other recipes.
        width: Pixels per row.
        depth_min: Smallest depth, in the unit of the file.
        depth_max: Largest depth, in the unit of the file.
        value_range: Values shown in the first and the last colour.
        missing_pixels: Number of values that the uploaded file lacks.
    """

    image: Image
    name: str
    width: int
    depth_min: float
    depth_max: float
    value_range: tuple[float, float]
    missing_pixels: int


def find_array(connections: Connections, named: str, bounds: Bounds) -> DepthArray:
    """Look up an image's array and check that an interval overlaps it, without reading pixels.

    Raises:
        Refused: There is no such image or array, or the interval lies outside of it.
    """
    image = find_image(connections.catalog, named)
    record = output_record(image, "resized", connections.enabled)
    facts: dict[str, Any] = record["facts"]
    low, high = facts["value_range"]
    array = DepthArray(
        image,
        record["name"],
        record["width"],
        facts["depth_min"],
        facts["depth_max"],
        (float(low), float(high)),
        facts.get("missing_pixels", 0),  # absent from earlier versions' arrays
    )
    is_above = bounds.high is not None and bounds.high < array.depth_min
    is_below = bounds.low is not None and bounds.low > array.depth_max
    if is_above or is_below:
        raise Refused(
            "depth_outside",
            f"The image goes from {array.depth_min!r} to {array.depth_max!r}.",
            depth_min=array.depth_min,
            depth_max=array.depth_max,
        )
    return array


@contextmanager
def reading(connections: Connections) -> Iterator[None]:
    """Take one of the places for requests that hold an interval in memory.

    Raises:
        Trouble: No place became free in `WAIT_SECONDS`.
    """
    if not connections.intervals.acquire(timeout=WAIT_SECONDS):
        raise Trouble("Too many depth intervals are read at once.")
    try:
        yield
    finally:
        connections.intervals.release()


def read_rows(connections: Connections, named: str, bounds: Bounds) -> Interval:
    """Read the rows of an interval; if there are any, it takes one round trip to the database.

    Raises:
        Refused: There is no such image or array, or the interval has no rows, or too many.
    """
    return _read(connections, named, bounds, most_pixels=MOST_PIXELS)


def read_depths(connections: Connections, named: str, bounds: Bounds) -> Interval:
    """Read the depths of an interval but not its pixels; otherwise like `read_rows`."""
    return _read(connections, named, bounds, most_rows=MOST_DEPTHS, depths_only=True)


def _read(connections: Connections, named: str, bounds: Bounds, **limits: Any) -> Interval:
    catalog = connections.catalog
    try:
        for _ in range(ATTEMPTS):
            image = id_of(named) if named.isdigit() else key_of(named)
            if image is not None:
                interval = connections.arrays.read(
                    image,
                    bounds.low,
                    bounds.high,
                    source=catalog.source,
                    **limits,
                )
                if len(interval.depths):
                    return interval
            # Raises if there is nothing; if the array came just now, the next attempt finds it.
            find_array(connections, named, bounds)
    except TooManyRows as error:
        raise Refused(
            "too_many_rows",
            f"At most {error.most_rows:,} rows of this width fit into one answer. Take a narrower "
            f"interval, max_rows to have rows averaged, or "
            f"/images/{quote(named, safe=':%')}/preview for the whole image.",
            most_rows=error.most_rows,
        ) from error
    raise Refused("no_rows", "The interval lies in a gap between two rows; take a wider one.")


# Averaging. Frames with more rows than memory allows average neighbouring rows as they stream in.


MOST_ROWS = 8_192
# The sums of pixels and the counts of missing ones take 32 bytes each for twice the rows.
MOST_AVERAGED = MOST_PIXELS // 8


class _Averages:
    """Running averages of the rows received so far."""

    def __init__(self, width: int, most_rows: int) -> None:
        self._size = (width, most_rows)
        self.restart()

    def restart(self) -> None:
        self.rows = 0
        self.builder = PreviewBuilder(self._size)
        self.first = self.last = float("nan")
        self.newest: Interval | None = None

    def take(self, part: Interval) -> None:
        if not self.rows:
            self.first = float(part.depths[0])
        self.last = float(part.depths[-1])
        self.rows += len(part.depths)
        self.builder.add(part.pixels)
        self.newest = part


def average_rows(
    connections: Connections, named: str, bounds: Bounds, most_rows: int
) -> tuple[Interval, int]:
    """Average neighbouring rows of an interval; memory use does not depend on their number.

    Returns:
        The averages, with the first and the last depth of all rows; and the number of rows read.

    Raises:
        Refused: There is no such image or array, the interval has no rows, or `most_rows` averages
            would take too much memory.
    """
    array = find_array(connections, named, bounds)
    if most_rows * array.width > MOST_AVERAGED:
        most = MOST_AVERAGED // array.width
        raise Refused("too_many_rows", f"max_rows is {most:,} at most here.", most_rows=most)
    averages = _Averages(array.width, most_rows)
    connections.arrays.scan(
        id_of(named) or key_of(named) or array.image.id,
        bounds.low,
        bounds.high,
        source=connections.catalog.source,
        restart=averages.restart,
        take=averages.take,
    )
    newest = averages.newest
    if newest is None:
        raise Refused("no_rows", "The interval lies in a gap between two rows; take a wider one.")
    found = Interval(
        depths=newest.depths[[0, -1]].copy(),
        pixels=averages.builder.means(),
        bytes_read=0,
        array=newest.array,
        image_id=newest.image_id,
        value_range=newest.value_range,
    )
    found.depths[:] = averages.first, averages.last
    return found, averages.rows
