"""Conditional and partial requests (RFC 9110): entity tags and byte ranges as text."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)


class Bytes(NamedTuple):
    """Bytes of a body, from `start` to `end`, the last one excluded."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range lies outside the body."""


def entity_tag(*parts: object) -> str:
    """A strong entity tag from everything that decides a body."""
    digest = hashlib.sha256("\0".join(repr(part) for part in parts).encode())
    return f'"{digest.hexdigest()[:32]}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has this body already, by the weak comparison that the RFC asks for."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/").strip('"') in _TAG.findall(if_none_match)


def asked_bytes(ranges: str | None, if_range: str | None, etag: str, size: int) -> Bytes | None:
    """Which bytes were asked for.

    Args:
        ranges: the header Range.
        if_range: the header If-Range; a date never matches, since bodies have no time of their own.
        etag: strong, of the present body.
        size: of the present body.

    Returns:
        None for the whole body: no range, several, a unit other than bytes, or one that is not well
        formed, all of which the RFC lets a server ignore.

    Raises:
        Unsatisfiable: it lies behind the end of the body.
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
