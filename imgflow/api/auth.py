"""Decides who may do what, by tokens, sessions and picture links.

Access never depends on what a request lacks or where it seems to come from: a proxy, a forwarded
port and every user of the machine look like its owner. Reading needs a token with the scope `read`,
changing something needs one with `write`. A session stands for a token, and a signed link lets
anyone see the one picture that it is for. Operators can open reading to all with
`IMGFLOW_OPEN_READING`. Signing is in `imgflow.api.backend.signatures`; the routes for links and
sessions are in `imgflow.api.routes.sharing`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, Request

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.backend.signatures import Pass
from imgflow.api.http.problems import Refused
from imgflow.settings.tokens import Scope, Token

CHALLENGE = 'Bearer realm="imgflow"'
SCHEME = "bearer"

PROBLEMS_OF_TOKENS = ("token_missing", "token_unknown", "scope_missing")
PROBLEMS_OF_LINKS = ("link_wrong", "link_expired")

Security = list[dict[str, list[str]]]
WITH_TOKEN: Security = [{"token": []}, {"session": []}]
READING_PICTURES: Security = [*WITH_TOKEN, {"link": []}]


def security_schemes(cookie: str) -> dict[str, Any]:
    """Return the security schemes for OpenAPI; `cookie` is the name of the session's cookie."""
    return {
        "token": {
            "type": "http",
            "scheme": SCHEME,
            "description": "`IMGFLOW_API_TOKEN`, or the content of the file `api-token` in the "
            "home.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie,
            "description": "Set by the link that `imgflow up` prints and by `POST /session`, for "
            "browsers.",
        },
        "link": {
            "type": "apiKey",
            "in": "query",
            "name": "signature",
            "description": "With `expires`, of a link that `POST /images/{image}/links` made.",
        },
    }


def needs(scope: Scope) -> Any:
    """Restrict a route to callers with a scope.

    This is checked before anything else in the request, so strangers learn nothing from it.
    """

    async def check(request: Request, connections: Connected) -> None:
        await check_access(request, connections, scope)

    return Depends(check)


def needs_reader_or_link() -> Any:
    """Restrict the reading of a picture to readers and to those with a signed link."""

    async def check(request: Request, connections: Connected) -> None:
        query = request.query_params
        if "signature" not in query:
            await check_access(request, connections, "read")
            return
        # Check the link even if the caller is signed in, so that whoever makes it can try it out.
        image, picture = request.scope["path"].rpartition("/images/")[2].split("/", 1)
        given = query.get("expires", ""), query["signature"]
        verdict = connections.signatures.check_link(image, picture, *given)
        if verdict == "expired":
            raise Refused("link_expired", "Ask for a new one where you got this.")
        if verdict == "wrong":
            raise Refused("link_wrong", "It is for another picture, or was changed or cut short.")

    return Depends(check)


async def check_access(request: Request, connections: Connections, scope: Scope) -> None:
    """Return if the caller has a scope; every route checks it here and nowhere else.

    Raises:
        Refused: The caller lacks it; the detail says what is missing.
        Trouble: The database does not answer whether the session was ended.
    """
    if scope == "read" and connections.reading_is_open:
        return
    token = await token_of(request, connections)
    if scope not in token.scopes:
        raise Refused(
            "scope_missing",
            f"The token lacks the scope {scope}.",
            headers={
                "WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            },
        )


async def token_of(request: Request, connections: Connections) -> Token:
    """Return the token of a request, from its header or its session.

    Raises:
        Refused: There is no token, or it is not accepted.
        Trouble: The database does not answer whether the session was ended.
    """
    token = bearer_of(request, connections)
    if token is not None:
        return token
    session = await session_of(request, connections)
    token = connections.tokens.named(session.token_name) if session else None
    if token is None or not is_own_page(request):
        raise Refused(
            "token_missing",
            "Send the header `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    return token


def bearer_of(request: Request, connections: Connections) -> Token | None:
    """Return the token in the header; None if there is none.

    Raises:
        Refused: The token is not accepted.
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != SCHEME or not given.strip():
        return None
    token = connections.tokens.find(given.strip())
    if token is None:
        raise Refused(
            "token_unknown",
            "Use the one in the file `api-token` of imgflow's home, or in IMGFLOW_API_TOKEN.",
            headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
        )
    return token


async def session_of(request: Request, connections: Connections) -> Pass | None:
    """Return the browser's session; None if there is no valid one.

    Raises:
        Trouble: The database does not answer whether the session was ended.
    """
    session = connections.signatures.read("session", request.cookies.get(connections.cookie, ""))
    if session is None or await connections.is_revoked(session.id):
        return None
    return session


def is_own_page(request: Request) -> bool:
    """Return whether one of our own pages sent a request that relies on the browser's cookie.

    Reading is always allowed.
    """
    if request.method in ("GET", "HEAD"):
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    try:
        return urlsplit(origin).netloc == request.headers.get("Host")
    except ValueError:  # no browser sends such an origin
        return False
