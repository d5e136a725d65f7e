"""Protects a server without logins from web pages of other sites.

A browser sends requests for any page that its user visits, also to loopback, and a page whose own
name resolves to this machine can read the answers too. So each request must name this server by an
address known to be its own, and if a browser names the page behind the request, that must match.
Programs name no page, so they only need the address.

It does not limit who may connect: every user of the machine may. The API's tokens are in
`imgflow.api.auth`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from imgflow.foreign_text import visible

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

JSON = "application/json"
READING = ("GET", "HEAD")
PORTS = {"http": 80, "https": 443}

# What browsers and programs send as an authority: no user name, no path, no trailing dot.
AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::([0-9]{1,5}))?")

# Other sites must not put this server's pages under their own buttons.
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NO_FRAMES = "frame-ancestors 'none'"


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        status: HTTP status code of the answer.
        text: Reason for a person, and what to do about it.
    """

    status: int
    text: str


class SameOrigin:
    """ASGI middleware that answers only programs and the server's own pages."""

    def __init__(self, app: ASGIApp, *, page: str, setting: str, health: str) -> None:
        """Protect an app.

        Args:
            app: Receives the requests that are not refused.
            page: URL where people reach it besides loopback, such as `https://dagster.example.org`.
            setting: Name of the setting that has `page`, for refusals.
            health: Path that health probes may request under any address.
        """
        self.app = app
        self._setting = setting
        self._health = health
        self._page = _origin(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse a request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif refusal.status == _MISDIRECTED and self._is_probe(scope):
            await PlainTextResponse("ok\n")(scope, receive, _with_headers(send))
        else:
            what = f"{scope.get('method', 'WebSocket')} {scope['path']}"
            _log.warning("Refused %s: %s", visible(what), refusal.text)
            answer = PlainTextResponse(f"{refusal.text}\n", refusal.status)
            if scope["type"] == "http":
                await answer(scope, receive, _with_headers(send))
            else:
                await WebSocket(scope, receive, send).send_denial_response(answer)

    def _is_probe(self, scope: Scope) -> bool:
        """Whether this is a health probe, which names a pod by its address and learns nothing."""
        return (
            scope["type"] == "http" and scope["method"] in READING and scope["path"] == self._health
        )

    def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        return (
            self._of_address(headers)
            or self._of_page(headers)
            or _of_site(scope, headers)
            or _of_method(scope, headers)
        )

    def _of_address(self, headers: Headers) -> Refusal | None:
        """Refuse an address that is not this server's, since it may be a stranger's."""
        hosts = headers.getlist("host")
        authority = _authority(hosts[0]) if len(hosts) == 1 else None
        if authority is not None:
            name = authority[0]
            if _is_loopback(name) or (self._page is not None and name == self._page[1]):
                return None
        given = ", ".join(map(visible, hosts)) or "nothing"
        return Refusal(
            _MISDIRECTED,
            f"This server answers under 127.0.0.1, localhost and the host of {self._setting}, and "
            f"was asked for as {given[:200]}. Set {self._setting} to the address at which people "
            "open it, such as https://dagster.example.org, and let a proxy pass Host on.",
        )

    def _of_page(self, headers: Headers) -> Refusal | None:
        """Refuse if a browser names a page that is not this server's."""
        origins = headers.getlist("origin")
        if not origins:
            return None
        origin = _origin(origins[0]) if len(origins) == 1 else None
        if origin is not None:
            name, port = _authority(headers["host"]) or ("", None)
            own = (name, port or PORTS[origin[0]])
            if origin[1:] == own or origin == self._page:
                return None
        given = ", ".join(map(visible, origins))
        return Refusal(
            _FORBIDDEN,
            f"A page of {given[:200]} asked for this, and only this server's own pages may. If it "
            f"is one, behind a proxy, set {self._setting} to its address.",
        )


_FORBIDDEN, _METHOD, _MEDIA_TYPE, _MISDIRECTED = 403, 405, 415, 421


def _of_site(scope: Scope, headers: Headers) -> Refusal | None:
    """Refuse reads by pages of other sites, which carry no Origin; following a link is allowed."""
    sites = headers.getlist("sec-fetch-site")
    if all(site in ("same-origin", "none") for site in sites):
        return None
    is_link = (
        scope["type"] == "http"
        and scope["method"] in READING
        and headers.getlist("sec-fetch-mode") == ["navigate"]
        and headers.getlist("sec-fetch-dest") == ["document"]
    )
    if is_link:
        return None
    return Refusal(
        _FORBIDDEN, "A page of another site asked for this; open it in a tab of its own."
    )


def _of_method(scope: Scope, headers: Headers) -> Refusal | None:
    """Refuse changes except by POST with JSON, which no page can send elsewhere without asking."""
    if scope["type"] != "http" or scope["method"] in READING:
        return None
    if scope["method"] != "POST":
        return Refusal(_METHOD, "Only GET, HEAD and POST are answered here.")
    types = [value.partition(";")[0].strip().lower() for value in headers.getlist("content-type")]
    if types == [JSON]:
        return None
    return Refusal(_MEDIA_TYPE, f"POST takes JSON only: send it with Content-Type: {JSON}.")


def _authority(text: str) -> tuple[str, int | None] | None:
    """Name and port, which may be None; None if `text` is not an authority."""
    found = AUTHORITY.fullmatch(text.lower())
    return (found[1], int(found[2]) if found[2] else None) if found else None


def _origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, name and port of a URL; None if it is no web page, such as `null`."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    authority = _authority(parts.netloc)
    if authority is None or parts.scheme not in PORTS:
        return None
    return parts.scheme, authority[0], authority[1] or PORTS[parts.scheme]


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _with_headers(send: Send) -> Send:
    """Add the headers that tell browsers how an answer may be used."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.append("Content-Security-Policy", NO_FRAMES)  # in addition to the page's own
        await send(message)

    return with_headers
