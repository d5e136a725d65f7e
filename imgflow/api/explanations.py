"""`/problems`: what the codes of problems mean, and `/docs`, the page of the API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from imgflow.api.problems import PROBLEMS, TYPE_PREFIX, Refused
from imgflow.api.routing import get

router = APIRouter()

# FastAPI's page: a script in the page, and Swagger UI from the network that FastAPI names.
DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src data: https://fastapi.tiangolo.com; connect-src 'self'; frame-ancestors 'none'"
)


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


@get(router, "/docs", access="open", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API as a page."""
    page = get_swagger_ui_html(
        openapi_url=f"{request.scope.get('root_path', '')}/openapi.json", title="imgflow"
    )
    page.headers["Content-Security-Policy"] = DOCS_POLICY
    return page


def _meaning(code: str) -> ProblemMeaning:
    status, title = PROBLEMS[code]
    return ProblemMeaning(code=code, status=status, title=title)
