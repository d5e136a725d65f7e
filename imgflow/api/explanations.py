"""The routes that explain the API: `/problems` for the codes, `/docs` and `/openapi.json`.

The table of codes is in `imgflow.api.http.problems`.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from imgflow.api.gallery.rendering import POLICY, PageRoute, gallery_of
from imgflow.api.http.problems import PROBLEMS, TYPE_PREFIX, Refused
from imgflow.api.routing import get

router = APIRouter()
pages = APIRouter(route_class=PageRoute)

# The style sheet of Swagger UI contains its icons as data URIs.
DOCS_POLICY = POLICY.replace("img-src 'self'", "img-src 'self' data:")


class ProblemMeaning(BaseModel):
    """A code of problems."""

    code: str
    status: int
    title: str


class ProblemList(BaseModel):
    """All codes."""

    items: list[ProblemMeaning]


@get(router, TYPE_PREFIX.rstrip("/"), access="open", tags=["problems"])
async def list_problems() -> ProblemList:
    """All codes that problems have."""
    return ProblemList(items=[_meaning(code) for code in PROBLEMS])


@get(
    router, TYPE_PREFIX + "{code}", access="open", problems=("unknown_problem",), tags=["problems"]
)
async def read_problem(code: str) -> ProblemMeaning:
    """What one code means; the `type` of every problem leads here."""
    if code not in PROBLEMS:
        raise Refused("unknown_problem", f"{code[:40]!r} is no code.")
    return _meaning(code)


@get(router, "/openapi.json", include_in_schema=False)
async def read_openapi(request: Request) -> JSONResponse:
    """The API for programs, in OpenAPI."""
    document = request.app.openapi()
    root = request.scope.get("root_path", "")
    return JSONResponse({**document, "servers": [{"url": root}]} if root else document)


@get(pages, "/docs", include_in_schema=False, response_class=HTMLResponse)
def docs(request: Request) -> HTMLResponse:
    """The API as a page: Swagger UI, all of which we serve, since it runs where the session is."""
    headers = {"Content-Security-Policy": DOCS_POLICY}
    return gallery_of(request).page(request, "docs.html", headers=headers)


def _meaning(code: str) -> ProblemMeaning:
    status, title = PROBLEMS[code]
    return ProblemMeaning(code=code, status=status, title=title)
