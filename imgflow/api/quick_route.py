"""The route of frames without FastAPI's solving of parameters, which takes as long as a JPEG.

FastAPI still declares the route, documents it, and answers every request that is not plain.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from imgflow.api.auth import check_access
from imgflow.api.backend.depth_reads import bounds_of

LONGEST_PLAIN = 200
PLAIN_PARAMETERS = frozenset({"depth_min", "depth_max", "colormap", "format", "rescale"})


def quick_route(formats: frozenset[str]) -> type[APIRoute]:
    """Make the class of the route whose handler is called directly for plain requests.

    Args:
        formats: that the parameter `format` may name.
    """

    class QuickRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            by_fastapi = super().get_route_handler()

            async def answer(request: Request) -> Response:
                # By hand, since FastAPI would do so when it solves the route's dependencies.
                await check_access(request, request.app.state.connections, "read")
                asked = plain_parameters(request.scope["query_string"])
                if asked is None or asked.get("format", "jpeg") not in formats:
                    return await by_fastapi(request)
                bounds = await bounds_of(asked.pop("depth_min", None), asked.pop("depth_max", None))
                response: Response = await run_in_threadpool(
                    self.endpoint,
                    request=request,
                    connections=request.app.state.connections,
                    image=request.path_params["image"],
                    bounds=bounds,
                    **asked,
                )
                return response

            return answer

    return QuickRoute


def plain_parameters(query: bytes) -> dict[str, str] | None:
    """Parameters that need no validation but their own; None when FastAPI must have a look."""
    if len(query) > LONGEST_PLAIN:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    asked = dict(pairs)
    return asked if len(asked) == len(pairs) and PLAIN_PARAMETERS.issuperset(asked) else None
