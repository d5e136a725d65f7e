"""`/health/`: the process is up; `/health/ready`: it can answer."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from imgflow.api.connections import Connected
from imgflow.api.problems import Refused
from imgflow.api.readiness import silent_parts
from imgflow.api.routing import get

router = APIRouter(tags=["health"])
RETRY_SECONDS = 5


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
    """Whether database, source and outputs answer; if not, `parts` names those that do not."""
    silent = await silent_parts(connections.probes)
    if silent:
        raise Refused(
            "not_ready",
            f"These parts do not answer: {', '.join(silent)}.",
            headers={"Retry-After": str(RETRY_SECONDS)},
            parts=silent,
        )
    return Readiness()
