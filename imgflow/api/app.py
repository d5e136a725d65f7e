"""Assembles the API: `create_app`, which `python -m imgflow.api` serves.

Routes are in `imgflow.api.routes` and `imgflow.api.gallery`, middleware in `imgflow.api.http`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from imgflow.api import explanations
from imgflow.api.auth import security_schemes
from imgflow.api.backend.connections import Connections
from imgflow.api.gallery import pages, sign_in, static_files
from imgflow.api.gallery.rendering import Gallery
from imgflow.api.http.envelope import REQUEST_ID, TRACE_ID, Envelope, hide_secrets
from imgflow.api.http.exceptions import METHODS, add_handlers
from imgflow.api.http.keys import KeysInPaths
from imgflow.api.http.measures import Measured, Measures
from imgflow.api.http.outgoing import Outgoing
from imgflow.api.http.problems import Problem
from imgflow.api.routes import (
    colormap_list,
    depth_facts,
    depth_frames,
    health,
    image_table,
    metrics,
    pictures,
    process,
    sharing,
    uploading,
)
from imgflow.observability.logs import configure_logs
from imgflow.observability.traces import configure_traces
from imgflow.settings.variables import Settings, load_settings

DESCRIPTION = """
Images that landed in the bucket: the table, the pictures made from them, and frames of depth
images.

An image is named by its integer id or by `key:` and its URL-encoded object key (`/` as `%2F`).
Everything but `/health/`, `/health/ready` and `/problems` needs a token (`IMGFLOW_API_TOKEN`):
`Authorization: Bearer TOKEN`. Browsers have a session instead, and a link that is signed for one
picture shows that one to anybody.

Errors are problem details (RFC 9457) with a `code`; `GET /problems` lists them all. Every answer
has the header `X-Request-ID`, which is taken from the request where it has a well-formed one.
"""

# Pictures are compressed already, and their ETags and ranges refer to the uncompressed bytes.
NEVER_GZIPPED = ("image/*", "application/octet-stream", "application/x-npy")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the app; nothing connects before it starts.

    Args:
        settings: Read from the environment when omitted.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    settings = settings or load_settings()
    configure_logs(settings.log_format, settings.log_level)
    configure_traces(settings.traces)
    connections = Connections(settings)
    measures = Measures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hide_secrets()
        await run_in_threadpool(connections.open)
        app.state.connections = connections
        try:
            yield
        finally:
            await run_in_threadpool(connections.close)

    app = FastAPI(
        title="imgflow",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        # `explanations` serves both, but only to those who may read.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Envelope),
            Middleware(Outgoing),
            *_cors(settings.cors_origins),
            Middleware(
                GZipMiddleware,
                minimum_size=1_000,
                compresslevel=4,
                exclude_content_types=NEVER_GZIPPED,
            ),
            Middleware(KeysInPaths),
            # Inside the layer above, which passes on a copy of the scope: the router records the
            # route in that copy.
            Middleware(Measured, measures=measures),
        ],
    )
    app.state.measures = measures
    app.state.metrics = metrics.registry_of(connections, measures)
    app.state.gallery = Gallery(settings)
    add_handlers(app)
    for module in (
        depth_frames,  # first, since routes are tried in order, and a frame takes 1 ms
        image_table,
        pictures,
        process,
        uploading,
        sharing,
        depth_facts,
        colormap_list,
        health,
        metrics,
        explanations,
        static_files,
        sign_in,
        pages,
    ):
        app.include_router(module.router)
    app.include_router(explanations.pages)
    app.openapi = _with_problems(app.openapi, connections.cookie)  # type: ignore[method-assign]  # FastAPI's own way
    return app


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Return the middleware that lets pages of other origins use the API; none by default.

    Cookies are not allowed: such pages send a token.
    """
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "If-Range", "Range"],
            expose_headers=[
                *("ETag", "Content-Range", "Content-Disposition", "Location", "Retry-After"),
                *(REQUEST_ID, TRACE_ID, *depth_frames.DOCUMENTED_HEADERS),
            ],
            max_age=600,
        )
    ]


def _with_problems(
    openapi: Callable[[], dict[str, Any]], cookie: str
) -> Callable[[], dict[str, Any]]:
    """Add the security schemes and the schema of problems, and remove FastAPI's own errors.

    FastAPI declares its errors for any route that has a parameter and declares no 422 itself.
    """

    def described() -> dict[str, Any]:
        document = openapi()
        components = document.setdefault("components", {})
        components["securitySchemes"] = security_schemes(cookie)
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        return document

    return described
