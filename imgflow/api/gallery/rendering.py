"""Templates to pages, and what keeps a page from doing harm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from imgflow.api.access import is_local
from imgflow.api.connections import Connections
from imgflow.api.errors import EXCEPTIONS, refused_by
from imgflow.api.gallery.dagster_ui import DagsterUi
from imgflow.api.gallery.static_files import BASE
from imgflow.api.gallery.wording import shown, size_of, time_of
from imgflow.api.problems import PROBLEMS, Refused
from imgflow.api.sharing import scopes_of
from imgflow.settings import Settings

# Nothing inline, nothing from elsewhere: what a key or a reason holds is text, whatever it looks
# like. `blob:` are frames that a script has fetched.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "private, no-cache"}
UNAUTHORIZED = 401

PAGED: tuple[type[Exception], ...] = (Refused, RequestValidationError, *EXCEPTIONS)
"""What is answered with a page; the outermost layer logs and answers anything else."""

Handler = Callable[[Request], Awaitable[Response]]


class Gallery:
    """What all pages of an app share."""

    def __init__(self, settings: Settings) -> None:
        """Read the templates' settings; nothing is rendered yet."""
        self._dagster_url = settings.dagster_url.rstrip("/")
        self._dagster_port = settings.dagster_port
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
        connections: Connections = request.app.state.connections
        root = request.scope.get("root_path", "")
        text = self._templates.get_template(template).render(
            root=root,
            static=f"{root}{BASE}",
            scopes=scopes_of(request, connections),
            dagster=self.dagster(request, connections),
            **values,
        )
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})

    def dagster(self, request: Request, connections: Connections) -> DagsterUi | None:
        """Dagster's UI; None where only this machine reaches it and the caller is elsewhere."""
        if self._dagster_url:
            return DagsterUi(self._dagster_url)
        if is_local(request, connections):
            return DagsterUi(f"http://{request.url.hostname}:{self._dagster_port}")
        return None


class PageRoute(APIRoute):
    """A route whose refusals are pages: who may not read is asked to sign in."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Make the handler."""
        answer: Handler = super().get_route_handler()

        async def answer_with_page(request: Request) -> Response:
            try:
                return await answer(request)
            except PAGED as error:
                return _refusal(request, refused_by(error))

        return answer_with_page


def gallery_of(request: Request) -> Gallery:
    """The gallery of the app that answers a request."""
    gallery: Gallery = request.app.state.gallery
    return gallery


def _refusal(request: Request, refused: Refused) -> HTMLResponse:
    status, title = PROBLEMS[refused.code]
    is_stranger = status == UNAUTHORIZED or refused.code == "scope_missing"
    return gallery_of(request).page(
        request,
        "sign-in.html" if is_stranger else "refusal.html",
        status=status,
        headers={"Cache-Control": "no-store", **refused.headers},
        title=title,
        detail=refused.detail,
        code=refused.code,
    )
