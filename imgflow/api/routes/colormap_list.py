"""The routes `/colormaps` and `/colormaps/{name}`: colour maps and their legends.

The colours themselves are in `imgflow.depth.colormaps`; a frame's own legend is in `depth_facts`.
"""

from __future__ import annotations

from typing import Annotated

import PIL
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from imgflow.api.backend.depth_reads import DECIMAL, LONGEST_NUMBER, finite_number
from imgflow.api.http.problems import Refused
from imgflow.api.http.serving import CACHE_CONTROL, entity_tag, not_modified
from imgflow.api.routing import get
from imgflow.depth.colormap_data import DEFAULT_COLORMAP
from imgflow.depth.colormaps import COLORMAPS, get_colormap
from imgflow.depth.legends import legend

router = APIRouter(tags=["colour maps"])

# Increase it when the same parameters give another legend; it is part of the ETag.
LEGEND_VERSION = 1


class ColormapItem(BaseModel):
    """A colour map."""

    name: Annotated[str, Field(description="For `colormap` of a frame.")]
    is_default: bool
    url: Annotated[str, Field(description="Path of its legend.")]


class ColormapList(BaseModel):
    """All colour maps, the default first."""

    items: list[ColormapItem]


@get(router, "/colormaps")
async def list_colormaps() -> ColormapList:
    """All colour maps; a name with `_r` is the reverse of the one without."""
    return ColormapList(
        items=[
            ColormapItem(name=name, is_default=name == DEFAULT_COLORMAP, url=f"/colormaps/{name}")
            for name in COLORMAPS
        ]
    )


@get(
    router,
    "/colormaps/{name}",
    problems=(
        "unknown_colormap",
        "bad_colormap",
        "bad_number",
        "bounds_descend",
        "invalid_parameter",
    ),
    response_class=Response,
    responses={200: {"description": "The legend.", "content": {"image/png": {}}}},
)
def read_legend(
    *,
    request: Request,
    name: str,
    low: Annotated[
        str, Query(max_length=LONGEST_NUMBER, description="Value at the left end."), DECIMAL
    ] = "0",
    high: Annotated[
        str, Query(max_length=LONGEST_NUMBER, description="Value at the right end."), DECIMAL
    ] = "255",
    width: Annotated[int, Query(ge=64, le=2_048, description="Pixels.")] = 384,
    ticks: Annotated[int, Query(ge=2, le=20, description="Values below the bar.")] = 5,
    label: Annotated[str, Query(max_length=60, description="A word above the bar.")] = "",
) -> Response:
    """A colour map as a bar with the values it stands for."""
    get_colormap(name)
    first, last = finite_number("low", low), finite_number("high", high)
    if first > last:
        raise Refused("bounds_descend", f"low {first!r} is above high {last!r}.")
    etag = entity_tag(name, first, last, width, ticks, label, LEGEND_VERSION, PIL.__version__)
    known = not_modified(request, etag)
    if known is not None:
        return known
    picture = legend(name, first, last, width=width, ticks=ticks, label=label)
    headers = {
        "ETag": etag,
        "Cache-Control": CACHE_CONTROL,
        "Content-Length": str(len(picture)),
    }
    body = b"" if request.method == "HEAD" else picture
    return Response(body, headers=headers, media_type="image/png")
