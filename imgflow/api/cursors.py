"""Cursors of lists: opaque to callers, so that what they hold may change."""

from __future__ import annotations

import base64
import binascii
import re

from imgflow.api.http.problems import Refused

CONTENT = re.compile(rb"1:([1-9][0-9]{0,17})")


def cursor_after(image_id: int) -> str:
    """Make the cursor of the page that begins behind an image."""
    return base64.urlsafe_b64encode(b"1:%d" % image_id).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    """Read the id behind which a page begins.

    Raises:
        Refused: it is not a cursor.
    """
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    match = CONTENT.fullmatch(content)
    if match is None:
        raise Refused("bad_cursor", "Take `next` of the page before, or leave the cursor out.")
    return int(match[1])
