"""One id for each upload, the same in every process: that of its trace, in the form of W3C.

It is computed from what tells an upload from any other, so nobody has to hand it on or store it:
the sensor, a run, a worker, the API and a person with a row of the table arrive at the same one. An
overwrite is another upload and has another id; a retry or another recipe is the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | bool | int | float


@dataclass(frozen=True)
class Work:
    """What was done for one upload.

    Attributes:
        trace: id of the upload's.
        began: seconds since 1970.
        seconds: that it took; 0 when it is not known.
        trouble: what outside kept it from being done, if anything did.
        attributes: what else a span says.
    """

    trace: str
    began: float
    seconds: float
    trouble: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass
class Answered:
    """A request that is being answered; filled in until it is.

    Attributes:
        route: its template.
        status: of the answer.
        upload: id of the trace of the upload that it is about.
    """

    route: str | None = None
    status: int = 0
    upload: str | None = None


def trace_id(source: str, key: str, identity: str) -> str:
    """The id of an upload's trace, by which its lines are found in all logs.

    Args:
        source: canonical URL of the source.
        key: of the object, below the source's prefix.
        identity: of the upload under that key.

    Returns:
        32 digits of hex, spread evenly, so that a sampler by ratio decides alike everywhere.
    """
    # No part holds the character NUL, so no two uploads are written alike.
    text = "\0".join((source, key, identity))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def root_span_id(trace: str) -> str:
    """The id of the span that stands for an upload being seen: 16 digits of hex."""
    return trace[:16]
