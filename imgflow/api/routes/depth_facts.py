"""The routes `/depth/{id}/legend` and `/depth/{id}/statistics`.

A legend is a picture with the depth axis and the values of a frame, to put beside it. Statistics
describe the pixels of a depth interval. The frames themselves are in `depth_frames`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import PIL
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from imgflow.api.backend.connections import Connected
from imgflow.api.backend.depth_reads import (
    INTERVAL_PROBLEMS,
    BoundsInQuery,
    find_array,
    read_depths,
    read_rows,
    reading,
)
from imgflow.api.http.keys import ImageInPath
from imgflow.api.http.serving import CACHE_CONTROL, entity_tag, not_modified
from imgflow.api.routes.depth_frames import asked_values
from imgflow.api.routing import get
from imgflow.depth.colormap_data import DEFAULT_COLORMAP
from imgflow.depth.colormaps import LONGEST_TEXT, get_colormap
from imgflow.depth.legends import MIN_SCALE_HEIGHT, depth_legend
from imgflow.depth.statistics import statistics

router = APIRouter(tags=["depth images"])

# Increase it when the same parameters give another legend; it is part of the ETag.
DEPTH_LEGEND_VERSION = 1
MOST_HEIGHT, USUAL_HEIGHT = 8_192, 1_024


@get(
    router,
    "/depth/{image}/legend",
    problems=(*INTERVAL_PROBLEMS, "unknown_colormap", "bad_colormap", "invalid_parameter"),
    response_class=Response,
    responses={
        200: {"description": "The legend.", "content": {"image/png": {}}},
        304: {"description": "Known."},
    },
)
def read_depth_legend(
    *,
    request: Request,
    connections: Connected,
    image: ImageInPath,
    bounds: BoundsInQuery,
    colormap: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="As of the frame.")
    ] = DEFAULT_COLORMAP,
    rescale: Annotated[str | None, Query(max_length=800, description="As of the frame.")] = None,
    height: Annotated[
        int | None,
        Query(
            ge=MIN_SCALE_HEIGHT,
            le=MOST_HEIGHT,
            description="Pixels of the frame as it is shown. By default its rows, from "
            f"{MIN_SCALE_HEIGHT} to {USUAL_HEIGHT:,}.",
        ),
    ] = None,
    label: Annotated[str, Query(max_length=60, description="Above, such as the unit.")] = "",
) -> Response:
    """Ticks at round depths where they are among the rows of the frame, and its colours and values.

    Takes the parameters of the frame, and reads no pixel.
    """
    get_colormap(colormap)
    asked_range = asked_values(rescale)
    array = find_array(connections, image, bounds)
    low_high = asked_range or array.value_range
    shown = (bounds, colormap, low_high, height, label, DEPTH_LEGEND_VERSION, PIL.__version__)
    etag = entity_tag(array.name, "legend", *shown)
    known = not_modified(request, etag)
    if known is not None:
        return known
    with reading(connections):
        depths = read_depths(connections, image, bounds).depths
    picture = depth_legend(
        depths,
        colormap,
        low_high,
        height=height or min(max(len(depths), MIN_SCALE_HEIGHT), USUAL_HEIGHT),
        has_missing=bool(array.missing_pixels),
        label=label,
    )
    headers = {
        "ETag": etag,
        "Cache-Control": CACHE_CONTROL,
        "Content-Length": str(len(picture)),
        "X-Imgflow-Rows": str(len(depths)),
    }
    body = b"" if request.method == "HEAD" else picture
    return Response(body, headers=headers, media_type="image/png")


# `/depth/{id}/statistics`: statistics of the pixels in a depth interval.


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
