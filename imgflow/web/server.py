"""The one way to serve an ASGI app: uvicorn, with an owner in time for every connection.

What clients may take is in `http_clients`; what answers may hold in memory in `api.outgoing`.
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
"""Descriptors that are not clients': the database's pool, stores, workers, files being read."""

MOST_FILES = 65_536
"""Enough for any number of connections; some programs walk through all that are allowed."""


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
    """Serve an app until a signal comes.

    Args:
        app: Any ASGI app.
        host: Address to listen on.
        port: To listen on.
        log_level: Of uvicorn.
        log_config: None leaves the process's logging as it is.
        websockets: Whether the app takes them.
        health: Start of the paths that are answered also when there are too many connections.
        bounds: What clients may take.
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
    """Let this process have as many open files as it may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
