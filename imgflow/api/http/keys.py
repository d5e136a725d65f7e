"""Reads images named in paths, `/images/12` and `/images/key:{URL-encoded key}`, and finds them.

Servers decode a path before routing it, after which a `%2F` in a key and a `/` of a route look the
same. So keys are taken from the path as it was sent, and passed on still encoded, as one segment.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Path
from starlette.types import ASGIApp, Receive, Scope, Send

from imgflow.api.http.problems import Refused
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.images.outputs import installed_outputs
from imgflow.observability import context

KEY_PATH = re.compile(r"/(?P<route>images|image|depth)/key(?::|%3[Aa])(?P<rest>.*)", re.DOTALL)

PICTURES = frozenset(
    {"grayscale", "thumbnail", "proof", "preview", "original", *installed_outputs()}
)
"""Pictures at `/images/{image}/…`."""

ACTIONS = frozenset({"links", "retry"})
"""Actions by `POST /images/{image}/…`."""

SUBROUTES = {
    "images": PICTURES,
    "image": frozenset[str](),
    "depth": frozenset({"statistics", "legend"}),
}
"""Names that may follow an image in a path, by its first segment."""

LARGEST_ID = 2**63 - 1
_KEY = "key:"

ImageInPath = Annotated[
    str,
    Path(
        description="The integer id of an image, or `key:` and its URL-encoded object key. Encode "
        "slashes as `%2F`; plain ones are understood as long as the key does not end like a route "
        "(`…/thumbnail`)."
    ),
]


class KeysInPaths:
    """ASGI layer that turns a key in a path into one encoded segment."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its key as one segment."""
        if scope["type"] == "http":
            path = key_path(scope)
            if path is not None:
                # Change a copy, since the server logs the path in its own scope.
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def key_path(scope: Scope) -> str | None:
    """Return the path with its key as one encoded segment; None if it has no key."""
    root = scope.get("root_path", "")
    sent = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    match = KEY_PATH.fullmatch(sent.removeprefix(quote(root)))
    if match is None:
        return None
    route, rest = match["route"], match["rest"]
    key, slash, last = rest.rpartition("/")
    is_action = route == "images" and scope.get("method") == "POST" and last in ACTIONS
    if slash and (last in SUBROUTES[route] or is_action):
        return f"{root}/{route}/{_KEY}{key.replace('/', '%2F')}/{last}"
    return f"{root}/{route}/{_KEY}{rest.replace('/', '%2F')}"


def find_image(catalog: PostgresCatalog, named: str, *, also_deleted: bool = False) -> Image:
    """Look up the image that a path names, by id or by `key:` and a key that is still encoded.

    Raises:
        Refused: There is no such image, it was deleted, or the segment is neither an id nor a key.
    """
    image = _by_key(catalog, named) if named.startswith(_KEY) else _by_id(catalog, named)
    if image is None:
        raise Refused("image_not_found", f"No image is named {named[:200]!r}.")
    if image.state == "deleted" and not also_deleted:
        raise Refused("image_deleted", f"The image {image.id} was deleted.")
    context.note(trace_id=image.trace_id)
    return image


def key_of(named: str) -> str | None:
    """Decode the key in a segment of a path; None if no such key can exist."""
    if not named.startswith(_KEY):
        return None
    try:
        key = unquote(named.removeprefix(_KEY), errors="strict")
    except UnicodeDecodeError:
        return None  # keys are UTF-8
    return None if "\0" in key else key  # PostgreSQL cannot store NUL


def id_of(named: str) -> int | None:
    """Parse the id in a segment of a path; None if no such id can exist."""
    if not (named.isascii() and named.isdigit()):
        return None
    number = int(named[:20])
    return number if number <= LARGEST_ID else None


def _by_key(catalog: PostgresCatalog, named: str) -> Image | None:
    key = key_of(named)
    return None if key is None else catalog.by_keys([key]).get(key)


def _by_id(catalog: PostgresCatalog, named: str) -> Image | None:
    if not (named.isascii() and named.isdigit()):
        raise Refused("invalid_id", f"{named[:200]!r} is neither an integer nor key:{{key}}.")
    number = id_of(named)
    return None if number is None else catalog.by_id(number)
