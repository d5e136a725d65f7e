"""Who may do what: tokens, sessions and picture links.

Changing something always needs a token with the scope `write`. Reading is open to this machine, as
long as the API listens on loopback only; from anywhere else it needs a token with the scope `read`,
or a link that is signed for the one picture.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, Request

from imgflow.api.connections import Connected, Connections
from imgflow.api.problems import Refused
from imgflow.tokens import Scope, Token

CHALLENGE = 'Bearer realm="imgflow"'
COOKIE = "imgflow_session"
SCHEME = "bearer"

PROBLEMS_OF_TOKENS = ("token_missing", "token_unknown", "scope_missing")
PROBLEMS_OF_LINKS = ("link_wrong", "link_expired")

# A proxy in front speaks for others, whatever its own address is.
PROXIED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")

SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": SCHEME,
        "description": "`IMGFLOW_API_TOKEN`, or the content of the file `api-token` in the home.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Set by `POST /session`, for browsers.",
    },
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "With `expires`, of a link that `POST /images/{image}/links` made.",
    },
}
"""For OpenAPI."""

Security = list[dict[str, list[str]]]
WITH_TOKEN: Security = [{"token": []}, {"session": []}]
# On loopback nothing is needed.
READING: Security = [{}, *WITH_TOKEN]
READING_PICTURES: Security = [*READING, {"link": []}]


def needs(scope: Scope) -> Any:
    """Let a route answer only those who may.

    Checked before anything else of the request is, so that strangers learn nothing from it.
    """

    async def check(request: Request, connections: Connected) -> None:
        check_access(request, connections, scope)

    return Depends(check)


def needs_reader_or_link() -> Any:
    """The same for reading a picture, to which a signed link may lead."""

    async def check(request: Request, connections: Connected) -> None:
        query = request.query_params
        if "signature" not in query:
            check_access(request, connections, "read")
            return
        # Looked at on loopback too, so that a link can be tried out where it is made.
        image, picture = request.scope["path"].rpartition("/images/")[2].split("/", 1)
        given = query.get("expires", ""), query["signature"]
        verdict = connections.signatures.check_link(image, picture, *given)
        if verdict == "expired":
            raise Refused("link_expired", "Ask for a new one where you got this.")
        if verdict == "wrong":
            raise Refused("link_wrong", "It is for another picture, or was changed or cut short.")

    return Depends(check)


def check_access(request: Request, connections: Connections, scope: Scope) -> None:
    """Return when whoever asks has a scope.

    Raises:
        Refused: says what is missing.
    """
    if scope == "read" and is_local(request, connections):
        return
    token = token_of(request, connections)
    if scope not in token.scopes:
        raise Refused(
            "scope_missing",
            f"The token lacks the scope {scope}.",
            headers={
                "WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            },
        )


def token_of(request: Request, connections: Connections) -> Token:
    """The token that a request bears, itself or by its session.

    Raises:
        Refused: there is none, or none that is taken.
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == SCHEME and given.strip():
        token = connections.tokens.find(given.strip())
        if token is None:
            raise Refused(
                "token_unknown",
                "It is neither in IMGFLOW_API_TOKEN nor, where that is empty, in the home.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        return token
    name = connections.signatures.token_of(request.cookies.get(COOKIE, ""))
    token = connections.tokens.named(name) if name and is_own_page(request) else None
    if token is None:
        raise Refused(
            "token_missing",
            "Send the header `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    return token


def is_own_page(request: Request) -> bool:
    """Whether a browser that changes something with its cookie was told to by our own page."""
    if request.method in ("GET", "HEAD"):
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    return urlsplit(origin).netloc == request.headers.get("Host")


def is_local(request: Request, connections: Connections) -> bool:
    """Whether a request comes from this machine to this machine, without a proxy in between.

    The name it was sent to must be one of this machine too: any web page can have a name of its own
    resolve to 127.0.0.1, and would read what its visitor may.
    """
    if not connections.is_local or any(name in request.headers for name in PROXIED):
        return False
    ends = (request.scope.get("server"), request.scope.get("client"))
    if not all(end is not None and _is_loopback(end[0]) for end in ends):
        return False
    try:
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
