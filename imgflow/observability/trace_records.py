"""Trace ids of uploads, and the plain records that `traces` and `spans` exchange.

An upload's id is that of its trace, in W3C form. It is computed from what identifies the upload, so
nobody has to pass it on or store it: the sensor, a run, a worker, the API and a person reading the
table all arrive at the same id. An overwrite is another upload with another id; a retry or another
recipe keeps the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | bool | int | float


@dataclass(frozen=True)
class Work:
    """Work that was done for one upload.

    Attributes:
        trace: Id of the upload's trace, 32 hex digits.
        began: Start, in seconds since 1970.
        seconds: Duration; 0 if it is not known.
        trouble: External error that prevented the work, if any.
        attributes: Further attributes of the span.
    """

    trace: str
    began: float
    seconds: float
    trouble: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass
class Answered:
    """A request that is being answered; its fields are filled in along the way.

    Attributes:
        route: Template of the route's path.
        status: HTTP status of the answer.
        upload: Trace id of the upload that the request is about.
    """

    route: str | None = None
    status: int = 0
    upload: str | None = None


def trace_id(source: str, key: str, identity: str) -> str:
    """Return the id of an upload's trace, by which all logs can be searched for the upload.

    Args:
        source: Canonical URL of the source.
        key: Object key below the source's prefix.
        identity: Distinguishes uploads under the same key.

    Returns:
        32 hex digits, evenly distributed, so that a ratio sampler decides the same everywhere.
    """
    # No part contains NUL, so no two uploads give the same text.
    text = "\0".join((source, key, identity))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def root_span_id(trace: str) -> str:
    """Return the id of an upload's root span: 16 hex digits."""
    return trace[:16]
