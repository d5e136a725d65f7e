"""`/depth/{id}/statistics`: what the pixels of a depth interval are like."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from imgflow.api.backend.connections import Connected
from imgflow.api.backend.depth_reads import (
    INTERVAL_PROBLEMS,
    BoundsInQuery,
    read_rows,
    reading,
)
from imgflow.api.http.keys import ImageInPath
from imgflow.api.routing import get
from imgflow.depth.statistics import statistics

router = APIRouter(tags=["depth images"])


class Statistics(BaseModel):
    """Statistics of the resized pixels in an interval, in the unit of the file."""

    id: int
    rows: int
    width: Annotated[int, Field(description="Pixels of a row.")]
    depth_first: Annotated[float, Field(description="Smallest depth in the interval.")]
    depth_last: Annotated[float, Field(description="Largest depth in the interval.")]
    count: Annotated[int, Field(description="Pixels: rows times width, less the missing ones.")]
    missing: Annotated[int, Field(description="Missing pixels, which count for nothing else.")]
    min: float
    max: float
    mean: float
    std: Annotated[float, Field(description="Standard deviation of the population.")]
    percentiles: Annotated[dict[int, float], Field(description="Value by percentage.")]
    histogram: Annotated[list[int], Field(description="Pixels in each bin; the sum is `count`.")]
    bin_edges: Annotated[list[float], Field(description="One more than bins.")]


@get(
    router,
    "/depth/{image}/statistics",
    problems=(*INTERVAL_PROBLEMS, "no_pixels", "invalid_parameter"),
)
def read_statistics(
    connections: Connected,
    image: ImageInPath,
    bounds: BoundsInQuery,
    bins: Annotated[int, Query(ge=1, le=1_024, description="Bins of the histogram.")] = 64,
) -> Statistics:
    """Statistics and histogram of a depth interval."""
    with reading(connections):
        interval = read_rows(connections, image, bounds)
        found = statistics(interval.pixels, bins=bins)
    return Statistics(
        id=interval.image_id,
        rows=len(interval.depths),
        width=interval.pixels.shape[1],
        depth_first=float(interval.depths[0]),
        depth_last=float(interval.depths[-1]),
        **asdict(found),
    )
