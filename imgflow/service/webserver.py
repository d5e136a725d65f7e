"""`python -m imgflow.service.webserver`: Dagster's webserver, closed to other sites' pages.

It takes the options of `dagster-webserver` and replaces it everywhere. Dagster's own relies on
listening on loopback; but any page that an operator visits can send it requests, and it runs
mutations by GET, by forms and by WebSockets from anywhere. The middleware that checks the origin is
in `imgflow.web`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from imgflow.errors import SettingsError
from imgflow.settings.variables import PREFIX, load_settings
from imgflow.web import server
from imgflow.web.same_origin import SameOrigin

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NAME = "dagster-webserver"
DEFAULT_PORT = 3000

# These routes render a notebook at any path on the code server, with its scripts, as a page of this
# origin. imgflow has no notebooks, and its source may be a folder into which strangers upload.
NOTEBOOKS = ("/notebook", "/dagit/notebook")


class ClosedWebserver(DagsterWebserver):  # type: ignore[type-arg]  # Dagster leaves the type open too
    """Dagster's webserver, which answers only its own pages and programs that post JSON."""

    def build_middleware(self) -> list[Middleware]:
        """Put the check of the origin outside of Dagster's middleware."""
        closed = Middleware(
            SameOrigin,
            page=load_settings().dagster_page,
            setting=f"{PREFIX}DAGSTER_URL",
            health=f"{self._app_path_prefix}/server_info",
        )
        return [closed, *super().build_middleware()]

    def build_routes(self) -> list[Any]:
        """Return all routes, with those of notebooks answered by 404."""
        gone = [Route(self._app_path_prefix + path, _not_here) for path in NOTEBOOKS]
        return [*gone, *super().build_routes()]  # type: ignore[no-untyped-call]  # Dagster's

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer queries by POST only, since any link or picture can send a GET."""
        if request.method != "POST" and request.url.query:
            return PlainTextResponse(
                "GraphQL is answered by POST with JSON only.\n", 405, {"Allow": "POST"}
            )
        response: Response = await super().graphql_http_endpoint(request)
        return response


async def _not_here(_request: Request) -> Response:
    return PlainTextResponse("imgflow has no notebooks.\n", 404)


def serve(  # noqa: PLR0917 - Dagster's signature
    context: Any,
    host: str | None,
    port: int | None,
    path_prefix: str,
    log_level: str,
    live_data_poll_rate: int | None = None,
) -> None:
    """Serve the UI until a signal comes; Dagster's command calls this with its arguments."""
    if path_prefix and (not path_prefix.startswith("/") or path_prefix.endswith("/")):
        sys.exit(
            f"imgflow: --path-prefix {path_prefix} must start with a slash and not end in one."
        )
    app = ClosedWebserver(context, path_prefix, live_data_poll_rate).create_asgi_app()
    host, port = host or "127.0.0.1", port or DEFAULT_PORT
    logging.getLogger(NAME).info(
        "Serving the Dagster UI on http://%s:%d%s", host, port, path_prefix
    )
    server.serve(
        app,
        host=host,
        port=port,
        log_level=log_level,
        websockets=True,
        health=f"{path_prefix}/server_info".encode(),
    )


def main() -> None:
    """Run Dagster's command with `serve` in place of the function that it looks up by name."""
    try:
        load_settings()
    except SettingsError as error:
        sys.exit(f"imgflow: {error}")
    cli.host_dagster_ui_with_workspace_process_context = serve  # type: ignore[assignment]  # positional
    cli.dagster_webserver(auto_envvar_prefix="DAGSTER_WEBSERVER", prog_name=NAME)


if __name__ == "__main__":
    main()
