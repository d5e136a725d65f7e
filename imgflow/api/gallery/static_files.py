"""Serves the scripts, styles and icons of all pages: a few files, read once.

Their path contains a digest of them all, so the modules of a page always have the same version, and
browsers may cache them for ever.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from imgflow.api.http.problems import Refused
from imgflow.api.routing import get

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CACHE_CONTROL = "public, max-age=31536000, immutable"

# Files of `/docs`, in the version that fastapi-offline ships.
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")

FILES = {
    file.name: file.read_bytes()
    for file in (
        *sorted(files("imgflow.api.gallery").joinpath("static").iterdir(), key=str),
        *(files("fastapi_offline").joinpath("static", name) for name in SWAGGER_UI),
    )
    if file.name.endswith(tuple(MEDIA_TYPES))
}
VERSION = hashlib.sha256(
    b"".join(name.encode() + b"\0" + body for name, body in FILES.items())
).hexdigest()[:16]
BASE = f"/gallery/static/{VERSION}"

router = APIRouter()


@get(
    router,
    "/gallery/static/{version}/{name}",
    access="open",
    include_in_schema=False,
    response_class=Response,
)
async def read_static(version: str, name: str) -> Response:
    """A file that pages refer to; they say nothing of any image."""
    if version != VERSION or name not in FILES:
        raise Refused("not_found", "The gallery has no such file in this version.")
    media_type = MEDIA_TYPES[f".{name.rpartition('.')[2]}"]
    return Response(FILES[name], media_type=media_type, headers={"Cache-Control": CACHE_CONTROL})
