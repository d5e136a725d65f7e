"""The route `/image/{id}`: the rows of a depth interval as a colour-mapped picture or as numbers.

It comes with a faster route class, since frames take only milliseconds. Reading rows is in
`imgflow.api.backend.depth_reads`, and colouring in `imgflow.depth.frames`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl

import PIL
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from imgflow.api.auth import check_access
from imgflow.api.backend.connections import Connected
from imgflow.api.backend.depth_reads import (
    INTERVAL_PROBLEMS,
    MOST_ROWS,
    BoundsInQuery,
    average_rows,
    bounds_of,
    find_array,
    finite_number,
    read_rows,
    reading,
)
from imgflow.api.http.keys import ImageInPath
from imgflow.api.http.measures import measures_of
from imgflow.api.http.problems import Refused
from imgflow.api.http.serving import CACHE_CONTROL, entity_tag, not_modified
from imgflow.api.routing import get
from imgflow.catalog.postgres.depth_arrays import Interval
from imgflow.depth.colormap_data import DEFAULT_COLORMAP
from imgflow.depth.colormaps import LONGEST_TEXT, get_colormap
from imgflow.depth.frames import (
    FRAME_FORMATS,
    MAX_SIDE,
    MEDIA_TYPES,
    EncodedFrame,
    FrameFormat,
    FrameTooTall,
    render_frame,
)

# A route class that skips FastAPI's resolution of parameters, which takes as long as making a JPEG.
#
# FastAPI still declares and documents the route, and answers every request that is not plain.


LONGEST_PLAIN = 200
PLAIN_PARAMETERS = frozenset({"depth_min", "depth_max", "colormap", "format", "rescale"})


def quick_route(formats: frozenset[str]) -> type[APIRoute]:
    """Make a route class that calls the handler directly for plain requests of these formats."""

    class QuickRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            by_fastapi = super().get_route_handler()

            async def answer(request: Request) -> Response:
                # FastAPI would check this while it resolves the route's dependencies.
                await check_access(request, request.app.state.connections, "read")
                asked = plain_parameters(request.scope["query_string"])
                if asked is None or asked.get("format", "jpeg") not in formats:
                    return await by_fastapi(request)
                bounds = await bounds_of(asked.pop("depth_min", None), asked.pop("depth_max", None))
                response: Response = await run_in_threadpool(
                    self.endpoint,
                    request=request,
                    connections=request.app.state.connections,
                    image=request.path_params["image"],
                    bounds=bounds,
                    **asked,
                )
                return response

            return answer

    return QuickRoute


def plain_parameters(query: bytes) -> dict[str, str] | None:
    """Return parameters that the handler validates itself; None if FastAPI must handle them."""
    if len(query) > LONGEST_PLAIN:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    asked = dict(pairs)
    return asked if len(asked) == len(pairs) and PLAIN_PARAMETERS.issuperset(asked) else None


router = APIRouter(tags=["depth images"])

# Increase it when the same parameters give another picture; it is part of every frame's ETag.
FRAME_VERSION = 1
EIGHT_BITS = (0.0, 255.0)

DOCUMENTED_HEADERS = {
    "X-Imgflow-Rows": "Rows of the interval.",
    "X-Imgflow-Rows-Per-Pixel": "Rows that were averaged for one of the picture; with `max_rows`.",
    "X-Imgflow-Depth-First": "Depth of the topmost row.",
    "X-Imgflow-Depth-Last": "Depth of the lowest row.",
    "X-Imgflow-Missing": "Pixels that are missing: transparent in PNG and WebP, #5588ff in JPEG.",
    "X-Imgflow-Value-Range": "Values of the first and the last colour.",
}


@get(
    router,
    "/image/{image}",
    problems=(
        *INTERVAL_PROBLEMS,
        "unknown_colormap",
        "bad_colormap",
        "frame_too_tall",
        "invalid_parameter",
    ),
    response_class=Response,
    route_class_override=quick_route(frozenset(FRAME_FORMATS)),
    responses={
        200: {
            "description": "The frame.",
            "content": {media_type: {} for media_type in MEDIA_TYPES.values()},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in DOCUMENTED_HEADERS.items()
            },
        },
        304: {"description": "Known."},
    },
)
def read_frame(
    *,
    request: Request,
    connections: Connected,
    image: ImageInPath,
    bounds: BoundsInQuery,
    colormap: Annotated[
        str,
        Query(
            max_length=LONGEST_TEXT,
            description="A name of `GET /colormaps`, or colours of your own as JSON: "
            '`["#000000", "#ffffff"]`, or each with its place: '
            '`[[0, "#000000"], [0.8, "#b05731"], [1, "#ffffff"]]`.',
        ),
    ] = DEFAULT_COLORMAP,
    format: Annotated[
        FrameFormat | None,
        Query(
            description="`npy` is the float32 array itself. By default JPEG, or PNG for frames of "
            f"more than {MAX_SIDE['jpeg']} rows, which JPEG cannot hold."
        ),
    ] = None,
    rescale: Annotated[
        str | None,
        Query(
            max_length=800,
            description="`low,high`: values of the first and the last colour. By default 0,255 for "
            "eight-bit pixels, else the range of the whole image, so that frames compare.",
        ),
    ] = None,
    max_rows: Annotated[
        int | None,
        Query(
            ge=1,
            le=MOST_ROWS,
            description="Average neighbouring rows until no more than so many are left, for "
            "intervals of any length. The header X-Imgflow-Rows-Per-Pixel says how many went "
            "into one.",
        ),
    ] = None,
) -> Response:
    """The rows of a depth image within two depths, the smallest on top, a pixel per value."""
    get_colormap(colormap)  # an unknown name is refused before anything is read
    asked_range = asked_values(rescale)
    began = time.perf_counter()

    def tag(array: str, value_range: tuple[float, float]) -> str:
        parts = (bounds, colormap, format, value_range, max_rows, FRAME_VERSION, PIL.__version__)
        return entity_tag(array, *parts)

    if "If-None-Match" in request.headers:
        # The row is enough to tell, so no pixels are read.
        array = find_array(connections, image, bounds)
        known = not_modified(request, tag(array.name, asked_range or array.value_range))
        if known is not None:
            return known
    with reading(connections):
        if max_rows is None:
            interval = read_rows(connections, image, bounds)
            rows = len(interval.depths)
        else:
            interval, rows = average_rows(connections, image, bounds, max_rows)
        value_range = asked_range or interval.value_range or EIGHT_BITS
        frame = _render(interval, colormap, value_range, format)
    measures_of(request).frame(frame.media_type, time.perf_counter() - began)
    headers = {
        "ETag": tag(interval.array, value_range),
        "X-Imgflow-Rows": str(rows),
        "X-Imgflow-Value-Range": f"{value_range[0]!r},{value_range[1]!r}",
    }
    if max_rows is not None:
        headers["X-Imgflow-Rows-Per-Pixel"] = f"{rows / frame.height:.6g}"
    return _answer(request, frame, interval, headers)


def _render(
    interval: Interval,
    colormap: str,
    value_range: tuple[float, float],
    format: FrameFormat | None,
) -> EncodedFrame:
    if format is None:
        format = "jpeg" if len(interval.pixels) <= MAX_SIDE["jpeg"] else "png"
    try:
        return render_frame(interval.pixels, colormap, value_range, format)
    except FrameTooTall as error:
        raise Refused(
            "frame_too_tall", f"{error}.", rows=len(interval.depths), formats=["png", "npy"]
        ) from error


def _answer(
    request: Request,
    frame: EncodedFrame,
    interval: Interval,
    headers: dict[str, str],
) -> Response:
    headers |= {
        "Cache-Control": CACHE_CONTROL,
        "X-Imgflow-Depth-First": repr(float(interval.depths[0])),
        "X-Imgflow-Depth-Last": repr(float(interval.depths[-1])),
        "X-Imgflow-Missing": str(frame.missing),
        "Content-Length": str(len(frame.data)),
    }
    body = b"" if request.method == "HEAD" else frame.data
    return Response(body, headers=headers, media_type=frame.media_type)


def asked_values(text: str | None) -> tuple[float, float] | None:
    """Parse the parameter `rescale`: the values of the first and the last colour.

    Raises:
        Refused: It is not two numbers in ascending order.
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2:  # noqa: PLR2004 - low and high
        raise Refused("bad_number", f"rescale={text[:40]!r} is not low,high.")
    low, high = (finite_number("rescale", part) for part in parts)
    if low >= high:
        raise Refused("bounds_descend", f"rescale: {low!r} is not below {high!r}.")
    if not math.isfinite(high - low):
        raise Refused("bad_number", "rescale: the two values are too far apart.")
    return low, high
