"""Renders templates to pages: headers that make them safe, error pages, links to Dagster's UI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from imgflow.api.auth import session_of
from imgflow.api.backend.connections import Connections
from imgflow.api.gallery.static_files import BASE
from imgflow.api.gallery.wording import shown, size_of, time_of
from imgflow.api.http.exceptions import EXCEPTIONS, refused_by
from imgflow.api.http.problems import PROBLEMS, Refused
from imgflow.api.routes.sharing import renew_session, scopes_of
from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.records import Image
from imgflow.settings.variables import Settings

# Links to Dagster's UI, where an operator sees an image's partition and runs.


@dataclass(frozen=True)
class DagsterUi:
    """Dagster's UI at the address where the caller can reach it.

    Attributes:
        url: Address without a slash at its end.
    """

    url: str

    def partition(self, image: Image, asset: str) -> str:
        """Return the address of an image's asset, with its events and metadata."""
        key = quote(partition_key(image.key), safe="")
        return f"{self.url}/assets/{image.kind}/{asset}?view=partitions&partition={key}"

    def run(self, run_id: str) -> str:
        """Return the address of a run, with its log."""
        return f"{self.url}/runs/{quote(run_id, safe='')}"


# Nothing inline and nothing from elsewhere, so keys and reasons stay text, whatever they look like.
# `blob:` allows frames that a script has fetched.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "private, no-cache"}
UNAUTHORIZED = 401

PAGED: tuple[type[Exception], ...] = (Refused, RequestValidationError, *EXCEPTIONS)
"""Exceptions that are answered with a page; the outermost layer logs and answers all others."""

Handler = Callable[[Request], Awaitable[Response]]


class Gallery:
    """The templates, and what all pages of an app share."""

    def __init__(self, settings: Settings) -> None:
        """Set up the templates; nothing is rendered yet."""
        self._dagster = _dagster_of(settings)
        self._templates = Environment(
            loader=PackageLoader("imgflow.api.gallery"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(shown=shown, size=size_of, time=time_of)

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """Render a template."""
        root = request.scope.get("root_path", "")
        text = self._templates.get_template(template).render(
            root=root,
            static=f"{root}{BASE}",
            scopes=request.state.scopes,
            signed_in=request.state.signed_in,
            dagster=self._dagster,
            **values,
        )
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})

    def sign_in_page(
        self, request: Request, title: str, refused: Refused | None = None
    ) -> HTMLResponse:
        """Render the sign-in page, whose form for a token leads back to the requested page."""
        return self.page(
            request,
            "sign-in.html",
            status=PROBLEMS[refused.code].status if refused else 200,
            headers={"Cache-Control": "no-store", **(refused.headers if refused else {})},
            title=title,
            # People know that they have not signed in yet.
            detail=refused.detail if refused and refused.code != "token_missing" else "",
            wanted=getattr(request.state, "wanted", "") or _asked_for(request),
        )


def _dagster_of(settings: Settings) -> DagsterUi | None:
    """Return Dagster's UI; None if people are on other machines and no URL for it is set."""
    is_elsewhere = bool(settings.public_url) or not settings.is_api_local
    if is_elsewhere and not settings.dagster_url:
        return None
    return DagsterUi(settings.dagster_page.rstrip("/"))


class PageRoute(APIRoute):
    """A route that answers errors with pages; callers who may not read are asked to sign in."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Wrap the handler so that errors become pages and the session is renewed."""
        answer: Handler = super().get_route_handler()

        async def answer_with_page(request: Request) -> Response:
            connections: Connections = request.app.state.connections
            request.state.scopes, request.state.signed_in = [], False
            try:
                request.state.scopes = await scopes_of(request, connections)
                request.state.signed_in = await session_of(request, connections) is not None
                response = await answer(request)
                await renew_session(request, response, connections)
            except PAGED as error:
                return _refusal(request, refused_by(error))
            return response

        return answer_with_page


def gallery_of(request: Request) -> Gallery:
    """Return the gallery of the app that answers a request."""
    gallery: Gallery = request.app.state.gallery
    return gallery


def _refusal(request: Request, refused: Refused) -> HTMLResponse:
    status, title = PROBLEMS[refused.code]
    if status == UNAUTHORIZED or refused.code == "scope_missing":
        return gallery_of(request).sign_in_page(request, title, refused)
    return gallery_of(request).page(
        request,
        "refusal.html",
        status=status,
        headers={"Cache-Control": "no-store", **refused.headers},
        title=title,
        detail=refused.detail,
    )


def _asked_for(request: Request) -> str:
    """Return the path and query of the requested page, to link to after signing in."""
    path: str = request.scope["raw_path"].decode("latin-1")
    query: str = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path
