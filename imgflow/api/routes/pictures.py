"""The routes `/images/{id}/thumbnail` and the like: stored outputs, and the upload itself.

How bodies are served is in `imgflow.api.http.serving`; depth frames are in `depth_frames`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.http.keys import ImageInPath, find_image
from imgflow.api.http.problems import Refused
from imgflow.api.http.serving import (
    SAFE_MEDIA_TYPES,
    Body,
    Bytes,
    caching,
    entity_tag,
    not_modified,
    serve,
)
from imgflow.api.routing import get
from imgflow.catalog.records import Image
from imgflow.errors import SourceChanged
from imgflow.images.outputs import installed_outputs
from imgflow.observability import context
from imgflow.store.objects import SourceObject

router = APIRouter(tags=["pictures"])

VersionInQuery = Annotated[
    str | None,
    Query(
        max_length=100,
        description="First 16 digits of the SHA-256 of the picture, as URLs of `GET /images` "
        "have it. While it is right, the answer may be kept for ever.",
    ),
]

DEPTH_OUTPUTS = ("preview", "resized")
PIECE_BYTES = 4 * 2**20
OPAQUE = "application/octet-stream"
PICTURE_PROBLEMS = (
    *("image_not_found", "image_deleted", "image_pending", "image_rejected", "not_a_photo"),
    *("not_a_depth_image", "output_not_enabled", "output_not_made"),
)
SHOWN: dict[int | str, dict[str, Any]] = {
    206: {"description": "The bytes of the header Range."},
    304: {"description": "Known."},
}


def _pictures(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    return {200: {"description": "The picture.", "content": content}, **SHOWN}


@get(
    router,
    "/images/{image}/original",
    access="reader or link",
    problems=(
        "invalid_id",
        "image_not_found",
        "image_deleted",
        "original_changed",
        "original_withheld",
        "original_deleted",
        "range_not_satisfiable",
    ),
    response_class=Response,
    responses=_pictures(*sorted(SAFE_MEDIA_TYPES), OPAQUE),
)
def read_original(
    request: Request, connections: Connected, image: ImageInPath, v: VersionInQuery = None
) -> Response:
    """The uploaded object, byte by byte, as long as it is the one that was listed.

    Raster pictures are answered with their media type; anything else, also what was rejected or not
    yet looked at, is a download of type `application/octet-stream`.
    """
    row = find_image(connections.catalog, image)
    body = _original(connections, row, v)
    known = not_modified(request, body.etag, body.cache_control)
    if known is not None:
        return known
    try:
        if request.method == "HEAD":
            _check_original(connections, row.newest_upload)
        return serve(request, body)
    except SourceChanged as error:
        _check_original(connections, row.newest_upload)
        raise _changed(row.key) from error


def _add_picture(name: str, description: str) -> None:
    """Register the route of an output; each has its own, so that unknown names are not routes."""
    get(
        router,
        f"/images/{{image}}/{name}",
        problems=(*("invalid_id", *PICTURE_PROBLEMS, "output_lost", "range_not_satisfiable"),),
        access="reader or link",
        name=f"read_{name}",
        description=description,
        response_class=Response,
        responses=_pictures("image/jpeg", "image/png", "image/webp"),
    )(partial(_read_picture, name))


def _serve_to_neighbours(request: Request, body: Body) -> Response:
    """Serve an output so that only pages of the same site may show it.

    Dagster's UI does so, from another port of this machine or another name in the same domain. This
    relies on the browser's Sec-Fetch-Site, since the policy `same-site` works only for host names:
    Chromium blocks pictures from 127.0.0.1 on its other ports.
    """
    answer = serve(request, body)
    if request.headers.get("Sec-Fetch-Site") == "same-site":
        answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.headers.add_vary_header("Sec-Fetch-Site")
    return answer


def _read_picture(
    name: str,
    request: Request,
    connections: Connected,
    image: ImageInPath,
    v: VersionInQuery = None,
) -> Response:
    """Serve an output as it was made."""
    row = find_image(connections.catalog, image)
    try:
        return _serve_to_neighbours(request, output_body(connections, row, name, v))
    except FileNotFoundError:
        # Meanwhile an overwrite may have been processed and the older output removed.
        row = find_image(connections.catalog, image)
    try:
        return _serve_to_neighbours(request, output_body(connections, row, name, v))
    except FileNotFoundError as error:
        raise Refused(
            "output_lost", "Materialise the image again to have the output made anew."
        ) from error


_add_picture("grayscale", "The photograph in grayscale.")
_add_picture("thumbnail", "The photograph in small.")
_add_picture("proof", "The photograph in small under a watermark, where one is set.")
_add_picture("preview", "The whole depth image as a colour-mapped picture of bounded size.")
for _installed in installed_outputs().values():
    _add_picture(_installed.name, _installed.description)


def output_record(image: Image, name: str, enabled: frozenset[str]) -> Mapping[str, Any]:
    """Return the record of an output.

    Raises:
        Refused: The image has no such output; the code says why.
    """
    if (name not in DEPTH_OUTPUTS) != (image.kind == "photo"):
        code = "not_a_photo" if image.kind == "depth" else "not_a_depth_image"
        raise Refused(code, f"{image.key!r} is a {image.kind}, which has no {name}.")
    record = image.outputs.get(name)
    if record is not None:
        return record
    if image.state == "rejected":
        raise Refused(
            "image_rejected", image.reason or "No reason is known.", reason_code=image.reason_code
        )
    if name not in enabled:
        raise Refused("output_not_enabled", f"The {name} needs IMGFLOW_WATERMARK_TEXT.")
    if image.state == "pending":
        raise Refused("image_pending", "It is processed soon; ask again in a few seconds.")
    raise Refused("output_not_made", f"Materialise the {name} of {image.key!r}.")


def output_body(
    connections: Connections, image: Image, name: str, version: str | None = None
) -> Body:
    """Return an output as a body to serve.

    Raises:
        Refused: The image has no such output; the code says why.
    """
    record = output_record(image, name, connections.enabled)
    context.note(trace_id=image.processed_trace_id)

    def pieces(wanted: Bytes) -> Iterator[bytes]:
        for start in range(wanted.start, wanted.end, PIECE_BYTES):
            end = min(start + PIECE_BYTES, wanted.end)
            yield connections.outputs.get_range(record["name"], start, end)

    return Body(
        etag=f'"{record["sha256"]}"',
        size=record["size"],
        media_type=record["media_type"],
        open=pieces,
        cache_control=caching(version, record["sha256"]),
    )


def _original(connections: Connections, image: Image, version: str | None) -> Body:
    upload = image.newest_upload
    # The row describes the content and format of the upload that was processed last.
    is_processed = image.processed == image.announced
    media_type = image.media_type if is_processed else None
    is_picture = media_type in SAFE_MEDIA_TYPES
    is_hashed = is_processed and image.sha256
    return Body(
        etag=f'"{image.sha256}"' if is_hashed else entity_tag(upload.identity),
        size=upload.size,
        media_type=media_type if media_type and is_picture else OPAQUE,
        open=lambda wanted: _checked(_cut(connections.source.stream(upload), wanted, upload.size)),
        filename=image.key.rstrip("/").rpartition("/")[2],
        is_attachment=not is_picture,
        cache_control=caching(version, image.sha256 if is_hashed else None),
    )


def _cut(pieces: Iterator[bytes], wanted: Bytes, size: int) -> Iterator[bytes]:
    """Yield the wanted bytes of a stream; bytes before them are read, bytes after them are not."""
    at = 0
    for piece in pieces:
        part = piece[max(0, wanted.start - at) : wanted.end - at]
        at += len(piece)
        if part:
            yield part
        # Read up to the end of the upload if it is wanted: there the source checks that the upload
        # did not change meanwhile.
        if wanted.end <= at and wanted.end < size:
            return


def _checked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send the last piece only after the source has checked them all, or else cut the answer."""
    held = b""
    for piece in pieces:
        if held:
            yield held
        held = piece
    if held:
        yield held


def _check_original(connections: Connections, upload: SourceObject) -> None:
    """Raise the problem of an upload that was deleted or has changed; otherwise return."""
    found = connections.source.stat(upload.key)
    if found is None:
        raise Refused("original_deleted", f"{upload.key!r} was deleted from the source.")
    if (found.etag, found.size) != (upload.etag, upload.size):
        raise _changed(upload.key)


def _changed(key: str) -> Refused:
    return Refused(
        "original_changed",
        f"{key!r} was overwritten; ask again once the new upload was listed.",
        headers={"Retry-After": "5"},
    )
