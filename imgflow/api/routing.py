"""Registers routes with the access that each needs and the problems that it may answer with.

Every GET is a HEAD too. Reading needs the scope `read`, changing something needs `write`; `auth`
checks them.
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
    """Register a handler for GET and HEAD; servers omit the body of a HEAD.

    `open` access is only for health checks and for learning how to sign in. `problems` are codes
    that the handler answers with, besides those about access. `options` are those of
    `APIRouter.add_api_route`.
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
        # Registered separately, since OpenAPI forbids one operation id for two methods.
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
    """Register a handler that changes something and so needs a token with the scope `write`.

    `problems` are codes that the handler answers with, besides those about tokens. `options` are
    those of `APIRouter.add_api_route`.
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
