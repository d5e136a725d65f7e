"""The routes `/images/{image}/links`, for people without a token, and `/session`, for browsers.

Links and sessions are signed in `imgflow.api.backend.signatures` and checked in `imgflow.api.auth`.
The gallery's sign-in page is in `imgflow.api.gallery.sign_in`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from imgflow.api.auth import (
    CHALLENGE,
    PROBLEMS_OF_TOKENS,
    WITH_TOKEN,
    bearer_of,
    check_access,
    session_of,
    token_of,
)
from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.backend.signatures import SESSION_SECONDS, Pass, new_pass
from imgflow.api.http.bodies import json_of, read_json
from imgflow.api.http.keys import PICTURES, ImageInPath, find_image
from imgflow.api.http.problems import Refused, problem_responses
from imgflow.api.routes.pictures import PICTURE_PROBLEMS, output_record
from imgflow.api.routing import change, get
from imgflow.settings.tokens import SCOPES, Scope, Token

router = APIRouter(tags=["access"])

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
    return LinkItem(url=f"{root}{link.url}", expires_at=datetime.fromtimestamp(link.expires, UTC))


async def _with_picture(connections: Connections, image: str, picture: str) -> int:
    row = await run_in_threadpool(find_image, connections.catalog, image)
    if picture != "original":
        output_record(row, picture, connections.enabled)
    return row.id


BY_TOKEN: dict[str, Any] = {
    "responses": problem_responses(*PROBLEMS_OF_TOKENS),
    "openapi_extra": {"security": [{"token": []}]},
}


@get(
    router,
    "/session",
    access="open",
    problems=PROBLEMS_OF_TOKENS,
    openapi_extra={"security": WITH_TOKEN},
)
async def read_session(request: Request, response: Response, connections: Connected) -> Session:
    """What the caller may do, by its token or its session, which is renewed."""
    scopes = await scopes_of(request, connections)
    if not scopes:
        await token_of(request, connections)  # says what is missing
    await renew_session(request, response, connections)
    return Session(scopes=scopes)


@router.post("/session", **BY_TOKEN)
async def begin_session(request: Request, response: Response, connections: Connected) -> Session:
    """Begin a session of a browser: a cookie that stands for the token of this request.

    The cookie is out of reach of scripts and of other sites.
    """
    token = bearer_of(request, connections)
    if token is None:
        raise Refused(
            "token_missing",
            "Send the header `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    await replace_session(request, response, connections, token)
    return Session(scopes=[scope for scope in SCOPES if scope in token.scopes])


@router.delete("/session", status_code=204, responses=problem_responses())
async def end_session(request: Request, response: Response, connections: Connected) -> None:
    """End the session of this browser, wherever its cookie is; doing it again is no error."""
    session = await session_of(request, connections)
    if session is not None:
        await connections.revoke(session.id)
    response.delete_cookie(
        connections.cookie, path=_root(request), httponly=True, samesite="strict"
    )


async def replace_session(
    request: Request, response: Response, connections: Connections, token: Token
) -> None:
    """Start a session for a token, and end the browser's previous one."""
    before = await session_of(request, connections)
    if before is not None:
        await connections.revoke(before.id)
    _keep(request, response, connections, new_pass(token.name, SESSION_SECONDS))


async def renew_session(request: Request, response: Response, connections: Connections) -> None:
    """Renew the caller's session if more than half of its time has passed."""
    session = await session_of(request, connections)
    if session is not None and session.seconds_left < SESSION_SECONDS / 2:
        _keep(request, response, connections, session.renewed)


def _keep(request: Request, response: Response, connections: Connections, session: Pass) -> None:
    response.set_cookie(
        connections.cookie,
        connections.signatures.write("session", session),
        max_age=session.seconds_left,
        path=_root(request),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _root(request: Request) -> str:
    return request.scope.get("root_path") or "/"


async def scopes_of(request: Request, connections: Connections) -> list[Scope]:
    """Return the scopes that the caller has."""
    found: list[Scope] = []
    for scope in SCOPES:
        try:
            await check_access(request, connections, scope)
        except Refused:
            continue
        found.append(scope)
    return found
