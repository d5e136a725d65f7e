"""The one way to serve an ASGI app: uvicorn, with bounds on every connection.

The bounds are in `client_bounds`; memory for answers is bounded in `imgflow.api.http.outgoing`.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgflow.web.client_bounds import Bounds, Client, Clients

OTHER_FILES = 200
"""Descriptors not used by clients: the database's pool, stores, workers, files being read."""

MOST_FILES = 65_536
"""Enough for any number of connections; not higher, since some programs loop over all allowed
descriptors."""


def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    log_level: str,
    log_config: Mapping[str, Any] | None = LOGGING_CONFIG,
    websockets: bool = False,
    health: bytes = b"/health/",
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> None:
    """Serve an app until the process gets a signal.

    Args:
        app: ASGI app; runs in this process.
        host: Address to listen on.
        port: TCP port to listen on.
        log_level: uvicorn's log level.
        log_config: Logging configuration for uvicorn; None leaves the process's logging unchanged.
        websockets: Whether the app accepts them.
        health: Prefix of the paths that are answered even if there are too many connections.
        bounds: Limits on what clients may use.
    """
    clients = Clients(bounds, health, min(bounds.connections, raise_file_limit() - OTHER_FILES))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        log_config=cast("dict[str, Any] | None", log_config),
        http=cast("type[HttpToolsProtocol]", partial(Client, clients)),
        ws="auto" if websockets else "none",
        server_header=False,
        timeout_keep_alive=bounds.keep_alive_seconds,
        timeout_graceful_shutdown=bounds.closing_seconds,
    )
    uvicorn.Server(config).run()


def raise_file_limit() -> int:
    """Raise this process's limit of open files, to at most `MOST_FILES`, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
