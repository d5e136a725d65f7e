"""Registering routes: every GET is a HEAD too, what changes something needs a token.

All declare their problems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

from imgflow.api.access import PROBLEMS_OF_TOKENS, needs
from imgflow.api.problems import problem_responses

Handler = TypeVar("Handler", bound=Callable[..., Any])


def get(
    router: APIRouter,
    path: str,
    *,
    problems: tuple[str, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    **options: Any,
) -> Callable[[Handler], Handler]:
    """Register a handler for GET and HEAD; servers leave the body of a HEAD out.

    Args:
        router: to register with.
        path: of the route.
        problems: codes that it answers with.
        responses: further answers, for OpenAPI.
        options: of `APIRouter.add_api_route`.
    """
    declared = {**problem_responses(*problems), **(responses or {})}

    def register(handler: Handler) -> Handler:
        router.add_api_route(path, handler, methods=["GET"], responses=declared, **options)
        # Apart, since one operation id for two methods is not valid OpenAPI.
        options["include_in_schema"] = False
        router.add_api_route(path, handler, methods=["HEAD"], **options)
        return handler

    return register


def delete(
    router: APIRouter, path: str, *, problems: tuple[str, ...] = (), **options: Any
) -> Callable[[Handler], Handler]:
    """Register a handler for DELETE, which needs a token with the scope `write`.

    Args:
        router: to register with.
        path: of the route.
        problems: codes that it answers with, besides those of tokens.
        options: of `APIRouter.add_api_route`.
    """
    declared = problem_responses(*PROBLEMS_OF_TOKENS, *problems)

    def register(handler: Handler) -> Handler:
        router.add_api_route(
            path,
            handler,
            methods=["DELETE"],
            responses=declared,
            dependencies=[needs("write")],
            **options,
        )
        return handler

    return register
