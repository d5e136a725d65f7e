"""The routes `/` and `/gallery/{id}`: the grid of images, and the page of one image.

What templates show is prepared in `presenting`, and templates are rendered in `rendering`.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.gallery.presenting import (
    KINDS,
    STATES,
    Filters,
    FiltersInQuery,
    card_of,
    metadata_of,
    pictures_of,
    viewable,
)
from imgflow.api.gallery.rendering import PageRoute, gallery_of
from imgflow.api.gallery.wording import KIND_WORDS, STATE_WORDS, parts_of
from imgflow.api.http.keys import LARGEST_ID, find_image
from imgflow.api.http.problems import Refused
from imgflow.api.routes.pictures import DEPTH_OUTPUTS
from imgflow.api.routing import get
from imgflow.catalog.records import Image
from imgflow.depth.colormap_data import DEFAULT_COLORMAP
from imgflow.depth.colormaps import COLORMAPS

router = APIRouter(route_class=PageRoute)

PAGE_SIZE = 60
MOST_CARDS = 100
IDS = re.compile(r"\d{1,18}(,\d{1,18})*", re.ASCII)


@get(router, "/", include_in_schema=False, response_class=HTMLResponse)
def read_grid(
    request: Request,
    connections: Connected,
    filters: FiltersInQuery,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
) -> HTMLResponse:
    """Thumbnails, the newest first."""
    rows = filters.browse(connections.catalog, limit=PAGE_SIZE + 1, before_id=before)
    has_more = len(rows) > PAGE_SIZE
    rows = rows[:PAGE_SIZE]
    return gallery_of(request).page(
        request,
        "grid.html",
        cards=[card_of(row, filters) for row in rows],
        more=f"/{filters.query(before=rows[-1].id)}" if has_more else None,
        filters=filters,
        kinds=[(name, f"{KIND_WORDS[name]}s") for name in KINDS],
        states=[(name, STATE_WORDS[name]) for name in STATES],
        counts=_counts(connections, filters),
        most_bytes=connections.most_upload_bytes,
    )


@get(router, "/gallery/cards", include_in_schema=False, response_class=HTMLResponse)
def read_cards(
    request: Request,
    connections: Connected,
    filters: FiltersInQuery,
    ids: Annotated[str, Query(max_length=2_000)],
) -> HTMLResponse:
    """Some images as the grid shows them: how a page learns what became of them."""
    if not IDS.fullmatch(ids):
        raise Refused("invalid_parameter", "ids: integers with commas between them.")
    wanted = [int(number) for number in ids.split(",")[:MOST_CARDS]]
    rows = [row for row in connections.catalog.by_ids(wanted) if row.state != "deleted"]
    return gallery_of(request).page(
        request, "cards.html", cards=[card_of(row, filters) for row in reversed(rows)]
    )


@get(router, "/gallery/{image}", include_in_schema=False, response_class=HTMLResponse)
def read_image_page(
    *,
    request: Request,
    connections: Connected,
    filters: FiltersInQuery,
    image: str,
    depth_min: str = "",
    depth_max: str = "",
    colormap: str = DEFAULT_COLORMAP,
) -> HTMLResponse:
    """One image: its pictures or the depth viewer, what is known of it, and its history."""
    catalog = connections.catalog
    row = find_image(catalog, image)
    folder, name = parts_of(row.key)
    newer = filters.browse(catalog, limit=1, after_id=row.id)
    older = filters.browse(catalog, limit=1, before_id=row.id)
    pictures = pictures_of(row)
    return gallery_of(request).page(
        request,
        "image.html",
        image=row,
        card=card_of(row, filters),
        folder=folder,
        name=name,
        filters=filters,
        newer=card_of(newer[0], filters) if newer else None,
        older=card_of(older[0], filters) if older else None,
        pictures=pictures,
        metadata=[(term, text) for term, text in metadata_of(row) if text],
        past=catalog.past(row, _assets(connections, row)),
        depth=viewable(row),
        colormaps=[name for name in COLORMAPS if not name.endswith("_r")],
        chosen={
            "depth_min": depth_min,
            "depth_max": depth_max,
            "colormap": colormap if colormap in COLORMAPS else DEFAULT_COLORMAP,
        },
    )


def _counts(connections: Connections, filters: Filters) -> dict[str, int]:
    """Count the images of the shown kind by state; the empty name has the total."""
    counts: dict[str, int] = {"": 0}
    for count in connections.catalog.counts():
        if count.state != "deleted" and filters.kind in (None, count.kind):
            counts[count.state] = counts.get(count.state, 0) + count.count
            counts[""] += count.count
    return counts


def _assets(connections: Connections, image: Image) -> list[str]:
    """Return the names of an image's assets in Dagster."""
    depth = frozenset(DEPTH_OUTPUTS)
    outputs = depth if image.kind == "depth" else connections.enabled - depth
    return [*sorted(outputs), "metadata"]
