"""Registering routes: what each needs of its caller, and the problems that it answers with.

Every GET is a HEAD too. Reading needs the scope `read`, and changing something the scope `write`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fastapi import APIRouter

from imgflow.api.auth import (
    PROBLEMS_OF_LINKS,
    PROBLEMS_OF_TOKENS,
    READING_PICTURES,
    WITH_TOKEN,
    needs,
    needs_reader_or_link,
)
from imgflow.api.http.problems import problem_responses

Handler = TypeVar("Handler", bound=Callable[..., Any])

Access = Literal["open", "reader", "reader or link"]


def get(
    router: APIRouter,
    path: str,
    *,
    access: Access = "reader",
    problems: tuple[str, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    **options: Any,
) -> Callable[[Handler], Handler]:
    """Register a handler for GET and HEAD; servers leave the body of a HEAD out.

    Args:
        router: to register with.
        path: of the route.
        access: who may read; `open` is for what says whether the API is up and how to get in.
        problems: codes that it answers with, besides those of access.
        responses: further answers, for OpenAPI.
        options: of `APIRouter.add_api_route`.
    """
    if access == "reader":
        problems = (*PROBLEMS_OF_TOKENS, *problems)
        options["dependencies"] = [needs("read")]
        options["openapi_extra"] = {"security": WITH_TOKEN}
    elif access == "reader or link":
        problems = (*PROBLEMS_OF_TOKENS, *PROBLEMS_OF_LINKS, *problems)
        options["dependencies"] = [needs_reader_or_link()]
        options["openapi_extra"] = {"security": READING_PICTURES}
    declared = {**problem_responses(*problems), **(responses or {})}

    def register(handler: Handler) -> Handler:
        router.add_api_route(path, handler, methods=["GET"], responses=declared, **options)
        # Apart, since one operation id for two methods is not valid OpenAPI.
        options["include_in_schema"] = False
        router.add_api_route(path, handler, methods=["HEAD"], **options)
        return handler

    return register


def change(
    router: APIRouter,
    method: Literal["POST", "PUT", "DELETE"],
    path: str,
    *,
    problems: tuple[str, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    openapi_extra: dict[str, Any] | None = None,
    **options: Any,
) -> Callable[[Handler], Handler]:
    """Register a handler of what changes something, which needs a token with the scope `write`.

    Args:
        router: to register with.
        method: of HTTP.
        path: of the route.
        problems: codes that it answers with, besides those of tokens.
        responses: further answers, for OpenAPI.
        openapi_extra: of the operation, for OpenAPI.
        options: of `APIRouter.add_api_route`.
    """
    declared = {**problem_responses(*PROBLEMS_OF_TOKENS, *problems), **(responses or {})}

    def register(handler: Handler) -> Handler:
        router.add_api_route(
            path,
            handler,
            methods=[method],
            responses=declared,
            dependencies=[needs("write")],
            openapi_extra={"security": WITH_TOKEN, **(openapi_extra or {})},
            **options,
        )
        return handler

    return register
