"""Translates exceptions to problems: one table, and the answers made from it.

The text of a 5xx is constant, since internal failures are for the log and not for the caller. What
the codes mean is in `problems`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from imgflow.api.http.problems import MEDIA_TYPE, PROBLEMS, TYPE_PREFIX, Refused
from imgflow.catalog.postgres.depth_arrays import TooManyRows
from imgflow.depth.colormaps import BadColormap, UnknownColormap
from imgflow.depth.frames import FrameTooTall
from imgflow.depth.statistics import NoPixels
from imgflow.errors import BadKey, NotOurs, SourceChanged, Trouble, Withheld
from imgflow.fetch.client import FetchFailed, FetchRefused, TooManyBytes
from imgflow.fetch.hosts import NotAllowed

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5
UNAVAILABLE = "The database or a store does not answer; ask again in a few seconds."
FETCH_FAILED = "It could not be reached, or did not send all in time; ask again later."
NOT_OURS = "Nothing is processed or deleted until an operator has seen to it; see imgflow's log."
UNEXPECTED = "Something in imgflow failed; its log has more under the request id."

EXCEPTIONS: Mapping[type[Exception], str] = {
    BadKey: "bad_key",
    NotAllowed: "url_not_allowed",
    FetchRefused: "url_refused",
    TooManyBytes: "image_too_large",
    UnknownColormap: "unknown_colormap",
    BadColormap: "bad_colormap",
    FrameTooTall: "frame_too_tall",
    TooManyRows: "too_many_rows",
    NoPixels: "no_pixels",
    SourceChanged: "original_changed",
    Withheld: "original_withheld",
    FetchFailed: "url_failed",
    NotOurs: "outputs_not_ours",
    Trouble: "unavailable",
}
"""Problem codes for other packages' exceptions; a subclass comes before its base."""

DETAILS = {"url_failed": FETCH_FAILED, "outputs_not_ours": NOT_OURS}
"""Constant texts of 5xx answers that do not use `UNAVAILABLE`."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
UNDERSTOOD = 500  # below this status, the caller sees the exception's text


def answer(request: Request, refused: Refused) -> JSONResponse:
    """Make the answer for a problem."""
    status, title = PROBLEMS[refused.code]
    body = {
        "type": TYPE_PREFIX + refused.code,
        "title": title,
        "status": status,
        "detail": refused.detail,
        "instance": request.scope.get("raw_path", b"").decode("latin-1") or request.url.path,
        "code": refused.code,
        "request_id": getattr(request.state, "request_id", ""),
        **refused.members,
    }
    headers = {"Cache-Control": "no-store", **refused.headers}
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def cause_of(error: BaseException) -> BaseException:
    """Unwrap an exception raised while sending; Starlette wraps those that it has handlers for."""
    wrapped = error.__cause__ if isinstance(error, RuntimeError) else None
    return wrapped or error


def refused_by(error: BaseException) -> Refused:
    """Return the problem for an exception."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _http(error)
    code = next((code for kind, code in EXCEPTIONS.items() if isinstance(error, kind)), None)
    if code is None:
        return Refused("unexpected", UNEXPECTED)
    if PROBLEMS[code].status < UNDERSTOOD:
        return Refused(code, f"{error}.".replace("..", "."))
    detail = DETAILS.get(code, UNAVAILABLE)
    return Refused(code, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def add_handlers(app: FastAPI) -> None:
    """Make the app answer with problems; `envelope` handles exceptions in no table."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        refused = refused_by(error)
        if refused.code == "method_not_allowed":
            refused.headers = {**refused.headers, "Allow": _methods(request)}
        if PROBLEMS[refused.code].status >= UNDERSTOOD:
            logger.warning("%s (request %s)", error, request.state.request_id)
        return answer(request, refused)

    for kind in (Refused, RequestValidationError, HTTPException, *EXCEPTIONS):
        app.add_exception_handler(kind, handle)


def _invalid(error: RequestValidationError) -> Refused:
    faults: list[dict[str, Any]] = [
        {"parameter": ".".join(str(part) for part in fault["loc"][1:]), "message": fault["msg"]}
        for fault in error.errors()
    ]
    detail = " ".join(f"{fault['parameter']}: {fault['message']}." for fault in faults)
    return Refused("invalid_parameter", detail, errors=faults)


def _http(error: HTTPException) -> Refused:
    code = HTTP_CODES.get(error.status_code, "bad_request")
    return Refused(code, f"{PROBLEMS[code].title}; /docs shows all.", headers=error.headers)


def _methods(request: Request) -> str:
    """Return all methods of a path; the framework names only those of its first route."""
    return ", ".join(
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )
