"""The routes for uploads and retries, after which the sensor has images processed as usual.

Processing while the caller waits is in `process`; deleting is in `image_table`.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.http.bodies import BYTES, Received, received
from imgflow.api.http.keys import ImageInPath, find_image
from imgflow.api.http.problems import Refused
from imgflow.api.routes.representations import ImageItem, item_of
from imgflow.api.routing import change
from imgflow.catalog.records import Image
from imgflow.errors import BadKey, Trouble

router = APIRouter(tags=["images"])

ANY = "*"


@change(
    router,
    "PUT",
    "/images/{image}/original",
    problems=(
        *("invalid_id", "invalid_parameter", "image_not_found", "bad_key", "body_too_large"),
        "original_exists",
    ),
    responses={
        200: {"description": "It was uploaded, or is there with these very bytes already."},
        201: {"description": "A new image.", "model": ImageItem},
    },
    openapi_extra=BYTES,
)
async def upload_original(
    *,
    request: Request,
    response: Response,
    connections: Connected,
    image: ImageInPath,
    if_none_match: Annotated[
        str | None, Header(description="`*`: only where nothing was uploaded under the key.")
    ] = None,
) -> ImageItem:
    """Put the body into the source under a key, as any other upload.

    It goes the ordinary way from there: the answer shows the image as `pending`, and within seconds
    the sensor has it processed. The same bytes again are not written again.
    """
    key = await run_in_threadpool(_key, connections, image)
    if if_none_match is not None and if_none_match.strip() == ANY:
        await run_in_threadpool(_check_free, connections, key)
    async with received(request, connections.most_upload_bytes) as body:
        row, is_new = await run_in_threadpool(_upload, connections, key, body)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = f"{request.scope.get('root_path', '')}/images/{row.id}"
    return item_of(row)


@change(
    router,
    "POST",
    "/images/{image}/retry",
    status_code=202,
    problems=("invalid_id", "image_not_found", "image_deleted"),
)
def retry_image(connections: Connected, image: ImageInPath) -> ImageItem:
    """Have an image looked at again, such as a rejected one; the sensor sees to it in seconds."""
    catalog = connections.catalog
    row = find_image(catalog, image)
    catalog.reopen([row.id])
    return item_of(find_image(catalog, str(row.id)))


def _key(connections: Connections, named: str) -> str:
    """Return the object key that a path names; an id must be that of a known image."""
    prefix, colon, encoded = named.partition(":")
    if not colon or prefix != "key":
        return find_image(connections.catalog, named, also_deleted=True).key
    try:
        key = unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise BadKey("A key is UTF-8 before it is percent-encoded.") from None
    connections.source.check_key(key)
    return key


def _check_free(connections: Connections, key: str) -> None:
    if connections.source.stat(key) is not None:
        raise Refused("original_exists", f"{key!r} was uploaded before.")


def _upload(connections: Connections, key: str, body: Received) -> tuple[Image, bool]:
    """Put a body into the source, and announce it to the catalogue as a listing would.

    Returns:
        The row, and whether the key is new to the catalogue or its image was deleted.
    """
    source, catalog = connections.source, connections.catalog
    known = catalog.by_keys([key]).get(key)
    if known is not None and known.state == "ready" and known.sha256 == body.sha256:
        there = source.stat(key)
        if there is not None and there.identity == known.announced == known.processed:
            return known, False
    source.upload(key, body.file)
    there = source.stat(key)
    if there is None:
        raise Trouble(f"{key!r} was deleted from the source right after it was uploaded.")
    catalog.announce([there])
    return catalog.by_keys([key])[key], known is None or known.state == "deleted"
