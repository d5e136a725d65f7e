"""The routes `/images` and `/images/{id}`: listing, reading and deleting images, with cursors.

The JSON models are in `representations`; pictures are in `pictures`, uploads in `uploading`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated

from fastapi import APIRouter, Query

from imgflow.api.backend.connections import Connected
from imgflow.api.http.keys import ImageInPath, find_image
from imgflow.api.http.problems import Refused
from imgflow.api.routes.representations import DeletedItem, ImageItem, ImagePage, item_of
from imgflow.api.routing import change, get
from imgflow.catalog.lifecycle import delete_images
from imgflow.catalog.records import Kind, State
from imgflow.images.formats.pillow import MEDIA_TYPES

# Cursors of lists. They are opaque to callers, so their content may change.


CONTENT = re.compile(rb"1:([1-9][0-9]{0,17})")


def cursor_after(image_id: int) -> str:
    """Make the cursor of the page that starts after an image."""
    return base64.urlsafe_b64encode(b"1:%d" % image_id).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    """Return the id after which a page starts.

    Raises:
        Refused: The text is not a cursor.
    """
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    match = CONTENT.fullmatch(content)
    if match is None:
        raise Refused("bad_cursor", "Take `next` of the page before, or leave the cursor out.")
    return int(match[1])


router = APIRouter(tags=["images"])

FORMATS = {
    **{name.upper(): media_type for name, media_type in MEDIA_TYPES.items()},
    "JPG": "image/jpeg",
    "TIF": "image/tiff",
    "CSV": "text/csv",
    "NPY": "application/x-npy",
}
"""Media types by format name: Pillow's names, and other common ones."""

MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
LONGEST_PREFIX = 1_024


@get(router, "/images", problems=("invalid_parameter", "bad_cursor", "unknown_format"))
def list_images(
    *,
    connections: Connected,
    kind: Annotated[Kind | None, Query(description="Only this family.")] = None,
    state: Annotated[
        State | None,
        Query(description="Only this state; deleted images are listed only when asked for."),
    ] = None,
    prefix: Annotated[
        str | None, Query(max_length=LONGEST_PREFIX, description="Only keys that begin like this.")
    ] = None,
    format: Annotated[
        str | None,
        Query(
            max_length=LONGEST_PREFIX,
            description="Only uploads of this format: a media type (`image/png`) or Pillow's name "
            "of a format (`PNG`, any case). Multi-picture files (`MPO`) are `image/jpeg`.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Most items of the page.")] = 100,
    cursor: Annotated[
        str | None, Query(max_length=100, description="`next` of the page before.")
    ] = None,
) -> ImagePage:
    """List images in the order in which they were first seen.

    The order is that of ids, so a page stays what it is while images are added: nothing is shown
    twice, nothing is left out.
    """
    if prefix is not None and "\0" in prefix:
        raise Refused("invalid_parameter", "prefix: no key holds a NUL.")
    rows = connections.catalog.page(
        limit=limit + 1,
        after_id=0 if cursor is None else read_cursor(cursor),
        kind=kind,
        state=state,
        prefix=prefix,
        media_type=None if format is None else _media_type(format),
    )
    following = cursor_after(rows[limit - 1].id) if len(rows) > limit else None
    return ImagePage(items=[item_of(row) for row in rows[:limit]], next=following)


@get(
    router,
    "/images/{image}",
    problems=("invalid_id", "image_not_found", "image_deleted"),
)
def read_image(connections: Connected, image: ImageInPath) -> ImageItem:
    """One image."""
    return item_of(find_image(connections.catalog, image))


@change(
    router,
    "DELETE",
    "/images/{image}",
    problems=("invalid_id", "invalid_parameter", "image_not_found", "outputs_not_ours"),
)
def delete_image(
    *,
    connections: Connected,
    image: ImageInPath,
    source: Annotated[bool, Query(description="Delete the uploaded object too.")] = False,
    dry_run: Annotated[bool, Query(description="Only say what would be deleted.")] = False,
) -> DeletedItem:
    """Delete an image: its outputs, its row except for a tombstone, and soon its partition.

    Doing it again is no error. Unless its uploaded object goes too, the image comes back only when
    it is overwritten.
    """
    catalog = connections.catalog
    done = delete_images(
        catalog,
        connections.outputs,
        [find_image(catalog, image, also_deleted=True)],
        source=connections.source if source else None,
        dry_run=dry_run,
    )
    return DeletedItem(
        images=done.images, outputs=done.outputs, objects=done.objects, dry_run=dry_run
    )


def _media_type(name: str) -> str:
    media_type = FORMATS.get(name.strip().upper())
    if media_type is not None:
        return media_type
    if MEDIA_TYPE.fullmatch(name):
        return name.lower()
    raise Refused(
        "unknown_format",
        f"{name[:40]!r} is neither a media type nor one of {', '.join(sorted(FORMATS))}.",
    )
