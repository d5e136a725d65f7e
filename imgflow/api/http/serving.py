"""Serves bodies that are not JSON: completely, in part, as headers only, or as a 304.

Conditional and partial requests (RFC 9110) come first, then the answers. Bodies of requests are in
`bodies`; the memory that answers hold is limited in `outgoing`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from imgflow.api.http.problems import Refused

# Conditional and partial requests (RFC 9110): parsing entity tags and byte ranges.


_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)


class Bytes(NamedTuple):
    """Range of bytes in a body, from `start` up to but excluding `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range lies outside the body."""


def entity_tag(*parts: object) -> str:
    """Return a strong entity tag, computed from everything that determines a body."""
    digest = hashlib.sha256("\0".join(repr(part) for part in parts).encode())
    return f'"{digest.hexdigest()[:32]}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Return whether the caller has this body already, by the RFC's weak comparison."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/").strip('"') in _TAG.findall(if_none_match)


def asked_bytes(ranges: str | None, if_range: str | None, etag: str, size: int) -> Bytes | None:
    """Return the range of bytes that a request wants.

    Args:
        ranges: Header Range.
        if_range: Header If-Range; a date never matches, since bodies have no modification time.
        etag: Strong entity tag of the current body.
        size: Number of bytes of the current body.

    Returns:
        None for the complete body: no range, several ranges, a unit other than bytes, or a
        malformed range, all of which the RFC lets a server ignore.

    Raises:
        Unsatisfiable: The range starts after the end of the body.
    """
    match = _RANGE.fullmatch(ranges) if ranges else None
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise Unsatisfiable
    return Bytes(start, end)


# Answers.


# Pictures change when an image is overwritten, so caches ask each time; a 304 reads only one row.
CACHE_CONTROL = "private, no-cache"
# A URL with a version always means the same bytes. Shared caches must not keep them, since they
# would give pictures to those who may not read them.
IMMUTABLE = "private, max-age=31536000, immutable"

VERSION_CHARACTERS = 16

SAFE_MEDIA_TYPES = frozenset(
    {
        "image/jpeg",
        "image/png",
        "image/gif",
        "image/webp",
        "image/tiff",
        "image/bmp",
        "image/avif",
        "image/jp2",
    }
)
"""Raster pictures, which cannot run scripts, unlike SVG and HTML."""


@dataclass(frozen=True)
class Body:
    """A body to serve.

    Attributes:
        etag: Strong entity tag, including its quotes.
        size: Number of bytes.
        media_type: Media type declared to the caller.
        open: Gives the bytes of a range in pieces; called at most once.
        filename: Name under which browsers save it; None for no name.
        is_attachment: Whether browsers save it rather than show it.
        cache_control: Value of the header Cache-Control.
    """

    etag: str
    size: int
    media_type: str
    open: Callable[[Bytes], Iterator[bytes]] = field(repr=False)
    filename: str | None = None
    is_attachment: bool = False
    cache_control: str = CACHE_CONTROL

    @property
    def headers(self) -> dict[str, str]:
        """Headers that a 200, a 206 and a 304 have in common."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": self.cache_control,
            "Accept-Ranges": "bytes",
        }
        if self.filename is not None:
            headers["Content-Disposition"] = disposition(self.filename, self.is_attachment)
        return headers


def version_of(sha256: str) -> str:
    """Return the version that URLs for this content carry."""
    return sha256[:VERSION_CHARACTERS]


def caching(version: str | None, sha256: str | None) -> str:
    """Return Cache-Control: immutable if the URL's version matches the content's hash."""
    is_same = version is not None and sha256 is not None and version == version_of(sha256)
    return IMMUTABLE if is_same else CACHE_CONTROL


def not_modified(
    request: Request, etag: str, cache_control: str = CACHE_CONTROL
) -> Response | None:
    """Return a 304 if the caller has this body already; otherwise None."""
    if not is_known(request.headers.get("If-None-Match"), etag):
        return None
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": cache_control})


def serve(request: Request, body: Body) -> Response:
    """Answer with a body.

    The first piece is read before the answer starts, so that an error in reading it becomes a
    problem rather than a broken connection.

    Raises:
        Refused: The range lies outside the body.
    """
    known = not_modified(request, body.etag, body.cache_control)
    if known is not None:
        return known
    headers = body.headers
    if request.method == "HEAD":
        headers["Content-Length"] = str(body.size)
        return Response(headers=headers, media_type=body.media_type)
    asked = _asked(request, body)
    status = 200
    if asked is not None:
        status = 206
        headers["Content-Range"] = f"bytes {asked.start}-{asked.end - 1}/{body.size}"
    wanted = asked or Bytes(0, body.size)
    length = wanted.end - wanted.start
    pieces = body.open(wanted)
    first = next(pieces, b"")
    if len(first) == length:
        return Response(first, status, headers, body.media_type)
    headers["Content-Length"] = str(length)
    return StreamingResponse(chain([first], pieces), status, headers, body.media_type)


def whole(body: Body, headers: Mapping[str, str]) -> Response:
    """Answer a POST with a complete body, ignoring conditions and ranges.

    Raises:
        FileNotFoundError: The body no longer exists.
    """
    pieces = body.open(Bytes(0, body.size))
    first = next(pieces, b"")
    answered = {"ETag": body.etag, "Cache-Control": "no-store", **headers}
    if len(first) == body.size:
        return Response(first, 200, answered, body.media_type)
    answered["Content-Length"] = str(body.size)
    return StreamingResponse(chain([first], pieces), 200, answered, body.media_type)


def disposition(filename: str, is_attachment: bool) -> str:
    """Return Content-Disposition, with ASCII for old clients and UTF-8 for others (RFC 6266)."""
    kind = "attachment" if is_attachment else "inline"
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename
    )
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _asked(request: Request, body: Body) -> Bytes | None:
    ranges, if_range = (request.headers.get(name) for name in ("Range", "If-Range"))
    try:
        return asked_bytes(ranges, if_range, body.etag, body.size)
    except Unsatisfiable:
        raise Refused(
            "range_not_satisfiable",
            f"There are {body.size} bytes.",
            headers={"Content-Range": f"bytes */{body.size}"},
        ) from None
