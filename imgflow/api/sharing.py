"""`/images/{image}/links`: pictures for those without a token; `/session`: tokens for browsers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from imgflow.api.access import (
    COOKIE,
    PROBLEMS_OF_TOKENS,
    WITH_TOKEN,
    check_access,
    token_of,
)
from imgflow.api.bodies import json_of, read_json
from imgflow.api.connections import Connected, Connections
from imgflow.api.keys import PICTURES, ImageInPath, find_image
from imgflow.api.pictures import PICTURE_PROBLEMS, output_record
from imgflow.api.problems import Refused, problem_responses
from imgflow.api.routing import change, get
from imgflow.tokens import SCOPES, Scope

router = APIRouter(tags=["access"])

SESSION_SECONDS = 7 * 86_400
LONGEST_LINK_SECONDS = 366 * 86_400


class LinkWanted(BaseModel):
    """Which picture is to be shared, and for how long."""

    model_config = ConfigDict(extra="forbid")

    picture: Annotated[
        str,
        Field(
            description="Name of an output, or `original`.",
            json_schema_extra={"enum": sorted(PICTURES)},
        ),
    ] = "proof"
    seconds: Annotated[int, Field(ge=1, le=LONGEST_LINK_SECONDS)] = 86_400


class LinkItem(BaseModel):
    """A link that needs no token."""

    url: Annotated[str, Field(description="Path below the API.")]
    expires_at: datetime


class Session(BaseModel):
    """What the caller may do."""

    scopes: list[Scope]


@change(
    router,
    "POST",
    "/images/{image}/links",
    status_code=201,
    problems=("invalid_id", "invalid_parameter", "body_too_large", *PICTURE_PROBLEMS),
    openapi_extra=json_of(LinkWanted),
)
async def create_link(request: Request, connections: Connected, image: ImageInPath) -> LinkItem:
    """Make a link to one picture of an image, which works without a token for a while.

    It shows what the picture is at that time, also after an overwrite, and leads to nothing else:
    neither to the original nor to other outputs. Links end early when `IMGFLOW_LINK_KEY` changes.
    """
    wanted = await read_json(request, LinkWanted)
    if wanted.picture not in PICTURES:
        raise Refused("invalid_parameter", f"picture: {wanted.picture[:40]!r} is no picture.")
    image_id = await _with_picture(connections, image, wanted.picture)
    link = connections.signatures.link(image_id, wanted.picture, wanted.seconds)
    root = request.scope.get("root_path", "")
    return LinkItem(
        url=f"{root}{link.url}", expires_at=datetime.fromtimestamp(link.expires, timezone.utc)
    )


async def _with_picture(connections: Connections, image: str, picture: str) -> int:
    row = await run_in_threadpool(find_image, connections.catalog, image)
    if picture != "original":
        output_record(row, picture, connections.enabled)
    return row.id


@get(router, "/session", access="open")
async def read_session(request: Request, connections: Connected) -> Session:
    """What the caller may do, by its token, its session, or by being on this machine."""
    return Session(scopes=scopes_of(request, connections))


DECLARED: dict[str, Any] = {
    "responses": problem_responses(*PROBLEMS_OF_TOKENS),
    "openapi_extra": {"security": WITH_TOKEN},
}


@router.post("/session", **DECLARED)
async def begin_session(request: Request, response: Response, connections: Connected) -> Session:
    """Begin a session of a browser: a cookie that stands for the token of this request.

    The cookie is out of reach of scripts and of other sites.
    """
    token = token_of(request, connections)
    response.set_cookie(
        COOKIE,
        connections.signatures.session(token.name, SESSION_SECONDS),
        max_age=SESSION_SECONDS,
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return Session(scopes=[scope for scope in SCOPES if scope in token.scopes])


@router.delete("/session", status_code=204, responses=problem_responses())
async def end_session(request: Request, response: Response) -> None:
    """End the session of this browser; doing it again is no error."""
    response.delete_cookie(
        COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict"
    )


def scopes_of(request: Request, connections: Connections) -> list[Scope]:
    """What the caller of a request may do."""
    found: list[Scope] = []
    for scope in SCOPES:
        try:
            check_access(request, connections, scope)
        except Refused:
            continue
        found.append(scope)
    return found
