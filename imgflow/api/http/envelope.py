"""The outermost layer, and a log filter: no answer leaves the API without what is added here.

Every answer gets a request id, safe headers, and a problem for any failure. The server's access log
is stripped of secrets. Which problem an exception becomes is in `exceptions`.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgflow.api.http.exceptions import answer, cause_of, refused_by
from imgflow.api.http.problems import Refused
from imgflow.errors import Trouble
from imgflow.observability import context, traces
from imgflow.observability.trace_records import Answered

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
TRACE_ID = "X-Imgflow-Trace"
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

SAFE_HEADERS = {
    # Uploads are untrusted bytes: browsers must not take them for anything but what is declared.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself."""


class Envelope:
    """The outermost ASGI layer: request id, log context, safe headers, and a problem on failure."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        headers = Headers(scope=scope) if traces.are_on() else {}
        with (
            context.bound(request_id=request_id) as noted,
            traces.request(scope["method"], headers) as answered,
        ):
            try:
                await self._answer(scope, receive, send, noted, answered)
            finally:
                answered.route = scope["state"].get("route")
                answered.upload = noted.get("trace_id")

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        noted: Mapping[str, str],
        answered: Answered,
    ) -> None:
        request_id = noted["request_id"]
        has_started = False

        async def send_wrapped(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if "trace_id" in noted:
                    headers[TRACE_ID] = noted["trace_id"]
                answered.status = message["status"]
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_wrapped)
        except ClientDisconnect:
            return
        # Catch everything here: the client gets a constant text, and the log the complete error.
        except Exception as error:
            cause = cause_of(error)
            if has_started and isinstance(cause, Trouble):
                # The server closes the connection, and the client sees that bytes are missing.
                logger.warning("An answer was cut short: %s (request %s)", cause, request_id)
                return
            if has_started or not isinstance(cause, Refused):
                logger.exception("A request failed (request %s)", request_id)
            if has_started:
                raise
            await answer(Request(scope), refused_by(cause))(scope, receive, send_wrapped)


# Secrets in the server's access log. Whoever reads it must not be able to use its links.


SERVER_LOG = "uvicorn.access"

# Our own parameters, those of presigned URLs inside a query, and tokens put in the wrong place. The
# logged request uses up a sign-in key, but if it failed, the key may still work.
SECRET = re.compile(
    r"(?i)(\b(?:signature|token|key|x-amz-[a-z-]+|awsaccesskeyid)(?:=|%3d))[^&\s\"]+"
)


class WithoutSecrets(logging.Filter):
    """Removes the values of secret parameters from paths."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, with its secrets replaced."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                hidden(value) if isinstance(value, str) else value for value in record.args
            )
        return True


def hidden(text: str) -> str:
    """Replace the values of secret parameters in a text by `***`."""
    return SECRET.sub(r"\1***", text)


def hide_secrets() -> None:
    """Add the filter to the server's log; calling it again changes nothing."""
    log = logging.getLogger(SERVER_LOG)
    if not any(isinstance(known, WithoutSecrets) for known in log.filters):
        log.addFilter(WithoutSecrets())
