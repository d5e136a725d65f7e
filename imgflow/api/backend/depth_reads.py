"""Depth intervals: their parameters, the limits on them, and reading their rows."""

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

# Statistics take 30 bytes a pixel at their peak and frames 20, so 600 MB for one request at most.
MOST_PIXELS = 20_000_000
MOST_DEPTHS = 5_000_000  # the most that IMGFLOW_DEPTH_MAX_ROWS can be; 40 MB
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
    """Bounds of an interval of depth, both included; None: to that end of the image."""

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
        Refused: one is no number, or they descend.
    """
    low = None if depth_min is None else finite_number("depth_min", depth_min)
    high = None if depth_max is None else finite_number("depth_max", depth_max)
    if low is not None and high is not None and low > high:
        raise Refused("bounds_descend", f"depth_min {low!r} is above depth_max {high!r}.")
    return Bounds(low, high)


BoundsInQuery = Annotated[Bounds, Depends(bounds_of)]


def finite_number(name: str, text: str) -> float:
    """Read a decimal number exactly as Python reads it.

    Raises:
        Refused: it is none, or too large.
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
        image: the row.
        name: of the array; another content or recipe has another one.
        width: pixels of a row.
        depth_min: smallest depth.
        depth_max: largest depth.
        value_range: values of the first and the last colour.
        missing_pixels: holes of the uploaded file.
    """

    image: Image
    name: str
    width: int
    depth_min: float
    depth_max: float
    value_range: tuple[float, float]
    missing_pixels: int


def find_array(connections: Connections, named: str, bounds: Bounds) -> DepthArray:
    """Look up the array of an image, and check that an interval touches it; pixels are not read.

    Raises:
        Refused: there is no such image or array, or the interval lies outside.
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
        facts.get("missing_pixels", 0),  # arrays of earlier versions have none
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
    """Take a place among the requests that hold an interval in memory.

    Raises:
        Trouble: there was none for a while.
    """
    if not connections.intervals.acquire(timeout=WAIT_SECONDS):
        raise Trouble("Too many depth intervals are read at once.")
    try:
        yield
    finally:
        connections.intervals.release()


def read_rows(connections: Connections, named: str, bounds: Bounds) -> Interval:
    """Read the rows of an interval; one trip to the database where there are any.

    Raises:
        Refused: there is no such image or array, or there are no rows in the interval, or too many.
    """
    return _read(connections, named, bounds, most_pixels=MOST_PIXELS)


def read_depths(connections: Connections, named: str, bounds: Bounds) -> Interval:
    """Read the depths of an interval, without its pixels; otherwise as `read_rows`."""
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
            # Says why there is nothing; unless it came just now, when the next attempt finds it.
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


# Frames of more rows than there is room for: neighbouring rows averaged while they stream by.


MOST_ROWS = 8_192
# Sums of pixels and of missing ones take 32 bytes each for twice the rows.
MOST_AVERAGED = MOST_PIXELS // 8


class _Averages:
    """What is kept of the rows that came."""

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
    """Average the rows of an interval, in memory that does not depend on their number.

    Returns:
        The averages, with the first and the last depth of all rows; and the number of rows.

    Raises:
        Refused: there is no such image or array, there are no rows in the interval, or averages of
            so many rows take too much memory.
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
