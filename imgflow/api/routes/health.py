"""The routes `/health/` (the process is up) and `/health/ready` (it can answer requests).

The checks are in `imgflow.api.backend.connections` and run by `imgflow.api.backend.readiness`.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from imgflow.api.backend.connections import Connected
from imgflow.api.backend.readiness import silent_parts
from imgflow.api.http.problems import Refused
from imgflow.api.routing import get

router = APIRouter(tags=["health"])
RETRY_SECONDS = 5

# No paths or hosts here, since everybody may ask; the log has them.
MORE = {
    "sensor": "The sensor has had no good tick for too long, so new uploads are not seen; "
    "`imgflow doctor` says why.",
    "disk": "The disk of the database is full: nothing can be announced or processed until it "
    "has room.",
}


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Every part answers."""

    status: Literal["ready"] = "ready"


@get(router, "/health/", access="open")
async def health() -> Health:
    """Whether the process is up; asks nothing else of anyone."""
    return Health()


@get(router, "/health/ready", access="open", problems=("not_ready",))
async def ready(connections: Connected) -> Readiness:
    """Whether all works; if not, `parts` names what does not.

    That is `database`, `source` or `outputs`, which do not answer, `sensor`, which does not look
    for uploads although nobody stopped it, or `disk`, which is full. A load balancer asks
    `/health/`, which is of this process alone.
    """
    silent = await silent_parts(connections.probes)
    if silent:
        more = [MORE[part] for part in silent if part in MORE]
        raise Refused(
            "not_ready",
            " ".join([f"These parts do not answer: {', '.join(silent)}.", *more]),
            headers={"Retry-After": str(RETRY_SECONDS)},
            parts=silent,
        )
    return Readiness()
